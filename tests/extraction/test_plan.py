"""The forecast of an extraction against what the extraction then does."""

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedcache
from embedcache import ExtractConfig
from embedcache.errors import InputError, MissingPackageError
from embedcache.extraction import plan as planning
from embedcache.extraction.pending import BLOCK_BYTES, PendingPass, in_blocks, pending_passes
from embedcache.extraction.prepare import RowPlanner, StorePlan, prepare
from embedcache.store.writer import StoreFiles, load, reopen
from embedcache.testing.files import write_nifti
from embedcache.testing.stores import default_arrays, make_pass_of, make_plan, make_recipe

from .conftest import MakeTable, only_store

Usage = namedtuple("Usage", "total used free")


def silent(_: str) -> None:
    """Hears nothing."""


def pending_of(config: ExtractConfig) -> list[PendingPass]:
    prepared = prepare(config, silent)
    return pending_passes(prepared, RowPlanner(prepared, silent))


def on_disk(top: Path) -> int:
    """Bytes of a folder where files take whole blocks and a directory takes one, as on ext4, wherever the tests run."""
    places = [top, *top.rglob("*")]
    return sum(BLOCK_BYTES if place.is_dir() else in_blocks(place.stat().st_size) for place in places)


@pytest.mark.parametrize(
    ("torn", "said"),
    [
        (1, "1 source can not be opened; it gets one row and"),
        (2, "2 sources can not be opened; they get one row each and"),
    ],
)
def test_sources_that_can_not_be_opened_are_told(config: ExtractConfig, tmp_path: Path, torn: int, said: str) -> None:
    write_nifti(tmp_path / "whole.nii.gz", np.zeros((4, 4, 3), dtype=np.uint8))
    for i in range(torn):
        (tmp_path / f"torn{i}.nii.gz").write_text("no volume")
    rows = ["whole.nii.gz,whole", *(f"torn{i}.nii.gz,torn{i}" for i in range(torn))]
    (tmp_path / "some.csv").write_text("\n".join(["path,case", *rows]) + "\n")
    heard: list[str] = []
    embedcache.plan(replace(config, root=str(tmp_path / "some.csv")), heard.append)
    assert f"{said} will be set aside" in heard


def test_on_a_cpu_shards_are_small_unless_asked_for_otherwise(config: ExtractConfig, tmp_path: Path) -> None:
    write_nifti(tmp_path / "long.nii.gz", np.zeros((4, 4, 2000), dtype=np.uint8))
    table = tmp_path / "long.csv"
    table.write_text("path,case\nlong.nii.gz,a\n")
    asked = replace(config, root=str(table), rows_per_shard=None, batch_size=None)
    prepared = prepare(asked, silent)
    arrays = prepared.stores[0].missing
    (p,) = embedcache.plan(asked).passes
    assert (p.rows_per_shard, p.pending_shards) == (256, 8)
    for rows in (64, 512):
        assert embedcache.plan(replace(asked, rows_per_shard=rows)).passes[0].rows_per_shard == rows
    assert replace(prepared, device_kind="cuda").new_pass(arrays, 2048, "slice").rows_per_shard == 2048
    assert prepared.new_pass(arrays, 2048, "volume").rows_per_shard == 16
    assert prepared.new_pass(arrays, 8, "slice").rows_per_shard == 8


def test_what_is_forecast_is_what_is_written(config: ExtractConfig) -> None:
    asked = replace(config, tokens="cls,mean,patch", layers="last:2")
    report = embedcache.plan(asked)
    assert not Path(config.cache).exists()
    assert (report.samples, report.slices) == (24, 24)
    (p,) = report.passes
    assert (p.pending_shards, p.pending_slices) == (3, 24)
    embedcache.extract(asked)
    store = only_store(config)
    files = [path for path in store.rglob("*") if path.is_file() and "/c/" in path.as_posix()]
    token_files = [f for f in files if f.relative_to(store).parts[0].startswith("layer_")]
    commits = [f for f in files if f.relative_to(store).parts[0].startswith("commits_")]
    assert p.files == len(token_files) + len(commits)
    # vectors carry one checksum and one index entry a shard, patch tokens one a row
    for path, size in p.arrays.items():
        chunks = 8 if path.endswith("patch_tokens") else 1
        of_array = [f for f in token_files if f.is_relative_to(store / path)]
        assert sum(f.stat().st_size for f in of_array) == size + len(of_array) * (chunks * (4 + 16) + 4)
    # documents are counted by their number, not by their lengths
    assert on_disk(store) <= report.needed <= 1.25 * on_disk(store)


def test_only_what_is_pending_counts(config: ExtractConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    embedcache.extract(config)

    def refuse(*_: object) -> None:
        raise AssertionError("nothing is pending, so nothing is calibrated")

    with monkeypatch.context() as patch:
        patch.setattr(planning, "calibrated", refuse)
        done = embedcache.plan(config, calibrate=True)
    assert done.passes == ()
    assert (done.bytes, done.needed, done.time) == (0, 0, None)

    files = StoreFiles(only_store(config))
    root, _ = load(files)
    (name,) = root.passes
    reopen(files, root, {name: [0, 2]})
    (p,) = embedcache.plan(config).passes
    assert (p.pending_shards, p.pending_slices, p.files) == (2, 16, 2 * (2 + 1))
    assert p.arrays == {"layer_2/cls_token": 16 * 32 * 2, "layer_2/patch_mean": 16 * 32 * 2}

    # another array of the same store is another pass; the rest of the first one is not asked for
    later = embedcache.plan(replace(config, layers="1"))
    assert {path for p in later.passes for path in p.arrays} >= {"layer_1/cls_token", "layer_1/patch_mean"}


def test_new_samples_of_a_store_count(config: ExtractConfig) -> None:
    embedcache.extract(replace(config, limit=16))
    report = embedcache.plan(config)
    assert report.samples == 24
    (p,) = report.passes
    assert p.pending_slices == 8


def test_several_backbones_in_one_forecast(config: ExtractConfig) -> None:
    both = replace(config, backbones=(*config.backbones, "pixels:28"), tokens="cls")
    report = embedcache.plan(both)
    alone = [embedcache.plan(replace(both, backbones=(name,))) for name in both.backbones]
    assert [p.backbone for p in report.passes] == list(both.backbones)
    assert report.bytes == sum(r.bytes for r in alone)
    assert report.needed == sum(r.needed for r in alone)


def test_calibration(config: ExtractConfig, make_table: MakeTable) -> None:
    """Numbers of this machine's own, each of them more than nothing, and nothing left behind."""
    root = Path(make_table(n=4, volumes=4, folder="mixed"))
    (root.parent / "img000.png").write_bytes(b"rubbish")
    asked = replace(config, root=str(root), backbones=(*config.backbones, "pixels:28"), tokens="cls")
    before = set(Path(config.cache).parent.iterdir())
    heard: list[str] = []
    report = embedcache.plan(asked, heard.append, calibrate=True)
    assert set(Path(config.cache).parent.iterdir()) == before
    assert report.rates is not None
    assert report.time is not None
    slices = 4 + sum(5 + i % 3 for i in range(4, 8))
    assert report.slices == slices
    assert report.rates.decoded == slices  # eight images are all that there are
    assert report.rates.device == "cpu"
    assert set(report.rates.batch) == {p.name for p in pending_of(asked)}
    assert min(report.rates.decode, report.rates.put, *report.rates.batch.values()) > 0
    assert min(report.rates.preprocess.values()) > 0
    assert report.time.seconds >= max(report.time.decode, report.time.forward, report.time.write)
    assert report.time.binds in ("decode", "forward", "write")
    assert all(p.slices_per_second and p.slices_per_second > 0 for p in report.passes)
    assert any("some could not be read" in line for line in heard)
    assert not [line for line in heard if "SECRET" in line or "img0" in line]
    assert set(heard) <= set(report.notices)


def test_calibration_where_no_image_can_be_read(config: ExtractConfig) -> None:
    for image in Path(config.root).parent.glob("*.png"):
        image.write_bytes(b"rubbish")
    report = embedcache.plan(config, calibrate=True)
    assert report.rates is not None
    assert set(report.rates.preprocess.values()) == {0.0}


def test_a_cache_that_can_not_be_written_has_no_write_rate(
    config: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedcache.extraction import calibrate  # imports torch

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(calibrate.tempfile, "TemporaryDirectory", refuse)
    heard: list[str] = []
    assert calibrate.write_some(Path(config.cache), pending_of(config), heard.append) == (0.0, 0.0)
    assert heard == ["how fast the cache can be written was not tried: Permission denied"]


def test_without_torch_there_is_a_forecast_without_time(config: ExtractConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise MissingPackageError("an extraction needs torch: pip install 'embedcache[cpu]'.")

    monkeypatch.setattr(planning, "ready_device", absent)
    report = embedcache.plan(config, calibrate=True)
    assert report.time is None
    assert report.bytes > 0
    assert any("no time is forecast: an extraction needs torch" in line for line in report.notices)


# --- room -----------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    config: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = embedcache.plan(config).needed
    total = 100 * needed
    reserve = needed  # a hundredth of it

    def left(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(total, total - free, free))

    left(needed + reserve)
    assert embedcache.plan(config).fits
    left(needed + reserve - 1)
    report = embedcache.plan(config)
    assert not report.fits
    assert report.exit_code == 2
    with pytest.raises(InputError, match=r"needs [\d.]+ KiB and [\d.]+ KiB is free .* --cache, or .* --budget") as told:
        embedcache.extract(config)
    assert str(told.value) == report.problem
    assert not Path(config.cache).exists()


def test_the_reserve_is_small_on_a_small_disk_and_bounded_on_a_large_one(
    config: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(config, silent)
    for total, reserve in ((2**20, 2**20 // 100), (2**50, planning.RESERVE_BYTES)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, total=total: Usage(total, 0, total))
        assert planning.free_bytes(prepared) == total - reserve
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**50, 2**50 - 5, 5))
    assert planning.free_bytes(prepared) == 0


# --- counting -------------------------------------------------------------------------------------


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    quantum=st.sampled_from([4, 8, 16]),
    per_shard=st.sampled_from([1, 2, 4, 8]),
    batch=st.integers(1, 6),
    data=st.data(),
)
def test_batches_and_rows_against_a_plain_count(
    counts: list[int], quantum: int, per_shard: int, batch: int, data: st.DataObject
) -> None:
    plan = make_plan(counts, quantum=quantum)
    p = replace(make_pass_of(default_arrays(), quantum, per_shard), batch_size=batch)
    shards = list(plan.shards(p.rows_per_shard))
    chosen = data.draw(st.lists(st.sampled_from(shards), unique=True, min_size=1))
    store = StorePlan(
        info=None,  # type: ignore[arg-type]  # nothing is asked of the backbone
        recipe=make_recipe(),
        files=StoreFiles(Path("nowhere.zarr")),
        root=None,
        index=None,
        missing=p.arrays,
        unfinished=(),
        new=np.arange(len(counts)),
    )
    pending = PendingPass(store, plan, p, tuple(chosen))
    rows = [r for s in chosen for r in range(s.start, s.stop) if plan.slice_index[r] >= 0]
    assert np.flatnonzero(pending.rows()).tolist() == sorted(rows)
    assert pending.batches() == len({(r // p.rows_per_shard, r % p.rows_per_shard // batch) for r in rows})
