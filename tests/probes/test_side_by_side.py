"""Sums on threads are the sums of one thread, and the same each time."""

from collections.abc import Sequence

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from embedcache.probes import side_by_side
from embedcache.probes.logistic_path import solve_logistic
from embedcache.probes.rows import Rows


@pytest.mark.parametrize("workers", [1, 2, 3, 50])
def test_each_block_is_summed_once_and_blas_is_left_as_it_was(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "_SMALL", 0)
    values = np.random.default_rng(0).normal(size=(100, 3))
    blocks = [slice(start, start + 7) for start in range(0, 100, 7)]
    calls: list[int] = []
    before = [library["num_threads"] for library in threadpool_info()]

    def sums(some: Sequence[slice]) -> tuple[np.ndarray, np.ndarray]:
        calls.append(len(some))
        return sum((values[b].sum(axis=0) for b in some), np.zeros(3)), np.array([float(len(some))])

    total, count = side_by_side.summed(sums, blocks, 1, workers)
    np.testing.assert_allclose(total, values.sum(axis=0), rtol=1e-12)
    assert count == len(blocks)
    assert (len(calls), sum(calls)) == (min(workers, len(blocks)), len(blocks))
    assert [library["num_threads"] for library in threadpool_info()] == before


def test_few_products_stay_on_one_thread() -> None:
    calls: list[int] = []

    def sums(some: Sequence[slice]) -> tuple[np.ndarray]:
        calls.append(len(some))
        return (np.zeros(1),)

    side_by_side.summed(sums, [slice(0, 1)] * 9, 1000, 4)
    assert calls == [9]


@pytest.mark.parametrize("multinomial", [False, True])
def test_a_path_on_threads_is_the_path_on_one(multinomial: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "_SMALL", 0)
    monkeypatch.setattr("embedcache.probes.rows._BLOCK_VALUES", 4000)
    random = np.random.default_rng(0)
    X = random.normal(size=(900, 20)).astype(np.float32)
    score = X @ random.normal(size=(20, 3)) + 3 * random.normal(size=(900, 3))
    Y = np.eye(3)[score.argmax(axis=1)] if multinomial else np.where(score > 3, np.nan, score > 0).astype(float)
    found = []
    for workers in (1, 3, 3):
        monkeypatch.setattr(Rows, "workers", workers)
        found.append(solve_logistic(X, Y, (0.001, 0.1, 10.0), multinomial=multinomial))
    np.testing.assert_allclose(found[1].objective, found[0].objective, rtol=1e-5)
    np.testing.assert_array_equal(found[1].coef, found[2].coef)
