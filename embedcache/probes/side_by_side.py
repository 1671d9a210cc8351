"""Sums over blocks of rows, made on several threads at once: of small products BLAS's own threads make too little.

BLAS keeps to one thread meanwhile, for the whole of a solve: each time it is left its own, they wait for further work by
spinning, on the cores that ours need.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

_SMALL = 50_000_000
"""Multiplications of a pass below which threads cost more than they save."""
Sums = tuple[Any, ...]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads_for(products: int) -> Iterator[int]:
    """How many threads `summed` may take for passes of so many multiplications; BLAS keeps to one inside, if it is several."""
    if products < _SMALL or cores() < 2:
        yield 1
        return
    with _libraries().limit(limits=1, user_api="blas"):
        yield cores()


def summed(work: Callable[[Sequence[slice]], Sums], blocks: Sequence[slice], workers: int) -> Sums:
    """The sums that `work` makes of all blocks, each thread of its own run of them: the same to the last bit each time."""
    workers = min(workers, len(blocks))
    if workers < 2:
        return work(blocks)
    cuts = np.linspace(0, len(blocks), workers + 1).round().astype(int).tolist()
    shares = [blocks[a:b] for a, b in pairwise(cuts)]
    with ThreadPoolExecutor(workers, thread_name_prefix="embedcache-sum") as pool:
        first, *others = pool.map(work, shares)
    for other in others:
        for total, more in zip(first, other, strict=True):
            total += more
    return first


@cache
def _libraries() -> ThreadpoolController:
    """Looked for once: that takes as long as a small product."""
    return ThreadpoolController()
