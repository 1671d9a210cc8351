"""Exact nearest rows by cosine: FAISS where it is installed, numpy else; whole groups of rows can be left out of a search."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, MissingPackageError, suggest
from embedcache.probes.base import Features

Search = Literal["auto", "faiss", "numpy"]
SEARCHES: tuple[Search, ...] = ("auto", "faiss", "numpy")
Rows: TypeAlias = npt.NDArray[np.float32]
Codes: TypeAlias = npt.NDArray[np.int64]
Found: TypeAlias = tuple[Rows, Codes]
"""Similarities and row numbers, both (n, k), nearest first; -inf and -1 where there are fewer rows than k."""
_BLOCK = 1024
"""Queries of one product on the numpy path: against 10^5 rows some 400 MB of similarities."""
_LEFT_OUT_BLOCK = 8192
"""Queries whose neighbours are searched with more to spare, so that those of their own group can be dropped."""


@dataclass(frozen=True)
class Neighbours:
    """Rows of length 1 that are searched."""

    rows: Rows
    """(n, d)."""
    search: Search
    """`faiss` or `numpy`."""

    @classmethod
    def of(cls, X: Features, search: Search) -> "Neighbours":
        """Rows of X (n, d), normalised; `auto` is FAISS if it is installed. Raises MissingPackageError, UnknownNameError."""
        if search not in SEARCHES:
            raise suggest("search", search, SEARCHES)
        there = importlib.util.find_spec("faiss") is not None
        if search == "faiss" and not there:
            raise MissingPackageError("search 'faiss' needs FAISS; install it with `pip install 'embedcache[faiss]'`.")
        chosen: Search = ("faiss" if there else "numpy") if search == "auto" else search
        return cls(normalized(X), chosen)

    @property
    def software(self) -> str:
        """What searches, and its version."""
        if self.search == "numpy":
            return f"numpy {np.__version__}"
        import faiss  # an optional package

        return f"faiss {faiss.__version__} IndexFlatIP"

    def nearest(self, queries: Rows, k: int) -> Found:
        """The k nearest rows of each query, all the same number: k is at most the number of rows."""
        return self._searcher()(queries, k)

    def nearest_of_others(self, queries: Rows, k: int, group: Codes, query_group: Codes) -> Found:
        """The k nearest rows of each query that are not of its own group, exactly.

        group (n_rows,), query_group (n,); -1 there is no group. Searched are as many more as the largest group has rows. Raises
        InputError for a query that has no row of another group.
        """
        size = np.bincount(group[group >= 0], minlength=int(max(group.max(initial=0), query_group.max(initial=0))) + 1)
        own = np.where(query_group >= 0, size[np.maximum(query_group, 0)], 0)
        if (own == len(self.rows)).any():
            raise InputError(
                "kNN has no training row left to be a neighbour; it needs at least one other, of another patient where "
                "patients are left out."
            )
        k = min(k, len(self.rows))
        searcher = self._searcher()
        similarity = np.full((len(queries), k), -np.inf, dtype=np.float32)
        neighbour = np.full((len(queries), k), -1, dtype=np.int64)
        for start in range(0, len(queries), _LEFT_OUT_BLOCK):
            block = slice(start, start + _LEFT_OUT_BLOCK)
            wanted = min(k + int(own[block].max()), len(self.rows))
            near, who = searcher(queries[block], wanted)
            foreign = group[who] != query_group[block, None]
            foreign |= query_group[block, None] < 0
            order = np.argsort(~foreign, axis=1, kind="stable")[:, :k]
            kept = np.take_along_axis(foreign, order, axis=1)
            similarity[block] = np.where(kept, np.take_along_axis(near, order, axis=1), -np.inf)
            neighbour[block] = np.where(kept, np.take_along_axis(who, order, axis=1), -1)
        return similarity, neighbour

    def _searcher(self) -> Callable[[Rows, int], Found]:
        if self.search == "numpy":
            return lambda queries, k: _by_numpy(self.rows, queries, k)
        import faiss  # an optional package

        index = faiss.IndexFlatIP(self.rows.shape[1])
        index.add(self.rows)

        def by_faiss(queries: Rows, k: int) -> Found:
            similarity, neighbour = index.search(queries, k)
            return similarity, neighbour

        return by_faiss


def normalized(X: Features) -> Rows:
    """Rows of length 1, float32; a row of zeros stays zero."""
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return np.ascontiguousarray(X / np.where(length > 0, length, 1.0), dtype=np.float32)


def _by_numpy(rows: Rows, queries: Rows, k: int) -> Found:
    similarity = np.empty((len(queries), k), dtype=np.float32)
    neighbour = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK] @ rows.T
        near = np.argpartition(-block, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(near, np.argsort(-np.take_along_axis(block, near, 1), axis=1, kind="stable"), 1)
        similarity[start : start + _BLOCK] = np.take_along_axis(block, near, 1)
        neighbour[start : start + _BLOCK] = near
    return similarity, neighbour
