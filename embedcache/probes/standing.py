"""Where the columns of a logistic path stand, as far as an estimate of their Hessian asks."""

from dataclasses import dataclass, replace
from typing import Any

from embedcache.probes.base import Matrix


@dataclass(frozen=True)
class Standing:
    """m columns; `of` some of them."""

    point: Any
    """(m, heads · (d + 1)), where the rows lie."""
    penalty: Matrix
    """(m,)."""
    bend: Matrix
    """(m, 3): `curvature`; and, of one head, mean and variance of the scores of the rows, each weighted by its curvature."""

    @property
    def curvature(self) -> Matrix:
        """(m,): mean over the rows of p·(1 - p), summed over the heads."""
        return self.bend[:, 0]

    def of(self, columns: slice) -> "Standing":
        """Those columns."""
        return Standing(self.point[columns], self.penalty[columns], self.bend[columns])

    def curved(self, curvature: Matrix) -> "Standing":
        """The same with another curvature (m,), and nothing told of the scores."""
        return replace(self, bend=curvature[:, None])
