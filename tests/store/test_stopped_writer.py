"""A writer that is stopped before any one of its puts leaves a store that opens, and that the same steps complete."""

from pathlib import Path

import pytest

from embedcache.store.objects import Objects
from embedcache.store.reader import open_root, read_index
from embedcache.store.verify import verify_store
from embedcache.store.writer import (
    StoreFiles,
    add_pass,
    commit_shard,
    create_store,
    finalise,
    load,
    new_root,
    write_shard,
)
from embedcache.testing.stores import default_arrays, differences, make_pass_of, make_plan, make_recipe, token_values
from embedcache.types import ArraySpec, Commit, DatasetInfo, Quarantined

PLAN = make_plan([1, 3, 1, 6, 2], quantum=4)
PASSES = (make_pass_of(default_arrays(), 4, 4), make_pass_of((ArraySpec(1, "cls_token", "float16", (8,)),), 4, 2))


class Stopped(Exception):
    pass


def write(path: Path) -> None:
    """All that a run does to a store, beginning from whatever is there; the second pass quarantines a row."""
    files = StoreFiles(path)
    if not (path / "zarr.json").exists():
        info = DatasetInfo("made", public_ids=True)
        create_store(files, new_root(make_recipe(), info, {}, "public", "", PLAN, "0" * 64), PLAN)
    for number, p in enumerate(PASSES):
        root, index = load(files)
        if p.id not in root.passes:
            root = add_pass(files, root, p)
        if root.complete[p.id]:
            continue
        for shard in PLAN.shards(p.rows_per_shard):
            values = {a.path: token_values(a, PLAN.rows)[shard.start : shard.stop] for a in p.arrays}
            bad = tuple(
                Quarantined(r, "decode", "made so") for r in range(shard.start, shard.stop) if number and r == 5
            )
            digests = write_shard(files.objects, p, shard, values)
            commit_shard(
                files.objects, p, Commit(shard.index, (shard.start, shard.stop), bad, 4, "cpu", {}, digests, "", "", "")
            )
        finalise(files, root, index, p)


def test_every_moment_between_two_puts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calm = tmp_path / "calm.zarr"
    real, count = Objects.put, 0

    def counted(self: Objects, name: str, data: bytes) -> None:
        nonlocal count
        count += 1
        real(self, name, data)

    monkeypatch.setattr(Objects, "put", counted)
    write(calm)
    assert verify_store(calm).intact
    puts = count
    assert puts > 60

    for stop_at in range(puts):
        count = 0

        def stopping(self: Objects, name: str, data: bytes, stop_at: int = stop_at) -> None:
            nonlocal count
            if count == stop_at:
                raise Stopped
            count += 1
            real(self, name, data)

        path = tmp_path / f"{stop_at}.zarr"
        monkeypatch.setattr(Objects, "put", stopping)
        with pytest.raises(Stopped):
            write(path)
        monkeypatch.setattr(Objects, "put", real)
        if (path / "zarr.json").exists():
            objects = StoreFiles(path).objects
            read_index(objects, open_root(objects))  # what a reader, and a resume, begin with
            damage = [d for d in verify_store(path).damage if "a run was stopped at its end" not in d.reason]
            assert damage == [], stop_at
        write(path)
        assert differences(calm, path) == [], stop_at
        assert verify_store(path).intact
