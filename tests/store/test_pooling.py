"""Pooling, against loops over the slices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.errors import EmbedcacheError
from embedcache.store.pooling import Pooling, pool_slices

EXACT = ("max", "top-1", "top-3", "top-99")
"""Other slices first gives the same bits."""
WAYS = ("mean", "mean+max", "middle", "middle-2", "middle-3", "middle-99", *EXACT)


def runs(counts: list[int], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X = np.random.default_rng(seed).normal(size=(sum(counts), 3)).astype(np.float32)
    count = np.asarray(counts)
    return X, np.cumsum(count) - count, count


def literally(block: np.ndarray, way: str) -> np.ndarray:
    """One run, by the definition."""
    name, _, number = way.partition("-")
    n = len(block)
    if name == "mean+max":
        return np.concatenate([block.mean(axis=0), block.max(axis=0)])
    if name == "middle":
        wanted = min(int(number or 1), n)
        start = n // 2 - wanted // 2
        return block[start : start + wanted].mean(axis=0)
    if name == "top":
        return np.array([np.sort(column)[-int(number) :].mean() for column in block.T])
    return block.mean(axis=0) if name == "mean" else block.max(axis=0)


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(1, 7), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_every_way_equals_a_loop(counts: list[int], seed: int) -> None:
    X, first, count = runs(counts, seed)
    given_X = X.copy()
    for way in WAYS:
        pooled = pool_slices(X, first, count, Pooling.parse(way))
        expected = [literally(block, way) for block in np.split(X, first[1:])]
        np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6, err_msg=way)
        assert pooled.dtype == np.float32
    np.testing.assert_array_equal(X, given_X)


def test_blocks_of_runs_are_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    X, first, count = runs([4] * 9 + [2] * 5 + [1], 0)
    whole = {way: pool_slices(X, first, count, Pooling.parse(way)) for way in ("top-2", "middle-3")}
    monkeypatch.setattr("embedcache.store.pooling._BLOCK_VALUES", 25)
    for way, expected in whole.items():
        np.testing.assert_array_equal(pool_slices(X, first, count, Pooling.parse(way)), expected)


@pytest.mark.parametrize("way", [way for way in WAYS if not way.startswith("middle")])
def test_the_order_of_slices_changes_nothing(way: str) -> None:
    X, first, count = runs([5, 1, 8, 3], 1)
    order = np.random.default_rng(2)
    turned = np.concatenate([order.permutation(block) for block in np.split(X, first[1:])])
    pooled, again = (pool_slices(Y, first, count, Pooling.parse(way)) for Y in (X, turned))
    if way in EXACT:
        np.testing.assert_array_equal(pooled, again)
    np.testing.assert_allclose(pooled, again, rtol=1e-5, atol=1e-6)


def test_the_middle_is_where_the_order_says() -> None:
    X, first, count = runs([5], 1)
    assert not np.array_equal(
        *(pool_slices(Y, first, count, Pooling.parse("middle")) for Y in (X, np.roll(X, 1, axis=0)))
    )


@pytest.mark.parametrize("way", WAYS)
def test_one_slice_is_not_pooled(way: str) -> None:
    X, first, count = runs([1, 1, 1], 0)
    pooled = pool_slices(X, first, count, Pooling.parse(way))
    np.testing.assert_array_equal(pooled, np.concatenate([X, X], axis=1) if way == "mean+max" else X)
    mixed = pool_slices(*runs([1, 4], 0), Pooling.parse(way))
    np.testing.assert_array_equal(mixed[0, :3], runs([1, 4], 0)[0][0])


@pytest.mark.parametrize(
    ("text", "says"),
    [("meen", "did you mean 'mean'"), ("top-0", "takes no slice"), ("middle-", "middle-N"), ("top--1", "top-K")],
)
def test_what_is_no_pooling_is_said(text: str, says: str) -> None:
    with pytest.raises(EmbedcacheError, match=says):
        Pooling.parse(text)


@pytest.mark.parametrize(
    ("way", "width"), [("mean", 1), ("max", 1), ("middle", 1), ("top-3", 1), ("mean+max", 2), ("bags", 1)]
)
def test_only_mean_and_max_are_side_by_side(way: str, width: int) -> None:
    assert Pooling.parse(way).width == width
