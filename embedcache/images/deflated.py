"""A guard for deflated DICOM: pydicom inflates such a data set whole before it reads a single element of it."""

import zlib
from typing import BinaryIO

from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from embedcache.errors import ImageError
from embedcache.images.parsed import DEFLATE_RATIO

MOST_INFLATED = 2**29
"""Bytes that a deflated data set may have: the largest radiograph has a tenth. pydicom holds them three times."""
_PREAMBLE = 132
_STEP = 2**20


def check_inflated(file: BinaryIO) -> None:
    """Raise ImageError(stage="open") for deflated DICOM that inflates to more than MOST_INFLATED; else go back to its start.

    Files that are not deflated cost a reading of their meta information.
    """
    file.seek(_PREAMBLE - 4)
    if file.read(4) == b"DICM":
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            _check(file)
    file.seek(0)


def _check(file: BinaryIO) -> None:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = 0
    while packed := inflater.unconsumed_tail or file.read(_STEP):
        inflated += len(inflater.decompress(packed, _STEP * DEFLATE_RATIO // 64))
        if inflated > MOST_INFLATED:
            raise ImageError(
                f"its deflated data set holds more than {MOST_INFLATED // 2**20} MiB; save it without deflation.",
                "open",
            )
