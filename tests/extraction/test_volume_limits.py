"""A volume is read whole for its statistics once, whoever asks for them again."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache import ExtractConfig
from embedcache.datasets.index import PrivateIndex
from embedcache.datasets.volume_limits import VolumeLimits
from embedcache.images import ImageOptions, open_image, parse_window
from embedcache.testing.files import write_nifti, write_series
from embedcache.testing.stores import differences

from .conftest import elsewhere, only_store

SLICES = 10
VOLUMES = 3

COUNTING = """
import os
import embedcache.images.source as source

real = source.resolve_limits

def resolve_limits(window, kind, calibration, pixels=None):
    if pixels is not None and len(pixels) == {slices}:
        with open({log!r}, "a") as log:
            log.write("whole\\n")
    return real(window, kind, calibration, pixels)

source.resolve_limits = resolve_limits
"""


@pytest.fixture
def volumes(config: ExtractConfig, tmp_path: Path) -> ExtractConfig:
    """Three volumes of ten slices, over leases of four rows."""
    folder = tmp_path / "volumes"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for i in range(VOLUMES):
        write_nifti(folder / f"{i}.nii.gz", rng.normal(i, 1 + i, size=(20, 24, SLICES)).astype(np.float32))
    (folder / "cases.csv").write_text("path,case\n" + "".join(f"{i}.nii.gz,case{i}\n" for i in range(VOLUMES)))
    return replace(config, root=str(folder / "cases.csv"), rows_per_shard=4, workers=2)


@pytest.fixture
def whole_reads(tmp_path: Path, in_children: Callable[[str], None]) -> Callable[[], int]:
    """How often a whole volume was read for its statistics by any decode process."""
    log = tmp_path / "whole-reads"
    in_children(COUNTING.format(slices=SLICES, log=str(log)))
    return lambda: len(log.read_text().splitlines()) if log.exists() else 0


def test_each_volume_is_read_whole_once(
    volumes: ExtractConfig, whole_reads: Callable[[], int], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedcache.extract(volumes)
    assert whole_reads() == VOLUMES
    second = replace(volumes, backbones=("pixels:28",), tokens="cls")
    assert embedcache.extract(second).decoded == VOLUMES * SLICES
    assert whole_reads() == VOLUMES
    assert embedcache.extract(replace(volumes, layers="1")).decoded == VOLUMES * SLICES
    assert embedcache.recompute(
        only_store(replace(volumes, cache=str(link(volumes, tmp_path)))), volumes, "100%"
    ).trusted
    assert whole_reads() == VOLUMES

    # another window is another statistic, and a changed content another volume
    embedcache.extract(elsewhere(replace(volumes, window="percentile:2,98@volume"), "percent"))
    assert whole_reads() == 2 * VOLUMES
    changed = Path(volumes.root).parent / "1.nii.gz"
    write_nifti(changed, np.random.default_rng(9).normal(size=(20, 24, SLICES)).astype(np.float32))
    embedcache.extract(volumes)
    assert whole_reads() == 2 * VOLUMES + 1


def link(volumes: ExtractConfig, tmp_path: Path) -> Path:
    """A cache in which the tiny backbone's store is the only one."""
    (store,) = Path(volumes.cache).glob("*/tiny/*.zarr")
    folder = tmp_path / "linked" / store.parts[-3] / store.parts[-2]
    folder.mkdir(parents=True)
    (folder / store.name).symlink_to(store)
    return tmp_path / "linked"


def test_known_limits_give_the_same_bits(volumes: ExtractConfig, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedcache.extract(replace(volumes, backbones=("pixels:28",), tokens="cls"))
    embedcache.extract(volumes)  # with limits that another run computed
    anew = elsewhere(volumes, "anew")  # another cache has another index
    embedcache.extract(anew)
    (known,) = Path(volumes.cache).glob("*/tiny/*.zarr")
    assert differences(known, only_store(anew)) == []


def test_what_is_kept_is_exact(volumes: ExtractConfig, home: Path) -> None:
    embedcache.extract(volumes)
    window, options = parse_window("auto"), ImageOptions()
    index = PrivateIndex.open(Path(volumes.cache) / "cases")
    kept = VolumeLimits.open(index, window, options)
    for row in index.rows():
        limits = kept.get(row.digest)
        assert limits is not None
        expected = open_image(row.path).limits(window, 0, SLICES)
        assert np.array_equal(np.broadcast_to(limits, expected.shape), expected)
        assert limits.shape == (1, 1, 2)
    assert VolumeLimits.open(index, window, ImageOptions(plane="coronal")).of == {}
    assert VolumeLimits.open(index, parse_window("min-max@volume"), options).of == {}
    # nothing of it in the cache, and no one else can read it
    assert not list(Path(volumes.cache).rglob("*limits*"))
    (path,) = home.rglob("*.limits.jsonl")
    assert path.stat().st_mode & 0o077 == 0


def test_torn_and_foreign_lines_are_passed_over(home: Path, tmp_path: Path) -> None:
    index = PrivateIndex.open(tmp_path / "cache" / "cases")
    window, options = parse_window("auto"), ImageOptions()
    kept = VolumeLimits.open(index, window, options)
    numbers = np.array([[[-1 / 3, 1e300]], [[0.1, 5e-324]]])
    kept.note("d1", numbers)
    kept.note("d1", numbers)
    path = index.beside(".limits.jsonl")
    assert len(path.read_text().splitlines()) == 1
    with path.open("a") as file:
        file.write('{"digest": "d2", "reading": "auto stored 0", "limits": [[[0, 1]\n[]\n7\n{"digest": "d3"}\n')
        file.write(json.dumps({"digest": "d4", "reading": "auto stored 0", "limits": [1, 2]}) + "\n{")
    VolumeLimits.open(index, window, options).note("d5", numbers[:1])
    found = VolumeLimits.open(index, window, options)
    assert sorted(found.of) == ["d1", "d5"]
    assert np.array_equal(found.of["d1"], numbers)


def test_a_series_with_windows_of_its_own_keeps_a_row_a_slice(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 1000, (4, 12, 10)).astype(np.uint16)
    windows = [(300.0 + i, 100.0) for i in range(4)]
    image = open_image(str(write_series(tmp_path / "series", pixels, windows=windows)))
    volume, own = parse_window("min-max@volume"), parse_window("voi")
    assert image.known(volume) is None
    limits = image.limits(volume, 1, 3)
    whole = image.known(volume)
    assert whole is not None
    assert whole.shape == (1, 1, 2)
    other = open_image(str(tmp_path / "series"))
    other.know(volume, whole)
    assert np.array_equal(other.limits(volume, 1, 3), limits)
    image.limits(own, 0, 4)
    assert image.known(own) is None  # told by the header: no pixel was read for it
