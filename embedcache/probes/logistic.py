"""Logistic regression for a whole path of C: convex, no learning rate, the default head.

Minimises  |w|² / 2 + C · Σ loss  (scikit-learn's parametrisation; the intercept is free), one model per label for
binary and multilabel tasks, multinomial for multiclass; `logistic_path` solves all of them at once.
"""

from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, ClassVar, Literal

import numpy as np

from embedcache.errors import InputError
from embedcache.half import widened
from embedcache.probes.base import (
    Affine,
    Diagnostics,
    Features,
    FittedPath,
    Groups,
    Matrix,
    ProbeKind,
    label_matrix,
    runs,
)
from embedcache.probes.eigenbasis import Eigenbasis
from embedcache.probes.logistic_path import LogisticSolution, Start, solve_logistic
from embedcache.probes.rows import SAMPLE, far_means
from embedcache.probes.side_by_side import threads_for

C_GRID: tuple[float, ...] = tuple(float(c) for c in 10 ** np.linspace(-6, 5, 45))
"""DINOv2's grid."""
_BLOCK_VALUES = 2_000_000
"""Features and scores of the rows that a thread scores at a time: 8 MB in float32."""


@dataclass(frozen=True)
class FittedLogistic:
    """Coefficients (n_values, n_classes, d) and intercepts (n_values, n_classes); NaN for a label without a fit."""

    values: tuple[float, ...]
    kind: ProbeKind
    coef: Matrix
    intercept: Matrix
    centre: Matrix
    """(d,): subtracted from rows before a product in float32, so that large means cost no digits; zeros where none is large."""
    diagnostics: Diagnostics
    basis: Eigenbasis | None = field(default=None, repr=False, compare=False)
    """Of the rows that it was fitted to, for a fit that starts from this one."""

    threshold = 0.0
    """Of the log-odds."""

    @property
    def score_name(self) -> str:
        """Both are unbounded: a probability in float64 would tie all confident positives at 1."""
        return "log-probability" if self.kind == "multiclass" else "log-odds"

    def only(self, value: float) -> "FittedLogistic":
        """The model of one C alone."""
        at = [self.values.index(value)]
        return replace(self, values=(value,), coef=self.coef[at], intercept=self.intercept[at])

    def scores(self, X: Features) -> Matrix:
        """Log-odds per label, or log-softmax over the classes; shape (n_values, n, n_classes).

        Products run in the precision of X, at least float32, block by block: beside the scores some 50 MB.
        """
        n_values, n_classes, d = self.coef.shape
        dtype = np.result_type(X.dtype, np.float32)
        W = self.coef.reshape(-1, d).astype(dtype)
        offset = (self.intercept + self.coef @ self.centre).reshape(-1, 1)
        centre = self.centre.astype(dtype)
        flat = np.empty((n_values * n_classes, len(X)))  # a column's scores in a row, as whoever ranks them wants them
        result: Matrix = flat.reshape(n_values, n_classes, -1).transpose(0, 2, 1)

        far = bool(centre.any())

        def score(rows: slice) -> None:
            block = widened(X[rows]).astype(dtype, copy=False)
            np.add(W @ (block - centre if far else block).T, offset, out=flat[:, rows])
            if self.kind == "multiclass":
                result[:, rows] = log_softmax(result[:, rows])

        with threads_for(X.size * W.shape[1]) as team:
            team.each(score, list(runs(len(X), d + n_values * n_classes, _BLOCK_VALUES)))
        return result


@dataclass(frozen=True)
class LogisticProbe:
    """Logistic regression by C, the inverse strength of the L2 penalty."""

    C: tuple[float, ...] = C_GRID
    tol: float = 1e-6
    """Share of the objective that a further step is foreseen to gain where the solver stops."""
    max_iter: int = 1000
    class_weight: Literal["balanced"] | None = None
    """`balanced`: each class of a label counts as if all had equally many rows."""
    device: str = "cpu"
    """Where passes over the rows run: `cpu` in numpy, anything else as torch calls it."""

    parameter = "C"
    answers: ClassVar[tuple[ProbeKind, ...]] = ("binary", "multilabel", "multiclass")
    standardize = True

    def __post_init__(self) -> None:
        if self.class_weight not in (None, "balanced"):
            raise InputError(f"class_weight must be 'balanced' or None. Got {self.class_weight!r}.")

    def grid(self, n_train: int) -> tuple[float, ...]:
        """All C, ascending: a smaller C is the smoother model. Independent of `n_train`."""
        return tuple(sorted(set(self.C)))

    def fit_path(
        self,
        X: Features,
        y: Features,
        kind: ProbeKind,
        values: tuple[float, ...],
        n_classes: int,
        groups: Groups | None = None,
    ) -> FittedLogistic:
        """Fit each C in `values`; a missing label leaves its row out of that label's fit only.

        A label with one class among its rows gets no fit, and NaN for scores.
        """
        return self._fit(X, y, kind, values, n_classes, None)

    def fit_from(
        self,
        X: Features,
        y: Features,
        kind: ProbeKind,
        fitted: FittedPath,
        scale: Affine,
        n_classes: int,
        groups: Groups | None = None,
    ) -> FittedLogistic:
        """As `fit_path`, in fewer steps: each C starts where `fitted` has it, in the basis of its rows."""
        factor, shift = scale
        start = None
        if isinstance(fitted, FittedLogistic):
            start = Start(fitted.coef * factor, fitted.intercept + fitted.coef @ shift, fitted.basis)
        return replace(
            self._fit(X, y, kind, fitted.values, n_classes, start), basis=None
        )  # nothing starts from a refit

    def _fit(
        self, X: Features, y: Features, kind: ProbeKind, values: tuple[float, ...], n_classes: int, start: Start | None
    ) -> FittedLogistic:
        found = solve_logistic(
            X,
            label_matrix(y, kind, n_classes),
            values,
            multinomial=kind == "multiclass",
            class_weight=self.class_weight,
            tol=self.tol,
            max_iter=self.max_iter,
            device=self.device,
            start=start,
        )
        middle = far_means(widened(X[:: max(1, len(X) // SAMPLE)]).astype(np.float64))
        centre = np.zeros(X.shape[1]) if middle is None else middle
        told = diagnostics(found, self.device)
        return FittedLogistic(values, kind, found.coef, found.intercept, centre, told, found.basis)


def diagnostics(found: LogisticSolution, device: str) -> Diagnostics:
    """What the solver has to say: of each C the worst label."""
    stopped = tuple(sorted({c for c, fine in zip(found.C, found.converged, strict=True) if not fine.all()}))
    warned = (
        (f"{len(stopped)} values of C did not converge ({min(stopped):.3g} to {max(stopped):.3g}).",) if stopped else ()
    )
    path: dict[str, Any] = {
        "C": list(found.C),
        "iterations": found.iterations.max(axis=1, initial=0).tolist(),
        "gradient_norm": np.nan_to_num(found.gradient_norm).max(axis=1, initial=0.0).tolist(),
        "objective": np.nansum(found.objective, axis=1).tolist(),
        "passes": round(found.passes, 2),
    }
    return Diagnostics(warned, stopped, {"solver": _solver(device)}, path)


def _solver(device: str) -> str:
    if device == "cpu":
        return f"numpy {np.__version__} batched L-BFGS"
    return f"torch {version('torch')} on {device}, batched L-BFGS"


def log_softmax(z: Matrix) -> Matrix:
    """log softmax over the last axis, exact also where a probability is within rounding of 1; NaN columns stay out."""
    masked = np.where(np.isnan(z), -np.inf, z)
    top = masked.argmax(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # of a model without any score
        shifted = masked - np.take_along_axis(masked, top, axis=-1)
    others = np.exp(shifted)
    np.put_along_axis(others, top, 0.0, axis=-1)
    result: Matrix = np.where(np.isnan(z), np.nan, shifted - np.log1p(others.sum(axis=-1, keepdims=True)))
    return result
