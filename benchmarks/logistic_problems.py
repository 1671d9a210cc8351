"""What the logistic benchmarks share: made features, scikit-learn's ways through a path of C, and the objective."""

import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

C_GRID = tuple(float(c) for c in 10 ** np.linspace(-6, 5, 45))
Heads = tuple[np.ndarray, np.ndarray]
"""Weights (n_C, d) and intercepts (n_C,) of one label, float64."""


def made_features(n: int, d: int, seed: int = 0) -> np.ndarray:
    """(n, d) float32, standardised; the k-th variance is 1/k in a random basis."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.normal(size=(d, d)))[0]
    basis = (basis / np.sqrt(np.arange(1, d + 1))[:, None]).astype(np.float32)
    X = np.empty((n, d), dtype=np.float32)
    for start in range(0, n, 8192):
        block = random.standard_normal((min(8192, n - start), d), dtype=np.float32)
        X[start : start + 8192] = block @ basis
    X -= X.mean(axis=0, dtype=np.float64).astype(np.float32)
    X /= np.sqrt(np.einsum("nd,nd->d", X, X, dtype=np.float64) / n).astype(np.float32)
    return X


def made_labels(X: np.ndarray, prevalence: list[float], seed: int = 1) -> np.ndarray:
    """(n, n_labels) of 0 and 1: a linear score of deviation 2 under logistic noise, cut at each prevalence."""
    random = np.random.default_rng(seed)
    score = X @ random.normal(size=(X.shape[1], len(prevalence))).astype(np.float32)
    score = 2 * score / score.std(axis=0) + random.logistic(size=score.shape)
    cuts = [np.quantile(score[:, j], 1 - share) for j, share in enumerate(prevalence)]
    return (score > np.array(cuts)).astype(np.float64)


def objectives(X: np.ndarray, y: np.ndarray, heads: Heads, C: tuple[float, ...] = C_GRID) -> np.ndarray:
    """|w|² / 2 + C · Σ loss of one label at each C, in float64."""
    w, b = heads
    total = 0.5 * np.einsum("cd,cd->c", w, w)
    sign = 2 * y - 1
    for start in range(0, len(X), 4096):
        rows = slice(start, start + 4096)
        margin = sign[rows, None] * (X[rows].astype(np.float64) @ w.T + b)
        loss = np.maximum(-margin, 0) + np.log1p(np.exp(-np.abs(margin)))
        total += np.array(C) * loss.sum(axis=0)
    return total


@dataclass(frozen=True)
class Way:
    """One way through the path with scikit-learn."""

    solver: str
    tol: float
    dtype: Any = np.float64
    max_iter: int = 3000

    @property
    def name(self) -> str:
        return f"{self.solver} {np.dtype(self.dtype).name} centred, warm start, tol {self.tol:g}"

    def path(self, X: np.ndarray, y: np.ndarray) -> Heads:
        """Centred `X` in `dtype`; each C starts where the last two, a line in log C, point to."""
        model = LogisticRegression(solver=self.solver, tol=self.tol, max_iter=self.max_iter, warm_start=True)
        coef: list[np.ndarray] = []
        intercept: list[np.ndarray] = []
        for i, c in enumerate(C_GRID):
            if i >= 2:
                model.coef_ = 2 * coef[-1] - coef[-2]
                model.intercept_ = 2 * intercept[-1] - intercept[-2]
            model.set_params(C=c).fit(X, y)
            coef.append(model.coef_.copy())
            intercept.append(model.intercept_.copy())
        return np.concatenate(coef).astype(np.float64), np.concatenate(intercept).astype(np.float64)


WAYS = (
    Way("lbfgs", 1e-3),
    Way("lbfgs", 3e-4),
    Way("lbfgs", 1e-4),
    Way("lbfgs", 2e-5),
    Way("lbfgs", 3e-4, np.float32),
    Way("newton-cholesky", 1e-2),
    Way("newton-cholesky", 1e-4),
)


def centred(X: np.ndarray, dtype: Any) -> np.ndarray:
    return (X - X.mean(axis=0, dtype=np.float64)).astype(dtype)


def default_path(X: np.ndarray, y: np.ndarray, C: tuple[float, ...], max_iter: int) -> Heads:
    """scikit-learn's LogisticRegression as it comes, a fresh fit for each C, of at most so many iterations (its own: 100)."""
    coef, intercept = [], []
    for c in C:
        model = LogisticRegression(C=c, max_iter=max_iter).fit(X, y)
        coef.append(model.coef_)
        intercept.append(model.intercept_)
    return np.concatenate(coef).astype(np.float64), np.concatenate(intercept).astype(np.float64)


@dataclass(frozen=True)
class Taken:
    """What a piece of work took: on the wall, and of the processor. Other people's work changes the first far more."""

    wall: float
    processor: float


def timed(work: Callable[[], Any]) -> tuple[Taken, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        started, used = time.perf_counter(), time.process_time()
        result = work()
        return Taken(time.perf_counter() - started, time.process_time() - used), result


def all_labels(way: Way, X: np.ndarray, Y: np.ndarray, *, threads: bool) -> list[Heads]:
    """Every label's path: one after the other on all cores, or one a core side by side."""
    Z = centred(X, way.dtype)
    if not threads:
        return [way.path(Z, Y[:, j]) for j in range(Y.shape[1])]
    cores = len(os.sched_getaffinity(0))
    with threadpool_limits(1), ThreadPoolExecutor(cores) as pool:
        return list(pool.map(partial(way.path, Z), Y.T))
