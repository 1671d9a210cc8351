"""Rows that are read while something else is settled: the same rows, each byte read once, and nothing after the end."""

from pathlib import Path
from threading import Event

import numpy as np
import pytest

from embedcache.errors import StoreError
from embedcache.store import tokens
from embedcache.store.ahead import ReadAhead
from embedcache.store.reader import FeatureCache
from embedcache.testing.stores import default_arrays, make_plan, make_store
from embedcache.types import ArraySpec

ROWS = 40


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shard objects that are read, in order."""
    names: list[str] = []
    inner = tokens.read_chunks

    def read(objects, name, form, chunks, parts):
        names.append(name)
        inner(objects, name, form, chunks, parts)

    monkeypatch.setattr(tokens, "read_chunks", read)
    return names


def store(path: Path, quarantined: tuple[int, ...] = (), dtype: str = "float16") -> FeatureCache:
    arrays = tuple(ArraySpec(s.layer, s.kind, dtype, s.shape) for s in default_arrays())
    make_store(path, make_plan([1] * ROWS), arrays, rows_per_shard=8, quarantined=quarantined)
    return FeatureCache.open(path)


@pytest.mark.parametrize("kinds", ["cls", "cls+mean"])
@pytest.mark.parametrize("quarantined", [(), (3, 17)])
def test_rows_that_were_read_ahead_are_the_same(
    tmp_path: Path, kinds: str, quarantined: tuple[int, ...], reads: list[str]
) -> None:
    cache = store(tmp_path / "x.zarr", quarantined)
    expected = cache.features(kinds)
    once = len(reads)
    with ReadAhead() as ahead:
        ahead.start(cache, kinds, None)
        found = cache.features(kinds, as_stored=True, ahead=ahead)
        again = cache.features(kinds, as_stored=True, ahead=ahead)  # they are taken once
    assert found.X.dtype == again.X.dtype == np.float16
    assert expected.X.dtype == np.float32
    np.testing.assert_array_equal(found.X, expected.X)
    np.testing.assert_array_equal(again.X, expected.X)
    assert found.sample_id.tolist() == expected.sample_id.tolist()
    assert len(reads) == 3 * once


def test_other_rows_than_those_begun_are_read_by_whoever_asks(tmp_path: Path, reads: list[str]) -> None:
    cache = store(tmp_path / "x.zarr")
    with ReadAhead() as ahead:
        ahead.start(cache, "cls", None)
        found = cache.features("mean", as_stored=True, ahead=ahead)
    np.testing.assert_array_equal(found.X, cache.features("mean").X)


def test_float32_is_not_begun(tmp_path: Path, reads: list[str]) -> None:
    cache = store(tmp_path / "x.zarr", dtype="float32")
    with ReadAhead() as ahead:
        ahead.start(cache, "cls", None)
        assert ahead.take([cache.tokens(2, "cls_token")]) is None
    assert not reads


def test_slices_that_are_averaged_are_float32_whatever_is_asked(tmp_path: Path) -> None:
    make_store(tmp_path / "x.zarr", make_plan([2] * 10), rows_per_shard=8)
    cache = FeatureCache.open(tmp_path / "x.zarr")
    assert cache.features("cls", as_stored=True).X.dtype == np.float32
    apart = cache.features("cls", pool=None, as_stored=True)
    assert apart.X.dtype == np.float16
    np.testing.assert_array_equal(apart.X, cache.features("cls", pool=None).X)


def test_who_leaves_early_reads_no_further_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = store(tmp_path / "x.zarr")
    begun, go = Event(), Event()
    names = []
    inner = tokens.read_chunks

    def slow(objects, name, form, chunks, parts):
        names.append(name)
        begun.set()
        assert go.wait(30)
        inner(objects, name, form, chunks, parts)

    monkeypatch.setattr(tokens, "read_chunks", slow)
    ahead = ReadAhead()
    with ahead:
        ahead.start(cache, "cls", None)
        assert begun.wait(30)
        ahead.drop()
        go.set()
    assert len(names) == 1  # of five


def test_a_damaged_shard_is_said_to_who_takes_the_rows(tmp_path: Path) -> None:
    cache = store(tmp_path / "x.zarr")
    shard = sorted((tmp_path / "x.zarr" / "layer_2" / "cls_token" / "c").rglob("2*"))[0]
    while shard.is_dir():
        shard = next(shard.iterdir())
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    with ReadAhead() as ahead:
        ahead.start(cache, "cls", None)
        with pytest.raises(StoreError, match="fails its checksum"):
            cache.features("cls", as_stored=True, ahead=ahead)
    with ReadAhead() as ahead:  # and nobody else
        ahead.start(cache, "cls", None)
