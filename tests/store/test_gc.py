"""What is of no use any more, and only that, is removed; a removal that is stopped leaves a store that opens."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache.errors import InputError, StoreBusyError
from embedcache.extraction.rows import longer_plan
from embedcache.store.gc import owned
from embedcache.store.leases import Worker
from embedcache.store.locks import Lock, exclusive
from embedcache.store.objects import Objects
from embedcache.store.processes import process_start, this_host
from embedcache.store.reader import FeatureCache
from embedcache.store.verify import verify_store
from embedcache.store.writer import (
    StoreFiles,
    commit_shard,
    extend_store,
    finalise,
    load,
    pending_shards,
    ranges,
    write_shard,
)
from embedcache.testing.stores import make_plan, make_store, token_values
from embedcache.types import Commit, Samples, Shard, strings

PLAN = make_plan([2, 2, 2, 2, 2, 2, 2, 2], quantum=4)


def grown(path: Path, superseded: tuple[int, ...]) -> StoreFiles:
    """A store of four shards of which samples were superseded, and appended anew."""
    p = make_store(path, PLAN, quarantined=(15,))
    files = StoreFiles(path)
    root, index = load(files)
    names = strings([f"s{i}" for i in superseded])
    again = Samples(names, names, names, names, np.arange(len(names)), "it")
    plan = longer_plan(PLAN, again, np.full(len(names), 2))
    flags = np.zeros(len(plan.sample_id), dtype=bool)
    flags[list(superseded)] = True
    extend_store(files, root, index, plan, flags)
    for shard in pending_shards(files.objects, plan, p):
        rows = {a.path: token_values(a, plan.rows)[shard.start : shard.stop] for a in p.arrays}
        digests = write_shard(files.objects, p, shard, rows)
        commit = Commit(shard.index, (shard.start, shard.stop), (), 4, "cpu", {}, digests, "h", "then", "now")
        commit_shard(files.objects, p, commit)
    finalise(files, p.id)
    return files


def test_shards_of_superseded_rows_go_and_nothing_else_changes(tmp_path: Path) -> None:
    files = grown(tmp_path / "a.zarr", (0, 1, 2))  # all of shard 0, half of shard 1
    before = FeatureCache.open(files.path).features("cls", pool=None)
    listed = embedcache.collect_garbage(files.path, dry_run=True)
    assert [(r.what.split()[0], r.why) for r in listed.found] == [("1", "hold superseded rows only")]
    assert listed.bytes > 0
    assert not listed.removed
    assert (files.path / "layer_2" / "cls_token" / "c" / "0" / "0").exists()

    assert embedcache.collect_garbage(files.path).found == listed.found
    assert not (files.path / "layer_2" / "cls_token" / "c" / "0" / "0").exists()
    cache = FeatureCache.open(files.path)
    after = cache.features("cls", pool=None)
    np.testing.assert_array_equal(before.X, after.X)
    assert before.sample_id.tolist() == after.sample_id.tolist()
    assert verify_store(files.path).intact
    root, index = load(files)
    assert [pending_shards(files.objects, index.plan, p) for p in root.passes.values()] == [[]]
    assert embedcache.collect_garbage(files.path).found == ()
    assert cache.layer(2).patch_tokens.read()[:4].any() == np.False_, "a plain reader finds zeros there"


def test_stopped_between_any_two_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = {name: getattr(Objects, name) for name in ("put", "delete")}
    for stop_at in range(200):
        files = grown(tmp_path / f"{stop_at}.zarr", (0, 1))
        before = FeatureCache.open(files.path).features("mean").X
        steps = 0

        def counted(name: str, stop_at: int = stop_at):
            def step(self: Objects, *given: object) -> None:
                nonlocal steps
                if self.root.suffix == ".zarr":
                    if steps == stop_at:
                        raise RuntimeError("stopped")
                    steps += 1
                real[name](self, *given)

            return step

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(Objects, name, counted(name))
            try:
                embedcache.collect_garbage(files.path)
            except RuntimeError:
                pass
            else:
                break
        np.testing.assert_array_equal(FeatureCache.open(files.path).features("mean").X, before)
        embedcache.collect_garbage(files.path)
        assert verify_store(files.path).intact
        assert verify_store(files.path).junk == ()
    assert 8 < stop_at < 199


def test_junk_goes_and_what_a_resume_needs_stays(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "d" / "b" / "a.zarr"
    make_store(path, PLAN, finish=False, skip_shards=(1, 2))
    junk = [path / "layer_2" / "cls_token" / "c" / "1" / "0", path / "notes.txt"]
    for file in junk:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"rubbish")
    scratch = path.with_suffix(".leases") / "scratch" / "0badcafe-7-7"
    scratch.mkdir(parents=True)
    (scratch / "half").write_bytes(b"x" * 9000)
    report = embedcache.collect_garbage(tmp_path / "cache")
    assert {r.what for r in report.found} == {"layer_2/cls_token/c/1/0", "notes.txt", "scratch"}
    assert not any(file.exists() for file in [*junk, scratch])
    found = verify_store(path)
    assert (found.intact, found.junk, found.pending) == (True, (), 2)


def test_a_store_that_was_never_begun_goes_and_one_that_lost_its_root_stays(tmp_path: Path) -> None:
    begun, lost = tmp_path / "begun.zarr", tmp_path / "lost.zarr"
    (begun / "slice_start").mkdir(parents=True)
    (begun / "slice_start" / "zarr.json").write_text("{}")
    make_store(lost, PLAN)
    (lost / "zarr.json").unlink()
    report = embedcache.collect_garbage(tmp_path)
    assert not begun.exists()
    assert (lost / "manifest").exists()
    assert len(report.skipped) == 1
    assert "lost.zarr: it has commits and no root document" in report.skipped[0]


def test_a_store_that_is_worked_on_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    make_store(path, PLAN)
    (path / "notes.txt").write_text("rubbish")
    worker = path.with_suffix(".leases") / "workers" / "w.json"
    worker.parent.mkdir(parents=True)
    own = {"host": this_host(), "pid": os.getpid(), "process_start": process_start(os.getpid()), "beat": 0}
    worker.write_text(json.dumps(own))
    report = embedcache.collect_garbage(path)
    assert report.found == ()
    assert f"process {os.getpid()} on host" in report.skipped[0]
    assert (path / "notes.txt").exists()


@pytest.mark.parametrize("room", ["gc", "catalog"])
def test_a_worker_that_came_before_the_lock_was_ours_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    path = tmp_path / "a.zarr"
    make_store(path, PLAN)
    (path / "notes.txt").write_text("rubbish")

    @contextmanager
    def after_a_worker(folder: Path, name: str) -> Iterator[Lock]:
        with Worker(folder), exclusive(folder, name) as lock:
            yield lock

    monkeypatch.setattr(f"embedcache.store.{room}.exclusive", after_a_worker)
    if room == "gc":
        assert "is being filled by process" in embedcache.collect_garbage(path).skipped[0]
    else:
        with pytest.raises(StoreBusyError, match="is being filled by process"):
            embedcache.remove_store(path)
    assert (path / "notes.txt").exists()
    assert verify_store(path).intact


def test_a_shard_that_is_committed_while_gc_looks_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a worker of another host, which was taken for dead and woke."""
    path = tmp_path / "a.zarr"
    p = make_store(path, PLAN, finish=False, skip_shards=(1, 2))
    objects = StoreFiles(path).objects
    digests = {}
    for k in (1, 2):
        rows = {a.path: token_values(a, PLAN.rows)[4 * k : 4 * k + 4] for a in p.arrays}
        digests[k] = write_shard(objects, p, Shard(k, 4 * k, 4 * k + 4), rows)

    def owned_then_commit(*given: object) -> Iterator[str]:
        yield from owned(*given)  # type: ignore[arg-type]
        commit_shard(objects, p, Commit(1, (4, 8), (), 4, "cpu", {}, digests[1], "h", "then", "now"))

    monkeypatch.setattr("embedcache.store.gc.owned", owned_then_commit)
    embedcache.collect_garbage(path)
    found = verify_store(path)
    assert (found.intact, found.junk, found.pending) == (True, (), 1)


def test_a_folder_without_stores(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no store at or below"):
        embedcache.collect_garbage(tmp_path)


def test_numbers_as_ranges() -> None:
    assert ranges([]) == ()
    assert ranges({5, 1, 2, 3, 9}) == ((1, 4), (5, 6), (9, 10))
