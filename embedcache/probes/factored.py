"""The Hessian of one fit at one point and one penalty, by Cholesky: in a twentieth of the time that its eigenvectors take."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from embedcache.probes.base import Features, Matrix
from embedcache.probes.batched_lbfgs import Columns
from embedcache.probes.eigenbasis import varying

_ROUNDING = 4.0
"""Times the precision: what is added of each feature's variance, and ten times as much where that does not suffice."""


@dataclass(frozen=True)
class Factored:
    """curvature · covariance + penalty, as a factor; for a penalty and a curvature that are near, what differs is learned.

    Where classes separate, both fall together along the path, so that a factor of one C serves its neighbours.
    """

    factor: Features
    """(r, r), lower; of the features that vary."""
    varies: Columns
    """(r,)."""
    centre: Matrix
    """(d,): mean of the rows, weighted by curvature, less the centre that intercepts refer to."""
    curvature: float
    """Mean over the rows, at the factor's point."""
    penalty: float

    @classmethod
    def of(
        cls, gram: Matrix, mean: Matrix, centre: Matrix, curvature: float, penalty: float, dtype: np.dtype[Any]
    ) -> "Factored":
        """From the covariance (d, d) of rows around `mean` (d,), summed in `dtype`; constant features stay out."""
        varies = varying(gram, mean)
        hessian = (curvature * (gram if len(varies) == len(gram) else gram[np.ix_(varies, varies)])).astype(dtype)
        variance = np.diag(hessian).copy()
        ridge = _ROUNDING * float(np.finfo(dtype).eps)
        while ridge < 1:
            np.fill_diagonal(hessian, variance * (1 + ridge) + penalty)
            try:
                factor, _ = cho_factor(hessian, lower=True, check_finite=False)
            except LinAlgError:  # rounding made it indefinite
                ridge *= 10
                continue
            return cls(factor, varies, centre, curvature, penalty)
        return cls(np.diag(np.sqrt(variance + penalty)), varies, centre, curvature, penalty)

    def solve(self, gradient: Matrix, penalty: Matrix, curvature: Matrix) -> Matrix:
        """The gradient over the Hessian, both (m, d + 1), the last number being the intercept's.

        curvature (m,): the mean over the rows where each column now stands. Its penalty (m,) is taken to have fallen with it.
        """
        now = np.maximum(curvature, np.finfo(np.float64).tiny)
        along = gradient[:, :-1] - gradient[:, -1:] * self.centre
        right = along[:, self.varies].T.astype(self.factor.dtype)
        solved = cho_solve((self.factor, True), right, check_finite=False).T
        result = np.zeros_like(gradient)
        result[:, self.varies] = solved * (self.curvature / now)[:, None]
        result[:, -1] = gradient[:, -1] / now - result[:, :-1] @ self.centre
        return result

    def misses(self, penalty: Matrix, curvature: Matrix) -> Matrix:
        """How many times more decrease than `solve` foresees there may be: where its penalty is heavier than the column's."""
        return np.maximum(1.0, self.penalty * curvature / (self.curvature * penalty))
