"""Products of pairs of a row and a query, by their numbers: FAISS makes them where they lie, numpy copies both first."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from embedcache.probes.neighbours import Numbers, Rows

PairProducts: TypeAlias = Callable[[Rows, Numbers, Rows, Numbers], Rows]
"""Of rows (n, d) and queries (m, d), float32 and contiguous, and the numbers (p,) of pairs: the products (p,), float32.

Each sums the d terms in some order, so `rounding` holds; unlike `exact`, the last digits are the library's own.
"""
_COPIED = 2**17
"""Numbers copied at a time: 512 KB a side, which stay in a core's cache."""


def pair_products() -> PairProducts:
    """By FAISS if it is installed, else by numpy. To be asked for in the thread that calls it."""
    faiss = _faiss()
    if faiss is None:
        return _by_numpy
    # This thread's alone: one of our threads works on each core already.
    faiss.omp_set_num_threads(1)
    return partial(_by_faiss, faiss)


def pair_cost() -> int:
    """The time of a pair's product over that of a term of a matrix product of the same length: rows are fetched one by one."""
    return 40 if _faiss() is None else 9


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def _by_numpy(rows: Rows, row: Numbers, queries: Rows, query: Numbers) -> Rows:
    product = np.empty(len(row), dtype=np.float32)
    step = max(1, _COPIED // rows.shape[1])
    for start in range(0, len(row), step):
        some = slice(start, start + step)
        np.vecdot(rows.take(row[some], axis=0), queries.take(query[some], axis=0), out=product[some])
    return product


def _by_faiss(faiss: Any, rows: Rows, row: Numbers, queries: Rows, query: Numbers) -> Rows:
    product = np.empty(len(row), dtype=np.float32)
    at = faiss.swig_ptr
    faiss.pairwise_indexed_inner_product(
        rows.shape[1], len(row), at(rows), at(row), at(queries), at(query), at(product)
    )
    return product
