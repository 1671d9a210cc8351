"""Every search finds the rows that a sort of exact similarities finds, in that order."""

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.errors import InputError
from embedcache.probes import bounds as bounds_module
from embedcache.probes import by_bound, pair_products
from embedcache.probes.bounds import Bounds, Guess
from embedcache.probes.neighbours import Apart, Members, Nearest, Search, exact, nearest, normalized, rounding

SEARCHES: tuple[Search, ...] = ("auto", "numpy", "faiss", "torch")


@pytest.fixture(params=SEARCHES)
def search(request: pytest.FixtureRequest) -> Search:
    if request.param == "faiss":
        pytest.importorskip("faiss")
    found: Search = request.param
    return found


def spread(n: int, d: int, seed: int = 0, slope: float = 1.5) -> np.ndarray:
    """Unit rows about a common mean, whose spread falls by axis as that of a ViT's tokens does."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, d)) * np.arange(1, d + 1) ** (-slope / 2)
    X[:, 0] += 3
    turn = np.linalg.qr(np.random.default_rng(99).normal(size=(d, d)))[0]
    return normalized((X @ turn).astype(np.float32))


def sorted_all(rows: np.ndarray, queries: np.ndarray, k: int, apart: Apart | None = None) -> Nearest:
    similarity = np.full((len(queries), k), -np.inf, np.float32)
    row = np.full((len(queries), k), -1)
    for i, query in enumerate(queries):
        allowed = np.arange(len(rows)) if apart is None else np.flatnonzero(apart.of_rows != apart.of_queries[i])
        s = exact(rows, allowed, query)
        order = np.lexsort((allowed, -s))[:k]
        similarity[i, : len(order)], row[i, : len(order)] = s[order], allowed[order]
    return Nearest(similarity, row)


def assert_same(found: Nearest, expected: Nearest) -> None:
    np.testing.assert_array_equal(found.row, expected.row)
    np.testing.assert_array_equal(found.similarity, expected.similarity)


def projected(rows: np.ndarray, width: int, seed: int = 0) -> Bounds:
    """Bounds in any orthonormal basis: how good it is decides the time only."""
    d = rows.shape[1]
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0][:, :width]
    return Bounds.projected(rows, rows.mean(axis=0, dtype=np.float64), basis)


def test_each_search_is_a_sort_of_all_rows(search: Search) -> None:
    rows, queries = spread(900, 40), spread(60, 40, seed=1)
    assert_same(nearest(rows, queries, 30, search=search), sorted_all(rows, queries, 30))


def test_similarities_are_those_of_float64(search: Search) -> None:
    rows, queries = spread(300, 40), spread(20, 40, seed=1)
    found = nearest(rows, queries, 300, search=search)
    true = np.take_along_axis(queries.astype(float) @ rows.astype(float).T, found.row, axis=1)
    np.testing.assert_allclose(found.similarity, true, atol=40 * 2**-24)


def drawn(
    random: np.random.Generator, n: int, d: int, grouped: bool, coarse: bool
) -> tuple[np.ndarray, np.ndarray, Apart | None, Members]:
    """n rows and 37 queries; coarse: of few distinct numbers, which make duplicates, ties and rows of zeros."""
    draw = (lambda m: random.integers(-1, 2, (m, d))) if coarse else (lambda m: random.normal(size=(m, d)))
    rows, queries = normalized(draw(n).astype(np.float32)), normalized(draw(37).astype(np.float32))
    apart = Apart(random.integers(0, 4, n), random.integers(-1, 5, 37)) if grouped else None
    return rows, queries, apart, apart.members() if apart else Members.none(37)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 130), st.integers(1, 24), st.integers(1, 40), st.booleans(), st.booleans()
)
def test_any_bounds_and_blocks_find_the_same(seed: int, n: int, d: int, k: int, grouped: bool, coarse: bool) -> None:
    random = np.random.default_rng(seed)
    rows, queries, apart, members = drawn(random, n, d, grouped, coarse)
    k = min(k, n)
    expected = sorted_all(rows, queries, k, apart)
    for bounds in (Bounds.whole(rows), projected(rows, random.integers(1, d + 1), seed)):
        assert_same(by_bound.bounded_nearest(rows, queries, k, members, bounds), expected)
        one_by_one = [
            by_bound.bounded_nearest(rows, queries[i : i + 5], k, members.take(np.arange(i, min(i + 5, 37))), bounds)
            for i in range(0, 37, 5)
        ]
        assert_same(
            Nearest(np.concatenate([b.similarity for b in one_by_one]), np.concatenate([b.row for b in one_by_one])),
            expected,
        )
    if importlib.util.find_spec("faiss") is not None:
        assert_same(nearest(rows, queries, k, apart, "faiss"), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(1, 40), st.booleans(), st.booleans())
def test_any_guess_tile_and_room_find_the_same(seed: int, n: int, k: int, grouped: bool, coarse: bool) -> None:
    random = np.random.default_rng(seed)
    d = int(random.integers(2, 24))
    rows, queries, apart, members = drawn(random, n, d, grouped, coarse)
    k = min(k, n)
    expected = sorted_all(rows, queries, k, apart)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_bound, "_FEW_ROWS", 0)
        patch.setattr(by_bound, "_TILE", int(random.integers(1, 200)))
        patch.setattr(by_bound, "_QUERIES", int(random.integers(1, 40)))
        patch.setattr(by_bound, "_HELD", int(random.integers(1, 400)))
        guesses = (Guess(int(random.integers(1, 9)), random.normal()), Guess(2, 2 * random.normal()))
        patch.setattr(by_bound, "GUESSES", guesses)
        for bounds in (Bounds.whole(rows), projected(rows, random.integers(1, d + 1), seed)):
            assert_same(by_bound.bounded_nearest(rows, queries, k, members, bounds), expected)


def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queries each look at the rows was asked for."""
    asked: list[int] = []
    fill = by_bound._Search.fill

    def spy(self: Any, some: np.ndarray) -> np.ndarray:
        asked.append(len(some))
        return fill(self, some)

    monkeypatch.setattr(by_bound._Search, "fill", spy)
    return asked


def test_a_guess_that_is_too_high_costs_another_search_and_no_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, queries = spread(6000, 64), spread(200, 64, seed=1)
    expected = sorted_all(rows, queries, 50)
    asked = searches(monkeypatch)
    assert_same(by_bound.bounded_nearest(rows, queries, 50, Members.none(200), Bounds.whole(rows)), expected)
    assert asked[0] == 200
    assert sum(asked) < 220
    asked.clear()
    monkeypatch.setattr(by_bound, "GUESSES", (Guess(16, -1.0), Guess(16, 0.0)))
    assert_same(by_bound.bounded_nearest(rows, queries, 50, Members.none(200), Bounds.whole(rows)), expected)
    assert asked[0] == 200
    assert 150 < asked[1] < 200
    assert 20 < asked[2] < 180


def test_most_rows_are_ruled_out_by_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, queries = spread(6000, 256, slope=2.5), spread(100, 256, seed=1, slope=2.5)
    compared = {"pairs": 0, "exact": 0}
    plain_exact, plain_pairs = by_bound.exact, pair_products.pair_products

    def count_exact(rows: np.ndarray, chosen: np.ndarray, query: np.ndarray) -> np.ndarray:
        compared["exact"] += len(chosen)
        return plain_exact(rows, chosen, query)

    def count_pairs() -> pair_products.PairProducts:
        products = plain_pairs()

        def counting(rows: np.ndarray, row: np.ndarray, queries: np.ndarray, query: np.ndarray) -> np.ndarray:
            compared["pairs"] += len(row)
            return products(rows, row, queries, query)

        return counting

    monkeypatch.setattr(by_bound, "exact", count_exact)
    monkeypatch.setattr(by_bound, "pair_products", count_pairs)
    chosen = bounds_module.choose_bounds(rows, np.tile(queries, (30, 1)), 20)
    assert chosen.basis is not None
    by_bound.bounded_nearest(rows, queries, 20, Members.none(100), chosen)
    assert 20 * 100 <= compared["exact"] < 22 * 100  # those that rounding leaves open, beside the nearest
    assert compared["pairs"] < 200 * 100  # of 6,000 a query


@pytest.mark.parametrize("by", ["faiss", "numpy"])
def test_products_of_pairs_are_those_of_float64(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "faiss":
        pytest.importorskip("faiss")
    else:
        monkeypatch.setitem(sys.modules, "faiss", None)
        monkeypatch.setattr(pair_products, "_COPIED", 500)
    rows, queries = spread(300, 70), spread(40, 70, seed=1)
    random = np.random.default_rng(0)
    row, query = random.integers(0, 300, 2000), random.integers(0, 40, 2000)
    products = pair_products.pair_products()(rows, row, queries, query)
    true = (rows[row].astype(float) * queries[query]).sum(axis=1)
    assert products.dtype == np.float32
    np.testing.assert_allclose(products, true, atol=rounding(70))
    assert len(pair_products.pair_products()(rows, row[:0], queries, query[:0])) == 0


def test_without_faiss_bounds_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, queries = spread(5000, 64), spread(60, 64, seed=1)
    monkeypatch.setitem(sys.modules, "faiss", None)
    found = by_bound.bounded_nearest(rows, queries, 30, Members.none(60), projected(rows, 20))
    assert_same(found, sorted_all(rows, queries, 30))


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.5])
def test_no_similarity_is_above_its_bound(slope: float) -> None:
    rows, queries = spread(500, 96, slope=slope), spread(40, 96, seed=1, slope=slope)
    similarity = np.array([exact(rows, np.arange(500), q) for q in queries])
    for bounds in (Bounds.whole(rows), *(projected(rows, w) for w in (1, 20, 95, 96))):
        left, shift, slack = bounds.of(queries)
        upper = (left @ bounds.right.T).astype(float) + (shift + slack)[:, None]
        assert (upper >= similarity).all()
    # With all axes nothing is left over, and the bound is the similarity itself.
    np.testing.assert_allclose(upper, similarity, atol=1e-3)


def test_bounds_of_fewer_axes_are_read_off_those_of_more() -> None:
    rows, queries = spread(300, 96), spread(20, 96, seed=1)
    wide, narrow = projected(rows, 60), projected(rows, 20)
    left, *_ = wide.of(queries)
    np.testing.assert_allclose(bounds_module._narrowed(wide.right, 20), narrow.right, atol=1e-6)
    np.testing.assert_allclose(bounds_module._narrowed(left, 20), narrow.of(queries)[0], atol=1e-6)


def test_a_projection_is_chosen_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds_module, "_SMALL", 0)
    rows, queries = spread(6000, 256, slope=2.5), spread(3000, 256, seed=1, slope=2.5)
    assert bounds_module.choose_bounds(rows, queries, 20).basis is not None
    assert bounds_module.choose_bounds(rows, queries[:1], 20).basis is None  # one query never pays for it
    flat, flat_queries = spread(6000, 256, slope=0), spread(3000, 256, seed=1, slope=0)
    assert bounds_module.choose_bounds(flat, flat_queries, 20).basis is None
    # Then FAISS, or the whole product, finds the same.
    assert_same(nearest(flat, flat_queries[:200], 20), nearest(flat, flat_queries[:200], 20, search="numpy"))


def test_a_chosen_projection_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, queries = spread(6000, 256, slope=2.5), spread(3000, 256, seed=1, slope=2.5)
    plain = nearest(rows, queries, 20, search="numpy")
    monkeypatch.setattr(bounds_module, "_SMALL", 0)
    seen: list[int] = []
    search = by_bound.bounded_nearest

    def spy(*given: Any) -> Nearest:
        seen.append(given[-1].right.shape[1])
        return search(*given)

    monkeypatch.setattr(by_bound, "bounded_nearest", spy)
    assert_same(nearest(rows, queries, 20), plain)
    assert seen[0] < 256


def test_equal_rows_are_ordered_by_number(search: Search) -> None:
    rows = np.repeat(spread(3, 8), 50, axis=0)[np.random.default_rng(0).permutation(150)]
    found = nearest(rows, rows[:1], 60, search=search)
    twins = np.flatnonzero((rows == rows[0]).all(axis=1))
    np.testing.assert_array_equal(found.row[0, :50], twins)
    assert_same(found, sorted_all(rows, rows[:1], 60))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_rows_and_rows_of_zeros(search: Search, value: float) -> None:
    rows = normalized(np.full((5000, 6), value, dtype=np.float32))
    found = nearest(rows, rows[:3], 7, search=search)
    np.testing.assert_array_equal(found.row, np.tile(np.arange(7), (3, 1)))


def test_a_group_of_many_rows_is_left_out(search: Search) -> None:
    rows = spread(500, 16)
    group = np.where(np.arange(500) < 400, 0, np.arange(500))
    assert_same(nearest(rows, rows, 40, Apart(group, group), search), sorted_all(rows, rows, 40, Apart(group, group)))
    short = nearest(rows, rows[:1], 200, Apart(group, group[:1]), search)
    assert (short.row[0, :100] >= 400).all()
    assert (short.row[0, 100:] == -1).all()
    assert np.isneginf(short.similarity[0, 100:]).all()


def test_features_that_are_not_finite_are_named() -> None:
    X = np.ones((4, 3), dtype=np.float32)
    X[2, 1] = np.nan
    with pytest.raises(InputError, match="row 2"):
        normalized(X)


def test_half_floats_keep_their_length() -> None:
    X = (np.random.default_rng(0).normal(size=(5, 300)) * 300).astype(np.float16)
    np.testing.assert_allclose(np.linalg.norm(normalized(X), axis=1), 1, rtol=1e-6)


def test_a_gpu_that_is_not_there_is_one_clear_line() -> None:
    faiss = pytest.importorskip("faiss")
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this FAISS has GPU support")
    with pytest.raises(InputError, match="faiss-gpu"):
        nearest(spread(5, 4), spread(5, 4), 1, device="cuda")
