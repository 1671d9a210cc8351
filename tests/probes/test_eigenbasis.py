"""What the scores of the rows that bend a loss tell of its Hessian, against the Hessian itself."""

import numpy as np
import pytest

from embedcache.probes.eigenbasis import Bending, Eigenbasis, Metric
from embedcache.probes.rows import Rows, Targets
from embedcache.probes.standing import Standing

ONE_HEAD = np.ones((1, 1))
PENALTY = 1e-4


def rare(n: int = 20_000, d: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Normal rows of one rare label, and the weights that all but separate it, the intercept last."""
    random = np.random.default_rng(0)
    X = random.normal(size=(n, d)) @ random.normal(size=(d, d)) + 2
    return X, np.append(4 * random.normal(size=d), -15.0)


def standing(X: np.ndarray, point: np.ndarray, dtype: type = np.float64) -> Standing:
    rows = Rows(X.astype(dtype), Targets(np.ones((1, len(X))), np.full((1, len(X)), 1 / len(X))))
    bend = rows.evaluate(point[None, None, :-1], point[None, -1:], np.zeros(1, dtype=np.intp))[-1]
    return Standing(point[None], np.array([PENALTY]), bend)


def basis_of(X: np.ndarray, dtype: type = np.float64) -> Eigenbasis:
    return Eigenbasis.of(np.cov(X.T, bias=True), X.mean(axis=0), np.dtype(dtype))


def hessian_of(X: np.ndarray, point: np.ndarray) -> np.ndarray:
    rows = np.concatenate([X - X.mean(axis=0), np.ones((len(X), 1))], axis=1)
    p = 1 / (1 + np.exp(-rows @ point))
    hessian = (rows * (p * (1 - p))[:, None]).T @ rows / len(X)
    return hessian + PENALTY * np.diag(np.append(np.ones(len(point) - 1), 0.0))


def inverse(metric: Metric, at: Standing) -> np.ndarray:
    """What `solve` multiplies a gradient of the one column by."""
    D = at.point.shape[1]
    of_each = Standing(at.point.repeat(D, 0), at.penalty.repeat(D), at.bend.repeat(D, 0))
    return metric.solve(np.eye(D), of_each)[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_normal_rows_scores_tell_the_hessian(dtype: type) -> None:
    X, point = rare()
    at = standing(X, point, dtype)
    told = np.linalg.eigvals(inverse(Metric.of(basis_of(X, dtype), ONE_HEAD), at) @ hessian_of(X, point)).real
    np.testing.assert_allclose(told, 1, atol=0.12)
    # and were they not asked, one direction would seem to bend the loss a hundred times as much as it does
    untold = Standing(at.point, at.penalty, at.bend * [1, 0, 0])
    untold.bend[0, 1:] = point[-1], point[:-1] @ np.cov(X.T, bias=True) @ point[:-1]
    alike = np.linalg.eigvals(inverse(Metric.of(basis_of(X), ONE_HEAD), untold) @ hessian_of(X, point)).real
    assert alike.min() < 0.01


def test_it_solves_by_the_matrix_that_it_describes() -> None:
    random = np.random.default_rng(1)
    m, r = 3, 6
    slope, variance = random.normal(size=(m, r)), random.uniform(0.1, 3, r)
    bend, shift = random.uniform(0.01, 0.25, m), random.normal(size=m)
    less = 0.9 / (slope**2 / variance).sum(axis=1)
    along, intercept = random.normal(size=(m, r)), random.normal(size=m)
    diagonal = bend[:, None] * variance + PENALTY
    found = Bending(slope, shift, less, np.ones(m)).solve(along.copy(), intercept, diagonal, bend)
    for i in range(m):
        centre = shift[i] * slope[i]
        own = np.diag(diagonal[i]) - bend[i] * less[i] * np.outer(slope[i], slope[i])
        whole = np.block(
            [[own + bend[i] * np.outer(centre, centre), bend[i] * centre[:, None]], [bend[i] * centre, bend[i]]]
        )
        expected = np.linalg.solve(whole, np.append(along[i], intercept[i]))
        np.testing.assert_allclose(np.append(found[0][i], found[1][i]), expected, rtol=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-5])
def test_scores_that_hardly_differ_tell_nothing(scale: float) -> None:
    """Every row bends the loss alike then, and float32 has lost how their scores vary."""
    X, point = rare(2000)
    point[:-1] *= scale
    bending = Bending.seen(basis_of(X, np.float32), standing(X, point, np.float32))
    np.testing.assert_array_equal(bending.shift, 0)
    np.testing.assert_array_equal(bending.less, 0)
    np.testing.assert_array_equal(bending.misses, 1)


@pytest.mark.parametrize(("share", "misses"), [(1.5, 1.0), (0.5, 1.0), (0.02, 1.0), (0.002, 10.0), (0.0, 2e5)])
def test_rows_that_stand_for_few_are_doubted(share: float, misses: float) -> None:
    basis = Eigenbasis.of(np.eye(3), np.zeros(3), np.dtype(np.float64))
    at = Standing(np.array([[0.0, 2.0, 0.0, -3.0]]), np.array([PENALTY]), np.array([[0.1, -0.5, 4 * share]]))
    np.testing.assert_allclose(Bending.seen(basis, at).misses, misses)
