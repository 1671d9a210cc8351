"""Vectors that are read while something else is still being settled: labels, splits, digests."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

from embedcache.store.features import Vectors, gather, vectors

if TYPE_CHECKING:
    from embedcache.store.reader import FeatureCache
    from embedcache.store.tokens import TokenArray


class ReadAhead:
    """All rows of some arrays of one store, read by a thread of its own; `FeatureCache.features` takes them from here.

    A context: whoever leaves it before the rows were taken, because there is an answer already or none to be had, waits for one
    piece of a shard at most.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="embedcache-ahead")
        self._stop = Event()
        self._arrays: list[TokenArray] = []
        self._reading: Future[Vectors] | None = None

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()

    def start(self, cache: "FeatureCache", kinds: str, layers: int | tuple[int, ...] | None) -> None:
        """Begin to read these vectors, if they are all stored in float16: what is, can be handed on as it is read."""
        arrays = vectors(cache, kinds, layers)
        if not all(array.dtype == np.float16 for array in arrays):
            return
        rows = cache.root.rows
        self._arrays = arrays
        # one thread: another works on what comes first
        self._reading = self._pool.submit(gather, arrays, np.arange(rows), rows, True, threads=1, stop=self._stop)

    def then(self, work: Callable[[int], None]) -> None:
        """Call `work` with the width of a row, in the same thread, once the rows are read; not if nothing is being read."""
        if self._reading is not None:
            self._pool.submit(work, sum(array.spec.shape[-1] for array in self._arrays))

    def drop(self) -> None:
        """Read no further: these rows will not be taken."""
        self._stop.set()
        self._reading = None

    def take(self, arrays: "list[TokenArray]") -> Vectors | None:
        """All rows of these arrays, side by side as `gather` has them, once; None if they are not what was begun.

        Raises StoreError where a byte is wrong.
        """
        if self._reading is None or arrays != self._arrays:
            return None
        reading, self._reading = self._reading, None
        return reading.result()
