"""Upper bounds of the similarity of a query and every row, by a product that is shorter than the rows are.

In an orthonormal basis whose first w axes hold most of the rows' spread about their mean m,

    q·x = q·m + m·(x-m) + (q-m)·(x-m) <= q·m + m·(x-m) + p_q·p_x + r_q r_x

where p are the w coordinates of q-m and x-m and r the lengths of what they leave over (Cauchy-Schwarz). The last three terms
are one product of w+2 numbers. Rounding is bounded too (`slack`). How wide the product is decides the time alone.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.probes.base import Matrix
from embedcache.probes.neighbours import Rows, product_slack, rounding
from embedcache.probes.pair_products import pair_cost
from embedcache.probes.side_by_side import Team, cores, one_blas_thread

WIDTHS = (62, 126, 190, 254, 382, 510)
_ORTHANT = 8
"""Axes by whose sides queries are put in order."""
_CONVERTED = 512
"""Rows projected at a time by a thread, in float64."""
_SAMPLE_ROWS = 8192
"""Rows that the basis is learned from."""
_TRIED_ROWS = 2048
_TRIED_QUERIES = 64
_SMALL = 2**36
"""Products of a search below which a basis does not pay: some seconds of work."""


@dataclass(frozen=True)
class Guess:
    """What the k-th similarity surely reaches, or nearly so: one of the highest of every `step`-th row."""

    step: int
    sure: float
    """Standard deviations; 0: the rank of the k-th itself."""

    def rank(self, k: int) -> int:
        """Which highest: as many of the k nearest are among these rows as of a Poisson distribution of this mean."""
        mean = k / self.step
        return max(1, int(np.ceil(mean + self.sure * np.sqrt(mean))))


GUESSES = (Guess(16, 2.3), Guess(16, 8.0))
"""The first is too high for 1 query in 100, and the second hardly ever."""


@dataclass(frozen=True)
class Bounds:
    """What gives upper bounds for all rows: `left` of the queries times `right` of the rows, plus a shift per query."""

    right: Rows
    """(n_rows, w + 2), or the rows themselves."""
    mean: Matrix | None
    basis: Matrix | None
    """(d, w), orthonormal, with the mean; None: the product is whole."""
    longest: float
    """Length of the longest row, and with a basis of the longest centred one."""
    longest_centred: float

    @classmethod
    def whole(cls, rows: Rows) -> "Bounds":
        """No basis: the similarity itself, up to rounding."""
        longest = float(np.sqrt(np.vecdot(rows, rows).max(initial=0.0)))
        return cls(rows, None, None, longest, longest)

    @classmethod
    def projected(cls, rows: Rows, mean: Matrix, basis: Matrix) -> "Bounds":
        """Project the rows once."""
        right = np.empty((len(rows), basis.shape[1] + 2), dtype=np.float32)

        def project(start: int) -> float:
            block = slice(start, start + _CONVERTED)
            centred = rows[block] - mean
            right[block, :-2], right[block, -2], length = _split(centred, basis)
            right[block, -1] = centred @ mean
            return float(length.max())

        workers = min(cores(), -(-len(rows) // _CONVERTED))
        with one_blas_thread(Team(size=workers)), ThreadPoolExecutor(workers) as pool:
            greatest = max(pool.map(project, range(0, len(rows), _CONVERTED)), default=0.0)
        return cls(right, mean, basis, cls.whole(rows).longest, greatest)

    def of(self, queries: Rows) -> tuple[Rows, Matrix, Matrix]:
        """`left` (n, w + 2); what to add to left·right per query (n,); and the slack (n,): no similarity is higher."""
        d = queries.shape[1]
        length = np.linalg.norm(queries.astype(np.float64), axis=1)
        if self.mean is None or self.basis is None:
            return queries, np.zeros(len(queries)), product_slack(d, length, self.longest)
        centred = queries - self.mean
        coordinates, over, centred_length = _split(centred, self.basis)
        left = np.column_stack([coordinates, over, np.ones(len(queries), dtype=np.float32)])
        # Of the exact comparison; of the short product; of storing its terms as float32.
        slack = rounding(d) * length * self.longest + (rounding(left.shape[1]) + 2.0**-22) * self.longest_centred * (
            centred_length + float(np.linalg.norm(self.mean))
        )
        return left, queries @ self.mean, 1.01 * slack

    def alike(self, queries: Rows) -> npt.NDArray[np.int64]:
        """An order of the queries (n,) in which similar ones come together: what they have in common is in a cache then."""
        if self.mean is None or self.basis is None:
            return np.arange(len(queries))
        axes = self.basis[:, :_ORTHANT]
        side = queries @ axes.astype(np.float32) > (self.mean @ axes).astype(np.float32)
        return np.argsort(np.packbits(side, axis=1)[:, 0], kind="stable")


def is_large(rows: Rows, queries: Rows) -> bool:
    """Whether the search takes seconds, so that a look at a sample first costs little."""
    return bool(len(rows) * len(queries) * rows.shape[1] >= _SMALL)


def choose_bounds(rows: Rows, queries: Rows, k: int) -> Bounds:
    """The width that takes the least time by a sample of queries and rows; the whole product where none saves any."""
    (n, d), m = rows.shape, len(queries)
    widths = [w for w in WIDTHS if 2 * w <= d]
    if not widths:
        return Bounds.whole(rows)
    sample = rows[_evenly(n, _SAMPLE_ROWS)]
    mean = sample.mean(axis=0, dtype=np.float64)
    centred = sample - mean.astype(np.float32)
    basis = np.linalg.eigh((centred.T @ centred).astype(np.float64))[1][:, : -max(widths) - 1 : -1]
    sample = sample[:: max(1, len(sample) // _TRIED_ROWS)]
    near = min(len(sample), max(1, round(GUESSES[0].rank(k) * GUESSES[0].step * len(sample) / n)))
    few = queries[_evenly(m, _TRIED_QUERIES)]
    least = np.partition(few @ sample.T, len(sample) - near, axis=1)[:, len(sample) - near]
    # Per query, in terms of matrix products: the product, the products of pairs, and the projections of all.
    pair = pair_cost() * d
    cost = {0: float(d * n)}
    widest = Bounds.projected(sample, mean, basis)
    left, shift, slack = widest.of(few)
    reach = (least - shift - slack).astype(np.float32)[:, None]
    for width in widths:
        left_over = float(np.mean(_narrowed(left, width) @ _narrowed(widest.right, width).T >= reach)) * n
        cost[width] = n * width + pair * left_over + 2 * (n + m) * d * width / m
    width = min(cost, key=lambda w: cost[w])
    return Bounds.projected(rows, mean, basis[:, :width]) if width else Bounds.whole(rows)


def _split(centred: Matrix, basis: Matrix) -> tuple[Rows, Rows, Matrix]:
    """Coordinates, the length of what they leave over (rounded up), and the whole length."""
    coordinates = centred @ basis
    square = np.vecdot(centred, centred)
    # In float64, so what cancels is below 1e-12 of the square; the coordinates' own rounding to float32 is below 2.4e-7.
    over = np.sqrt(np.maximum(square - np.vecdot(coordinates, coordinates), 0.0) + 2.5e-7 * square)
    return coordinates.astype(np.float32), np.nextafter(over.astype(np.float32), np.float32(np.inf)), np.sqrt(square)


def _narrowed(side: Rows, width: int) -> Rows:
    """`left` or `right` as fewer axes would give it, to float32's rounding."""
    over = np.sqrt(np.square(side[:, width:-1]).sum(axis=1))
    return np.column_stack([side[:, :width], over, side[:, -1]])


def _evenly(n: int, most: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))
