"""The Hessian of one fit at one point and one penalty, by Cholesky: in a twentieth of the time that its eigenvectors take."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embedcache.probes.base import Matrix
from embedcache.probes.eigenbasis import between, varying
from embedcache.probes.place import HERE, Place

_ROUNDING = 4.0
"""Times the precision: what is added of each feature's variance, and ten times as much where that does not suffice."""

_LIGHTER = 1000.0
"""Times that a penalty may be lighter than the one beside which the covariance was factored: float32 knows it to 4 digits."""


@dataclass(frozen=True)
class Factored:
    """curvature · covariance + penalty, as a factor; for a penalty and a curvature that are near, what differs is learned.

    Where classes separate, both fall together along the path, so that a factor of one C serves its neighbours.
    """

    factor: Any
    """(r, r), lower; of the features that vary. It and the next two lie in `place`."""
    varies: Any
    """(r,)."""
    centre: Any
    """(d,): mean of the rows, weighted by curvature, less the centre that intercepts refer to."""
    curvature: float
    """Mean over the rows, at the factor's point."""
    penalty: float
    exact: float
    """The penalty with which the covariance was first factored: what was rounded beside it is not known any better."""
    place: Place

    @classmethod
    def of(
        cls,
        gram: Any,
        mean: Matrix,
        centre: Matrix,
        curvature: float,
        penalty: float,
        dtype: np.dtype[Any],
        place: Place = HERE,
    ) -> "Factored":
        """From the covariance (d, d) of rows around `mean` (d,), summed in `dtype`; constant features stay out.

        The covariance lies in `place`; it is left as it was.
        """
        varies = varying(place.unload(gram.diagonal()), mean)
        kept = place.load(varies)
        hessian = place.cast(curvature * (gram if len(varies) == len(gram) else gram[kept[:, None], kept]), dtype)
        return cls(_factor(hessian, penalty, place), kept, place.load(centre), curvature, penalty, penalty, place)

    def under(self, penalty: float) -> "Factored | None":
        """The same covariance and another penalty: no pass over the rows. None if that is lost in the first one's rounding."""
        if self.exact > _LIGHTER * penalty:
            return None
        lower = self.place.xp.tril(self.factor)
        hessian = lower @ lower.T
        each = self.place.load(np.arange(len(hessian)))
        hessian[each, each] -= self.penalty
        return replace(self, factor=_factor(hessian, penalty, self.place), penalty=penalty)

    def solve(self, gradient: Any, penalty: Matrix, curvature: Matrix) -> Any:
        """The gradient over the Hessian, both (m, d + 1), the last number being the intercept's.

        Both lie in `place`.

        curvature (m,): the mean over the rows where each column now stands. Its penalty (m,) is taken to have fallen with it.
        """
        now = np.maximum(curvature, np.finfo(np.float64).tiny)
        along = gradient[:, :-1] - gradient[:, -1:] * self.centre
        right = self.place.cast(along[:, self.varies].T, self.place.precision(self.factor))
        solved = self.place.solved(self.factor, right).T
        result = self.place.xp.zeros_like(gradient)
        result[:, self.varies] = solved * self.place.load(self.curvature / now)[:, None]
        result[:, -1] = gradient[:, -1] / self.place.load(now) - result[:, :-1] @ self.centre
        return result

    def misses(self, penalty: Matrix, curvature: Matrix) -> Matrix:
        """How many times more decrease than `solve` foresees there may be: where its penalty is heavier than the column's."""
        return np.maximum(1.0, self.penalty * curvature / (self.curvature * penalty))


def _factor(hessian: Any, penalty: float, place: Place) -> Any:
    """Cholesky's of `hessian` (r, r) + penalty, which is written over; where rounding made that indefinite, of a near one."""
    variance = 1 * hessian.diagonal()
    each = place.load(np.arange(len(hessian)))
    ridge = _ROUNDING * float(np.finfo(place.precision(hessian)).eps)
    while ridge < 1:
        hessian[each, each] = variance * (1 + ridge) + penalty
        factor = place.factor(hessian)
        if factor is not None:
            return factor
        ridge *= 10
    return place.xp.diag(place.xp.sqrt(variance + penalty))


@dataclass(frozen=True)
class FactoredHeads:
    """A factor for each class of a softmax, as if none of the others moved.

    What couples them is learned. It is nearly right where rows hesitate between two classes; one covariance for all classes, with
    the coupling, took up to seven times the steps on real features, and ended 2e-4 too early.
    """

    heads: tuple[Factored, ...]
    coupled: float
    """Times what is foreseen that may be left, where classes that hesitate with each other move together."""

    def under(self, penalty: float) -> "FactoredHeads | None":
        """As `Factored.under`."""
        of_each = {id(head): head.under(penalty) for head in self.heads}  # all may share one
        heads = [of_each[id(head)] for head in self.heads]
        return replace(self, heads=tuple(h for h in heads if h)) if all(heads) else None

    @property
    def curvature(self) -> float:
        """Mean over the rows, at the factors' point, summed over the heads."""
        return sum(head.curvature for head in self.heads)

    def solve(self, gradient: Any, penalty: Matrix, curvature: Matrix) -> Any:
        """The gradient over the Hessian, both (m, heads · (d + 1)); curvature (m,): the sum over the heads."""
        each = between(gradient.reshape(len(gradient), len(self.heads), -1))
        now = self._share(curvature)
        solved = [head.solve(each[:, k], penalty, head.curvature * now) for k, head in enumerate(self.heads)]
        return between(self.heads[0].place.xp.stack(solved, 1)).reshape(gradient.shape)

    def misses(self, penalty: Matrix, curvature: Matrix) -> Matrix:
        """How many times more decrease than `solve` foresees there may be, by the penalty and by what couples the classes."""
        head = self.heads[0]
        return self.coupled * head.misses(penalty, head.curvature * self._share(curvature))

    def _share(self, curvature: Matrix) -> Matrix:
        """Of the curvature at the factors' point, what is left where each column now stands."""
        return curvature / self.curvature
