"""Neighbours among rows that something fast proposes, a FAISS index or a product on a GPU: exact comparisons decide.

What is proposed for a query are the rows of its highest float32 products, and these products. A product and the exact
similarity of the same row lie at most `slack` apart, for each lies within `rounding` of the true one, in whatever order it
was summed. So a row is compared exactly if its product comes within twice that of the k-th highest, and the answer is
certain where the k-th exact similarity is above the least product proposed by more than `slack`: no row that was not
proposed reaches it. Queries that stay open are searched again, with more rows proposed, and then without proposals.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from embedcache.probes.bounds import Bounds
from embedcache.probes.by_bound import bounded_nearest
from embedcache.probes.neighbours import Members, Nearest, Numbers, Rows, exact, product_slack
from embedcache.probes.side_by_side import cores

_SPARE = (64, 1024)
"""More rows than asked for, in the first search and in the second: those beside the k-th, where rounding decides."""
_QUERIES = 4096
"""Queries at a time."""
_PROPOSED = 2**26
"""Rows proposed at a time for all of these: 768 MB with their products."""
_DECIDED = 2**15
"""Rows proposed that a thread takes at a time: some 100 queries, so that few calls rank them."""

Mask: TypeAlias = npt.NDArray[np.bool_]
Proposal: TypeAlias = tuple[Rows, Numbers]
"""Products (m, fetch) and their rows (m, fetch), in any order: no other row's product is higher. The caller may change both."""


@dataclass(frozen=True)
class Proposer:
    """Something that finds the rows of the highest float32 products."""

    launch: Callable[[Rows, int], Callable[[], Proposal]]
    """Starts, for queries (m, d), to look for `fetch` rows each; the outcome waits for them. A device works meanwhile."""
    most: int | None = None
    """The largest `fetch`, if there is one."""


def proposed_nearest(rows: Rows, queries: Rows, k: int, members: Members, proposer: Proposer) -> Nearest:
    """The k nearest rows of each query, but for the rows that `members` leaves out; k is at most the number of rows."""
    found = Nearest(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))
    search = _Search(rows, queries, members, proposer, found)
    still_open = np.arange(len(queries))
    for spare in _SPARE:
        if k and len(still_open):
            still_open = still_open[~search.fill(still_open, spare)]
    if k and len(still_open):
        rest = bounded_nearest(rows, queries[still_open], k, members.take(still_open), Bounds.whole(rows))
        found.similarity[still_open], found.row[still_open] = rest.similarity, rest.row
    return found


class _Search:
    """What a search is about, and what it has found."""

    def __init__(self, rows: Rows, queries: Rows, members: Members, proposer: Proposer, found: Nearest) -> None:
        self._rows, self._queries, self._members, self._proposer, self._found = rows, queries, members, proposer, found
        self._left_out: Numbers = members.counts()
        longest = float(np.sqrt(np.vecdot(rows, rows).max(initial=0.0)))
        length = np.sqrt(np.vecdot(queries, queries).astype(np.float64))
        self._slack = product_slack(rows.shape[1], length, longest)

    def fill(self, asked: Numbers, spare: int) -> Mask:
        """Find the neighbours of the queries `asked`. Returns which of these are certain."""
        step = _at_a_time(_QUERIES, _PROPOSED, self._fetch(asked, spare))
        blocks = [asked[start : start + step] for start in range(0, len(asked), step)]
        launched = (self._proposer.launch(self._queries[block], self._fetch(block, spare)) for block in blocks)
        waiting = deque(islice(launched, 1))
        closed: list[Mask] = []
        with ThreadPoolExecutor(cores()) as pool:
            for block in blocks:
                waiting.extend(islice(launched, 1))  # the next one is under way while this one is decided
                product, proposed = waiting.popleft()()
                few = _at_a_time(len(block), _DECIDED, product.shape[1])
                parts = [slice(start, start + few) for start in range(0, len(block), few)]
                with threadpool_limits(1, user_api="blas"):
                    closed += pool.map(partial(self._decide, block, product, proposed), parts)
        return np.concatenate(closed)

    def _fetch(self, some: Numbers, spare: int) -> int:
        fetch: int = self._found.row.shape[1] + spare + int(self._left_out[some].max())
        return min(fetch, len(self._rows), self._proposer.most or fetch)

    def _decide(self, block: Numbers, product: Rows, proposed: Numbers, part: slice) -> Mask:
        """Fill in some queries of a block. Returns which of them are certain."""
        some, product, proposed = block[part], product[part], proposed[part]
        left_out, slack, last = self._left_out[some], self._slack[some], product.min(axis=1)
        for i in np.flatnonzero(left_out):
            product[i, np.isin(proposed[i], self._members.of(some[i]))] = -np.inf
        n, k, fetch = len(self._rows), self._found.row.shape[1], product.shape[1]
        width = min(k, fetch)
        kth = np.partition(product, fetch - width, axis=1)[:, fetch - width]
        near = (product >= (kth - 2 * slack)[:, None]) & (product > -np.inf)
        similarity = np.full(product.shape, -np.inf, dtype=np.float32)
        for at, query in enumerate(some):
            similarity[at, near[at]] = exact(self._rows, proposed[at, near[at]], self._queries[query])
        order = np.lexsort((proposed, -similarity), axis=1)[:, :width]
        similarity, row = np.take_along_axis(similarity, order, 1), np.take_along_axis(proposed, order, 1)
        row[np.isneginf(similarity)] = -1
        self._found.similarity[some, :width], self._found.row[some, :width] = similarity, row
        wanted = np.minimum(k, n - left_out)
        least = similarity[np.arange(len(some)), np.minimum(wanted, width) - 1]
        certain: Mask = (wanted == 0) | (fetch == n) | ((wanted <= width) & (least > last + slack))
        return certain


def _at_a_time(most: int, room: int, each: int) -> int:
    return max(1, min(most, room // each))
