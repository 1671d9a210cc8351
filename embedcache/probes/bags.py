"""Rows in bags: sums and softmax over each bag of a matrix that has the rows of one after those of another."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.probes.base import Sizes


@dataclass(frozen=True)
class Bags:
    """Which rows belong together, in numpy; `attention_on_torch` has the same on a device."""

    first: Any
    """(bags,): the first row of each."""
    of_row: Any
    """(rows,): the bag of each row."""
    single: bool
    """Whether each bag has one row, so that there is nothing to pool."""

    @classmethod
    def of(cls, sizes: Sizes) -> "Bags":
        """Bags of so many rows each, at least one."""
        return cls(np.cumsum(sizes) - sizes, np.repeat(np.arange(len(sizes)), sizes), bool((sizes == 1).all()))

    def sums(self, values: Any) -> Any:
        """(rows, …) to (bags, …)."""
        return values if self.single else np.add.reduceat(values, self.first, axis=0)

    def spread(self, values: Any) -> Any:
        """(bags, …) to (rows, …): that of its bag for each row."""
        return values if self.single else values[self.of_row]

    def softmax(self, values: Any) -> Any:
        """(rows,): positive, and of sum 1 in each bag."""
        highest = values if self.single else np.maximum.reduceat(values, self.first)
        shares = np.exp(values - self.spread(highest))
        return shares / self.spread(self.sums(shares))
