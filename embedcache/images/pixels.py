"""Grey pixels of a DICOM frame without pydicom's decoding: native ones as they lie, lossless JPEG and JPEG-LS by imagecodecs.

What is not plain (colour, bits that are no whole bytes, other compressions, an odd header) is left to pydicom. The pixels are
the same.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from embedcache.errors import ImageError
from embedcache.images import codecs
from embedcache.images.elements import is_absent, syntax_of, value_of

_NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
_JPEG = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes)
_CODECS: dict[UID, Callable[[bytes, codecs.JpegHead], npt.NDArray[Any] | None]] = {
    JPEGLossless: codecs.lossless_jpeg,
    JPEGLosslessSV1: codecs.lossless_jpeg,
    JPEGLSLossless: codecs.jpeg_ls,
    JPEGLSNearLossless: codecs.jpeg_ls,
}
_OTHER_PIXELS = ("FloatPixelData", "DoubleFloatPixelData")
_NO_OFFSETS = re.compile(rb"\xfe\xff\x00\xe0(?:\x00{4}|\x04\x00{7})")
"""An offset table that is empty or says 0."""
_ITEM = re.compile(rb"\xfe\xff\x00\xe0(.{4})", re.DOTALL)
PIXEL_DATA = BaseTag(0x7FE00010)
_MOST_SIDE = 2**16 - 1


@dataclass(frozen=True)
class _Layout:
    """Of one frame."""

    rows: int
    columns: int
    allocated: int
    """Bits of a stored pixel."""
    stored: int
    """Bits of it that count, the lowest."""
    signed: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"{'i' if self.signed else 'u'}{self.allocated // 8}")


def grey_pixels(dataset: Dataset, index: int, frames: int) -> npt.NDArray[Any] | None:
    """(y, x) of frame `index` of `frames`, as pydicom gives it; it may be a view of the file's bytes, not to be written to.

    None where only pydicom can say it. Raises ImageError where a compressed frame says another size than the header.
    """
    syntax = syntax_of(dataset)
    if syntax in _NATIVE:
        layout = _layout(dataset)
        return None if layout is None else _without_unused_bits(_native(dataset, layout, index), layout, layout.stored)
    if syntax in JPEG2000TransferSyntaxes:
        _check_size(codecs.jpeg_2000_size(frame_stream(dataset, index, frames)), dataset)
        return None
    if syntax not in _JPEG:
        return None
    stream = frame_stream(dataset, index, frames)
    head = codecs.jpeg_head(stream)
    if head is None:
        return None
    _check_size((head.rows, head.columns) if head.rows else None, dataset)
    layout = _layout(dataset) if syntax in _CODECS else None
    if layout is None or layout.allocated != (8 if head.precision <= 8 else 16):
        return None
    pixels = _CODECS[syntax](stream, head)
    if pixels is None:
        return None
    # JPEG-LS says itself how many bits count, and has no sign
    used = (
        layout.stored if syntax not in JPEGLSTransferSyntaxes else head.precision if layout.signed else layout.allocated
    )
    return _without_unused_bits(pixels.view(layout.dtype), layout, used)


def _check_size(said: tuple[int, int] | None, dataset: Dataset) -> None:
    """Raises ImageError for a frame that says another size than the header: a decoder takes memory for what the frame says."""
    size = value_of(dataset, "Rows"), value_of(dataset, "Columns")
    if said is not None and said != size:
        raise ImageError(f"a compressed frame has {said[0]}x{said[1]} pixels, and its header {size[0]}x{size[1]}.")


def frame_stream(dataset: Dataset, index: int, frames: int) -> bytes:
    """The compressed frame `index` of `frames`."""
    stored: Any = dataset.get_item(PIXEL_DATA)
    offsets = None
    if is_absent(dataset, "ExtendedOffsetTable"):
        sole = sole_stream(stored.value) if frames == 1 and not index else None
        if sole is not None:
            return sole
    else:
        offsets = dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths
    return get_frame(stored.value, index, number_of_frames=frames, extended_offsets=offsets)


def sole_stream(value: bytes) -> bytes | None:
    """The fragments of the one frame in encapsulated pixel data (PS3.5 A.4); None where an offset table says more."""
    begins = _NO_OFFSETS.match(value)
    at, fragments = begins.end() if begins else len(value), []
    while at < len(value):
        item = _ITEM.match(value, at)
        if item is None or item.end() + (length := int.from_bytes(item[1], "little")) > len(value):
            return None
        fragments.append(value[item.end() : item.end() + length])
        at = item.end() + length
    return b"".join(fragments) if fragments else None


def _layout(dataset: Dataset) -> _Layout | None:
    """None for pixels that are not plain grey, and where an element is missing or makes no sense."""
    rows, columns, allocated, stored, sign, samples = (
        value_of(dataset, keyword)
        for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel")
    )
    if samples != 1 or value_of(dataset, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        return None
    if allocated not in (8, 16, 32) or sign not in (0, 1) or not all(is_absent(dataset, k) for k in _OTHER_PIXELS):
        return None
    bounds = ((rows, _MOST_SIDE), (columns, _MOST_SIDE), (stored, allocated))
    if not all(isinstance(number, int) and 0 < number <= most for number, most in bounds):
        return None
    return _Layout(rows, columns, allocated, stored, sign == 1)


def _native(dataset: Dataset, layout: _Layout, index: int) -> npt.NDArray[Any]:
    n = layout.rows * layout.columns
    dtype = layout.dtype.newbyteorder("<")
    stored: Any = dataset.get_item(PIXEL_DATA)  # its bytes, which pydicom need not look at
    pixels = np.frombuffer(stored.value, dtype, n, index * n * dtype.itemsize)
    return pixels.reshape(layout.rows, layout.columns)


def _without_unused_bits(pixels: npt.NDArray[Any], layout: _Layout, used: int) -> npt.NDArray[Any]:
    """Stored values of `used` bits: what lies above them is no part of the value, but for the sign (PS3.5 8.1.1)."""
    unused = layout.allocated - used
    if not unused:
        return pixels
    low, high = (-1 << (used - 1), (1 << (used - 1)) - 1) if layout.signed else (0, (1 << used) - 1)
    if pixels.max() <= high and (not layout.signed or pixels.min() >= low):
        return pixels  # nearly every file
    return (pixels << unused) >> unused
