"""The Hessian of one fit at one point and one penalty, by Cholesky: in a twentieth of the time that its eigenvectors take."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from embedcache.probes.base import Features, Matrix
from embedcache.probes.batched_lbfgs import Columns
from embedcache.probes.eigenbasis import between, varying

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


@dataclass(frozen=True)
class FactoredHeads:
    """A factor for each class of a softmax, as if none of the others moved.

    What couples them is learned. It is nearly right where rows hesitate between two classes; one covariance for all classes, with
    the coupling, took up to seven times the steps on real features, and ended 2e-4 too early.
    """

    heads: tuple[Factored, ...]
    coupled: float
    """Times what is foreseen that may be left, where classes that hesitate with each other move together."""

    def solve(self, gradient: Matrix, penalty: Matrix, curvature: Matrix) -> Matrix:
        """The gradient over the Hessian, both (m, heads · (d + 1)); curvature (m,): the sum over the heads."""
        each = between(gradient.reshape(len(gradient), len(self.heads), -1))
        now = self._share(curvature)
        solved = [head.solve(each[:, k], penalty, head.curvature * now) for k, head in enumerate(self.heads)]
        result: Matrix = between(np.stack(solved, axis=1)).reshape(gradient.shape)
        return result

    def misses(self, penalty: Matrix, curvature: Matrix) -> Matrix:
        """How many times more decrease than `solve` foresees there may be, by the penalty and by what couples the classes."""
        head = self.heads[0]
        return self.coupled * head.misses(penalty, head.curvature * self._share(curvature))

    def _share(self, curvature: Matrix) -> Matrix:
        """Of the curvature at the factors' point, what is left where each column now stands."""
        return curvature / sum(head.curvature for head in self.heads)
