"""Memory that is used again. To touch a page for the first time costs more than to scale the numbers that go there."""

import sys
from threading import Event, Lock

import numpy as np
import numpy.typing as npt

_PAGE = 1024
"""Values of a page."""
_TOUCHED = 1 << 20
"""Values touched at a time: 4 MB, in a few milliseconds."""
_OURS = 2
"""References to the memory when nobody has it: ours, and the one that asks."""


class Scratch:
    """float32 matrices that come and go, one after the other, in the same memory."""

    def __init__(self) -> None:
        self._memory = np.empty(0, dtype=np.float32)
        self._lock = Lock()
        self._wanted = Event()

    def touch(self, values: int) -> None:
        """Touch the memory of so many values for the first time, until a matrix is asked for: work for a thread of its own."""
        with self._lock:
            if not self._wanted.is_set() and len(self._memory) < values:
                self._memory = np.empty(values, dtype=np.float32)
        for start in range(0, values, _TOUCHED):
            with self._lock:
                if self._wanted.is_set():
                    return
                self._memory[start : start + _TOUCHED : _PAGE] = 0

    def release(self) -> None:
        """Touch no more."""
        self._wanted.set()

    def empty(self, shape: tuple[int, int], most: int) -> npt.NDArray[np.float32]:
        """Uninitialised; the memory of those before it, unless something still refers to one of them.

        most: values that any will have. So many are reserved at once, which takes nothing until they are touched.
        """
        size = shape[0] * shape[1]
        self._wanted.set()
        with self._lock:
            if sys.getrefcount(self._memory) > _OURS or len(self._memory) < size:
                self._memory = np.empty(max(most, size), dtype=np.float32)
            return self._memory[:size].reshape(shape)
