"""The rows of a few-shot draw as a solver sees them, and estimates of the Hessian of a fit to them that are quickly made.

With n <= d the coordinates of the rows in their own span, (n, n), take the place of the features: the Cholesky factor of the
rows' products. The penalty does not see the rotation.

Of a fit that nearly separates its classes most rows no longer bend the loss: at the end of one at C = 1, half of a draw of
NIH's radiographs have a p·(1 - p) below 3e-4. The Hessian of the others is factored in their own space, by |S|³ / 3
multiplications for |S| rows that count, where the features' own Hessian would cost n·d² and more.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular

from embedcache.probes.base import Features, Matrix
from embedcache.probes.coordinates import not_finite

Single = npt.NDArray[np.float32]
_JITTER = 1e-11
"""Of the rows' mean square, added to each: equal rows, and those that others span, would leave no Cholesky factor."""
_LEFT_OUT, _LEFT_OUT_TOGETHER = 1.0, 128.0
"""Curvature times squared length up to which a row is left out of a metric, and all such rows together, where the penalty has
a curvature of 1. (At a small C each row bends the loss little, and all of them much.)"""
_WIDE = 2
"""Times the features: of more rows than that their products are not kept."""
_INTERCEPT = 1e-3
"""Penalty of the intercept in a metric, as a share of the curvature; in the problem it has none."""


@dataclass(frozen=True)
class FewRows:
    """The rows of one draw as they are solved."""

    A: Matrix
    """(n, r + 1): features or coordinates, centred, and a column of ones for the intercept."""
    single: Single
    """The same, in float32."""
    square: Matrix
    """(n,): squared length of each row, without the one."""
    products: Single | None
    """(n, n): of the rows with each other, where they are kept."""
    centre: Matrix
    """(d,): mean of the features."""
    X: Matrix | None
    """(n, d): the centred features, where A holds coordinates."""
    lower: Matrix | None
    """(n, n): Cholesky factor of their products, which is what A then holds."""

    @classmethod
    def of(cls, X: Features) -> "FewRows":
        """Of X (n, d). Raises InputError if X is not finite."""
        n, d = X.shape
        centre = X.mean(axis=0, dtype=np.float64)
        if not np.isfinite(centre).all():
            raise not_finite()
        A = np.ones((n, min(n, d) + 1))
        rows, lower, products = None, None, None
        if n <= d:
            rows = X - centre
            exact = rows @ rows.T
            A[:, :-1] = lower = _cholesky(exact)
            products = exact.astype(np.float32)
        else:
            np.subtract(X, centre, out=A[:, :-1])
        single = A.astype(np.float32)
        if products is None and n <= _WIDE * d:
            products = single[:, :-1] @ single[:, :-1].T
        return cls(A, single, np.einsum("ij,ij->i", A[:, :-1], A[:, :-1]), products, centre, rows, lower)

    def back(self, points: Matrix) -> tuple[Matrix, Matrix]:
        """Points (..., r + 1) as weights (..., d) and intercepts (...) for features as they were given."""
        w, b = points[..., :-1], points[..., -1]
        if self.lower is None or self.X is None:
            coef = w
        else:
            flat = w.reshape(-1, w.shape[-1]).T
            share = solve_triangular(self.lower, flat, trans=1, lower=True, check_finite=False).T
            coef = (share @ self.X).reshape(*w.shape[:-1], -1)
        return coef, b - coef @ self.centre


def _cholesky(products: Matrix) -> Matrix:
    jitter = _JITTER * max(float(np.trace(products)) / len(products), np.finfo(np.float64).tiny)
    while True:
        try:
            return np.asarray(np.linalg.cholesky(products + jitter * np.eye(len(products))), dtype=np.float64)
        except LinAlgError:
            jitter *= 100


@dataclass(frozen=True)
class Metric:
    """The Hessian of one head of a fit, from the curvature of its rows, factored in float32.

    Either in the rows' space, (S, S) for the rows S that count, or in that of the features, (r + 1, r + 1).
    """

    factor: tuple[Single, bool]
    root: Single | None
    """(n,): square root of each row's curvature, 0 where the row does not count; None in the features' space."""
    counting: npt.NDArray[np.int64]
    """Which rows count."""
    penalty: float
    """Of the intercept."""

    @classmethod
    def of(cls, rows: FewRows, curvature: Matrix) -> "Metric":
        """curvature (n,): of the loss by each row's score."""
        bends = curvature * rows.square
        ascending = np.argsort(bends)
        little = (bends[ascending] <= _LEFT_OUT) & (np.cumsum(bends[ascending]) <= _LEFT_OUT_TOGETHER)
        counting = np.sort(ascending[~little])
        penalty = max(_INTERCEPT * float(curvature.sum()), 1e-30)
        r, s = rows.A.shape[1] - 1, len(counting)
        root = np.sqrt(curvature[counting]).astype(np.float32)
        # a Cholesky factor is slower than a product of as many multiplications
        if rows.products is not None and s**3 < 0.8 * s * r**2 + 0.7 * r**3:
            inner = rows.products[np.ix_(counting, counting)]
            inner += np.float32(1 / penalty)
            inner *= root[:, None]
            inner *= root
            inner[np.diag_indices(s)] += 1
            spread = np.zeros(len(rows.A), dtype=np.float32)
            spread[counting] = root
            return cls(_factor(inner), spread, counting, penalty)
        weighted = rows.single[counting] * root[:, None]
        hessian = weighted.T @ weighted
        hessian[np.arange(r), np.arange(r)] += 1
        hessian[r, r] += np.float32(penalty)
        return cls(_factor(hessian), None, counting, penalty)


def _factor(matrix: Single) -> tuple[Single, bool]:
    while True:
        try:
            found: tuple[Single, bool] = cho_factor(matrix, lower=True, check_finite=False)
            return found
        except LinAlgError:  # rounding, where features have very unlike scales
            matrix[np.diag_indices(len(matrix))] *= np.float32(1.001)


def solve_all(rows: FewRows, metrics: list[Metric], gradients: Matrix) -> Matrix:
    """Gradients (m, r + 1) over the metric of each; neighbours that share a metric are solved together."""
    result = gradients.astype(np.float32)
    scale = np.ones((len(metrics), rows.A.shape[1]), dtype=np.float32)
    scale[:, -1] = [1 / metric.penalty for metric in metrics]
    inner = np.array([metric.root is not None for metric in metrics])
    if inner.any():
        some: Single = result[inner] * scale[inner]
        seen = some @ rows.single.T
        for metric, those in _runs([metrics[i] for i in np.flatnonzero(inner)]):
            assert metric.root is not None
            root, at = metric.root[metric.counting], metric.counting
            back = np.zeros_like(seen[those])
            back[:, at] = root * cho_solve(metric.factor, (seen[those][:, at] * root).T, check_finite=False).T
            seen[those] = back
        result[inner] = some - (seen @ rows.single) * scale[inner]
    for metric, those in _runs(metrics):
        if metric.root is None:
            result[those] = cho_solve(metric.factor, result[those].T, check_finite=False).T
    return result.astype(np.float64)


def _runs(metrics: list[Metric]) -> list[tuple[Metric, slice]]:
    """Each run of the same metric, and where it is."""
    starts = [i for i in range(len(metrics)) if i == 0 or metrics[i] is not metrics[i - 1]]
    return [(metrics[a], slice(a, b)) for a, b in zip(starts, [*starts[1:], len(metrics)], strict=True)]
