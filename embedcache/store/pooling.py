"""How the slices of a sample, or of all samples of a patient, become one vector; numpy, runs of rows at a time."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, suggest

POOLS = ("mean", "max", "mean+max", "middle", "middle-N", "top-K", "bags")
"""As a user writes them, N and K being whole numbers. `bags` leaves the slices, one bag after the other, to who pools them."""
_COUNTED = re.compile(r"(middle|top)-([0-9]+)")
_BLOCK_VALUES = 4_000_000
"""Features that are copied at a time: 16 MB."""
Vectors = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pooling:
    """One way to pool."""

    way: str
    """`mean`, `max`, `mean+max`, `middle`, `top`, `bags`."""
    count: int = 1
    """Slices that `middle` takes the mean of; values of each feature that `top` does."""

    @classmethod
    def parse(cls, text: str, offered: Iterable[str] = POOLS) -> "Pooling":
        """From `mean`, `max`, `mean+max`, `middle`, `middle-3`, `top-5`. Raises InputError, UnknownNameError.

        offered: what a message lists.
        """
        if text in ("mean", "max", "mean+max", "middle", "bags"):
            return cls(text)
        counted = _COUNTED.fullmatch(text)
        if counted is None:
            raise suggest("pooling", text, offered)
        if int(counted[2]) < 1:
            raise InputError(f"pooling {text!r} takes no slice; give a number of 1 or more.")
        return cls(counted[1], int(counted[2]))

    @property
    def width(self) -> int:
        """How many times as wide as a slice's vector the pooled one is."""
        return 2 if self.way == "mean+max" else 1

    @property
    def ordered(self) -> bool:
        """Whether it asks where in its volume a slice lies."""
        return self.way == "middle"


def pool_slices(X: Vectors, first: Numbers, count: Numbers, pooling: Pooling) -> Vectors:
    """Pool runs of rows [first, first + count) into one row each: X (n, d) to (runs, d), or (runs, 2 d) for `mean+max`.

    Every count is 1 or more. `middle` of n slices begins at n // 2 - N // 2; where there are fewer slices than asked for, all
    are taken, so that `top` is then the mean. `bags` gives X back. Sums over the same values in another order may differ by
    rounding, except for `top`, whose values are sorted.
    """
    match pooling.way:
        case "mean+max":
            return np.concatenate([pool_slices(X, first, count, Pooling(way)) for way in ("mean", "max")], axis=1)
        case _ if len(X) == len(first) or pooling.way == "bags":  # a slice each: radiographs
            return X
        case "max":
            largest: Vectors = np.maximum.reduceat(X, first, axis=0)
            return largest
        case "mean":
            mean: Vectors = (np.add.reduceat(X, first, axis=0) / count[:, None]).astype(np.float32)
            return mean
        case "middle" if pooling.count == 1:
            middle: Vectors = X[first + count // 2]
            return middle
        case "middle":
            return _middle(X, first, count, pooling.count)
        case _:
            return _top(X, first, count, pooling.count)


def _middle(X: Vectors, first: Numbers, count: Numbers, wanted: int) -> Vectors:
    taken = np.minimum(wanted, count)
    pooled = np.empty((len(first), X.shape[1]), dtype=np.float32)
    for n, at in _alike(taken, X.shape[1]):
        pooled[at] = X[_rows(first[at] + count[at] // 2 - n // 2, n)].mean(axis=1)
    return pooled


def _top(X: Vectors, first: Numbers, count: Numbers, wanted: int) -> Vectors:
    pooled = np.empty((len(first), X.shape[1]), dtype=np.float32)
    for n, at in _alike(count, X.shape[1]):
        block = X[_rows(first[at], n)]
        block.sort(axis=1)  # faster than a partition of so few
        pooled[at] = block[:, -min(wanted, n) :].mean(axis=1)
    return pooled


def _alike(count: Numbers, width: int) -> Iterator[tuple[int, Numbers]]:
    """Each count with the runs that have it, no more of them at a time than a block has room for."""
    for n in np.unique(count).tolist():
        runs = np.flatnonzero(count == n)
        step = max(1, _BLOCK_VALUES // (n * max(1, width)))
        for start in range(0, len(runs), step):
            yield n, runs[start : start + step]


def _rows(start: Numbers, n: int) -> Numbers:
    """(runs, n): the numbers from each start on."""
    return np.asarray(start[:, None] + np.arange(n))
