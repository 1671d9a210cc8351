"""Features centred and scaled by their training rows, which are taken from a larger matrix as they are worked on.

Rows are worked on in blocks that stay in a core's cache: a copy of the rows of a part is never made beside the scaled one.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from embedcache.half import widened
from embedcache.probes.base import Affine, Columns, Features, Matrix, runs, take_columns

_BLOCK_VALUES = 1 << 18
"""Values worked on at a time: 1 MB in float32, which stays in a core's cache."""
_SUMMED = 256
"""Rows of a block, at most."""
_THREADS = 2
"""Memory, not arithmetic, is what a further one would wait for."""
RowNumbers = npt.NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class Moments:
    """Of some rows."""

    n: int
    mean: Matrix
    """(d,)."""
    variance: Matrix
    """(d,): divided by n."""

    @classmethod
    def of(cls, X: Features, rows: RowNumbers | None = None) -> "Moments":
        """Those of X (n, d), or of its `rows` alone: sums over blocks in float64, and of all but float16 within them too."""
        n, d = len(X) if rows is None else len(rows), X.shape[1]
        if not n:
            return cls(0, np.zeros(d), np.zeros(d))
        # of few rows each, for a sum in float32 loses a digit with each hundred or so
        blocks = list(runs(n, max(d, _BLOCK_VALUES // _SUMMED), _BLOCK_VALUES))
        # about the first rows' mean, near enough to the true one that the difference of two sums loses no digits
        middle = _block(X, rows, blocks[0]).mean(axis=0, dtype=np.float64)
        if X.dtype == np.float16:
            middle = middle.astype(np.float32)  # squares of what float16 holds are far from float32's end

        def sums(block: slice) -> tuple[Matrix, Matrix]:
            deviation = _block(X, rows, block) - middle
            total = deviation.sum(axis=0)
            deviation *= deviation
            return total, deviation.sum(axis=0)

        total, squares = np.zeros(d), np.zeros(d)
        for of_block, squared in _mapped(sums, blocks):
            total += of_block
            squares += squared
        shift = total / n
        return cls(n, middle + shift, np.maximum(squares / n - shift**2, 0.0))

    def with_those(self, other: "Moments") -> "Moments":
        """Of both sets of rows together."""
        n = self.n + other.n
        share, apart = other.n / n, other.mean - self.mean
        between = share * (1 - share) * apart**2
        return Moments(n, self.mean + share * apart, (1 - share) * self.variance + share * other.variance + between)

    def take(self, columns: Columns) -> "Moments":
        """Those of some columns."""
        mean, variance = (np.asarray(take_columns(v[None], columns)[0]) for v in (self.mean, self.variance))
        return Moments(self.n, mean, variance)


@dataclass(frozen=True)
class Standardizer:
    """Centre and scale of each feature, learned from training rows only. A constant feature is centred, not scaled."""

    mean: Matrix
    std: Matrix
    moments: Moments = field(repr=False, compare=False)
    """What both were made from."""

    @classmethod
    def fit(cls, X: Features, rows: RowNumbers | None = None) -> "Standardizer":
        """Mean and standard deviation (divided by n) of X (n, d), or of its `rows` alone."""
        return cls.by(Moments.of(X, rows))

    @classmethod
    def by(cls, moments: Moments) -> "Standardizer":
        """That of the rows whose moments these are."""
        std = np.sqrt(moments.variance)
        # Rounding leaves a constant column of float32 with a std of about 1e-7 of its size, which must not be blown up.
        constant = std <= 1e-6 * np.abs(moments.mean)
        return cls(moments.mean, np.where(constant | (std == 0), 1.0, std), moments)

    def of(self, columns: Columns) -> "Standardizer":
        """The scale of some columns alone."""
        return Standardizer.by(self.moments.take(columns))

    def seen_by(self, other: "Standardizer") -> Affine:
        """Factor and shift, (d,) each, that make what `other` has scaled of what this one has."""
        return self.std / other.std, (self.mean - other.mean) / other.std

    def apply(
        self, X: Features, rows: RowNumbers | None = None, out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """(X - mean) / std of X, or of its `rows` alone: (n, d), float32, within two roundings of the exact value.

        out: where it is written, instead of a new array.
        """
        n = len(X) if rows is None else len(rows)
        scaled = np.empty((n, X.shape[1]), dtype=np.float32) if out is None else out
        # the mean as the sum of two float32: one alone would cost digits where it is large beside the deviation
        mean = self.mean.astype(np.float32)
        rest, factor = (self.mean - mean).astype(np.float32), (1 / self.std).astype(np.float32)

        def scale(block: slice) -> None:
            out = scaled[block]
            np.subtract(_block(X, rows, block), mean, out=out, casting="same_kind")
            out -= rest
            out *= factor

        for _ in _mapped(scale, list(runs(n, X.shape[1], _BLOCK_VALUES))):
            pass
        return scaled


def _block(X: Features, rows: RowNumbers | None, block: slice) -> Features:
    return widened(X[block] if rows is None else X[rows[block]])


def _mapped(work: Callable[[slice], T], blocks: list[slice]) -> list[T]:
    """What `work` makes of each block, in their order; each thread has a run of them."""
    if len(blocks) < _THREADS:
        return [work(block) for block in blocks]
    cuts = np.linspace(0, len(blocks), _THREADS + 1).round().astype(int).tolist()
    shares = [blocks[a:b] for a, b in pairwise(cuts)]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="embedcache-scale") as pool:
        return [one for share in pool.map(lambda some: [work(block) for block in some], shares) for one in share]
