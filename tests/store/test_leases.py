"""Leases and locks: who works on a store, who is taken for dead, and that a mistake about it does no harm."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache.errors import StoreBusyError, StoreError
from embedcache.store.leases import FEWEST_LEASES, LEASE_ROWS, Worker, cut, forget_the_dead, workers
from embedcache.store.locks import exclusive
from embedcache.store.processes import process_start, this_host
from embedcache.store.verify import verify_store
from embedcache.store.writer import (
    StoreFiles,
    add_pass,
    commit_shard,
    create_store,
    finalise,
    load,
    new_root,
    pending_shards,
    write_shard,
)
from embedcache.testing.stores import default_arrays, make_pass_of, make_plan, make_recipe, token_values
from embedcache.types import ArraySpec, Commit, DatasetInfo, Pass, Shard


def dead_process() -> dict[str, object]:
    """What a worker's file says after its process has ended."""
    script = "from embedcache.store.processes import process_start; import os; print(os.getpid(), process_start(os.getpid()))"
    pid, start = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    return {"host": this_host(), "pid": int(pid), "process_start": start, "beat": 3}


def put_worker(folder: Path, name: str, file: dict[str, object], lease: str) -> None:
    """A worker that once took a lease."""
    for part in ("workers", "taken"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "workers" / f"{name}.json").write_text(json.dumps(file))
    (folder / "taken" / f"{lease}.1").write_text(name)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=30), st.sampled_from([1, 16, 64, 256, 1024]))
def test_leases_partition_the_planned_shards(counts: list[int], rows_per_shard: int) -> None:
    plan = make_plan(counts)
    p = make_pass_of((ArraySpec(1, "cls_token", "float16", (8,)),), plan.quantum, rows_per_shard)
    leases = cut(plan, p)
    assert [s for lease in leases for s in lease.shards] == list(plan.shards(p.rows_per_shard))
    assert len({lease.name for lease in leases}) == len(leases)
    shards = sum(len(lease.shards) for lease in leases)
    least = max(1, min(LEASE_ROWS // p.rows_per_shard, shards // FEWEST_LEASES))
    assert all(least <= len(lease.shards) < 2 * least for lease in leases[:-1])
    assert len(leases) >= min(shards, FEWEST_LEASES // 2)


def test_a_lease_ends_where_a_volume_does() -> None:
    plan = make_plan([320] * 60, quantum=64)  # five shards each; a lease of 256 rows would cut every volume
    p = make_pass_of((ArraySpec(1, "cls_token", "float16", (8,)),), 64, 64)
    assert [lease.stop for lease in cut(plan, p)] == [320 * i for i in range(1, 61)]


def test_one_taker_and_its_successor(tmp_path: Path) -> None:
    with Worker(tmp_path) as one, Worker(tmp_path) as two:
        assert one.take("p1-00000000")
        assert not two.take("p1-00000000")
        assert not one.take("p1-00000000"), "its own lease is taken too"
        assert two.take("p1-00000001")
        assert {name: file.pid for name, file in one.holders().items()} == {"p1-00000001": os.getpid()}
        one.give("p1-00000000")
        assert two.take("p1-00000000")
        one.give("p1-00000000")
        assert two.holders() == {}
        assert "p1-00000000" in one.holders(), "what is another's is not given back"
    assert os.listdir(tmp_path / "taken") == []
    assert workers(tmp_path) == []


def test_a_dead_process_loses_its_lease_at_once(tmp_path: Path) -> None:
    put_worker(tmp_path, "gone", dead_process(), "p1-00000000")
    with Worker(tmp_path) as worker:
        assert worker.take("p1-00000000")
        assert sorted(os.listdir(tmp_path / "taken")) == ["p1-00000000.2"]


def test_a_worker_elsewhere_lives_while_its_counter_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("embedcache.store.leases.time.monotonic", lambda: clock[0])
    file: dict[str, object] = {"host": "elsewhere/boot", "pid": 1, "process_start": "1", "beat": 7}
    put_worker(tmp_path, "far", file, "p1-00000000")
    with Worker(tmp_path) as worker:
        assert not worker.take("p1-00000000")
        clock[0] += 59
        put_worker(tmp_path, "far", {**file, "beat": 8}, "p1-00000000")
        assert not worker.take("p1-00000000"), "it beat within the time"
        clock[0] += 59
        assert not worker.take("p1-00000000")
        clock[0] += 2
        assert worker.take("p1-00000000")


def test_a_stopped_process_of_this_host_expires_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that exists and does not beat (SIGSTOP, a hung disk) must not hold the others up for ever."""
    clock = [0.0]
    monkeypatch.setattr("embedcache.store.leases.time.monotonic", lambda: clock[0])
    file: dict[str, object] = {
        "host": this_host(),
        "pid": os.getpid(),
        "process_start": process_start(os.getpid()),
        "beat": 0,
    }
    put_worker(tmp_path, "stopped", file, "p1-00000000")
    with Worker(tmp_path) as worker:
        assert not worker.take("p1-00000000")
        clock[0] += 61
        assert worker.take("p1-00000000")


def test_the_dead_are_forgotten(tmp_path: Path) -> None:
    put_worker(tmp_path, "gone", dead_process(), "p1-00000000")
    scratch = tmp_path / "claims" / "0badcafe-1-1"
    scratch.mkdir(parents=True)
    with Worker(tmp_path) as worker:
        worker.take("p1-00000009")
        forget_the_dead(tmp_path)
        assert os.listdir(tmp_path / "workers") == [f"{worker.id}.json"]
        assert os.listdir(tmp_path / "taken") == ["p1-00000009.1"]
    assert scratch.exists(), "another host's files are not ours to remove"


def test_eight_processes_race_for_one_lease(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from embedcache.store.leases import Worker\n"
        "with Worker(Path(sys.argv[1])) as w:\n"
        "    print('ready', flush=True); sys.stdin.readline()\n"
        "    print(sum(w.take(f'p1-{i:08d}') for i in range(50)), flush=True); sys.stdin.readline()\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    for run in runs:
        assert run.stdout is not None
        run.stdout.readline()
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    won = [int(run.stdout.readline()) for run in runs if run.stdout]
    for run in runs:
        run.communicate("end\n")
    assert sum(won) == 50


# --- what happens when two believe that they hold one ---------------------------------------------


def planned(tmp_path: Path) -> tuple[StoreFiles, Pass, Shard]:
    """A store with one pass of one shard."""
    files, plan = StoreFiles(tmp_path / "a.zarr"), make_plan([1] * 8)
    root = new_root(make_recipe(), DatasetInfo("made", public_ids=True), {}, "public", "", plan, "0" * 64)
    create_store(files, root, plan)
    p = make_pass_of(default_arrays(), plan.quantum)
    add_pass(files, root, p)
    return files, p, next(iter(plan.shards(p.rows_per_shard)))


def write(files: StoreFiles, p: Pass, shard: Shard, change: float = 0.0) -> None:
    rows = {a.path: (token_values(a, 8) + change).astype(a.dtype) for a in p.arrays}
    digests = write_shard(files.objects, p, shard, rows)
    commit_shard(
        files.objects, p, Commit(shard.index, (shard.start, shard.stop), (), 4, "cpu", {}, digests, "h", "then", "now")
    )


def test_the_same_bytes_twice_are_one_shard(tmp_path: Path) -> None:
    files, p, shard = planned(tmp_path)
    write(files, p, shard)
    write(files, p, shard)
    finalise(files, p.id)
    finalise(files, p.id)
    assert verify_store(files.path).intact


def test_a_late_writer_with_other_bytes_overwrites_nothing(tmp_path: Path) -> None:
    files, p, shard = planned(tmp_path)
    write(files, p, shard)
    finalise(files, p.id)
    with pytest.raises(StoreError, match="do not compute alike"):
        write(files, p, shard, change=1.0)
    assert verify_store(files.path).intact


def test_of_two_writers_with_other_bytes_at_one_time_neither_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, p, shard = planned(tmp_path)
    import embedcache.store.writer as writer

    # the second looked before the first had committed, and puts after it
    with monkeypatch.context() as patch:
        patch.setattr(writer, "is_committed", lambda *_: False)
        write(files, p, shard)
        with pytest.raises(StoreError, match="do not compute alike"):
            write(files, p, shard, change=1.0)
    root, index = load(files)
    assert pending_shards(files.objects, index.plan, root.passes[p.id]) == [shard]
    write(files, p, shard)
    finalise(files, p.id)
    assert verify_store(files.path).intact


def test_a_late_writer_that_looked_before_the_commit_leaves_no_damage_in_a_complete_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, p, shard = planned(tmp_path)
    write(files, p, shard)
    finalise(files, p.id)
    with monkeypatch.context() as patch:
        patch.setattr("embedcache.store.writer.is_committed", lambda *_: False)
        with pytest.raises(StoreError, match="do not compute alike"):
            write(files, p, shard, change=1.0)
    root, index = load(files)
    assert not root.complete[p.id], "its readers are refused"
    assert pending_shards(files.objects, index.plan, root.passes[p.id]) == [shard]
    write(files, p, shard)
    finalise(files, p.id)
    assert verify_store(files.path).intact


def test_a_new_stores_name_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr("embedcache.store.writer.sync_folder", synced.append)
    path = tmp_path / "cache" / "dataset" / "backbone"
    planned(path)
    assert synced == [path, path.parent, path.parent.parent]


def test_a_holder_that_stood_still_replaces_nothing_after_it_was_taken_for_dead(tmp_path: Path) -> None:
    files, p, shard = planned(tmp_path)
    write(files, p, shard)
    before = {path: path.read_bytes() for path in files.path.rglob("*") if path.is_file()}
    with exclusive(files.leases, "it") as lock:
        guarded = StoreFiles(files.path, lock.check)
        claim = json.loads((files.leases / "lock-00000001.json").read_text())
        (files.leases / "lock-00000002.json").write_text(json.dumps({**claim, "host": "elsewhere/boot"}))
        with pytest.raises(StoreBusyError, match="taken over by process"):
            finalise(guarded, p.id)
    assert before == {path: path.read_bytes() for path in files.path.rglob("*") if path.is_file()}
    assert not np.any([f.name.startswith("tmp") for f in files.path.iterdir()])


def test_a_living_holder_without_a_sign_of_life_is_named_and_not_robbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedcache.store.locks.TIME_TO_LIVE_SECONDS", 0.5)
    claim = {"host": this_host(), "pid": os.getpid(), "process_start": process_start(os.getpid()), "beat": 7}
    (tmp_path / "lock-00000041.json").write_text(json.dumps(claim))
    heard: list[str] = []
    with (
        pytest.raises(StoreBusyError, match=f"process {os.getpid()} on host .* no sign of life"),
        exclusive(tmp_path, "store x", wait=True, notify=heard.append),
    ):
        pass
    assert heard == [f"waiting for process {os.getpid()} on host {this_host().split('/')[0]}, which holds store x"]
