"""A guard for MATLAB 5 files: scipy takes the type of an element as an index, unchecked, and a damaged file ends the process.

The layout is that of "MAT-File Format" (MathWorks), chapter 1: a header of 128 bytes, then elements, each with a tag of 8 bytes
(type, length), padded to 8, or of 8 bytes together.
"""

import zlib
from typing import Literal

from embedcache.errors import ImageError

_HEADER = 128
_KNOWN = frozenset({*range(1, 8), 9, *range(12, 19)})
"""miINT8 to miUINT32, miSINGLE, miDOUBLE, miINT64 to miUTF32; of these 14 is a matrix and 15 is deflated."""
_MATRIX, _DEFLATED = 14, 15
_DEEPEST = 32
_MOST_INFLATED = 2**30


def check_elements(data: bytes) -> None:
    """Raise ImageError(stage="open") if an element has a type that is not known, lies outside the file or is nested too deep."""
    _check(memoryview(data)[_HEADER:], "big" if data[126:128] == b"MI" else "little", 0)


def _check(data: memoryview, order: Literal["little", "big"], depth: int) -> None:
    at = 0
    while at + 8 <= len(data):
        tag = int.from_bytes(data[at : at + 4], order)
        if tag >> 16:  # a short element: its length in the upper half, its value in the tag
            kind, length, start = tag & 0xFFFF, tag >> 16, at + 4
            end = at + 8
        else:
            kind, length, start = tag, int.from_bytes(data[at + 4 : at + 8], order), at + 8
            # only what is deflated is not padded
            end = start + length + (0 if kind == _DEFLATED else -length % 8)
        if kind not in _KNOWN or depth > _DEEPEST or start + length > len(data) or (tag >> 16 and length > 4):
            raise ImageError(
                "the MATLAB file is cut short or damaged: it has an element of no known type or length.", "open"
            )
        body = data[start : start + length]
        if kind == _MATRIX:
            _check(body, order, depth + 1)
        elif kind == _DEFLATED:
            inflated = zlib.decompressobj().decompress(body, _MOST_INFLATED + 1)
            if len(inflated) > _MOST_INFLATED:
                raise ImageError(f"the MATLAB file holds more than {_MOST_INFLATED // 2**20} MiB in one piece.", "open")
            _check(memoryview(inflated), order, depth + 1)
        at = end
