"""A writer that is stopped before any one of its puts leaves a store that opens, and that the same steps complete."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embedcache.extraction.rows import longer_plan
from embedcache.store.index import open_root, read_index
from embedcache.store.objects import Objects
from embedcache.store.verify import verify_store
from embedcache.store.writer import (
    StoreFiles,
    add_pass,
    commit_shard,
    create_store,
    extend_store,
    finalise,
    load,
    new_root,
    pending_shards,
    reopen,
    supersede,
    write_shard,
)
from embedcache.testing.stores import default_arrays, differences, make_pass_of, make_plan, make_recipe, token_values
from embedcache.types import ArraySpec, Commit, DatasetInfo, Pass, Quarantined, Samples, strings

PLAN = make_plan([1, 3, 1, 6, 2], quantum=4)
LONGER = longer_plan(
    PLAN,
    Samples(strings(["s1", "s5"]), strings(["p1", "p5"]), strings(["", ""]), strings(["", ""]), np.arange(2), "it"),
    np.array([2, 5]),
)
PASSES = (make_pass_of(default_arrays(), 4, 4), make_pass_of((ArraySpec(1, "cls_token", "float16", (8,)),), 4, 2))


class Stopped(Exception):
    pass


def write(path: Path) -> None:
    """All that can happen to a store, beginning from whatever is there; the second pass quarantines a row.

    It is made, filled by two passes, a sample is superseded, two are added, what that reopens is filled, and at last one
    shard is made again.
    """
    files = StoreFiles(path)
    if not (path / "zarr.json").exists():
        info = DatasetInfo("made", public_ids=True)
        create_store(files, new_root(make_recipe(), info, {}, "public", "", PLAN, "0" * 64), PLAN)
    for p in PASSES:
        root, _ = load(files)
        if p.id not in root.passes:
            add_pass(files, root, p)
        fill(files, p)
    root, index = load(files)
    if not index.superseded.any():
        supersede(files, root, index, np.array([False, True, False, False, False]))
        root, index = load(files)
    if root.rows == PLAN.rows:
        extend_store(files, root, index, LONGER, np.append(index.superseded, [False, False]))
    for p in PASSES:
        fill(files, p)
    done = path.with_suffix(".again")
    if not done.exists():  # as a user who asks for it once
        reopen(files, load(files)[0], {PASSES[0].id: [1]})
        done.touch()
    fill(files, PASSES[0])


def fill(files: StoreFiles, p: Pass) -> None:
    """Write, commit and finalise what is pending."""
    root, index = load(files)
    if root.complete[p.id]:
        return
    for shard in pending_shards(files.objects, index.plan, p):
        values = {a.path: token_values(a, index.plan.rows)[shard.start : shard.stop] for a in p.arrays}
        bad = tuple(
            Quarantined(5, "decode", "made so") for _ in range(p == PASSES[1] and shard.start <= 5 < shard.stop)
        )
        digests = write_shard(files.objects, p, shard, values)
        commit = Commit(shard.index, (shard.start, shard.stop), bad, 4, "cpu", {}, digests, "", "", "")
        commit_shard(files.objects, p, commit)
    finalise(files, p.id)


def every_fourth(puts: int) -> range:
    """A quarter of the moments; the slow test has all."""
    return range(1, puts, 4)


@pytest.mark.parametrize("moments", [every_fourth, pytest.param(range, marks=pytest.mark.slow)])
def test_moments_between_two_puts(
    moments: Callable[[int], range], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # tens of thousands; no power fails here
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
    assert puts > 100

    for stop_at in moments(puts):
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
