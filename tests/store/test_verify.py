"""`verify`: every flipped byte of a store is found."""

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedcache.errors import StoreError
from embedcache.store.encoding import decode_strings, encode_strings
from embedcache.store.fingerprint import sha256
from embedcache.store.index import encode_manifest, read_manifest
from embedcache.store.labels import write_labels
from embedcache.store.lost_rows import LOST
from embedcache.store.reader import FeatureCache
from embedcache.store.verify import verify_labels, verify_store
from embedcache.store.writer import StoreFiles, encode_numeric, load, reopen, supersede
from embedcache.testing.stores import make_plan, make_recipe, make_store, token_values
from embedcache.types import ArraySpec, Labels, strings

from .test_stopped_writer import write


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("v") / "x.zarr"
    make_store(path, make_plan([1, 3, 1, 6, 2], quantum=4), rows_per_shard=4, quarantined=(5,))
    return path


def test_an_intact_store_is_intact_and_everything_in_it_is_vouched_for(store: Path) -> None:
    report = verify_store(store)
    assert report.intact
    assert report.junk == ()
    assert report.objects == sum(p.is_file() for p in store.rglob("*"))
    assert report.bytes >= sum(p.stat().st_size for p in store.rglob("*") if p.is_file())


@pytest.mark.parametrize("seed", range(60))
def test_a_flipped_byte_anywhere_is_found(store: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = rng.choice(sorted(p for p in store.rglob("*") if p.is_file()))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    path.write_bytes(flipped)
    found = damaged_objects(store)
    path.write_bytes(whole)
    assert path.relative_to(store).as_posix() in found or "" in found
    assert verify_store(store).intact


def damaged_objects(store: Path) -> set[str]:
    """Names of damaged objects; "" where no more can be said, since what leads to the objects is itself damaged."""
    try:
        return {d.object for d in verify_store(store).damage}
    except StoreError:
        return {"zarr.json"}


def test_missing_and_foreign_objects_are_told_apart(store: Path) -> None:
    shard = store / "layer_2" / "patch_tokens" / "c" / "1" / "0" / "0" / "0"
    whole = shard.read_bytes()
    shard.unlink()
    (store / "layer_2" / "notes.txt").write_text("mine")
    try:
        report = verify_store(store)
    finally:
        shard.write_bytes(whole)
        (store / "layer_2" / "notes.txt").unlink()
    (damage,) = report.damage
    assert (damage.array, damage.shard, damage.rows, damage.reason) == ("layer_2/patch_tokens", 1, (4, 8), "is missing")
    assert report.junk == ("layer_2/notes.txt",)


def test_an_uncommitted_shard_is_junk_and_pending(tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    make_store(path, make_plan([1] * 8, quantum=8), rows_per_shard=4, skip_shards=(1,), finish=False)
    torn = path / "layer_2" / "cls_token" / "c" / "1" / "0"
    torn.parent.mkdir()
    torn.write_bytes(b"")  # as a killed writer leaves it
    report = verify_store(path)
    assert report.intact
    assert (report.pending, report.junk) == (1, ("layer_2/cls_token/c/1/0",))


def test_a_damaged_root_is_named_and_all_else_is_still_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    make_store(path, make_plan([1] * 8, quantum=8), rows_per_shard=4)
    flip_at(path / "layer_2" / "cls_token" / "c" / "1" / "0", 5)
    for damage in (b"{", (path / "zarr.json").read_bytes().replace(b'"version":1', b'"version":3')):
        (path / "zarr.json").write_bytes(damage)
        assert [d.object for d in verify_store(path).damage] == ["zarr.json", "layer_2/cls_token/c/1/0"]


def flip_at(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_of_patch_tokens_the_rows_are_named(tmp_path: Path) -> None:
    """A row is 2 x 2 x 8 float16 and a checksum, 68 bytes, and 8 rows are a shard."""
    path = tmp_path / "x.zarr"
    make_store(path, make_plan([1] * 16, quantum=16), rows_per_shard=8)
    shard = path / "layer_2" / "patch_tokens" / "c" / "1" / "0" / "0" / "0"
    whole = shard.read_bytes()
    for row in (2, 3, 6):
        flip_at(shard, row * 68 + 20)
    assert [d.rows for d in verify_store(path).damage] == [(10, 12), (14, 15)]
    shard.write_bytes(whole)
    flip_at(shard, 7 * 68 + 66)  # the checksum itself
    assert [d.rows for d in verify_store(path).damage] == [(15, 16)]
    shard.write_bytes(whole)
    flip_at(shard, 8 * 68 + 3)  # the index: no row can be read
    assert [d.rows for d in verify_store(path).damage] == [(8, 16)]
    shard.write_bytes(whole[:-1])
    assert [d.rows for d in verify_store(path).damage] == [(8, 16)]


def test_bytes_that_say_the_same_are_damage_too(store: Path) -> None:
    """A seal is over what is said; an object must be what was written."""
    path = next(p for p in store.glob("commits_*/c/0"))
    whole = path.read_bytes()
    text = decode_strings(whole, "commit")[0]
    path.write_bytes(encode_strings([text.replace('"shard"', '"\\u0073hard"')]))
    found = verify_store(store).damage
    path.write_bytes(whole)
    assert [d.object for d in found] == [path.relative_to(store).as_posix()]
    assert "in other bytes" in found[0].reason


def test_superseded_extended_and_reopened_stores_are_intact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    path = tmp_path / "x.zarr"
    write(path)
    assert verify_store(path).intact
    files = StoreFiles(path)
    root = load(files)[0]
    reopen(files, root, {name: [0, 1] for name in root.passes})
    report = verify_store(path)
    assert report.intact
    assert report.pending == 4
    assert {name.split("/")[0] for name in report.junk} == {"layer_1", "layer_2"}, "of shards that are pending again"


def test_row_status_is_held_against_the_commits(store: Path, tmp_path: Path) -> None:
    """As a forger, or a bug, would leave it: sealed, and not what the commits say."""
    path = Path(shutil.copytree(store, tmp_path / "x.zarr"))
    files = StoreFiles(path)
    index = load(files)[1]
    status = index.row_status.copy()
    assert status[5] == 2
    status[5] = 1
    (data,) = encode_numeric("row_status", status).values()
    (path / "row_status" / "c" / "0").write_bytes(data)
    manifest = read_manifest(files.objects)
    manifest["objects"]["row_status/c/0"] = sha256(data)
    for copy in range(2):
        (path / "manifest" / "c" / str(copy)).write_bytes(encode_manifest(manifest))
    (damage,) = verify_store(path).damage
    assert (damage.array, damage.rows) == ("row_status", (5, 6))
    with pytest.raises(StoreError, match="takes rows for good that pass"):
        FeatureCache.open(path).features("cls")


def test_labels(tmp_path: Path) -> None:
    assert verify_labels(tmp_path) == ()
    blank = strings([""])
    labels = Labels(
        (), blank, strings(["s0"]), strings(["p0"]), np.array([-1], np.int32), blank, np.array([np.nan]), blank
    )
    write_labels(tmp_path, labels)
    assert verify_labels(tmp_path) == ()
    rng = random.Random(0)
    for name in ("labels.parquet", "labels.sha256"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(100 if name.endswith("sha256") else 20):
            flipped = bytearray(whole)
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            (tmp_path / name).write_bytes(flipped)
            (damage,) = verify_labels(tmp_path)
            assert damage.object in ("labels.parquet", "labels.sha256")
        (tmp_path / name).unlink()
        assert [d.object for d in verify_labels(tmp_path)] == [name]
        (tmp_path / name).write_bytes(whole)
    assert verify_labels(tmp_path) == ()
    # as a writer leaves it that is stopped between the two renames
    (tmp_path / "labels.sha256").write_bytes(b"0" * 64 + b"  labels.parquet\n" + whole)
    assert verify_labels(tmp_path) == ()


def test_good_rows_that_are_zero_everywhere_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.store.lost_rows.BEGINNING_BYTES", 8)

    def values(zeros: dict[str, list[int]]) -> Callable[[ArraySpec, int], np.ndarray]:
        def of(spec: ArraySpec, rows: int) -> np.ndarray:
            found = token_values(spec, rows)
            found[zeros[spec.kind]] = 0
            found[7].flat[:-1] = 0
            return found

        return of

    plan = make_plan([1, 3, 1, 6, 2], quantum=4)
    zeros = {"cls_token": [1, 4, 5, 6, 7], "patch_mean": [2, 5, 6, 7], "patch_tokens": [1, 5, 6]}
    make_store(tmp_path / "x.zarr", plan, rows_per_shard=4, quarantined=(5,), values=values(zeros))
    (found,) = verify_store(tmp_path / "x.zarr").damage
    assert (found.shard, found.rows, found.reason) == (1, (6, 7), LOST), (
        "a row of which an array holds something is whole"
    )
    pixels = replace(make_recipe(), model=replace(make_recipe().model, family="pixels"))
    make_store(tmp_path / "p.zarr", plan, rows_per_shard=4, values=values(zeros), recipe=pixels)
    assert verify_store(tmp_path / "p.zarr").intact, "a black image's pixels are zero"
    make_store(tmp_path / "old.zarr", plan, rows_per_shard=4, values=values(zeros))
    files = StoreFiles(tmp_path / "old.zarr")
    root, index = load(files)
    supersede(files, root, index, np.asarray([False, False, False, True, False]))
    assert verify_store(files.path).intact, "nobody reads what was superseded"
