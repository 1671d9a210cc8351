"""The Hessian of one fit at one point and one penalty, by Cholesky: in a twentieth of the time that its eigenvectors take."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embedcache.probes.base import Matrix
from embedcache.probes.batched_lbfgs import Columns
from embedcache.probes.eigenbasis import between
from embedcache.probes.place import HERE, Place
from embedcache.probes.standing import Standing

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
        varies: Columns,
        curvature: float,
        penalty: float,
        dtype: np.dtype[Any],
        place: Place = HERE,
    ) -> "Factored":
        """From the covariance (d, d) of rows around `mean` (d,), summed in `dtype`; features that are not in `varies` stay out.

        The covariance lies in `place`; it is left as it was. A feature may be constant among the rows that bend the loss, though
        not among all: its weight goes on where the penalty and the other rows lead it, and so it is in here, with what rounding
        leaves as its variance.
        """
        kept = place.load(varies)
        hessian = place.cast(curvature * (gram if len(varies) == len(gram) else gram[kept[:, None], kept]), dtype)
        noise = place.cast(place.load(curvature * float(np.finfo(dtype).eps) * mean[varies] ** 2), dtype)
        each = place.load(np.arange(len(hessian)))
        hessian[each, each] = place.xp.maximum(hessian.diagonal(), noise)
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

    def solve(self, gradient: Any, at: Standing) -> tuple[Any, Matrix]:
        """The gradient over the Hessian, both (m, d + 1), the last number being the intercept's; and how many times more decrease
        than that foresees there may be, (m,): where the factor's penalty is heavier than the column's.

        Gradients lie in `place`. Each column's penalty is taken to have fallen with its curvature.
        """
        now = np.maximum(at.curvature, np.finfo(np.float64).tiny)
        along = gradient[:, :-1] - gradient[:, -1:] * self.centre
        right = self.place.cast(along[:, self.varies].T, self.place.precision(self.factor))
        solved = self.place.solved(self.factor, right).T
        result = self.place.xp.zeros_like(gradient)
        result[:, self.varies] = solved * self.place.load(self.curvature / now)[:, None]
        result[:, -1] = gradient[:, -1] / self.place.load(now) - result[:, :-1] @ self.centre
        return result, np.maximum(1.0, self.penalty * at.curvature / (self.curvature * at.penalty))


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

    def solve(self, gradient: Any, at: Standing) -> tuple[Any, Matrix]:
        """The gradient over the Hessian, both (m, heads · (d + 1)), and how many times more decrease than that foresees there may
        be, by the penalty and by what couples the classes.
        """
        each = between(gradient.reshape(len(gradient), len(self.heads), -1))
        now = at.curvature / self.curvature  # of the factors' point's, what is left where each column stands
        solved, misses = zip(
            *(head.solve(each[:, k], at.curved(head.curvature * now)) for k, head in enumerate(self.heads)), strict=True
        )
        return between(self.heads[0].place.xp.stack(solved, 1)).reshape(gradient.shape), self.coupled * misses[0]
