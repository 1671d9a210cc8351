"""Chunks of shard objects, read straight into the caller's memory and checked there.

Fresh memory costs more than the read itself (its pages are mapped and zeroed on first touch), so nothing here makes
any that is larger than an index. CRC-32C takes about as long as the copy out of the page cache; it is never left out.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, StoreError
from embedcache.store.encoding import ShardForm, crc32c, index_fault
from embedcache.store.objects import Objects, OpenObject

Bytes = npt.NDArray[np.uint8]

THREADS = 2
"""One copies out of the page cache while the other checks, which holds the interpreter's lock."""
TOGETHER_BYTES = 512 * 1024
"""Small neighbouring chunks are read by one system call, up to this size: they are then still in the processor's cache."""
TOGETHER = 256
"""How many of them: a system call takes 1,024 buffers at most, and a chunk and its checksum are two."""
PIECE_BYTES = 32 * 2**20
"""What one thread takes at a time: large enough that opening the object again costs nothing beside it."""


def read_chunks(objects: Objects, name: str, form: ShardForm, chunks: Sequence[int], parts: Sequence[Bytes]) -> None:
    """Read these chunks (ascending) of a shard object, each into its part (contiguous, form.chunk_bytes long).

    The object's length, its index and the crc32c of every chunk that is read are checked. Raises StoreError, naming the
    object, where one is wrong, and FileNotFoundError if there is none.
    """
    stride, most = form.stride, min(TOGETHER, max(1, TOGETHER_BYTES // form.stride))
    alone = form.chunks == 1
    with objects.reading(name) as opened:
        if opened.size != form.size:
            how = "shorter" if opened.size < form.size else "longer"
            raise StoreError(f"{opened.what} is {how} than its array asks; run `embedcache verify`.")
        index = np.empty(form.size - form.index_start, dtype=np.uint8)
        if not alone:
            opened.read_into([index.data], index.nbytes, form.index_start)
            _check_index(index, form, opened)
        read = np.empty(min(most, len(chunks)), dtype="<u4")
        tails = [read[k : k + 1].data for k in range(len(read))]
        # Little is done between two reads of a large chunk: it has swept the interpreter out of the processor's cache.
        for first, end in _neighbours(chunks, most):
            buffers: list[memoryview] = []
            for part, tail in zip(parts[first:end], tails, strict=False):
                buffers += (part.data, tail)
            length = (end - first) * stride
            if alone:  # the index follows at once
                buffers.append(index.data)
                length += index.nbytes
            opened.read_into(buffers, length, chunks[first] * stride)
            for k, expected in zip(range(first, end), read.tolist(), strict=False):
                if crc32c(parts[k]) != expected:
                    raise StoreError(f"{opened.what} fails its checksum in chunk {chunks[k]}; run `embedcache verify`.")
        if alone:
            _check_index(index, form, opened)


def _check_index(index: Bytes, form: ShardForm, opened: OpenObject) -> None:
    if fault := index_fault(index.tobytes(), form):
        raise StoreError(f"{opened.what} has {fault}; run `embedcache verify`.")


def _neighbours(chunks: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Runs [first, end) of at most `most` of these chunks that follow one another in the object."""
    if len(chunks) == 1:
        return [(0, 1)]
    number = np.asarray(chunks, dtype=np.int64)
    starts = [0, *(np.flatnonzero(np.diff(number) != 1) + 1).tolist(), len(number)]
    return [(first, min(first + most, end)) for start, end in pairwise(starts) for first in range(start, end, most)]


def thread_count(threads: int | None) -> int:
    """How many threads read. Raises InputError for a number below 1."""
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1. Got {threads}.")
    return THREADS if threads is None else threads


def pieces(total: int, each_bytes: int, threads: int) -> list[slice]:
    """`total` things of `each_bytes` as slices that several threads can share; for one thread a single one."""
    step = max(1, total if threads == 1 else PIECE_BYTES // each_bytes)
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]


def run_jobs(jobs: Sequence[Callable[[], None]], threads: int, stop: Event | None = None) -> None:
    """Run the jobs on so many threads, a single job on the caller's own, until `stop` is set. Raises the first failure."""
    if min(threads, len(jobs)) <= 1:
        for job in jobs:
            if stop is not None and stop.is_set():
                return
            job()
        return
    with ThreadPoolExecutor(min(threads, len(jobs)), thread_name_prefix="embedcache-read") as pool:
        for _ in pool.map(lambda job: job(), jobs):
            pass


def output(out: npt.NDArray[Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """`out`, if it can take such rows, or new memory. Raises InputError, saying what is wrong with it."""
    if out is None:
        try:
            return np.empty(shape, dtype=dtype)
        except (MemoryError, ValueError):  # of numpy: too large for this machine, or for any
            raise InputError(
                f"an array of shape {shape} does not fit into memory; read it in parts, with `rows`."
            ) from None
    if not isinstance(out, np.ndarray):
        raise InputError(f"out must be a numpy array of shape {shape} and dtype {dtype}. Got {type(out).__name__}.")
    if out.shape != shape or out.dtype != dtype:
        raise InputError(f"out must have shape {shape} and dtype {dtype}. Got {out.shape} and {out.dtype}.")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise InputError("out must be writeable and C-contiguous; give a whole array, or a run of its first axis.")
    return out
