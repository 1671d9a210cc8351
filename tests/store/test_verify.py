"""`verify`: every flipped byte of a store is found."""

import random
from pathlib import Path

import pytest

from embedcache.errors import StoreError
from embedcache.store.verify import verify_store
from embedcache.testing.stores import make_plan, make_store


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
