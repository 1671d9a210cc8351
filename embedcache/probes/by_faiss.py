"""Neighbours by FAISS's flat index, on a CPU or a GPU: it proposes, and exact comparisons decide."""

from typing import Any

import numpy as np

from embedcache.errors import InputError
from embedcache.probes.by_bound import bounded_nearest
from embedcache.probes.neighbours import Device, Members, Nearest, Numbers, Rows, exact, ranked, rounding

_SPARE = 16
"""More rows than asked for: those beside the k-th, where the rounding of products decides."""
_QUERIES = 4096
_MOST_ON_A_GPU = 2048
"""FAISS's own limit of k on a GPU."""


def faiss_nearest(rows: Rows, queries: Rows, k: int, members: Members, device: Device) -> Nearest:
    """The k nearest rows of each query; what FAISS's rounding leaves open is searched again without it."""
    index = _index(rows, device)
    longest = float(np.sqrt(np.vecdot(rows, rows).max(initial=0.0)))
    similarity = np.full((len(queries), k), -np.inf, dtype=np.float32)
    row = np.full((len(queries), k), -1, dtype=np.int64)
    left_out = members.counts()
    open_: list[int] = []
    for start in range(0, len(queries), _QUERIES):
        some = queries[start : start + _QUERIES]
        out = int(left_out[start : start + _QUERIES].max(initial=0))
        fetch = min(len(rows), k + _SPARE + out)
        if device == "cuda":
            fetch = min(fetch, _MOST_ON_A_GPU)
        value, proposed = index.search(some, fetch)
        for i in range(len(some)):
            chosen = proposed[i][~np.isin(proposed[i], members.of(start + i))]
            chosen = chosen[chosen >= 0]
            found = min(k, len(rows) - int(left_out[start + i]))
            if found <= 0:
                continue
            # A row that was not proposed has a product of at most the last one's; its exact similarity may be this much higher.
            slack = 2.02 * rounding(rows.shape[1]) * float(np.linalg.norm(some[i])) * longest
            near, which = ranked(chosen, exact(rows, chosen, some[i]), found)
            if len(near) < found or (fetch < len(rows) and float(near[-1]) <= float(value[i, -1]) + slack):
                open_.append(start + i)
                continue
            similarity[start + i, :found], row[start + i, :found] = near, which
    if open_:
        again: Numbers = np.array(open_, dtype=np.int64)
        rest = bounded_nearest(rows, queries[again], k, members.take(again), project=False)
        similarity[again], row[again] = rest.similarity, rest.row
    return Nearest(similarity, row)


def _index(rows: Rows, device: Device) -> Any:
    try:
        import faiss  # an optional package
    except ImportError as error:
        raise InputError(
            "search=faiss needs FAISS, which is not installed: pip install 'embedcache[faiss]', or leave search at auto."
        ) from error
    index: Any = faiss.IndexFlatIP(rows.shape[1])
    if device == "cuda":
        if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() < 1:
            raise InputError(
                "device=cuda needs a FAISS with GPU support and a GPU, and this one has not both: install faiss-gpu in place of "
                "faiss-cpu, or leave device at cpu."
            )
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(rows)
    return index
