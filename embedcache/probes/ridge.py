"""Ridge regression of a number, for a whole path of alpha from one decomposition.

Minimises  Σ_i s_i · (y_i - w·x_i - b)² + alpha · |w|²  (scikit-learn's parametrisation; the intercept is free). In the
eigenbasis of the rows' weighted covariance the solution is a division, for every alpha (Hoerl & Kennard 1970); with fewer
rows than features the Gram matrix of the rows takes its place.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError
from embedcache.probes.base import Diagnostics, Features, Groups, Matrix, ProbeKind, runs
from embedcache.probes.coordinates import BLOCK_VALUES, not_finite

ALPHA_GRID: tuple[float, ...] = tuple(float(a) for a in 10 ** np.linspace(6, -3, 37))
Columns: TypeAlias = npt.NDArray[np.intp]


@dataclass(frozen=True)
class FittedRidge:
    """Weights (n_values, d) and intercepts (n_values,); NaN where no target is known."""

    values: tuple[float, ...]
    coef: Matrix
    intercept: Matrix
    diagnostics: Diagnostics

    threshold = 0.0
    """Unused: a value is no decision."""
    score_name = "value"

    def only(self, value: float) -> "FittedRidge":
        """The model of one alpha alone."""
        at = [self.values.index(value)]
        return replace(self, values=(value,), coef=self.coef[at], intercept=self.intercept[at])

    def scores(self, X: Features) -> Matrix:
        """Predicted values, shape (n_values, n, 1)."""
        result = np.empty((len(self.values), len(X), 1))
        for rows in runs(len(X), X.shape[1], BLOCK_VALUES):
            result[:, rows, 0] = self.coef @ X[rows].astype(np.float64).T + self.intercept[:, None]
        return result


@dataclass(frozen=True)
class RidgeProbe:
    """Ridge regression by alpha, the strength of the L2 penalty."""

    alpha: tuple[float, ...] = ALPHA_GRID

    parameter = "alpha"
    answers: ClassVar[tuple[ProbeKind, ...]] = ("numeric",)
    standardize = True

    def __post_init__(self) -> None:
        if not self.alpha or not all(0 < a < np.inf for a in self.alpha):
            raise InputError(f"alpha must be one or several positive numbers. Got {list(self.alpha)}.")

    def grid(self, n_train: int) -> tuple[float, ...]:
        """All alpha, descending: a larger alpha is the smoother model. Independent of `n_train`."""
        return tuple(sorted(set(self.alpha), reverse=True))

    def fit_path(
        self,
        X: Features,
        y: Features,
        kind: ProbeKind,
        values: tuple[float, ...],
        n_classes: int,
        groups: Groups | None = None,
    ) -> FittedRidge:
        """Fit each alpha in `values`; a row whose target is missing is left out."""
        coef, intercept = solve_ridge(X, np.asarray(y, dtype=np.float64).reshape(len(X)), values)
        return FittedRidge(
            values, coef, intercept, Diagnostics(software={"solver": f"numpy {np.__version__} eigenvectors"})
        )


def solve_ridge(
    X: Features, y: Matrix, alphas: tuple[float, ...], sample_weight: Matrix | None = None
) -> tuple[Matrix, Matrix]:
    """Weights (n_alphas, d) and intercepts (n_alphas,), float64.

    X (n, d), whose blocks are converted to float64; y (n,), NaN where it is missing; sample_weight (n,). Memory beside X:
    the smaller of d² and n², three times. NaN for all if no row with a known target has a weight. Raises InputError on
    features that are not finite.
    """
    weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    used = np.flatnonzero(~np.isnan(y) & (weight > 0))
    n, d = len(used), X.shape[1]
    if not n:
        return np.full((len(alphas), d), np.nan), np.full(len(alphas), np.nan)
    weight = weight[used]
    mean = (
        sum((weight[rows] @ X[used[rows]].astype(np.float64) for rows in runs(n, d, BLOCK_VALUES)), np.zeros(d))
        / weight.sum()
    )
    if not np.isfinite(mean).all():
        raise not_finite()
    middle = float(weight @ y[used]) / weight.sum()
    root = np.sqrt(weight)
    target = root * (y[used] - middle)
    penalty = np.array(alphas)
    solve = _by_rows if n < d else _by_features
    coef = solve(X, used, mean, root, target, penalty)
    return coef, middle - coef @ mean


def _by_features(X: Features, used: Columns, mean: Matrix, root: Matrix, target: Matrix, penalty: Matrix) -> Matrix:
    d = X.shape[1]
    gram, moment = np.zeros((d, d)), np.zeros(d)
    for rows in runs(len(used), d, BLOCK_VALUES):
        x = (X[used[rows]] - mean) * root[rows, None]
        gram += x.T @ x
        moment += target[rows] @ x
    square, V = np.linalg.eigh(gram)
    along = (moment @ V) / (np.maximum(square, 0.0) + penalty[:, None])
    return np.asarray(along @ V.T)


def _by_rows(X: Features, used: Columns, mean: Matrix, root: Matrix, target: Matrix, penalty: Matrix) -> Matrix:
    n, d = len(used), X.shape[1]
    gram = np.zeros((n, n))
    for part in runs(d, n, BLOCK_VALUES):
        x = (X[used, part] - mean[part]) * root[:, None]
        gram += x @ x.T
    square, Q = np.linalg.eigh(gram)
    dual = ((target @ Q) / (np.maximum(square, 0.0) + penalty[:, None])) @ Q.T
    coef = np.empty((len(penalty), d))
    for part in runs(d, n, BLOCK_VALUES):
        coef[:, part] = dual @ ((X[used, part] - mean[part]) * root[:, None])
    return coef
