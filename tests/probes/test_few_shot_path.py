"""Fits to few rows, held against scikit-learn's, one label, one C and one patient after the other."""

import warnings

import numpy as np
import pytest
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from embedcache.errors import InputError
from embedcache.probes.base import Matrix
from embedcache.probes.few_losses import loss_of
from embedcache.probes.few_rows import FewRows, Metric, solve_all
from embedcache.probes.few_shot_path import FewShotSolution, solve_few_shot

GRID = (1e-3, 0.1, 1.0, 30.0)
WIDE, SQUARE, TALL, VERY_TALL = (30, 60), (40, 40), (60, 40), (90, 12)
"""Rows and features: with coordinates in place of features; both shapes of a metric; no products of the rows."""


def drawn(n: int, d: int, labels: int = 3, seed: int = 0) -> tuple[Matrix, Matrix]:
    """Features whose scales fall, far from 0, and labels that they carry in part; the last ones are rarer."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, d)) / np.sqrt(np.arange(1, d + 1))
    Y = (X[:, :labels] + 0.5 * random.normal(size=(n, labels)) > 0.3 * np.arange(labels)).astype(float)
    return 3 * X + 5, Y


def reference(X: Matrix, y: Matrix, C: float) -> tuple[Matrix, float]:
    """scikit-learn's weights and intercept of one label, to the last digits."""
    known = ~np.isnan(y)
    model = LogisticRegression(C=C, tol=1e-13, max_iter=1000, solver="newton-cholesky")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # its tolerance lies below what rounding allows
        model.fit(X[known], y[known])
    return model.coef_[0], float(model.intercept_[0])


def softmax_reference(X: Matrix, number: Matrix, C: float) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=C, tol=1e-13, max_iter=1000, solver="newton-cholesky").fit(X, number)


def scores(found: FewShotSolution, X: Matrix) -> Matrix:
    return np.asarray(np.einsum("nd,cld->cnl", X, found.coef) + found.intercept[:, None])


@pytest.mark.parametrize("shape", [WIDE, SQUARE, TALL, VERY_TALL])
def test_every_label_and_every_C_is_scikit_learns_fit(shape: tuple[int, int]) -> None:
    X, Y = drawn(*shape)
    Y[:7, 1] = np.nan  # of this label only
    found = solve_few_shot(X, Y, GRID)
    assert found.converged
    assert found.left_out_loss is None
    new, _ = drawn(200, shape[1], seed=1)
    for i, C in enumerate(GRID):
        for j in range(Y.shape[1]):
            w, b = reference(X, Y[:, j], C)
            theirs, ours = new @ w + b, new @ found.coef[i, j] + found.intercept[i, j]
            np.testing.assert_allclose(ours, theirs, atol=3e-6 * np.std(theirs))  # a share of what tells rows apart


@pytest.mark.parametrize("shape", [WIDE, VERY_TALL])
def test_a_softmax_is_scikit_learns(shape: tuple[int, int]) -> None:
    X, _ = drawn(*shape)
    number = np.random.default_rng(3).integers(0, 3, len(X))
    found = solve_few_shot(X, np.eye(4)[number], GRID, multinomial=True)
    assert np.isnan(found.coef[:, 3]).all(), "a class without a row has no fit"
    ours = scores(found, X)[..., :3]
    for i, C in enumerate(GRID):
        theirs = softmax_reference(X, number, C).decision_function(X)
        theirs -= theirs.mean(axis=1, keepdims=True)
        centred = ours[i] - ours[i].mean(axis=1, keepdims=True)
        np.testing.assert_allclose(centred, theirs, atol=3e-6 * np.std(theirs))


def test_two_classes_of_a_softmax_are_one_binary_fit() -> None:
    X, Y = drawn(*WIDE, labels=1)
    found = solve_few_shot(X, np.column_stack([1 - Y, Y, 0 * Y]), (1.0,), multinomial=True)
    w, b = reference(X, Y[:, 0], 1.0)
    np.testing.assert_allclose(found.coef[0, 1] - found.coef[0, 0], w, atol=1e-6)
    assert found.intercept[0, 1] - found.intercept[0, 0] == pytest.approx(b, abs=1e-5)
    assert np.isnan(found.coef[0, 2]).all()


def test_the_gradient_vanishes_where_classes_are_separated_far() -> None:
    """What no reference is needed for: at the minimum w = -C · Σ (p - y) · x, and the residuals sum to 0."""
    X, Y = drawn(40, 300)
    found = solve_few_shot(X, Y, (100.0,))
    for w, b, y in zip(found.coef[0], found.intercept[0], Y.T, strict=True):
        residual = expit(X @ w + b) - y
        np.testing.assert_allclose(-100 * residual @ X, w, atol=1e-5 * np.abs(w).max())
        assert abs(residual.sum()) < 1e-7


def test_labels_with_one_class_have_no_fit_and_disturb_no_other() -> None:
    X, Y = drawn(*WIDE)
    alone = solve_few_shot(X, Y[:, :1], (1.0,))
    Y[:, 1] = 0
    Y[:, 2] = np.nan
    found = solve_few_shot(X, Y, (1.0,))
    assert np.isnan(found.coef[0, 1:]).all()
    assert np.isnan(found.intercept[0, 1:]).all()
    np.testing.assert_allclose(found.coef[0, 0], alone.coef[0, 0], atol=1e-6)
    none = solve_few_shot(X, np.zeros((len(X), 2)), (1.0,), groups=np.arange(len(X)))
    assert none.converged
    assert np.isnan(none.coef).all()
    assert none.left_out_loss is not None
    assert np.isnan(none.left_out_loss).all()


def test_the_order_of_rows_and_of_C_and_a_rotation_change_nothing() -> None:
    X, Y = drawn(*WIDE)
    random = np.random.default_rng(5)
    order = random.permutation(len(X))
    turn = np.linalg.qr(random.normal(size=(X.shape[1], X.shape[1])))[0]
    whole = solve_few_shot(X, Y, GRID)
    mixed = solve_few_shot(X[order], Y[order], GRID[::-1])
    turned = solve_few_shot(X @ turn, Y, GRID)
    size = np.abs(whole.coef).max(axis=2, keepdims=True)
    np.testing.assert_allclose(mixed.coef[::-1] / size, whole.coef / size, atol=3e-6)
    np.testing.assert_allclose(turned.coef @ turn.T / size, whole.coef / size, atol=3e-6)


def test_rows_that_are_there_twice_count_twice() -> None:
    X, Y = drawn(*WIDE)
    twice = solve_few_shot(np.repeat(X, 2, axis=0), np.repeat(Y, 2, axis=0), (0.5,))
    once = solve_few_shot(X, Y, (1.0,))
    np.testing.assert_allclose(twice.coef, once.coef, atol=3e-6 * np.abs(once.coef).max())


def test_hard_features_are_fitted_or_refused() -> None:
    X, Y = drawn(*WIDE)
    X[:, 3] = 7.0
    X[:, 4] *= 1e-4
    w, _ = reference(X, Y[:, 0], 1.0)
    found = solve_few_shot(X.astype(np.float32), Y, (1.0,))
    np.testing.assert_allclose(found.coef[0, 0], w, atol=1e-5 * np.abs(w).max())  # features rounded to float32
    constant = solve_few_shot(np.ones((6, 4)), np.tile([[0.0], [1.0]], (3, 1)), (1.0,))
    np.testing.assert_allclose(constant.coef, 0, atol=1e-9)
    X[0, 0] = np.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        solve_few_shot(X, Y, (1.0,))


@pytest.mark.parametrize("shape", [WIDE, TALL])
@pytest.mark.parametrize("multinomial", [False, True])
def test_patients_left_out_are_judged_as_by_a_literal_loop(shape: tuple[int, int], multinomial: bool) -> None:
    X, Y = drawn(*shape)
    patients = np.arange(len(X)) // 3
    number = np.random.default_rng(2).integers(0, 3, len(X))
    Y[:5, 0] = np.nan
    target = np.eye(3)[number] if multinomial else Y
    found = solve_few_shot(X, target, GRID, multinomial=multinomial, groups=np.array([f"p{i}" for i in patients]))
    expected = [literal_loss(X, number if multinomial else Y, C, patients, multinomial) for C in GRID]
    assert found.left_out_loss is not None
    # float32 and a tolerance of 1e-6: far less than what lies between two values of C
    np.testing.assert_allclose(found.left_out_loss, expected, rtol=3e-3)
    assert int(np.argmin(found.left_out_loss)) == int(np.argmin(expected))


def literal_loss(X: Matrix, y: Matrix, C: float, patients: Matrix, multinomial: bool) -> float:
    """The mean loss of each row under scikit-learn's fit without its patient, over rows, then over labels."""
    of_label = []
    for j in range(1 if multinomial else y.shape[1]):
        own = y if multinomial else y[:, j]
        each = []
        for patient in np.unique(patients):
            out, known = patients == patient, ~np.isnan(own)
            there = own[known & ~out]
            if len(np.unique(there)) < len(np.unique(own[known])) or not (out & known).any():
                continue
            model = softmax_reference(X[known & ~out], there, C)
            chance = model.predict_log_proba(X[out & known])
            each += [-chance[i, int(k)] for i, k in enumerate(own[out & known])]
        of_label.append(np.mean(each))
    return float(np.mean(of_label))


def test_a_patient_without_whom_a_class_is_gone_is_not_judged() -> None:
    X, _ = drawn(*WIDE)
    y = np.zeros((len(X), 1))
    y[:3] = 1
    patients = np.arange(len(X)) // 3  # the first patient has all positives
    found = solve_few_shot(X, y, GRID, groups=patients)
    expected = [literal_loss(X, y, C, patients, False) for C in GRID]
    np.testing.assert_allclose(found.left_out_loss, expected, rtol=3e-3)


@pytest.mark.parametrize("heads", [1, 3])
def test_losses_have_the_slopes_and_curvatures_of_their_values(heads: int) -> None:
    random = np.random.default_rng(0)
    at = random.normal(size=(2, heads, 9))
    at[0, :, 0] *= 40  # a row that is certain, on one side or the other
    target = (np.arange(9) % 3 == np.arange(3)[:, None]).astype(float)[:heads] * np.ones((2, 1, 1))
    weight = random.random((2, 9))
    loss, step = loss_of(at, target, weight), 1e-6
    for h in range(heads):
        for i in range(9):
            moved = np.zeros_like(at)
            moved[:, h, i] = step
            above, below = loss_of(at + moved, target, weight), loss_of(at - moved, target, weight)
            slope = (above.value - below.value) / (2 * step)
            bend = (above.slope - below.slope)[:, h, i] / (2 * step)
            np.testing.assert_allclose(loss.slope[:, h, i], slope, atol=1e-7)
            np.testing.assert_allclose(loss.curvature[:, h, i], bend, atol=1e-7)


@pytest.mark.parametrize("shape", [WIDE, SQUARE, TALL, VERY_TALL])
def test_a_metric_is_the_hessian_of_the_rows_that_count(shape: tuple[int, int]) -> None:
    X, _ = drawn(*shape)
    rows = FewRows.of(X)
    random = np.random.default_rng(1)
    curvature = random.random(len(X)) * (random.random(len(X)) < 0.5)
    metric = Metric.of(rows, curvature)
    counted = np.zeros(len(X))
    counted[metric.counting] = curvature[metric.counting]
    assert (curvature[counted == 0] * rows.square[counted == 0] <= 1.0).all()
    penalty = np.ones(rows.A.shape[1])
    penalty[-1] = metric.penalty
    hessian = rows.A.T @ (counted[:, None] * rows.A) + np.diag(penalty)
    gradients = random.normal(size=(4, rows.A.shape[1]))
    expected = np.linalg.solve(hessian, gradients.T).T
    found = solve_all(rows, [metric, metric, Metric.of(rows, curvature), metric], gradients)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())  # float32
