"""The solver of the logistic path against scikit-learn's Newton solver, and by what must not change its answer."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from embedcache.errors import InputError
from embedcache.probes.logistic import C_GRID, LogisticProbe, log_softmax
from embedcache.probes.logistic_path import LogisticSolution, Start, solve_logistic
from embedcache.probes.rows import Rows
from embedcache.probes.standardizer import Standardizer

GRID = (1e-5, 1e-3, 1e-1, 10.0, 1e3)
TIGHT = 1e-10
"""float64 reaches it; the objective is then within about 1e-10 of the minimum, and weights within its root."""
BEST = 1e-5
"""What the default promises of the objective, relative, in float32 as in float64."""


def problem(n: int, d: int, labels: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, d)) @ np.diag(1 / np.sqrt(np.arange(1, d + 1))) + 0.3
    score = X @ random.normal(size=(d, labels)) + random.logistic(size=(n, labels))
    return X, (score > np.quantile(score, 0.7, axis=0)).astype(float)


def objective(X: np.ndarray, y: np.ndarray, coef: np.ndarray, intercept: float, C: float, s: Any = 1.0) -> float:
    margin = (2 * y - 1) * (X.astype(np.float64) @ coef + intercept)
    return float(coef @ coef / 2 + C * (s * np.logaddexp(0, -margin)).sum())


def reference(X: np.ndarray, y: np.ndarray, C: float, **options: Any) -> LogisticRegression:
    weight = options.pop("sample_weight", None)
    model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10, max_iter=1000, **options)
    return model.fit(X.astype(np.float64), y, sample_weight=weight)


def newton(X: np.ndarray, y: np.ndarray, C: float) -> tuple[np.ndarray, float]:
    """Newton's method with halved steps on the features scaled to unit variance: exact where scikit-learn's gives up."""
    X = X.astype(np.float64)
    mean, scale = X.mean(axis=0), X.std(axis=0)
    scale[scale < 1e-12 * np.abs(mean)] = np.inf
    Z = np.concatenate([(X - mean) / scale, np.ones((len(X), 1))], axis=1)
    penalty = np.append(np.where(np.isinf(scale), 1.0, 1 / scale**2), 0.0)
    theta = np.zeros(Z.shape[1])

    def value(at: np.ndarray) -> float:
        return float(penalty @ at**2 / 2 + C * np.logaddexp(0, -(2 * y - 1) * (Z @ at)).sum())

    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(Z @ theta, -500, 500)))
        slope = penalty * theta + C * (p - y) @ Z
        step = np.linalg.lstsq(C * (Z.T * (p * (1 - p))) @ Z + np.diag(penalty), slope, rcond=1e-15)[0]
        length = 1.0
        while value(theta - length * step) > value(theta) and length > 1e-10:
            length /= 2
        before, theta = value(theta), theta - length * step
        if before - value(theta) <= 1e-10 * before:
            break
    w = theta[:-1] / scale
    return w, float(theta[-1] - w @ mean)


def assert_alike(found: LogisticSolution, other: LogisticSolution, close: float = 1e-4) -> None:
    """Coefficients of the same problem solved twice, relative to their length at each C."""
    scale = np.linalg.norm(found.coef, axis=-1).max(axis=1)[:, None, None]
    np.testing.assert_allclose(found.coef / scale, other.coef / scale, atol=close)
    np.testing.assert_allclose(found.objective, other.objective, rtol=1e-8)


@pytest.mark.parametrize(("n", "d"), [(400, 20), (60, 150), (30, 30), (500, 1), (2, 5), (3, 1)])
def test_tight_solutions_are_scikit_learns(n: int, d: int) -> None:
    X, y = problem(n, d)
    y[:2, 0] = 0, 1
    found = solve_logistic(X, y, GRID, tol=1e-12)
    assert found.converged.all()
    for i, C in enumerate(GRID):
        model = reference(X, y[:, 0], C)
        best = objective(X, y[:, 0], model.coef_[0], model.intercept_[0], C)
        assert found.objective[i, 0] <= best * (1 + 1e-9)
        ours = objective(X, y[:, 0], found.coef[i, 0], found.intercept[i, 0], C)
        assert ours == pytest.approx(found.objective[i, 0], rel=1e-9)
        if found.objective[i, 0] >= best * (1 - 1e-9):  # elsewhere the reference itself has not arrived
            np.testing.assert_allclose(found.coef[i, 0], model.coef_[0], atol=1e-4 * np.linalg.norm(model.coef_))


def separable() -> tuple[np.ndarray, np.ndarray]:
    X, _ = problem(400, 40)
    w = np.random.default_rng(5).normal(size=40)
    return X, (X @ w > np.median(X @ w)).astype(float)[:, None]


def far_and_scaled() -> tuple[np.ndarray, np.ndarray]:
    """Scales from 1e-3 to 1e3, means a hundred deviations away."""
    X, y = problem(400, 30)
    scale = 10 ** np.linspace(-3, 3, 30)
    return (X + 100) * np.random.default_rng(2).permutation(scale), y


def constant_and_repeated() -> tuple[np.ndarray, np.ndarray]:
    X, y = problem(300, 20)
    X[:, 3] = 1234.567
    X[:, 4] = X[:, 5]
    return np.concatenate([X, X[:50]]), np.concatenate([y, y[:50]])


def rare() -> tuple[np.ndarray, np.ndarray]:
    X, y = problem(800, 60)
    y[:] = 0
    y[:6] = 1
    return X, y


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [separable, far_and_scaled, constant_and_repeated, rare, lambda: problem(40, 120)])
def test_the_default_reaches_the_best_objective_at_every_c(make: Any, dtype: Any) -> None:
    X, y = make()
    X = X.astype(dtype)
    found = solve_logistic(X, y, C_GRID)
    assert found.converged.all()
    assert np.isfinite(found.coef).all()
    tight = solve_logistic(X.astype(np.float64), y, C_GRID, tol=1e-12)
    for i, C in enumerate(C_GRID):
        best = tight.objective[i, 0]
        if C in C_GRID[::8]:
            best = min(best, objective(X, y[:, 0], *newton(X, y[:, 0], C), C))
        ours = objective(X, y[:, 0], found.coef[i, 0], found.intercept[i, 0], C)
        assert ours <= best * (1 + BEST), f"{C}: {ours / best - 1:.1e} above the best"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_tiny_c_still_has_a_direction(dtype: Any) -> None:
    """w = 0 is within any tolerance of the objective there, and ranks nothing."""
    X, y = problem(40, 6)
    C = (1e-12, 1e-8, 1e-6)
    found, tight = solve_logistic(X.astype(dtype), y, C), solve_logistic(X, y, C, tol=TIGHT)
    gradient = X.T @ (y - y.mean())  # what w is a multiple of, as C goes to 0
    for i in range(3):
        for w in (found.coef[i, 0], tight.coef[i, 0]):
            assert w @ gradient[:, 0] / np.linalg.norm(w) / np.linalg.norm(gradient) > 0.9999


def test_a_constant_feature_gets_no_weight() -> None:
    X, y = constant_and_repeated()
    found = solve_logistic(X.astype(np.float32), y, C_GRID)
    np.testing.assert_array_equal(found.coef[:, 0, 3], 0)


def test_missing_labels_with_balanced_weights_are_scikit_learns_subset() -> None:
    X, y = problem(500, 15, labels=3)
    y[np.random.default_rng(1).random(y.shape) < 0.3] = np.nan
    found = solve_logistic(X, y, GRID, class_weight="balanced", tol=TIGHT)
    for j in range(3):
        known = ~np.isnan(y[:, j])
        for i, C in enumerate(GRID):
            model = reference(X[known], y[known, j], C, class_weight="balanced")
            np.testing.assert_allclose(found.coef[i, j], model.coef_[0], atol=1e-4 * np.linalg.norm(model.coef_))
            assert found.intercept[i, j] == pytest.approx(model.intercept_[0], abs=1e-3)


@pytest.mark.parametrize("multinomial", [False, True])
def test_weights_stand_for_rows(multinomial: bool) -> None:
    """0 leaves a row out, 3 repeats it thrice, a class weight multiplies those of its rows."""
    X, y = problem(200, 10, labels=3)
    if multinomial:
        y = np.eye(3)[np.random.default_rng(4).integers(0, 3, 200)]
    weight = np.random.default_rng(3).integers(0, 4, 200).astype(float)
    found = solve_logistic(X, y, GRID, multinomial=multinomial, sample_weight=weight, tol=TIGHT)
    rows = np.repeat(np.arange(200), weight.astype(int))
    assert_alike(found, solve_logistic(X[rows], y[rows], GRID, multinomial=multinomial, tol=TIGHT))
    if not multinomial:
        by_class = solve_logistic(X, y[:, :1], GRID, class_weight={0: 0.5, 1: 3.0}, tol=TIGHT)
        by_row = np.where(y[:, 0] == 1, 3.0, 0.5)
        assert_alike(by_class, solve_logistic(X, y[:, :1], GRID, sample_weight=by_row, tol=TIGHT))


@pytest.mark.parametrize("weight", [None, "balanced"])
def test_the_softmax_is_scikit_learns(weight: Any) -> None:
    X, _ = problem(300, 8)
    y = np.random.default_rng(3).choice(4, 300, p=[0.5, 0.3, 0.15, 0.05])
    X[:, 0] += y
    found = solve_logistic(X, np.eye(4)[y], GRID, multinomial=True, class_weight=weight, tol=TIGHT)
    assert found.converged.all()
    for i, C in enumerate(GRID):
        model = reference(X, y, C, class_weight=weight)
        np.testing.assert_allclose(found.coef[i], model.coef_, atol=2e-4 * np.linalg.norm(model.coef_))
        shift = found.intercept[i] - model.intercept_
        np.testing.assert_allclose(shift - shift.mean(), 0, atol=2e-3)
    np.testing.assert_allclose(found.coef.sum(axis=1), 0, atol=1e-9 * np.abs(found.coef).max())


def test_a_softmax_of_many_classes_on_few_rows_reaches_the_best() -> None:
    """Separable, fewer rows than features, a class of one row."""
    random = np.random.default_rng(0)
    y = np.append(random.integers(0, 8, 79), 8)
    X = random.normal(size=(80, 120)).astype(np.float32)
    found = solve_logistic(X, np.eye(9)[y], C_GRID, multinomial=True)
    tight = solve_logistic(X.astype(np.float64), np.eye(9)[y], C_GRID, multinomial=True, tol=1e-12)
    assert found.converged.all()
    assert (found.objective <= tight.objective * (1 + BEST)).all()


def softmax_objectives(X: np.ndarray, y: np.ndarray, found: LogisticSolution) -> np.ndarray:
    """(n_C,), in float64 whatever the solver worked in."""
    scores = X.astype(np.float64) @ found.coef.transpose(0, 2, 1) + found.intercept[:, None]
    beyond = np.exp(scores - scores[:, np.arange(len(y)), y][..., None])
    beyond[:, np.arange(len(y)), y] = 0
    loss = np.log1p(beyond.sum(axis=2)).sum(axis=1)
    return (found.coef**2).sum(axis=(1, 2)) / 2 + np.array(found.C) * loss


@pytest.mark.parametrize(("classes", "room"), [(3, 2e9), (5, 2e9), (5, 0)])
def test_a_softmax_over_rows_that_nearly_separate_reaches_the_best(
    classes: int, room: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one covariance for all classes, fits said to have converged lay 3e-4 above the best, in float64 6e-3."""
    monkeypatch.setattr("embedcache.probes.path_stages.CLASS_BYTES", room)
    random = np.random.default_rng(0)
    X = (random.normal(size=(500, 60)) / np.sqrt(np.arange(1, 61))).astype(np.float32)
    scores = X @ random.normal(size=(60, classes))
    y = (scores / scores.std() + 0.3 * random.gumbel(size=scores.shape)).argmax(axis=1)
    found = solve_logistic(X, np.eye(classes)[y], C_GRID, multinomial=True)
    monkeypatch.undo()
    tight = solve_logistic(X.astype(np.float64), np.eye(classes)[y], C_GRID, multinomial=True, tol=1e-12)
    assert found.converged.all()
    ours, best = softmax_objectives(X, y, found), softmax_objectives(X, y, tight)
    assert (ours <= best * (1 + BEST)).all()
    assert (best <= ours * (1 + 1e-7)).all()
    if room:
        assert found.passes < 50  # nearly 100 with one covariance


def test_a_softmax_of_two_classes_is_the_binary_fit_at_twice_c() -> None:
    """Penalising both rows of ±w/2 is half of penalising w; a third class that is far away barely matters."""
    from embedcache.probes.path_problem import PathProblem
    from embedcache.probes.path_stages import solve
    from embedcache.probes.rows import Targets

    X, y = problem(200, 6)
    classes = np.concatenate([1 - y, y], axis=1)
    share = np.full((1, 200), 1 / 200)
    C = np.array(GRID)
    problem_of_two = PathProblem.over(X, Targets(classes.T, share, True), classes.mean(axis=0), C, np.array([200.0]))
    state, _, _ = solve(problem_of_two, TIGHT, 1000)
    heads = state.point.reshape(len(GRID), 2, -1)
    binary = solve_logistic(X, y, tuple(2 * c for c in GRID), tol=TIGHT)
    difference = heads[:, 1, :-1] - heads[:, 0, :-1]
    np.testing.assert_allclose(difference, binary.coef[:, 0], atol=1e-4 * np.abs(binary.coef).max())


def test_order_of_rows_and_labels_and_a_rotation_change_nothing() -> None:
    X, y = problem(300, 12, labels=4)
    y[:40, 2] = np.nan
    random = np.random.default_rng(0)
    found = solve_logistic(X, y, GRID, tol=TIGHT)
    rows, labels = random.permutation(300), random.permutation(4)
    mixed = solve_logistic(X[rows], y[rows][:, labels], GRID, tol=TIGHT)
    scale = np.linalg.norm(found.coef, axis=-1).max(axis=1)[:, None, None]
    np.testing.assert_allclose(mixed.coef / scale, found.coef[:, labels] / scale, atol=1e-4)
    turn = np.linalg.qr(random.normal(size=(12, 12)))[0]
    turned = solve_logistic(X @ turn, y, GRID, tol=TIGHT)
    np.testing.assert_allclose(turned.coef @ turn.T / scale, found.coef / scale, atol=1e-4)
    one = solve_logistic(X, y[:, [2]], GRID[1:2], tol=TIGHT)
    np.testing.assert_allclose(one.coef[0, 0], found.coef[1, 2], atol=1e-4 * scale[1, 0, 0])


def test_labels_without_two_classes_are_named_and_the_others_fitted() -> None:
    X, y = problem(100, 5, labels=4)
    y[:, 0], y[:, 1] = np.nan, 1
    found = solve_logistic(X, y, GRID)
    assert np.isnan(found.coef[:, :2]).all()
    assert np.isnan(found.objective[:, :2]).all()
    assert np.isfinite(found.coef[:, 2:]).all()
    none = solve_logistic(X, y[:, :2], GRID)
    assert np.isnan(none.intercept).all()
    assert none.passes == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_stored_precision_is_taken_as_it_is(dtype: Any) -> None:
    X, y = problem(300, 10)
    found = solve_logistic(X.astype(dtype), y, GRID)
    exact = solve_logistic(X.astype(dtype).astype(np.float64), y, GRID, tol=TIGHT)
    np.testing.assert_allclose(found.objective, exact.objective, rtol=BEST)


def test_nan_and_infinity_are_refused() -> None:
    for bad in (np.nan, np.inf):
        for n, d in ((50, 4), (10, 40)):
            X, y = problem(n, d)
            y[:2, 0] = 0, 1
            X[3, 2] = bad
            with pytest.raises(InputError, match="finite"):
                solve_logistic(X.astype(np.float32), y, GRID)


def test_digits_are_told_apart_as_scikit_learn_does() -> None:
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32)
    train, test = np.arange(len(X)) % 2 == 0, np.arange(len(X)) % 2 == 1
    path = LogisticProbe(C=(1e-3, 1e-2, 1e-1)).fit_path(
        X[train], y[train].astype(float), "multiclass", (1e-3, 1e-2, 0.1), 10
    )
    found = path.scores(X[test]).argmax(axis=-1)
    for i, C in enumerate(path.values):
        model = LogisticRegression(C=C, tol=1e-8, max_iter=10_000).fit(X[train].astype(np.float64), y[train])
        expected = model.predict(X[test].astype(np.float64))
        assert (found[i] == expected).mean() >= 0.998  # a tie of two digits may fall either way


def test_a_fit_tells_of_its_solver() -> None:
    X, y = problem(300, 10, labels=2)
    told = LogisticProbe().fit_path(X.astype(np.float32), y, "multilabel", GRID, 2).diagnostics
    assert told.not_converged == ()
    assert told.path["C"] == list(GRID)
    assert {len(told.path[name]) for name in ("iterations", "gradient_norm", "objective")} == {len(GRID)}
    assert 1 < told.path["passes"] < 12
    assert max(told.path["gradient_norm"]) < 1e-3
    hurried = LogisticProbe(max_iter=1).fit_path(X.astype(np.float32), y, "multilabel", GRID, 2).diagnostics
    assert GRID[-1] in hurried.not_converged


@pytest.mark.parametrize("multinomial", [False, True])
def test_torch_makes_the_same_passes(multinomial: bool) -> None:
    """On its CPU device, the nearest to a GPU that every machine has."""
    X, y = problem(300, 12, labels=3)
    if multinomial:
        y = np.eye(3)[np.random.default_rng(4).integers(0, 3, 300)]
    else:
        y[:60, 1] = np.nan
    X[:, 2] += 50  # so that blocks are shifted
    for dtype in (np.float32, np.float64):
        args = X.astype(dtype), y, GRID
        numpy = solve_logistic(*args, multinomial=multinomial, tol=1e-8)
        torch = solve_logistic(*args, multinomial=multinomial, tol=1e-8, device="cpu:0")
        assert torch.converged.all()
        scale = np.linalg.norm(numpy.coef, axis=-1).max(axis=1)[:, None, None]
        np.testing.assert_allclose(torch.coef / scale, numpy.coef / scale, atol=2e-3 if dtype is np.float32 else 2e-4)
        np.testing.assert_allclose(torch.objective, numpy.objective, rtol=1e-6)


def test_an_unknown_device_is_refused() -> None:
    X, y = problem(30, 4)
    with pytest.raises(InputError, match="gpu7"):
        solve_logistic(X, y, GRID, device="gpu7")


def test_a_fit_imports_neither_torch_nor_scikit_learn() -> None:
    program = (
        "import sys, numpy as np; from embedcache.probes.logistic import LogisticProbe;"
        "X = np.random.default_rng(0).normal(size=(60, 5)); y = (X[:, 0] > 0) * 1.0;"
        "LogisticProbe().fit_path(X, y, 'binary', (0.1, 1.0), 1).scores(X);"
        "from embedcache.probes.ridge import RidgeProbe;"
        "RidgeProbe().fit_path(X, y, 'numeric', (0.1, 1.0), 1).scores(X);"
        "print({'torch', 'sklearn', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_softmax_of_rows_far_apart_keeps_its_shares() -> None:
    """Separable classes at a large C: scores of one row lie hundreds below those of another."""
    random = np.random.default_rng(0)
    y = np.arange(360) % 3
    X = random.normal(size=(360, 12)).astype(np.float32)
    X[:, :3] += 3 * np.eye(3, dtype=np.float32)[y]
    found = solve_logistic(X, np.eye(3)[y], tuple(10 ** np.linspace(-6, 5, 45)), multinomial=True)
    assert np.isfinite(found.coef).all()
    assert found.converged.all()


def classes_of(X: np.ndarray, count: int) -> np.ndarray:
    scores = X @ np.random.default_rng(4).normal(size=(X.shape[1], count)) + np.random.default_rng(5).normal(
        size=(len(X), count)
    )
    return np.eye(count)[scores.argmax(axis=1)]


@pytest.mark.parametrize(("multinomial", "classes"), [(False, 3), (True, 2), (True, 4)])
def test_a_start_saves_passes_and_ends_at_the_same_objective(multinomial: bool, classes: int) -> None:
    X, Y = problem(4000, 40, labels=classes)
    if multinomial:
        Y = classes_of(X, classes)
    C = (1e-1, 1e-3, 1e-2)  # in no order
    before = solve_logistic(X[:3200], Y[:3200], C, multinomial=multinomial)
    start = Start(before.coef, before.intercept, before.basis)
    cold = solve_logistic(X, Y, C, multinomial=multinomial)
    warm = solve_logistic(X, Y, C, multinomial=multinomial, start=start)
    best = solve_logistic(X, Y, C, multinomial=multinomial, tol=1e-11)
    assert warm.converged.all()
    assert (warm.objective / best.objective - 1).max() < BEST
    assert warm.passes < cold.passes - 0.5
    assert warm.grams == cold.grams - 1  # the basis is the other rows'


def test_a_start_decides_nothing() -> None:
    """However bad it is, and where a label has none."""
    X, Y = problem(600, 12, labels=2)
    best = solve_logistic(X, Y, GRID, tol=TIGHT)
    random = np.random.default_rng(0)
    coef, intercept = random.normal(size=(5, 2, 12)) * 1e3, random.normal(size=(5, 2)) * 1e3
    coef[:, 1], intercept[:, 1] = np.nan, np.nan
    # a metric of other rows is a bad one, which costs steps
    other = solve_logistic(X[::-1] * np.linspace(1, 5, 12), Y, (1.0,))
    assert other.basis is not None
    for basis in (None, other.basis):
        found = solve_logistic(X, Y, GRID, start=Start(coef, intercept, basis))
        assert found.converged.all()
        assert (found.objective / best.objective - 1).max() < BEST


def test_no_basis_is_handed_on_that_leaves_features_out() -> None:
    X, y = constant_and_repeated()
    assert solve_logistic(X, y, (1.0,)).basis is None
    assert solve_logistic(*problem(40, 120), (1.0,)).basis is None  # it is one of the rows' own coordinates


def test_a_start_is_not_taken_where_rows_are_few() -> None:
    """Most of 60 rows say little of all of them: steps from there are more."""
    X, Y = problem(60, 12)
    before = solve_logistic(X[:50], Y[:50], GRID)
    cold = solve_logistic(X, Y, GRID)
    found = solve_logistic(X, Y, GRID, start=Start(before.coef, before.intercept, before.basis))
    np.testing.assert_array_equal(found.coef, cold.coef)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_a_probe_fitted_from_another_is_the_one_fitted_anew(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that are standardised anew, by more rows: the same model under another scale."""
    X, Y = problem(800, 30, labels=3)
    X = (X + np.linspace(0, 40, 800)[:, None] ** 0.5).astype(np.float32)  # the further rows lie elsewhere
    y = classes_of(X - X.mean(axis=1, keepdims=True), 3).argmax(axis=1).astype(float) if kind == "multiclass" else Y
    probe, some, whole = LogisticProbe(C=(1e-2, 1.0)), Standardizer.fit(X[:600]), Standardizer.fit(X)
    before = probe.fit_path(some.apply(X[:600]), y[:600], kind, (1e-2, 1.0), 3).only(1.0)
    Z = whole.apply(X)
    warm = probe.fit_from(Z, y, kind, before, whole.seen_by(some), 3)
    cold = LogisticProbe(C=(1.0,), tol=1e-11).fit_path(Z.astype(np.float64), y, kind, (1.0,), 3)
    assert warm.values == (1.0,)
    mine, best = (np.array(fitted.diagnostics.path["objective"]) for fitted in (warm, cold))
    assert abs(mine / best - 1).max() < BEST
    np.testing.assert_allclose(warm.scores(Z), cold.scores(Z), atol=0.03)
    # and it started where the other stood: the same scores, of features under another scale
    started: list[Start] = []

    def solved(*arguments: Any, start: Start, **options: Any) -> LogisticSolution:
        started.append(start)
        return solve_logistic(*arguments, start=start, **options)

    monkeypatch.setattr("embedcache.probes.logistic.solve_logistic", solved)
    probe.fit_from(Z, y, kind, before, whole.seen_by(some), 3)
    (start,) = started
    assert start.basis is not None
    scores = Z @ start.coef[0].T + start.intercept[0]
    if kind == "multiclass":
        scores = log_softmax(scores)
    np.testing.assert_allclose(scores, before.scores(some.apply(X))[0], atol=1e-3)


def test_a_start_without_points_costs_no_pass() -> None:
    X, Y = problem(2000, 20)
    cold = solve_logistic(X, Y, GRID)
    nothing = Start(np.full_like(cold.coef, np.nan), np.full_like(cold.intercept, np.nan), None)
    found = solve_logistic(X, Y, GRID, start=nothing)
    np.testing.assert_array_equal(found.coef, cold.coef)
    assert found.passes == cold.passes


def test_a_start_that_float32_can_not_hold_is_none() -> None:
    X, Y = problem(600, 12)
    X = X.astype(np.float32)
    best = solve_logistic(X.astype(np.float64), Y, GRID, tol=TIGHT)
    found = solve_logistic(X, Y, GRID, start=Start(np.full((5, 1, 12), 1e39), np.zeros((5, 1)), None))
    assert (found.objective / best.objective - 1).max() < BEST


def test_a_metric_serves_further_where_nothing_separates_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rare label at large C: its path ends at a solution without penalty, and so do curvature and covariance."""
    random = np.random.default_rng(3)
    X = random.normal(size=(2500, 200)) / np.sqrt(np.arange(1, 201))
    score = X @ random.normal(size=200) + random.logistic(size=2500)
    y = (score > np.quantile(score, 0.95)).astype(float)[:, None]
    asked: list[int] = []
    of_rows = Rows.gram

    def counted(self: Rows, *arguments: Any) -> Any:
        asked.append(len(self.X))
        return of_rows(self, *arguments)

    monkeypatch.setattr(Rows, "gram", counted)
    X = X.astype(np.float32)
    found = solve_logistic(X, y, tuple(10 ** np.linspace(-3, 8, 45)))
    assert len(asked) < 5  # for w = 0, and two more: with one for every six C it were five
    best = solve_logistic(X.astype(np.float64), y, found.C, tol=1e-11)
    assert found.converged.all()
    assert (found.objective / best.objective - 1).max() < BEST
    assert found.iterations.max() > 12  # the first stage did not do for all of them
