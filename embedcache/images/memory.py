"""How a process that decodes one image after another keeps its memory."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's `mallopt` parameters (malloc.h)."""
KEPT_BYTES = 64 * 2**20
_LARGEST_BYTES = 32 * 2**20
"""The most that glibc takes for M_MMAP_THRESHOLD; blocks above it, of volumes, go back to the system at once."""


def keep_freed_images() -> None:
    """Let glibc keep the memory of one image, up to KEPT_BYTES, for the next one.

    By default it goes back to the system, and comes again as fresh pages that must be mapped and zeroed: some 340 a radiograph of
    1024 x 1024. Other C libraries have no `mallopt`, and keep their ways.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, _LARGEST_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
