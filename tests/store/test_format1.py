"""A cache of format version 1 that was written once is read by every version that comes."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache import FeatureCache
from embedcache.testing.stores import differences

from .make_format1 import ARCHIVE, CODES, PATCHES, QUARANTINED, STORE, VECTORS, make, values

ROWS = 16
DROPPED = range(4)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The archive, unpacked."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def expected(spec: object) -> np.ndarray:
    """What was written: zeros where a row was set aside, is padding, or its shard was dropped."""
    whole = values(spec, ROWS).copy()  # type: ignore[arg-type]
    whole[[*DROPPED, QUARANTINED, 15]] = 0
    return whole


def test_it_reads_as_it_was_written(cache: Path) -> None:
    store = FeatureCache.open(cache / STORE)
    assert store.layers == (1, 2)
    for spec in (*VECTORS, *PATCHES, *CODES):
        np.testing.assert_array_equal(store.tokens(spec.layer, spec.kind).read(), expected(spec))
        np.testing.assert_array_equal(store.tokens(spec.layer, spec.kind).rows([13, 5]), expected(spec)[[13, 5]])
    assert store.row_status.tolist() == [2, 2, 2, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 3]
    assert embedcache.verify(cache / STORE).intact
    found = store.features("cls", layers=2, task="finding")
    assert found.sample_id.tolist() == ["s1", "s2", "s3", "s4", "s5", "s0", "s6"]
    np.testing.assert_array_equal(found.y, [1, 0, 1, 0, 1, 0, np.nan])
    assert found.incomplete.tolist() == ["s2"]
    (summary,) = embedcache.list_stores(cache)
    assert (summary.state, summary.quarantined) == ("complete", 1)
    assert [q.reason for q in embedcache.show_store(cache / STORE).quarantine] == ["made so"]


def test_what_is_written_today_is_the_same(cache: Path, tmp_path: Path) -> None:
    """The format has not changed: the same steps give the same objects."""
    make(tmp_path / "again")
    assert differences(cache / STORE, tmp_path / "again" / STORE) == []
    for name in ("labels.parquet", "labels.sha256"):
        assert (tmp_path / "again" / "made" / name).exists()


def test_zarr_reads_it(cache: Path) -> None:
    assert subprocess.run([sys.executable, "-c", PLAIN, str(cache / STORE)], check=False).returncode == 0


PLAIN = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, zarr
print("zarr", zarr.__version__)
root = zarr.open_group(sys.argv[1], mode="r")
status = root["row_status"][:]
assert status.tolist() == [2, 2, 2, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 3], status
cls = root["layer_2/cls_token"][:]
assert cls.shape == (16, 4) and cls.dtype == np.float16
rows = np.arange(16)
want = (rows % 512)[:, None] + np.arange(4) / 64 + len("cls_token")
assert (cls[status == 1] == want[status == 1].astype(np.float16)).all()
assert not cls[status == 3].any()
assert (root["layer_1/patch_tokens_int8"][:][status == 1] != 0).any()
assert root["layer_1/patch_scale"][:].shape == (16, 2, 3)
assert root["sample_id"][:].tolist() == ["s0", "s1", "s2", "s3", "s4", "s5", "s0", "s6"]
assert [str(a) for a in root["layer_2"].array_keys()]
"""


@pytest.mark.slow
def test_the_newest_zarr_reads_it(cache: Path, tmp_path: Path) -> None:
    """In an environment of its own, without this project's constraints."""
    bin_ = tmp_path / "venv" / "bin"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([bin_ / "python", "-m", "pip", "install", "--quiet", "--upgrade", "zarr"], check=True)
    done = subprocess.run(
        [bin_ / "python", "-c", PLAIN, str(cache / STORE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("zarr 3") or int(done.stdout.split()[1].split(".")[0]) > 3
