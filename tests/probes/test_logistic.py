import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from embedcache.probes.logistic import C_GRID, LogisticProbe, log_softmax

GRID = (1e-4, 1e-2, 1.0, 100.0)
CLOSE = 2e-3
"""Of the largest score. Ours stops at a gradient of 1e-5 of the mean loss; the reference is ten thousand times tighter."""


def problem(n: int, d: int, labels: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, d)) * np.linspace(2, 0.2, d) + 3
    w = random.normal(size=(d, labels))
    y = ((X - 3) @ w + 2 * random.normal(size=(n, labels)) > 1).astype(float)
    return X.astype(np.float32), y


def reference(X: np.ndarray, y: np.ndarray, c: float, new: np.ndarray) -> np.ndarray:
    """scikit-learn's Newton solver on the plain features, to a tight tolerance."""
    model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-9, max_iter=500).fit(X.astype(np.float64), y)
    return model.decision_function(new.astype(np.float64))


# In the features, and in the basis of the rows. The latter are separable: at C = 100 only a curvature of 1 / (C n) holds
# the weights, and the same gradient leaves them a hundred times farther from the optimum.
@pytest.mark.parametrize(("n", "d", "close"), [(300, 12, CLOSE), (40, 90, 2e-2)])
def test_each_c_of_a_path_is_scikit_learns_solution(n: int, d: int, close: float) -> None:
    X, y = problem(n, d)
    new = problem(50, d, seed=1)[0]
    scores = LogisticProbe().fit_path(X, y[:, 0], "binary", GRID, 1).scores(new)
    assert scores.shape == (len(GRID), 50, 1)
    for i, c in enumerate(GRID):
        expected = reference(X, y[:, 0], c, new)
        np.testing.assert_allclose(scores[i, :, 0], expected, atol=close * np.abs(expected).max())


def test_multinomial_is_scikit_learns_softmax() -> None:
    X, _ = problem(300, 8)
    y = np.random.default_rng(3).integers(0, 3, 300).astype(float)
    X[:, 0] += y
    scores = LogisticProbe(tol=1e-8).fit_path(X, y, "multiclass", GRID, 3).scores(X)
    np.testing.assert_allclose(np.exp(scores).sum(axis=-1), 1, rtol=1e-12)
    for i, c in enumerate(GRID):
        model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-9, max_iter=500).fit(X.astype(np.float64), y)
        np.testing.assert_allclose(np.exp(scores[i]), model.predict_proba(X.astype(np.float64)), atol=1e-3)


def test_two_classes_of_a_multiclass_task_are_the_binary_fit() -> None:
    X, y = problem(200, 6)
    two = LogisticProbe().fit_path(X, y[:, 0], "multiclass", GRID, 2).scores(X)
    one = LogisticProbe().fit_path(X, y[:, 0], "binary", GRID, 1).scores(X)
    np.testing.assert_allclose(two[..., 1] - two[..., 0], one[..., 0], rtol=1e-6, atol=1e-9)


def test_a_class_that_no_row_has_gets_no_score() -> None:
    X, y = problem(100, 5)
    scores = LogisticProbe().fit_path(X, 2 * y[:, 0], "multiclass", (1.0,), 3).scores(X)[0]
    assert np.isnan(scores[:, 1]).all()
    np.testing.assert_allclose(np.exp(scores[:, [0, 2]]).sum(axis=1), 1, rtol=1e-12)


def test_a_missing_label_leaves_out_its_row_for_that_label_only() -> None:
    X, y = problem(200, 10, labels=2)
    y[:50, 1] = np.nan
    both = LogisticProbe().fit_path(X, y, "multilabel", GRID, 2).scores(X)
    whole = LogisticProbe().fit_path(X, y[:, 0], "binary", GRID, 1).scores(X)
    rest = LogisticProbe().fit_path(X[50:], y[50:, 1], "binary", GRID, 1).scores(X)
    for i in range(len(GRID)):
        np.testing.assert_allclose(both[i, :, 0], whole[i, :, 0], atol=CLOSE * np.abs(whole[i]).max())
        np.testing.assert_allclose(both[i, :, 1], rest[i, :, 0], atol=CLOSE * np.abs(rest[i]).max())


def test_a_label_with_one_class_gets_no_fit() -> None:
    X, y = problem(100, 5, labels=2)
    y[:, 1] = 0
    scores = LogisticProbe().fit_path(X, y, "multilabel", (1.0,), 2).scores(X)
    assert np.isnan(scores[..., 1]).all()
    assert np.isfinite(scores[..., 0]).all()


def test_values_come_back_in_the_order_asked() -> None:
    X, y = problem(100, 5)
    up = LogisticProbe().fit_path(X, y[:, 0], "binary", GRID, 1)
    down = LogisticProbe().fit_path(X, y[:, 0], "binary", GRID[::-1], 1)
    np.testing.assert_array_equal(up.scores(X), down.scores(X)[::-1])
    assert down.values == GRID[::-1]


def test_a_shifted_and_rotated_copy_of_the_features_scores_alike() -> None:
    X, y = problem(150, 10)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0]
    plain = LogisticProbe().fit_path(X, y[:, 0], "binary", GRID, 1).scores(X)
    turned = X.astype(np.float64) @ turn + 7
    other = LogisticProbe().fit_path(turned, y[:, 0], "binary", GRID, 1).scores(turned)
    np.testing.assert_allclose(other, plain, atol=CLOSE * np.abs(plain).max())


def test_what_does_not_converge_is_reported_and_no_warning_leaks() -> None:
    X, y = problem(300, 20)
    hurried = LogisticProbe(max_iter=2).fit_path(X, y[:, 0], "binary", GRID, 1).diagnostics
    assert hurried.not_converged
    assert str(len(hurried.not_converged)) in hurried.warnings[0]
    assert LogisticProbe().fit_path(X, y[:, 0], "binary", GRID, 1).diagnostics.not_converged == ()


def test_a_separable_problem_converges_over_the_whole_default_grid() -> None:
    """More features than rows and C up to 1e5: nothing but the penalty bounds the weights."""
    X, y = problem(60, 200)
    fitted = LogisticProbe().fit_path(X, y[:, 0], "binary", C_GRID, 1)
    assert fitted.diagnostics.not_converged == ()
    assert ((fitted.scores(X)[-1, :, 0] > 0) == (y[:, 0] == 1)).all()


def test_confident_log_probabilities_do_not_tie() -> None:
    found = log_softmax(np.array([[0.0, 50.0], [0.0, 60.0]]))[:, 1]
    np.testing.assert_allclose(found, [-np.exp(-50), -np.exp(-60)], rtol=1e-12)
    assert found[0] < found[1]


def test_the_grid_is_ascending() -> None:
    assert len(C_GRID) == 45
    np.testing.assert_allclose([C_GRID[0], C_GRID[-1]], [1e-6, 1e5])
    assert LogisticProbe(C=(1.0, 0.1, 1.0)).grid(10) == (0.1, 1.0)


@pytest.mark.parametrize(("mean", "far"), [(0.0, False), (2.0, False), (500.0, True)])
def test_large_means_cost_scores_no_digits(mean: float, far: bool) -> None:
    random = np.random.default_rng(0)
    X = (random.normal(size=(3000, 6)) + mean).astype(np.float32)
    y = (X[:, 0] - mean + random.logistic(size=3000) > 0).astype(int)
    fitted = LogisticProbe().fit_path(X, y, "binary", (0.01, 1.0), 1)
    assert fitted.centre.any() == far
    exact = X.astype(np.float64) @ fitted.coef[:, 0].T + fitted.intercept[:, 0]
    np.testing.assert_allclose(fitted.scores(X)[:, :, 0].T, exact, atol=2e-5)
