"""Neighbours by upper bounds: most rows are ruled out by a short product, and what is left is compared.

What a row must reach to be near is guessed for each query from a sample of the rows, so that somewhat more than k reach it.
Rows whose bound (`bounds`) lies below are out; of the others the product with the query is made, of those that may be among
the k highest the exact similarity. The answer is certain if the k-th of these reaches the guess, for then no row that is out
does: about one query in a hundred was guessed too high, and is searched again with a lower guess, or at last without any.

Tile by tile of the rows, for some hundred queries at once: what is made of a tile stays in a core's cache.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.probes.base import Matrix
from embedcache.probes.bounds import GUESSES, Bounds, Guess
from embedcache.probes.neighbours import Members, Nearest, Numbers, Rows, exact, product_slack
from embedcache.probes.pair_products import pair_products
from embedcache.probes.side_by_side import Team, cores, one_blas_thread

_TILE = 2048
"""Rows at a time."""
_QUERIES = 384
"""Queries at a time, by each thread."""
_SAMPLED = 2**24
"""Products with the sample that a thread holds: 64 MB of float32, and as much again to find the k-th."""
_FEW_ROWS = 4096
"""Rows that are all in the sample, up to here."""
_HELD = 2**21
"""Pairs that a thread holds before it settles which of them are near: some 50 MB."""
_FLOOR = np.float32(-np.inf)


def bounded_nearest(rows: Rows, queries: Rows, k: int, members: Members, bounds: Bounds) -> Nearest:
    """The k nearest rows of each query, but for the rows that `members` leaves out; k is at most the number of rows."""
    found = Nearest(
        np.full((len(queries), k), -np.inf, dtype=np.float32), np.full((len(queries), k), -1, dtype=np.int64)
    )
    still_open = np.arange(len(queries))
    guesses = GUESSES if len(rows) > _FEW_ROWS or bounds.basis is not None else ()
    for guess in guesses:
        if len(still_open):
            still_open = _Search(rows, queries, members, bounds, guess, found).fill(still_open)
    if len(still_open):  # nothing is guessed then: the k-th highest product of all rows
        _Search(rows, queries, members, Bounds.whole(rows), Guess(1, 0.0), found).fill(still_open)
    return found


@dataclass(frozen=True)
class _Pairs:
    """Rows that may be near to queries of a block, in ascending order of the rows."""

    query: npt.NDArray[np.uint16]
    """(p,), of the block; numbers this short are sorted without comparisons."""
    row: Numbers
    product: Rows

    @classmethod
    def joined(cls, parts: list["_Pairs"]) -> "_Pairs":
        return cls(
            np.concatenate([part.query for part in parts]),
            np.concatenate([part.row for part in parts]),
            np.concatenate([part.product for part in parts]),
        )

    def take(self, chosen: npt.NDArray[np.bool_]) -> "_Pairs":
        at = np.flatnonzero(chosen)
        return _Pairs(self.query[at], self.row[at], self.product[at])

    def by_query(self, order: Numbers, n: int) -> tuple[Numbers, Numbers]:
        """`order` brought into that of the queries, else unchanged; and where each query's pairs start in it (n + 1,)."""
        start = np.zeros(n + 1, dtype=np.int64)
        np.cumsum(np.bincount(self.query, minlength=n), out=start[1:])
        return order[np.argsort(self.query[order], kind="stable")], start


class _Search:
    """A look at all rows, by bounds of them."""

    def __init__(
        self, rows: Rows, queries: Rows, members: Members, bounds: Bounds, guess: Guess, found: Nearest
    ) -> None:
        self._rows, self._queries, self._members, self._bounds, self._found = rows, queries, members, bounds, found
        self._guess_by = guess
        self._k = found.row.shape[1]
        self._left_out = members.counts()
        self._sample = np.ascontiguousarray(bounds.right[:: guess.step])
        length = np.sqrt(np.vecdot(queries, queries).astype(np.float64))
        self._slack = product_slack(rows.shape[1], length, bounds.longest)

    def fill(self, asked: Numbers) -> Numbers:
        """Find the neighbours of the queries `asked`. Returns those of them that are not certain."""
        if not self._k:
            return asked[:0]
        asked = asked[self._bounds.alike(self._queries[asked])]
        workers = min(cores(), max(1, len(asked) // 32))
        each = max(1, min(_QUERIES, _SAMPLED // len(self._sample), -(-len(asked) // workers)))
        blocks = [asked[start : start + each] for start in range(0, len(asked), each)]
        with one_blas_thread(Team(size=workers)), ThreadPoolExecutor(workers) as pool:
            certain = np.concatenate(list(pool.map(self._decide, blocks)))
        still_open: Numbers = asked[~certain]
        return still_open

    def _decide(self, some: Numbers) -> npt.NDArray[np.bool_]:
        """Fill in a block of queries. Returns which of them are certain."""
        products = None if self._bounds.basis is None else pair_products()
        queries, slack = self._queries[some], self._slack[some]
        left, shift, above = self._bounds.of(queries)
        wanted = np.minimum(self._k, len(self._rows) - self._left_out[some])
        least = np.where(wanted < self._k, -np.inf, self._guess(left, some) + shift - slack)
        upper = np.empty((min(_TILE, len(self._rows)), len(some)), dtype=np.float32)
        reaches = np.empty(upper.shape, dtype=np.bool_)
        held: list[_Pairs] = []
        for start in range(0, len(self._rows), _TILE):
            right = self._bounds.right[start : start + _TILE]
            np.matmul(right, left.T, out=upper[: len(right)])
            np.greater_equal(upper, _below(least - shift - above), out=reaches)
            passed = np.flatnonzero(reaches[: len(right)])
            row, query = np.divmod(passed, len(some))
            if products is None:
                product = upper.ravel()[passed]
            else:
                product = products(self._rows[start : start + _TILE], row, queries, query)
            pairs = _Pairs(query.astype(np.uint16), row + start, product)
            held.append(pairs.take(product >= _below(least - slack)[query]))
            if sum(len(pairs.row) for pairs in held) > _HELD:
                best = self._settle(some, _Pairs.joined(held))
                least = np.maximum(least, best.similarity[:, -1])
                held = [_again(best)]
        best = self._settle(some, _Pairs.joined(held))
        self._found.similarity[some], self._found.row[some] = best.similarity, best.row
        certain: npt.NDArray[np.bool_] = (wanted == 0) | (best.similarity[np.arange(len(some)), wanted - 1] >= least)
        return certain

    def _guess(self, left: Rows, some: Numbers) -> Rows:
        """What the similarity of a near row surely reaches, less the shift, or nearly so: from the sample."""
        whole, step = self._bounds.basis is None, self._guess_by.step
        if not whole:
            left = left.copy()
            left[:, -2] = 0.0  # without the lengths left over a bound is an estimate
        estimate = left @ self._sample.T
        for i in np.flatnonzero(self._left_out[some]):
            out = self._members.of(some[i])
            estimate[i, out[out % step == 0] // step] = _FLOOR
        rank = self._guess_by.rank(self._k)
        if rank > len(self._sample):
            return np.full(len(some), _FLOOR)
        return np.partition(estimate, len(self._sample) - rank, axis=1)[:, len(self._sample) - rank].copy()

    def _settle(self, some: Numbers, pairs: _Pairs) -> Nearest:
        """The k nearest of the pairs, by exact similarity."""
        n, k = len(some), self._k
        pairs = self._allowed(some, pairs)
        order, start = pairs.by_query(np.argsort(-pairs.product), n)
        count = np.diff(start)
        kth = np.full(n, -np.inf)
        kth[count > k] = pairs.product[order[start[:-1][count > k] + k - 1]]
        pairs = pairs.take(pairs.product >= _below(kth - 2 * self._slack[some])[pairs.query])
        order, start = pairs.by_query(np.arange(len(pairs.row)), n)
        similarity = np.empty(len(order), dtype=np.float32)
        for i, query in enumerate(some):
            its = order[start[i] : start[i + 1]]
            similarity[its] = exact(self._rows, pairs.row[its], self._queries[query])
        order, _ = pairs.by_query(np.argsort(-similarity, kind="stable"), n)
        best = Nearest(np.full((n, k), -np.inf, dtype=np.float32), np.full((n, k), -1))
        rank = np.arange(len(order)) - np.repeat(start[:-1], np.diff(start))
        order, rank = order[rank < k], rank[rank < k]
        query = pairs.query[order]
        best.similarity[query, rank], best.row[query, rank] = similarity[order], pairs.row[order]
        return best

    def _allowed(self, some: Numbers, pairs: _Pairs) -> _Pairs:
        """Without the rows that are left out."""
        if not self._left_out[some].any():
            return pairs
        n = len(self._rows)
        out = np.concatenate([i * n + self._members.of(query) for i, query in enumerate(some)])  # ascending
        pair = pairs.query.astype(np.int64) * n + pairs.row
        return pairs.take(out[np.minimum(np.searchsorted(out, pair), len(out) - 1)] != pair)


def _below(value: Matrix) -> Rows:
    """float32 numbers that are surely no higher."""
    return np.nextafter(value.astype(np.float32), _FLOOR)


def _again(best: Nearest) -> _Pairs:
    """What was settled, as pairs."""
    query, at = np.nonzero(best.row >= 0)
    order = np.argsort(best.row[query, at], kind="stable")
    query, at = query[order], at[order]
    return _Pairs(query.astype(np.uint16), best.row[query, at], best.similarity[query, at])
