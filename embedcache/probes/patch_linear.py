"""A linear head per patch token: multinomial logistic regression on soft labels, for a whole path of C.

A patch's target is the share of each class in it, so nothing is thrown away where a border runs through a patch.
Minimises, as scikit-learn does with every patch repeated once per class and weighted by its share,

    |W|² / 2 + C · Σ_i Σ_k -share_ik · log p_ik ,    p_i = softmax(W z_i + b),

over standardised features z; the intercept is free. Convex, so there is neither a learning rate nor a seed.

Solved in the eigenbasis of the features' covariance, in which the Hessian of the mean loss is bounded by
(1/2)·eigenvalue (Böhning 1992) and so, with the penalty, by a diagonal: scaled by its root, L-BFGS sees a problem
that is nearly round whatever the spectrum. The penalty does not change under rotation, so neither does the solution.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from embedcache.errors import InputError
from embedcache.half import widened
from embedcache.probes.base import Features, Matrix

C_GRID: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Of some ten thousand patches, which are anything but independent, tokens want a small C; the few features of a
position want a large one."""

_CURVATURE = 0.5
"""Largest eigenvalue of diag(p) - p pᵀ."""
_CHUNK_VALUES = 4_000_000
"""Features that are centred or rotated at a time: 16 to 32 MB beside the matrix itself."""


@dataclass(frozen=True)
class FittedPatchLinear:
    """One head per value of C, on features as they are stored (the standardisation is folded in)."""

    values: tuple[float, ...]
    coef: Matrix
    """(n_values, n_classes, d); 0 for a class that no training patch holds."""
    intercept: Matrix
    """(n_values, n_classes); -inf for a class that no training patch holds: it is never predicted."""
    not_converged: tuple[float, ...]
    """Values of C whose solver stopped at its last iteration."""

    def at(self, i: int) -> "FittedPatchLinear":
        """The head of the i-th value alone."""
        part = slice(i, i + 1)
        kept = tuple(c for c in self.values[part] if c in self.not_converged)
        return FittedPatchLinear(self.values[part], self.coef[part], self.intercept[part], kept)

    def probabilities(self, X: Features) -> Features:
        """Softmax over the classes, shape (n_values, n, n_classes), in the precision of X but no less than float32."""
        dtype = np.result_type(X.dtype, np.float32)
        n_values, n_classes, d = self.coef.shape
        flat = widened(X).astype(dtype, copy=False) @ self.coef.reshape(-1, d).T.astype(dtype)
        logits = flat.reshape(len(X), n_values, n_classes).transpose(1, 0, 2) + self.intercept[:, None, :].astype(dtype)
        return np.asarray(softmax(logits, axis=-1))


@dataclass(frozen=True)
class PatchLinearProbe:
    """The head's options; they enter the result's digest."""

    C: tuple[float, ...] = C_GRID
    """Grid of the inverse strength of the L2 penalty, in scikit-learn's parametrisation."""
    tol: float = 1e-4
    """L-BFGS stops at this largest component of the preconditioned gradient of the mean loss; half its square is about
    how far the mean loss still lies above its minimum."""
    max_iter: int = 500

    def __post_init__(self) -> None:
        if not self.C or not all(0 < c < np.inf for c in self.C):
            raise InputError(f"C must be one or several positive numbers. Got {list(self.C)}.")

    def grid(self) -> tuple[float, ...]:
        """All C, ascending: a smaller C is the smoother head."""
        return tuple(sorted(set(self.C)))

    def fit_path(self, X: Features, shares: Features, values: tuple[float, ...]) -> FittedPatchLinear:
        """Fit every C of `values`, each started where the next smaller one ended.

        X (n, d), float16 to float64: float64 is solved in float64, all else in float32, which holds the objective to
        about 1e-6 of itself. shares (n, n_classes), whose rows sum to 1. Beside X one rotated copy of it is held. Raises
        InputError if the patches hold fewer than two classes.
        """
        present = np.flatnonzero(shares.sum(axis=0, dtype=np.float64) > 0)
        if len(present) < 2:
            raise InputError(
                f"the training patches hold {len(present)} classes, and a head needs two (the background is one); "
                "give another split, or more masks."
            )
        rotation = _Rotation.of(X)
        Z, T = rotation.apply(X), shares[:, present].astype(rotation.dtype)
        coef = np.zeros((len(values), shares.shape[1], X.shape[1]))
        intercept = np.full((len(values), shares.shape[1]), -np.inf)
        stopped = []
        start = np.zeros((rotation.rank, len(present))), _log_prior(T)
        for i in np.argsort(values):
            W, b, converged = self._solve(Z, T, rotation.variance, values[i], start)
            start = W, b
            raw = rotation.axes @ W
            coef[i, present], intercept[i, present] = raw.T, b - rotation.mean @ raw
            if not converged:
                stopped.append(values[i])
        return FittedPatchLinear(values, coef, intercept, tuple(sorted(stopped)))

    def _solve(
        self, Z: Features, T: Features, variance: Matrix, C: float, start: tuple[Matrix, Matrix]
    ) -> tuple[Matrix, Matrix, bool]:
        """Weights (r, n_classes) and intercepts for one C, and whether the tolerance was reached."""
        n, r = Z.shape
        penalty = 1 / (C * n)  # the objective divided by C·n: the mean loss and |W|² · penalty / 2
        scale = np.append(1 / np.sqrt(_CURVATURE * variance + penalty), 1 / np.sqrt(_CURVATURE))[:, None]

        def objective(flat: Matrix) -> tuple[float, Matrix]:
            U = flat.reshape(r + 1, -1) * scale
            W, b = U[:r], U[r]
            log_p = log_softmax(Z @ W.astype(Z.dtype) + b.astype(Z.dtype), axis=-1)
            loss = -float(np.einsum("ik,ik->k", T, log_p, dtype=np.float64).sum()) / n
            R = np.exp(log_p) - T
            slope = np.concatenate([Z.T @ R / n + penalty * W, R.mean(axis=0, dtype=np.float64)[None]])
            return loss + penalty / 2 * float((W**2).sum()), (slope * scale).ravel()

        first = (np.concatenate([start[0], start[1][None]]) / scale).ravel()
        found = minimize(
            objective,
            first,
            method="L-BFGS-B",
            jac=True,
            options={"maxiter": self.max_iter, "gtol": self.tol, "ftol": self.tol**2 / 10, "maxcor": 20},
        )
        solution = found.x.reshape(r + 1, -1) * scale
        # status 2 is a line search that rounding stopped: in float32 that is the end of what can be reached
        return solution[:r], solution[r], found.status != 1


@dataclass(frozen=True)
class _Rotation:
    """Standardisation and rotation to uncorrelated coordinates: z = (x - mean) @ axes."""

    mean: Matrix
    axes: Matrix
    """(d, r): eigenvectors of the correlation matrix over the features' deviations; directions without variance are
    left out, since the penalty keeps their weights at 0."""
    variance: Matrix
    """(r,): of each coordinate."""
    dtype: np.dtype[np.floating[Any]]

    @property
    def rank(self) -> int:
        return len(self.variance)

    @classmethod
    def of(cls, X: Features) -> "_Rotation":
        dtype = np.result_type(X.dtype, np.float32)
        mean = sum(widened(X[rows]).sum(axis=0, dtype=np.float64) for rows in _chunks(X)) / max(1, len(X))
        covariance = np.zeros((X.shape[1], X.shape[1]))
        for rows in _chunks(X):
            centred = (widened(X[rows]) - mean).astype(dtype)
            covariance += centred.T @ centred
        covariance /= len(X)
        std = np.sqrt(np.diag(covariance))
        # as in Standardizer: the rounding that a constant feature leaves must not be blown up
        std[(std <= 1e-6 * np.abs(mean)) | (std == 0)] = np.inf
        variance, vectors = np.linalg.eigh(covariance / std / std[:, None])
        kept = variance > np.finfo(dtype).eps * variance.max(initial=0) * len(mean)
        return cls(mean, (vectors / std[:, None])[:, kept], variance[kept], dtype)

    def apply(self, X: Features) -> Features:
        """(n, r) in the working precision; centred before the product, so that large means cost no digits."""
        Z = np.empty((len(X), self.rank), dtype=self.dtype)
        axes = self.axes.astype(self.dtype)
        for rows in _chunks(X):
            Z[rows] = (widened(X[rows]) - self.mean).astype(self.dtype) @ axes
        return Z


def _chunks(X: Features) -> Iterator[slice]:
    step = max(1, _CHUNK_VALUES // max(1, X.shape[1]))
    for start in range(0, len(X), step):
        yield slice(start, start + step)


def _log_prior(T: Features) -> Matrix:
    """Intercepts of the model without any feature, their sum 0."""
    log: Matrix = np.log(T.mean(axis=0, dtype=np.float64))
    return np.asarray(log - log.mean())
