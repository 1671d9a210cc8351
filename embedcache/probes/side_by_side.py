"""Sums over blocks of rows, made on several threads at once: of small products BLAS's own threads make too little.

BLAS keeps to one thread meanwhile, for the whole of a solve: each time it is left its own, they wait for further work by
spinning, on the cores that ours need.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

_SMALL = 50_000_000
"""Multiplications of a pass below which threads cost more than they save."""
_BRINGS_BLAS = ("scipy.linalg", "torch", "faiss", "sklearn")
"""Modules with a BLAS of their own beside numpy's, or that load one."""
Sums = tuple[Any, ...]
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Team:
    """The caller and threads that stay for a whole solve: to start them anew takes longer than a pass over few rows."""

    def __init__(self, pool: ThreadPoolExecutor | None = None, size: int = 1) -> None:
        self._pool = pool
        self.size = size

    def summed(self, work: Callable[[Sequence[slice]], Sums], blocks: Sequence[slice]) -> Sums:
        """The sums that `work` makes of all blocks, each thread of its own run of them: the same to the last bit each time."""
        size = min(self.size, len(blocks))
        if size < 2:
            return work(blocks)
        first, *others = self.each(work, [blocks[a:b] for a, b in pairwise(shares(0, len(blocks), size))])
        for other in others:
            for total, more in zip(first, other, strict=True):
                total += more
        return first

    def each(self, work: Callable[[Item], Outcome], items: Sequence[Item]) -> list[Outcome]:
        """What `work` makes of each item, several at once. It must not call the team, whose threads may all be taken."""
        if self._pool is None or len(items) < 2:
            return [work(item) for item in items]
        waiting = [self._pool.submit(work, item) for item in items[1:]]
        # The caller works too, on what no thread has begun: to wake one takes as long as a small piece.
        return [
            work(items[0]),
            *(
                work(item) if future.cancel() else future.result()
                for item, future in zip(items[1:], waiting, strict=True)
            ),
        ]


def shares(start: int, stop: int, count: int) -> list[int]:
    """Where to cut `start` to `stop` into `count` shares, or fewer of one each; with both ends."""
    count = max(1, min(count, stop - start))
    step = (stop - start) / count
    return [*(round(start + i * step) for i in range(count)), stop]


ALONE = Team()
"""The caller's own thread."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads_for(products: int) -> Iterator[Team]:
    """The team for passes of so many multiplications; BLAS keeps to one thread inside, if the team has several."""
    if products < _SMALL or cores() < 2:
        yield ALONE
        return
    with (
        one_blas_thread(Team(size=cores())),
        ThreadPoolExecutor(cores() - 1, thread_name_prefix="embedcache-sum") as pool,
    ):
        yield Team(pool, cores())


@contextmanager
def one_blas_thread(team: Team) -> Iterator[None]:
    """BLAS keeps to one thread, if the team has several: also one that was loaded since `threads_for` was entered."""
    if team.size < 2:
        yield
        return
    with _libraries().limit(limits=1, user_api="blas"):
        yield


def _libraries() -> ThreadpoolController:
    return _found(tuple(name in sys.modules for name in _BRINGS_BLAS))


@cache
def _found(loaded: tuple[bool, ...]) -> ThreadpoolController:
    """Looked for once, and again when one more is `loaded`: that takes as long as a small product."""
    return ThreadpoolController()
