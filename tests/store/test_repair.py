"""`mend`: what is damaged comes back byte for byte out of the rest of a store, or is named; nothing wrong is ever accepted."""

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.errors import StoreBusyError, StoreError
from embedcache.store.encoding import encode_strings
from embedcache.store.labels import write_labels
from embedcache.store.leases import Worker
from embedcache.store.rebuild import KnownIds, merged_copies, salvage
from embedcache.store.repair import mend
from embedcache.store.verify import verify_store
from embedcache.store.writer import StoreFiles, drop_shards, load, reopen
from embedcache.testing.stores import make_plan, make_store
from embedcache.types import ArraySpec, Labels, strings

from .test_stopped_writer import LONGER, PASSES, write

ONCE = [0, 1, 2, 3, 4, 6]
"""s1 is there twice, since its source changed."""
IDS = KnownIds(LONGER.sample_id[ONCE], LONGER.patient_id[ONCE])


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two passes, a quarantined row, a superseded sample, two samples that came later."""
    path = tmp_path_factory.mktemp("calm") / "x.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        write(path)
    return path


@pytest.fixture
def store(grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that may be damaged."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands; no power fails here
    return Path(shutil.copytree(grown, tmp_path / "x.zarr"))


def objects_of(store: Path) -> dict[str, bytes]:
    """Name → bytes of every object."""
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def is_shard(name: str) -> bool:
    return name.startswith("layer_") and not name.endswith("zarr.json")


def test_an_intact_store_is_left_as_it_is(store: Path) -> None:
    before = objects_of(store)
    report = mend(store)
    assert (report.mended, report.left, report.shards) == ((), (), {})
    assert objects_of(store) == before


@pytest.mark.parametrize("how", ["flipped", "missing", "empty", "linked"])
def test_every_object_that_follows_from_the_others_comes_back(store: Path, grown: Path, how: str) -> None:
    rng = random.Random(how)
    whole = objects_of(grown)
    for name, data in whole.items():
        path = store / name
        path.unlink()
        if how == "flipped":
            path.write_bytes(data)
            flip(path, rng)
        elif how == "empty":
            path.write_bytes(b"")
        elif how == "linked":
            path.symlink_to(grown / name)
        report = mend(store, IDS)
        if is_shard(name):
            assert report.shards, name
            assert not report.mended, name
            path.unlink(missing_ok=True)
            path.write_bytes(data)
        else:
            assert (report.left, report.shards) == ((), {}), name
            assert not path.is_symlink()
        assert objects_of(store) == whole, name
    assert verify_store(store).intact


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), times=st.integers(2, 6), ids=st.booleans())
def test_whatever_is_damaged_a_store_is_never_intact_and_another(
    grown: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, times: int, ids: bool
) -> None:
    rng = random.Random(seed)
    store = Path(shutil.copytree(grown, tmp_path_factory.mktemp("d") / "x.zarr"))
    whole = objects_of(store)
    for name in rng.sample(sorted(whole), times):
        flip(store / name, rng) if rng.random() < 0.7 else (store / name).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        try:
            report = mend(store, IDS if ids else None)
        except StoreError:
            return  # nothing is left that says what it was
    if not report.left and not report.shards:
        told = {m.object for m in report.mended if "nothing" in m.how}
        differ = {n for n in whole if objects_of(store).get(n) != whole[n]}
        assert differ <= told
        assert verify_store(store).intact
    else:
        assert not verify_store(store).intact
    shutil.rmtree(store.parent)


def test_both_copies_of_the_manifest_are_merged_where_they_are_damaged_in_different_places(
    store: Path, grown: Path
) -> None:
    for copy, at in ((0, 100), (1, 200)):
        path = store / "manifest" / "c" / str(copy)
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)
    assert not mend(store).left
    assert objects_of(store) == objects_of(grown)


def test_a_lost_manifest_is_composed_anew_and_that_is_said(store: Path, grown: Path) -> None:
    shutil.rmtree(store / "manifest" / "c")
    report = mend(store)
    assert not report.left
    assert all("nothing else vouches" in m.how for m in report.mended if m.object.startswith("manifest/c"))
    assert objects_of(store) == objects_of(grown)
    assert verify_store(store).intact

    shutil.rmtree(store / "manifest" / "c")
    flip(store / "row_status" / "c" / "0", random.Random(0))
    before = objects_of(store)
    (left, *_) = mend(store).left
    assert "does not agree" in " ".join(x.reason for x in mend(store).left) or left.object == ""
    assert objects_of(store) == before


def test_a_store_of_which_nothing_says_what_it_was(store: Path) -> None:
    shutil.rmtree(store / "manifest" / "c")
    (store / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="no store"):
        mend(store)


@pytest.mark.parametrize("array", ["sample_id", "patient_id"])
def test_ids_need_to_be_known_from_somewhere(store: Path, grown: Path, array: str) -> None:
    path = store / array / "c" / "0"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    before = objects_of(store)
    (left,) = mend(store).left
    assert left.object == f"{array}/c/0"
    assert "--root" in left.reason
    wrong = KnownIds(strings([f"t{i}" for i in range(7)]), strings([f"q{i}" for i in range(7)]))
    assert mend(store, wrong).left
    assert objects_of(store) == before
    assert not mend(store, IDS).left
    assert objects_of(store) == objects_of(grown)


def test_ids_are_taken_from_another_store_of_the_dataset_and_from_its_labels(
    grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    cache = tmp_path / "made"
    mine = Path(shutil.copytree(grown, cache / "tiny" / "x.zarr"))
    (mine / "sample_id" / "c" / "0").write_bytes(b"")
    assert mend(mine).left
    other = Path(shutil.copytree(grown, cache / "other" / "y.zarr"))
    (mended,) = mend(mine).mended
    assert "another store" in mended.how
    shutil.rmtree(other)

    blank, no_slice, no_value = strings([""] * 6), np.full(6, -1, np.int32), np.full(6, np.nan)
    labels = Labels((), blank, IDS.sample, IDS.patient, no_slice, blank, no_value, blank)
    write_labels(cache, labels)
    flip(mine / "patient_id" / "c" / "0", random.Random(1))
    (mended,) = mend(mine).mended
    assert "ids of the dataset" in mended.how
    assert objects_of(mine) == objects_of(grown)


def test_a_commit_that_neither_it_nor_the_log_has_costs_its_shard_alone(store: Path) -> None:
    p = PASSES[0]
    (store / f"commit_log_{p.id}" / "c" / "0").unlink()
    (store / f"commits_{p.id}" / "c" / "1").write_bytes(b"gone")
    report = mend(store)
    assert report.shards == {p.id: {1: "its commit is damaged, and the log does not repeat it"}}
    assert [left.object for left in report.left] == [f"commit_log_{p.id}/c/0"]
    reopen(StoreFiles(store), load(StoreFiles(store))[0], {p.id: [1]})
    after = verify_store(store)
    assert (after.intact, after.pending) == (True, 1)


def test_a_commit_is_salvaged_from_a_damaged_log(store: Path, grown: Path) -> None:
    p = PASSES[0]
    path = store / f"commit_log_{p.id}" / "c" / "0"
    data = bytearray(path.read_bytes())
    data[60] ^= 1  # in the first shard's commit
    path.write_bytes(data)
    (store / f"commits_{p.id}" / "c" / "2").unlink()
    report = mend(store)
    assert (report.left, report.shards) == ((), {})
    assert objects_of(store) == objects_of(grown)


def test_a_log_that_named_shards_which_gc_removed_is_written_without_them(store: Path) -> None:
    files, p = StoreFiles(store), PASSES[1]
    root, index = load(files)
    status = index.row_status.reshape(-1, p.rows_per_shard)
    gone = [s.index for s in index.plan.shards_of(p) if not (status[s.index] == 1).any()]
    assert gone
    drop_shards(files, root, {p.id: gone})
    (store / f"commit_log_{p.id}" / "c" / "0").unlink()
    report = mend(store)
    assert (report.left, report.shards) == ((), {})
    assert verify_store(store).intact


def test_a_damaged_commit_of_an_unfinished_pass_goes(tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    p = make_store(path, make_plan([1] * 16, quantum=16), rows_per_shard=4, skip_shards=(2,), finish=False)
    flip(path / f"commits_{p.id}" / "c" / "1", random.Random(0))
    report = mend(path)
    assert [m.object for m in report.mended] == [f"commits_{p.id}/c/1"]
    after = verify_store(path)
    assert (after.intact, after.pending) == (True, 2)


@pytest.mark.parametrize("array", ["row_status", "superseded", "slice_index", "slice_start", "slice_count"])
def test_numbers_of_a_store_that_was_extended_and_is_not_filled(store: Path, array: str) -> None:
    files = StoreFiles(store)
    reopen(files, load(files)[0], {p.id: [0] for p in PASSES})
    before = objects_of(store)
    flip(store / array / "c" / "0", random.Random(5))
    report = mend(store)
    assert not report.left
    if not any("nothing vouches" in m.how for m in report.mended):
        assert objects_of(store) == before
    assert verify_store(store).intact


def test_a_dry_run_writes_nothing_and_says_the_same(store: Path) -> None:
    flip(store / "zarr.json", random.Random(0))
    flip(store / "layer_2" / "cls_token" / "c" / "1" / "0", random.Random(0))
    before = objects_of(store)
    shutil.rmtree(StoreFiles(store).leases, ignore_errors=True)
    told = mend(store, dry_run=True)
    assert objects_of(store) == before
    assert not StoreFiles(store).leases.exists()
    assert mend(store) == told
    assert [m.object for m in told.mended] == ["zarr.json"]
    assert told.shards == {PASSES[0].id: {1: "layer_2/cls_token is not what the commit names"}}


def test_what_stands_in_an_objects_place_is_named_and_left(store: Path, tmp_path: Path) -> None:
    (store / "zarr.json").unlink()
    (store / "zarr.json").mkdir()
    shutil.move(store / "row_status" / "c", tmp_path / "c")
    (store / "row_status" / "c").symlink_to(tmp_path / "c")
    (store / "slice_start" / "zarr.json").write_text("{")
    before = objects_of(store)
    left = {x.object: x.reason for x in mend(store).left}
    assert "is a folder" in left["zarr.json"]
    assert "is a symbolic link" in left["row_status/c/0"]
    after = objects_of(store)
    assert {n for n in after if after[n] != before[n]} == {"slice_start/zarr.json"}


def test_nothing_is_mended_while_somebody_works(store: Path) -> None:
    flip(store / "zarr.json", random.Random(0))
    before = objects_of(store)
    with Worker(StoreFiles(store).leases), pytest.raises(StoreBusyError, match="is being filled by process"):
        mend(store)
    assert objects_of(store) == before


@pytest.mark.parametrize(
    "names", [["s0", "s1", "s2", "s3"], [f"{i:032x}" for i in range(20)], ["a", "", "b", "long one", "é"]]
)
def test_texts_around_a_wrong_byte_are_read_whatever_it_was(names: list[str]) -> None:
    data = encode_strings(names)
    known = frozenset(name.encode() for name in names)
    recovered = 0
    for at in range(len(data)):
        wrong = bytearray(data)
        wrong[at] ^= 0x5A
        found = salvage(bytes(wrong), len(names), 0, known)
        if found is not None:
            right = [text.decode() for text, sure in found if sure]
            assert set(right) <= set(names)
            recovered += len(right) >= len(names) - 2
    assert recovered >= 0.9 * len(data)


def test_copies_that_differ_too_much_are_not_mixed() -> None:
    assert merged_copies(b"abcd", b"abxx", lambda data: data == b"abcx") == b"abcx"
    assert merged_copies(b"abcd", b"abcde", lambda _: True) is None
    assert merged_copies(bytes(100), bytes([1]) * 100, lambda _: True) is None


def test_a_store_of_two_dtypes_and_no_second_pass_too(tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    arrays = (ArraySpec(3, "cls_token", "float32", (4,)), ArraySpec(0, "pooled", "float16", (6,)))
    make_store(path, make_plan([2, 2], quantum=4), arrays, rows_per_shard=2)
    whole = objects_of(path)
    for name in [n for n in whole if not is_shard(n) and not n.startswith("pooled/c")]:
        flip(path / name, random.Random(name))
        assert not mend(path, KnownIds(strings(["s0", "s1"]), strings(["p0", "p1"]))).left, name
        assert objects_of(path) == whole, name
