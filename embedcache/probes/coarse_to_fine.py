"""Every third value of a hyper-parameter first, those between them later, from where the path through the others points.

Solutions lie on a smooth curve in log C: between neighbours that are solved, a polynomial through the nearest ones comes so
close that one or two steps end it, where six are needed from w = 0.
"""

import numpy as np

from embedcache.probes.base import Matrix
from embedcache.probes.batched_lbfgs import Columns

_STEPS = (3, 1)
_FEWEST = 8
"""Of fewer values all are solved at once."""
_THROUGH = 6
"""Solved values that the polynomial goes through; fewer where there are not as many."""


def levels(n: int) -> list[Columns]:
    """0 to n - 1 in the order in which they are solved together; the first level has both ends."""
    if n < _FEWEST:
        return [np.arange(n)]
    found: list[Columns] = []
    rest = np.ones(n, dtype=np.bool_)
    for step in _STEPS:
        level = np.zeros(n, dtype=np.bool_)
        level[::step] = True
        level[-1] = True
        found.append(np.flatnonzero(level & rest))
        rest &= ~level
    return found


def weights_between(at: float, known: Matrix) -> tuple[Columns, Matrix]:
    """Which of the abscissas `known` (ascending) to go through, and Lagrange's weight of each, for a value at `at`."""
    nearest = np.sort(np.argsort(np.abs(known - at), kind="stable")[:_THROUGH])
    return nearest, _lagrange(at, known[nearest])


def _lagrange(at: float, x: Matrix) -> Matrix:
    """(k,): what the values at x (k,) count in that of their polynomial at `at`; they sum to 1."""
    apart = x[:, None] - x[None, :]
    np.fill_diagonal(apart, 1.0)
    share = (at - x)[None, :] / apart
    np.fill_diagonal(share, 1.0)
    return np.asarray(share.prod(axis=1))
