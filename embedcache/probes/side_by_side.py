"""Sums over blocks of rows, made on several threads at once: of small products BLAS's own threads make too little."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

_SMALL = 50_000_000
"""Multiplications below which threads cost more than they save."""
Sums = tuple[Any, ...]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def summed(work: Callable[[Sequence[slice]], Sums], blocks: Sequence[slice], products: int, workers: int) -> Sums:
    """The sums that `work` makes of all blocks: each thread of its own run of them, with one BLAS thread.

    products: multiplications in all. The same threads give the same sums, to the last bit.
    """
    workers = min(workers, len(blocks))
    if workers < 2 or products < _SMALL:
        return work(blocks)
    cuts = np.linspace(0, len(blocks), workers + 1).round().astype(int).tolist()
    shares = [blocks[a:b] for a, b in pairwise(cuts)]
    with _libraries().limit(limits=1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        first, *others = pool.map(work, shares)
    for other in others:
        for total, more in zip(first, other, strict=True):
            total += more
    return first


@cache
def _libraries() -> ThreadpoolController:
    """Looked for once: that takes as long as a small product."""
    return ThreadpoolController()
