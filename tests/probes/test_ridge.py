import numpy as np
import pytest
from sklearn.linear_model import Ridge

from embedcache.errors import InputError
from embedcache.probes import REGISTRY
from embedcache.probes.ridge import ALPHA_GRID, RidgeProbe, solve_ridge

GRID = (1e4, 10.0, 1e-2)


def problem(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    X = random.normal(size=(n, d)) * np.linspace(3, 0.1, d) + 20
    return X.astype(np.float32), X @ random.normal(size=d) + random.normal(size=n) + 50


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "d"), [(200, 12), (30, 90), (5, 1), (1, 3)])
def test_each_alpha_is_scikit_learns(n: int, d: int, weighted: bool) -> None:
    X, y = problem(n, d)
    weight = np.random.default_rng(1).uniform(0.5, 3, n) if weighted else None
    coef, intercept = solve_ridge(X, y, GRID, weight)
    assert coef.shape == (3, d)
    for i, alpha in enumerate(GRID):
        model = Ridge(alpha=alpha, solver="cholesky").fit(X.astype(np.float64), y, sample_weight=weight)
        np.testing.assert_allclose(coef[i], model.coef_, rtol=1e-6, atol=1e-8)
        assert intercept[i] == pytest.approx(model.intercept_, rel=1e-6)


def test_the_probe_predicts_values_and_leaves_missing_targets_out() -> None:
    X, y = problem(100, 8)
    y[::4] = np.nan
    fitted = RidgeProbe().fit_path(X, y, "numeric", GRID, 1)
    scores = fitted.scores(X)
    assert scores.shape == (3, 100, 1)
    assert fitted.score_name == "value"
    known = ~np.isnan(y)
    for i, alpha in enumerate(GRID):
        model = Ridge(alpha=alpha, solver="cholesky").fit(X[known].astype(np.float64), y[known])
        np.testing.assert_allclose(scores[i, :, 0], model.predict(X.astype(np.float64)), rtol=1e-7)


def test_weights_stand_for_rows() -> None:
    X, y = problem(60, 5)
    weight = np.random.default_rng(2).integers(0, 3, 60)
    found = solve_ridge(X, y, GRID, weight.astype(float))
    rows = np.repeat(np.arange(60), weight)
    for a, b in zip(found, solve_ridge(X[rows], y[rows], GRID), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)


def test_a_constant_feature_gets_no_weight_and_repeated_ones_share_it() -> None:
    X, y = problem(50, 6)
    X[:, 0] = 7
    X[:, 1] = X[:, 2]
    coef, _ = solve_ridge(X, y, GRID)
    np.testing.assert_allclose(coef[:, 0], 0, atol=1e-9)
    np.testing.assert_allclose(coef[:, 1], coef[:, 2], rtol=1e-6)


def test_a_very_large_alpha_predicts_the_mean() -> None:
    X, y = problem(50, 6)
    scores = RidgeProbe().fit_path(X, y, "numeric", (1e12,), 1).scores(X)
    np.testing.assert_allclose(scores[0, :, 0], y.mean(), rtol=1e-6)


def test_without_a_target_there_is_no_fit() -> None:
    X, _ = problem(10, 3)
    fitted = RidgeProbe().fit_path(X, np.full(10, np.nan), "numeric", GRID, 1)
    assert np.isnan(fitted.scores(X)).all()


def test_bad_features_and_grids_are_refused() -> None:
    X, y = problem(10, 3)
    X[0, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        solve_ridge(X, y, GRID)
    with pytest.raises(InputError, match="alpha"):
        RidgeProbe(alpha=(0.0, 1.0))


def test_the_grid_runs_from_smooth_to_flexible() -> None:
    assert len(ALPHA_GRID) == 37
    assert RidgeProbe().grid(5)[0] == pytest.approx(1e6)
    assert RidgeProbe(alpha=(1.0, 3.0, 1.0)).grid(5) == (3.0, 1.0)
    assert REGISTRY.load("ridge")().parameter == "alpha"
