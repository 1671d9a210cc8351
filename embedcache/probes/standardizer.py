"""Features centred and scaled by their training rows, which are taken from a larger matrix as they are worked on.

Rows are worked on in blocks that stay in a core's cache: a copy of the rows of a part is never made beside the scaled one.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from embedcache.half import widened
from embedcache.probes.base import Columns, Features, Matrix, runs, take_columns

_BLOCK_VALUES = 1 << 18
"""Values worked on at a time: 1 MB in float32, which stays in a core's cache."""
_THREADS = 2
"""Memory, not arithmetic, is what a further one would wait for."""
RowNumbers = npt.NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class Standardizer:
    """Centre and scale of each feature, learned from training rows only. A constant feature is centred, not scaled."""

    mean: Matrix
    std: Matrix

    @classmethod
    def fit(cls, X: Features, rows: RowNumbers | None = None) -> "Standardizer":
        """Mean and standard deviation (divided by n) of X (n, d), or of its `rows` alone, in float64."""
        n, d = len(X) if rows is None else len(rows), X.shape[1]
        blocks = list(runs(n, d, _BLOCK_VALUES))
        # about the first rows' mean, near enough to the true one that the difference of two sums loses no digits
        middle = _block(X, rows, blocks[0]).mean(axis=0, dtype=np.float64)

        def sums(block: slice) -> tuple[Matrix, Matrix]:
            deviation = _block(X, rows, block) - middle
            return deviation.sum(axis=0), np.einsum("ij,ij->j", deviation, deviation)

        total, squares = np.zeros(d), np.zeros(d)
        for of_block, squared in _mapped(sums, blocks):
            total += of_block
            squares += squared
        shift = total / n
        mean = middle + shift
        std = np.sqrt(np.maximum(squares / n - shift**2, 0.0))
        # Rounding leaves a constant column of float32 with a std of about 1e-7 of its size, which must not be blown up.
        constant = std <= 1e-6 * np.abs(mean)
        return cls(mean, np.where(constant | (std == 0), 1.0, std))

    def of(self, columns: Columns) -> "Standardizer":
        """The scale of some columns alone."""
        mean, std = (take_columns(values[None], columns)[0] for values in (self.mean, self.std))
        return Standardizer(np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64))

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
