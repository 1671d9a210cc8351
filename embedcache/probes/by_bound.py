"""Neighbours by upper bounds: most rows are ruled out by a short product, and what is left is compared exactly.

In an orthonormal basis whose first w axes hold most of the rows' spread about their mean m,

    q·x = q·m + m·(x-m) + (q-m)·(x-m) <= q·m + m·(x-m) + p_q·p_x + r_q r_x

where p are the w coordinates of q-m and x-m and r the lengths of what they leave over (Cauchy-Schwarz). The last three terms
are one product of w+2 numbers. The k rows of the highest bounds are compared exactly; the least of these similarities is
what a row must reach to be among the k nearest, so rows whose bound lies below it are out: none is lost, whatever the
spectrum. Rounding is bounded too (`slack`). How wide the short product is decides the time alone.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from embedcache.probes.base import Matrix
from embedcache.probes.neighbours import Members, Nearest, Numbers, Rows, exact, ranked, rounding
from embedcache.probes.side_by_side import cores

WIDTHS = (62, 126, 254, 382, 510)
_BOUNDS = 2**25
"""Bounds held at a time by all threads: 128 MB of float32."""
_CONVERTED = 4096
"""Rows projected at a time, in float64."""
_SAMPLE_ROWS = 8192
"""Rows that the basis is learned from."""
_TRIED_ROWS = 2048
_TRIED_QUERIES = 64
_SMALL = 2**36
"""Products of a search below which a basis does not pay: some seconds of work."""
_EXACT_COST = 40
"""An exact comparison against a term of a matrix product of the same length: rows are fetched one by one."""
_FLOOR = np.float32(-np.inf)


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
        greatest = 0.0
        for start in range(0, len(rows), _CONVERTED):
            block = slice(start, start + _CONVERTED)
            centred = rows[block] - mean
            right[block, :-2], right[block, -2], length = _split(centred, basis)
            right[block, -1] = centred @ mean
            greatest = max(greatest, float(length.max()))
        return cls(right, mean, basis, cls.whole(rows).longest, greatest)

    def of(self, queries: Rows) -> tuple[Rows, Matrix, Matrix]:
        """`left` (n, w + 2); what to add to left·right per query (n,); and the slack (n,): no similarity is higher."""
        d = queries.shape[1]
        length = np.linalg.norm(queries.astype(np.float64), axis=1)
        if self.mean is None or self.basis is None:
            return queries, np.zeros(len(queries)), 2.02 * rounding(d) * length * self.longest
        centred = queries - self.mean
        coordinates, over, centred_length = _split(centred, self.basis)
        left = np.column_stack([coordinates, over, np.ones(len(queries), dtype=np.float32)])
        # Of the exact comparison; of the short product; of storing its terms as float32.
        slack = rounding(d) * length * self.longest + (rounding(left.shape[1]) + 2.0**-22) * self.longest_centred * (
            centred_length + float(np.linalg.norm(self.mean))
        )
        return left, queries @ self.mean, 1.01 * slack


def bounded_nearest(rows: Rows, queries: Rows, k: int, members: Members, bounds: Bounds) -> Nearest:
    """The k nearest rows of each query, but for the rows that `members` leaves out.

    A thread takes a block of queries and does all of it, products too: while one waits for memory, the other multiplies.
    """
    similarity = np.full((len(queries), k), -np.inf, dtype=np.float32)
    row = np.full((len(queries), k), -1, dtype=np.int64)
    left_out = members.counts()
    workers = min(cores(), max(1, len(queries) // 32))
    block = max(16, min(1024, _BOUNDS // workers // max(1, len(rows))))
    own = threading.local()

    def decide(start: int) -> None:
        some = queries[start : start + block]
        left, shift, slack = bounds.of(some)
        if not hasattr(own, "room"):
            own.room = np.empty((min(block, len(queries)), len(rows)), dtype=np.float32)
        upper = np.matmul(left, bounds.right.T, out=own.room[: len(some)])
        below = shift + slack
        for i, query in enumerate(some):
            upper[i, members.of(start + i)] = _FLOOR
            found = min(k, len(rows) - int(left_out[start + i]))
            if found > 0:
                best = _best(rows, query, upper[i], float(below[i]), found)
                similarity[start + i, :found], row[start + i, :found] = best

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(decide, range(0, len(queries), block)):
            pass
    return Nearest(similarity, row)


def _best(rows: Rows, query: Rows, upper: Rows, below: float, k: int) -> tuple[Rows, Numbers]:
    """The k nearest of the rows whose bound is not -inf: compare until no bound reaches the k-th similarity."""
    chosen = _highest(upper, k)
    similarity = exact(rows, chosen, query)
    upper[chosen] = _FLOOR
    pending: Numbers | None = None
    while True:
        kth = float(np.partition(similarity, len(similarity) - k)[len(similarity) - k])
        reach = np.nextafter(np.float32(kth - below), _FLOOR)
        pending = np.flatnonzero(upper >= reach) if pending is None else pending[upper[pending] >= reach]
        if not len(pending):
            return ranked(chosen, similarity, k)
        step = len(chosen)
        if len(pending) > 2 * step:  # the highest bounds first: they raise the k-th similarity
            cut = np.argpartition(upper[pending], len(pending) - step)
            now, pending = pending[cut[-step:]], pending[cut[:-step]]
        else:
            now, pending = pending, pending[:0]
        chosen = np.concatenate([chosen, now])
        similarity = np.concatenate([similarity, exact(rows, now, query)])


def _highest(upper: Rows, k: int) -> Numbers:
    """Rows of the k highest bounds. Every 16th of them tells about where the k-th lies, which spares a partition of all."""
    sample = upper[::16]
    rank = k // 16 + 12
    if 2 * rank < len(sample):
        above = np.flatnonzero(upper >= np.partition(sample, len(sample) - rank)[len(sample) - rank])
        if len(above) >= k:
            return above[np.argpartition(upper[above], len(above) - k)[len(above) - k :]]
    return np.argpartition(upper, len(upper) - k)[len(upper) - k :]


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
    near = max(1, round(k * len(sample) / n))
    few = queries[_evenly(m, _TRIED_QUERIES)]
    kth = np.partition(few @ sample.T, len(sample) - near, axis=1)[:, len(sample) - near]
    # Per query, in terms of matrix products: the product, the exact comparisons, and the projections of all.
    cost = {0: d * (n + _EXACT_COST * k)}
    for width in widths:
        bounds = Bounds.projected(sample, mean, basis[:, :width])
        left, shift, slack = bounds.of(few)
        reach = (kth - shift - slack).astype(np.float32)
        left_over = float(np.mean(left @ bounds.right.T >= reach[:, None])) * n
        cost[width] = n * width + _EXACT_COST * d * max(k, left_over) + 2 * (n + m) * d * width / m
    width = min(cost, key=lambda w: cost[w])
    return Bounds.projected(rows, mean, basis[:, :width]) if width else Bounds.whole(rows)


def _split(centred: Matrix, basis: Matrix) -> tuple[Rows, Rows, Matrix]:
    """Coordinates, the length of what they leave over (rounded up), and the whole length."""
    coordinates = centred @ basis
    square = np.vecdot(centred, centred)
    # In float64, so what cancels is below 1e-12 of the square; the coordinates' own rounding to float32 is below 2.4e-7.
    over = np.sqrt(np.maximum(square - np.vecdot(coordinates, coordinates), 0.0) + 2.5e-7 * square)
    return coordinates.astype(np.float32), np.nextafter(over.astype(np.float32), np.float32(np.inf)), np.sqrt(square)


def _evenly(n: int, most: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))
