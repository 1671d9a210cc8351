"""A draw of patients who have several classes at once, evened by exchanges so that it has its share of each."""

import numpy as np
import numpy.typing as npt

from embedcache.types import IntArray

_LOOKED_AT = 64
"""Kinds of patients on either side of an exchange, those that alone promise most: of 14 findings there are up to 16,384."""


def evened(
    random: np.random.Generator, having: npt.NDArray[np.bool_], taken: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """(n,): whom a draw takes of n patients after exchanges, as many as before.

    having (n, classes); taken (n,), the draw so far. Who has the same classes is of one kind. As long as it brings the draw's
    patients of all classes nearer to their shares, a taken patient is exchanged for one of another kind, whichever kinds bring it
    nearest. Who of a kind goes and who comes is by chance; nobody else is exchanged.
    """
    having = having[:, having.any(axis=0)]
    kinds, kind = np.unique(having, axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    sizes = np.bincount(kind, minlength=len(kinds))
    wanted = having.sum(axis=0) * (taken.sum() / len(taken))
    counts = _exchanged(kinds.astype(np.float64), sizes, np.bincount(kind[taken], minlength=len(kinds)), wanted)
    # by kind the taken first, else by chance: the first ones of each kind are in
    order = np.lexsort((random.permutation(len(kind)), ~taken, kind))
    place = np.empty(len(kind), dtype=np.int64)
    place[order] = np.arange(len(kind))
    found: npt.NDArray[np.bool_] = place - (np.cumsum(sizes) - sizes)[kind] < counts[kind]
    return found


def _exchanged(
    kinds: npt.NDArray[np.float64], sizes: IntArray, counts: IntArray, wanted: npt.NDArray[np.float64]
) -> IntArray:
    """How many of each kind a draw takes in the end, of `counts` at first.

    kinds (kinds, classes) of 0 and 1. What falls is the sum over classes of (patients - wanted)² / √wanted: what cannot be even
    is left to common classes, whose shares it changes least.
    """
    counts = counts.copy()
    weighted = kinds / np.sqrt(wanted)
    own = weighted.sum(axis=1)
    off = counts @ kinds - wanted
    while True:
        # what a patient of each kind adds to the sum when it comes and when it goes; rounded, so that machines agree on ties
        slope = 2 * weighted @ off
        come, go = np.round(own + slope, 9), np.round(own - slope, 9)
        comes = _least(come, counts < sizes)
        goes = _least(go, counts > 0)
        both = np.round(go[goes, np.newaxis] + come[comes] - 2 * weighted[goes] @ kinds[comes].T, 9)
        i, j = np.unravel_index(np.argmin(both), both.shape)
        if both[i, j] > -1e-6:
            return counts
        counts[goes[i]] -= 1
        counts[comes[j]] += 1
        off += kinds[comes[j]] - kinds[goes[i]]


def _least(values: npt.NDArray[np.float64], allowed: npt.NDArray[np.bool_]) -> IntArray:
    """Where the least of the values lie, of those allowed."""
    places = np.flatnonzero(allowed)
    return places[np.argsort(values[places], kind="stable")[:_LOOKED_AT]]
