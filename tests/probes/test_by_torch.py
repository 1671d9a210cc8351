"""Products by torch, here on the CPU, and exact comparisons of what they propose: the search that a GPU takes."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.errors import InputError
from embedcache.probes import by_faiss, by_torch, neighbours, proposed
from embedcache.probes.knn import NearestNeighbourProbe
from embedcache.probes.neighbours import Apart, Members, Nearest, Rows, nearest, normalized, searched_by
from embedcache.probes.proposed import Proposer, proposed_nearest


def made(n: int, d: int, seed: int = 0) -> Rows:
    return normalized(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def assert_same(found: Nearest, expected: Nearest) -> None:
    np.testing.assert_array_equal(found.row, expected.row)
    np.testing.assert_array_equal(found.similarity, expected.similarity)


def of_torch(rows: Rows, queries: Rows, k: int, apart: Apart | None = None) -> Nearest:
    return nearest(rows, queries, k, apart, "torch")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queries each search without proposals was asked for."""
    asked: list[int] = []

    def spy(rows: Rows, queries: Rows, *more: Any) -> Nearest:
        asked.append(len(queries))
        return search(rows, queries, *more)

    search = proposed.bounded_nearest
    monkeypatch.setattr(proposed, "bounded_nearest", spy)
    return asked


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(1, 24), st.integers(1, 40), st.booleans())
def test_any_blocks_find_what_bounds_find(seed: int, n: int, d: int, k: int, grouped: bool) -> None:
    random = np.random.default_rng(seed)
    # Few distinct numbers make duplicates, ties and rows of zeros.
    rows = normalized(random.integers(-1, 2, (n, d)).astype(np.float32))
    queries = normalized(random.integers(-1, 2, (37, d)).astype(np.float32))
    apart = Apart(random.integers(0, 4, n), random.integers(-1, 5, 37)) if grouped else None
    expected = nearest(rows, queries, k, apart, "numpy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proposed, "_SPARE", (2, 30))
        patch.setattr(proposed, "_QUERIES", int(random.integers(1, 40)))
        patch.setattr(proposed, "_DECIDED", int(random.integers(1, 200)))
        patch.setattr(by_torch, "_ROOM", int(random.integers(4, 4000)))
        assert_same(of_torch(rows, queries, k, apart), expected)


def test_what_rounding_leaves_open_is_searched_again_with_more_rows(opened: list[int]) -> None:
    rows = np.repeat(made(30, 16), 200, axis=0)[np.random.default_rng(1).permutation(6000)]
    # 200 equal rows end behind the 64 spare ones, and not behind the 1,024.
    assert_same(of_torch(rows, rows[:50], 100), nearest(rows, rows[:50], 100, search="numpy"))
    assert opened == []


def test_what_stays_open_is_searched_without_proposals(opened: list[int]) -> None:
    rows = np.concatenate([np.repeat(made(1, 16), 3000, axis=0), made(2000, 16, seed=1)])
    queries = np.concatenate([rows[:3], made(20, 16, seed=2)])
    assert_same(of_torch(rows, queries, 20), nearest(rows, queries, 20, search="numpy"))
    assert len(opened) == 1
    assert 3 <= opened[0] < 23


def test_a_proposer_that_errs_by_all_that_rounding_allows_changes_nothing(opened: list[int]) -> None:
    rows, queries = made(4000, 64), made(30, 64, seed=1)
    random = np.random.default_rng(2)
    slack = neighbours.rounding(64)

    def launch(some: Rows, fetch: int) -> Any:
        products = some.astype(np.float64) @ rows.T.astype(np.float64)
        products += np.where(random.random(products.shape) < 0.5, -slack, slack)
        row = np.argpartition(products, len(rows) - fetch, axis=1)[:, len(rows) - fetch :]
        return lambda: (np.take_along_axis(products, row, 1).astype(np.float32), row)

    found = proposed_nearest(rows, queries, 50, Members.none(30), Proposer(launch))
    assert_same(found, nearest(rows, queries, 50, search="numpy"))
    assert opened == []


def test_more_neighbours_than_can_be_proposed(opened: list[int]) -> None:
    rows, queries = made(3000, 16), made(40, 16, seed=1)
    group = np.where(np.arange(3000) < 1000, 0, np.arange(3000))
    of_queries = np.where(np.arange(40) < 20, 0, -1)
    apart = Apart(group, of_queries)
    launch = by_torch._Products(rows, "cpu").launch
    for k in (100, 900):
        found = proposed_nearest(rows, queries, k, apart.members(), Proposer(launch, 512))
        assert_same(found, nearest(rows, queries, k, apart, "numpy"))
    assert opened[-1] == 40


def test_the_next_products_are_under_way_before_these_are_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposed, "_QUERIES", 10)
    rows, queries = made(500, 16), made(35, 16, seed=1)
    launch, done = by_torch._Products(rows, "cpu").launch, []

    def told(some: Rows, fetch: int) -> Any:
        done.append("launch")
        wait = launch(some, fetch)

        def waited() -> Any:
            done.append("wait")
            return wait()

        return waited

    proposed_nearest(rows, queries, 5, Members.none(35), Proposer(told))
    assert done == ["launch", "launch", "wait", "launch", "wait", "launch", "wait", "wait"]


def test_a_device_that_does_not_hold_all_rows_takes_them_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, queries = made(3000, 16), made(40, 16, seed=1)
    monkeypatch.setattr(by_torch, "_ROOM", 2**16)
    monkeypatch.setattr(proposed, "_QUERIES", 16)
    moved: list[int] = []
    move = by_torch._moved

    def small(values: Rows, device: torch.device) -> torch.Tensor:
        if len(values) > 1024:
            raise torch.OutOfMemoryError("no room")
        moved.append(len(values))
        return move(values, device)

    monkeypatch.setattr(by_torch, "_moved", small)
    assert_same(of_torch(rows, queries, 30), nearest(rows, queries, 30, search="numpy"))
    # The first queries twice, before and after the failure; then the rows anew for each block of queries.
    assert moved == [16, 16, 1024, 1024, 952, 16, 1024, 1024, 952, 8, 1024, 1024, 952]


def test_products_take_less_room_before_a_search_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, queries = made(3000, 16), made(40, 16, seed=1)
    monkeypatch.setattr(by_torch, "_ROOM", 2**18)
    monkeypatch.setattr(by_torch, "_LEAST_ROOM", 2**12)
    multiply, most = torch.mm, 5000

    def small(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if left.shape[0] * right.shape[1] > most:
            raise torch.OutOfMemoryError("no room")
        return multiply(left, right)

    monkeypatch.setattr(torch, "mm", small)
    assert_same(of_torch(rows, queries, 30), nearest(rows, queries, 30, search="numpy"))
    most = 1
    with pytest.raises(InputError, match="has no room even for"):
        of_torch(rows, queries, 30)


def test_products_are_of_whole_float32_and_what_was_set_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = made(300, 16)
    multiply, seen = torch.mm, []

    def told(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if left.shape == (5, 16):
            seen.append((torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32))
        return multiply(left, right)

    monkeypatch.setattr(torch, "mm", told)
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("medium", "high", "highest"):
            torch.set_float32_matmul_precision(precision)
            set_by_user = torch.backends.cuda.matmul.allow_tf32
            of_torch(rows, rows[:5], 3)
            assert torch.get_float32_matmul_precision() == precision
            assert torch.backends.cuda.matmul.allow_tf32 == set_by_user
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == [("highest", False)] * 3


def test_rows_that_can_not_be_written_are_taken() -> None:
    rows = made(300, 16)
    rows.setflags(write=False)
    assert_same(of_torch(rows, rows[:5], 3), nearest(rows, rows[:5], 3, search="numpy"))


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "mps", ""])
def test_what_is_no_device(device: str) -> None:
    with pytest.raises(InputError, match=r"cpu, cuda or cuda:N\. Got"):
        NearestNeighbourProbe(device=device)


def test_who_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert searched_by("auto", "cpu") == searched_by("numpy", "cpu") == "numpy"
    assert searched_by("torch", "cpu") == "torch"
    assert searched_by("faiss", "cuda:1") == "faiss"
    with pytest.raises(InputError, match="search=numpy works on the CPU, not on device=cuda"):
        searched_by("numpy", "cuda")
    for faiss, torch_too, by in ((True, True, "faiss"), (True, False, "faiss"), (False, True, "torch")):
        monkeypatch.setattr(by_faiss, "faiss_has", lambda device, there=faiss: there)
        monkeypatch.setattr(by_torch, "torch_lacks", lambda device, there=torch_too: "" if there else "no such device")
        assert searched_by("auto", "cuda") == searched_by("auto", "cuda:1") == by
    assert searched_by("torch", "cuda") == "torch"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_one_line_that_names_both_ways() -> None:
    X, y = made(30, 4), np.eye(2)[np.arange(30) % 2]
    for search in ("auto", "torch"):
        with pytest.raises(
            InputError, match=r"on device=cuda:1: torch .* says: .*faiss-gpu in place of faiss-cpu"
        ) as error:
            NearestNeighbourProbe(search=search, device="cuda:1").fit_path(X, y, "multilabel", (5.0,), 2)
        assert "\n" not in str(error.value)


def test_the_probe_names_torch_and_scores_as_ever() -> None:
    X, y = made(80, 12), (np.random.default_rng(0).random((80, 3)) < 0.4).astype(float)
    fitted, plain = (
        NearestNeighbourProbe(search=search, votes="ml-knn").fit_path(X, y, "multilabel", (10.0, 5.0), 3)
        for search in ("torch", "numpy")
    )
    assert fitted.diagnostics.software["search"] == f"torch {torch.__version__} on cpu, products"
    np.testing.assert_array_equal(fitted.scores(made(30, 12, seed=1)), plain.scores(made(30, 12, seed=1)))
