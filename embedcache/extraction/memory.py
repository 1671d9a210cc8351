"""How much main memory this machine has, and what of it one decode process may take."""

import os
import resource
from contextlib import suppress
from pathlib import Path

LEAST_BYTES = 2 * 2**30
"""A decode process may take so much on any machine."""
DECODERS_SHARE = 7 / 8
"""Of the main memory, what all decode processes together may take."""
_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def main_memory() -> int:
    """Bytes of main memory that this machine, or the container that this process is in, has."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for place in _CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # absent, or the word `max`
            found = min(found, int(Path(place).read_text()))
    return found


def decoder_limit(workers: int) -> int:
    """Bytes that each of `workers` decode processes may take: its share of the main memory, and never under 2 GiB.

    A file that claims more than there is, is then set aside, and the machine does not begin to swap. A single volume that is
    larger than its process's share needs fewer processes.
    """
    return max(LEAST_BYTES, int(main_memory() * DECODERS_SHARE) // workers)


def limit_this_process(limit: int) -> None:
    """Let this process have no more than `limit` bytes of memory of its own; beyond it an allocation is a MemoryError.

    RLIMIT_DATA counts what is private and writable: neither libraries, which reserve much more than they use, nor the
    shared memory of the slots. A lower limit that is there already stays.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    lowest = min(value for value in (limit, soft, hard) if value != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_DATA, (lowest, hard))
