"""Neighbours by FAISS's flat index, on a CPU or a GPU: it proposes, and exact comparisons decide."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from embedcache.errors import InputError
from embedcache.probes.by_bound import Bounds, bounded_nearest
from embedcache.probes.neighbours import Device, Members, Nearest, Rows, exact, ranked, rounding
from embedcache.probes.side_by_side import cores

_SPARE = 16
"""More rows than asked for: those beside the k-th, where the rounding of products decides."""
_QUERIES = 4096
_MOST_ON_A_GPU = 2048
"""FAISS's own limit of k on a GPU."""


def faiss_nearest(rows: Rows, queries: Rows, k: int, members: Members, device: Device) -> Nearest:
    """The k nearest rows of each query; what FAISS's rounding leaves open is searched again without it."""
    index = _index(rows, device)
    similarity = np.full((len(queries), k), -np.inf, dtype=np.float32)
    row = np.full((len(queries), k), -1, dtype=np.int64)
    left_out = members.counts()
    # No product of a row that was not proposed is above the last proposed one; its exact similarity may be, by this much.
    length = np.sqrt(np.vecdot(queries, queries).astype(np.float64))
    longest = float(np.sqrt(np.vecdot(rows, rows).max(initial=0.0)))
    slack = 2.02 * rounding(rows.shape[1]) * length * longest

    def decided(query: int, proposed: Any, last: float) -> bool:
        found = min(k, len(rows) - int(left_out[query]))
        if left_out[query]:
            proposed = proposed[~np.isin(proposed, members.of(query))]
        near, which = ranked(proposed, exact(rows, proposed, queries[query]), found)
        similarity[query, : len(near)], row[query, : len(near)] = near, which
        return found == 0 or (len(near) == found and float(near[-1]) > last + slack[query])

    still_open: list[int] = []
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(queries), _QUERIES):
            some = range(start, min(start + _QUERIES, len(queries)))
            fetch = min(len(rows), k + _SPARE + int(left_out[start : start + _QUERIES].max()))
            if device == "cuda":
                fetch = min(fetch, _MOST_ON_A_GPU)
            value, proposed = index.search(queries[some.start : some.stop], fetch)
            last = value[:, -1] if fetch < len(rows) else np.full(len(some), -np.inf)
            with threadpool_limits(1, user_api="blas"):
                done = list(pool.map(decided, some, proposed, last))
            still_open += [query for query, closed in zip(some, done, strict=True) if not closed]
    if still_open:
        again = np.array(still_open, dtype=np.int64)
        rest = bounded_nearest(rows, queries[again], k, members.take(again), Bounds.whole(rows))
        similarity[again], row[again] = rest.similarity, rest.row
    return Nearest(similarity, row)


def faiss_library() -> Any:
    """The optional package."""
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "search=faiss needs FAISS, which is not installed: pip install 'embedcache[faiss]', or leave search at auto."
        ) from error
    return faiss


def _index(rows: Rows, device: Device) -> Any:
    faiss = faiss_library()
    index: Any = faiss.IndexFlatIP(rows.shape[1])
    if device == "cuda":
        if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() < 1:
            raise InputError(
                "device=cuda needs a FAISS with GPU support and a GPU, and this one has not both: install faiss-gpu in place "
                "of faiss-cpu, or leave device at cpu."
            )
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(rows)
    return index
