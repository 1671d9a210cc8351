"""A factored Hessian against the Hessian itself, and where rounding has made it indefinite."""

import numpy as np
import pytest

from embedcache.probes.factored import Factored, FactoredHeads
from embedcache.probes.logistic import C_GRID
from embedcache.probes.logistic_path import solve_logistic
from embedcache.probes.standing import Standing


def rows_and_weight(n: int = 80, d: int = 7) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    X = random.normal(size=(n, d)) * 10 ** np.linspace(-2, 2, d) + 5
    bend = random.uniform(0.01, 0.25, n)
    return X, bend


def at(penalty: float | np.ndarray, curvature: float | np.ndarray, m: int = 3) -> Standing:
    """m columns, which stand anywhere."""
    return Standing(np.zeros((m, 1)), np.full(m, penalty), np.full(m, curvature)[:, None])


@pytest.mark.parametrize(("dtype", "close"), [(np.float32, 1e-3), (np.float64, 1e-10)])
def test_it_solves_by_the_hessian_of_a_logistic_fit(dtype: type, close: float) -> None:
    """Of the mean loss with penalty, weights of rows around a centre and the intercept of such rows."""
    X, bend = rows_and_weight()
    n, d = X.shape
    share = bend / bend.sum()
    mean = share @ X
    gram = (X - mean).T @ ((X - mean) * share[:, None])
    middle = X.mean(axis=0)  # what intercepts refer to
    penalty, curvature = 0.3, float(bend.mean())
    seen = np.concatenate([X - middle, np.ones((n, 1))], axis=1)
    hessian = seen.T @ (seen * bend[:, None]) / n + penalty * np.diag(np.append(np.ones(d), 0.0))
    gradient = np.random.default_rng(1).normal(size=(3, d + 1))
    found = Factored.of(gram, mean, mean - middle, np.arange(d), curvature, penalty, np.dtype(dtype))
    solved, misses = found.solve(gradient, at(penalty, curvature))
    np.testing.assert_array_equal(misses, 1)
    np.testing.assert_allclose(solved @ hessian, gradient, atol=close * np.abs(gradient).max())
    # where curvature and penalty have both fallen to a half, so has the Hessian
    np.testing.assert_allclose(found.solve(gradient, at(penalty / 2, curvature / 2))[0], 2 * solved)


def test_it_says_how_much_more_a_lighter_penalty_may_leave() -> None:
    """Of a column of a quarter of the penalty the Hessian is at least a quarter of this one, so up to four times is left."""
    found = Factored.of(np.eye(2), np.zeros(2), np.zeros(2), np.arange(2), 0.2, 0.4, np.dtype(np.float64))
    penalty, curvature = np.array([0.1, 0.1, 0.4, 1.6]), np.array([0.2, 0.05, 0.2, 0.2])
    gradient = np.random.default_rng(0).normal(size=(4, 3))
    solved, misses = found.solve(gradient, at(penalty, curvature, 4))
    np.testing.assert_allclose(misses, [4, 1, 1, 1])
    foreseen = (gradient * solved).sum(axis=1)
    hessians = [np.diag([c + p, c + p, c]) for c, p in zip(curvature, penalty, strict=True)]
    exact = [g @ np.linalg.solve(H, g) for g, H in zip(gradient, hessians, strict=True)]
    assert (exact <= foreseen * misses * (1 + 1e-9)).all()


@pytest.mark.parametrize(("dtype", "close"), [(np.float32, 2e-3), (np.float64, 1e-9)])
@pytest.mark.parametrize("penalty", [3.1e-4, 0.02, 0.3, 7.0])
def test_another_penalty_needs_no_rows(penalty: float, dtype: type, close: float) -> None:
    X, bend = rows_and_weight()
    share = bend / bend.sum()
    mean = share @ X
    gram = (X - mean).T @ ((X - mean) * share[:, None])
    first, own = (Factored.of(gram, mean, mean, np.arange(7), 0.1, p, np.dtype(dtype)) for p in (0.3, penalty))
    gradient = np.random.default_rng(1).normal(size=(3, 8))
    asked = gradient, at(penalty, 0.1)
    by_way_of = first.under((0.3 * penalty) ** 0.5)
    assert by_way_of is not None
    for found in (first.under(penalty), by_way_of.under(penalty)):
        assert found is not None
        assert found.penalty == penalty
        expected, _ = own.solve(*asked)
        np.testing.assert_allclose(found.solve(*asked)[0], expected, atol=close * np.abs(expected).max())


def test_a_penalty_that_is_lost_beside_the_first_one_needs_the_rows() -> None:
    first = Factored.of(np.eye(3) * 1e-9, np.zeros(3), np.zeros(3), np.arange(3), 0.1, 1.0, np.dtype(np.float32))
    assert first.under(2e-3) is not None
    assert first.under(1e-6) is None
    step = first.under(2e-3)
    assert step is not None
    assert step.under(1e-6) is None  # in steps it is no less lost
    assert FactoredHeads((first, first), 2.0).under(1e-6) is None


def test_classes_that_share_a_factor_go_on_sharing() -> None:
    one, other = (
        Factored.of(np.eye(3), np.zeros(3), np.zeros(3), np.arange(3), c, 1.0, np.dtype(np.float64)) for c in (0.1, 0.2)
    )
    shared, apart = FactoredHeads((one, one), 2.0).under(0.5), FactoredHeads((one, other), 2.0).under(0.5)
    assert shared is not None
    assert apart is not None
    assert shared.heads[0] is shared.heads[1]
    assert apart.heads[0] is not apart.heads[1]
    assert apart.curvature == pytest.approx(0.3)


def test_a_constant_feature_gets_no_step() -> None:
    gram, mean = np.eye(7), np.zeros(7)
    gram[2, 2] = 1e-9  # what rounding may leave
    varies = np.delete(np.arange(7), 2)
    found = Factored.of(gram, mean, np.zeros(7), varies, 0.1, 1e-12, np.dtype(np.float32))
    solved, _ = found.solve(np.ones((1, 8)), at(1e-12, 0.1, 1))
    assert solved[0, 2] == 0
    assert np.isfinite(solved).all()


@pytest.mark.parametrize("noise", [1e-13, 0.0, -1e-13])
def test_a_feature_that_only_rows_out_of_play_vary_goes_where_the_penalty_leads(noise: float) -> None:
    """Among the rows that bend the loss it is 0.5; that what rounding leaves may be below 0, too, makes nothing indefinite."""
    X, bend = rows_and_weight()
    X[:, 2] = 0.5
    share = bend / bend.sum()
    mean = share @ X
    gram = (X - mean).T @ ((X - mean) * share[:, None])
    gram[2, :] = gram[:, 2] = noise
    found = Factored.of(gram, mean, np.zeros(7), np.arange(7), 0.1, 1e-5, np.dtype(np.float32))
    gradient = np.zeros((1, 8))
    gradient[0, 2] = 1.0
    solved, _ = found.solve(gradient, at(1e-5, 0.1, 1))
    assert solved[0, 2] == pytest.approx(1e5, rel=1e-3)
    np.testing.assert_allclose(solved[0, [0, 1, 3, 4, 5, 6]], 0, atol=10)


@pytest.mark.parametrize("off", [1.0001, 1.01, 3.0])
def test_what_rounding_made_indefinite_is_solved_all_the_same(off: float) -> None:
    gram = np.array([[1.0, off, 0.0], [off, 1.0, 0.0], [0.0, 0.0, 4.0]])
    assert np.linalg.eigvalsh(gram)[0] < 0
    found = Factored.of(gram, np.zeros(3), np.zeros(3), np.arange(3), 1.0, 1e-9, np.dtype(np.float64))
    gradient = np.array([[1.0, -2.0, 3.0, 0.0]])
    solved, _ = found.solve(gradient, at(1e-9, 1.0, 1))
    assert (gradient * solved).sum() > 0  # downhill
    assert solved[0, 2] == pytest.approx(0.75, rel=0.5)


@pytest.mark.parametrize("seed", [0, 1])
def test_features_that_nearly_depend_on_each_other_are_left_to_float64_before_many_rounds_are_lost(seed: int) -> None:
    # as a random ViT's: few strong directions, weights of labels at chance along the many weak ones
    random = np.random.default_rng(seed)
    n, d = 1200, 300
    along = np.interp(np.arange(1, d + 1) / d, [1 / d, 0.026, 0.26, 1], np.log([1, 0.084, 0.0054, 2.2e-5]))
    X = random.normal(size=(n, d)) * np.exp(along) @ np.linalg.qr(random.normal(size=(d, d)))[0]
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
    Y = (random.random((n, 2)) < 0.05).astype(float)
    found = solve_logistic(X, Y, C_GRID)
    best = solve_logistic(X.astype(np.float64), Y, C_GRID, tol=1e-11)
    assert found.converged.all()
    assert (found.objective / best.objective - 1).max() < 1e-5
    assert found.passes - found.grams < 20  # 50 and 27 when float32 went on
