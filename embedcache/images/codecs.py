"""Decoders of imagecodecs (extra `dicom`) for formats whose content is defined to the bit: PNG, lossless JPEG, JPEG-LS and gzip.

They are C, so each is given only what is whole, of the usual kind, and of the size that is expected, by its own headers. Every
function gives None where the package is absent, the stream is not so, or the decoder refuses it: the slower reader that is always
there (Pillow, pydicom, zlib) then gives the pixels or the reason. So what is read or refused does not depend on this package.
"""

import re
import struct
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import anycrc
import numpy as np
import numpy.typing as npt

_START_OF_IMAGE, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
_MARKER = 0xFF
_SCAN, _TABLES, _RESTARTS, _LOSSLESS, _JPEG_LS = 0xDA, 0xC4, 0xDD, 0xC3, 0xF7
_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), _JPEG_LS))
"""Markers of frame headers (ISO/IEC 10918-1 table B.1, 14495-1 C.1.1)."""
_MOST_BITS = 16
"""Of a sample, and of the difference of two."""
_JPEG_2000 = b"\xff\x4f\xff\x51"
"""Start of codestream, then SIZ, which comes first."""
_JPEG_2000_SIZ = struct.Struct(">8x4L")
_CRC32 = anycrc.Model("CRC32")
"""Several times as fast as zlib's."""
_PLAIN_SCAN = re.compile(rb"\x01.[\x00\x10\x20\x30][\x01-\x07]\0\0", re.DOTALL)
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BEGINS = re.compile(_PNG + rb"\0\0\0\x0dIHDR(.{10})\0\0\0", re.DOTALL)
"""Its first chunk: size, depth and colour type; the usual compression and filters, not interlaced."""
_PNG_KINDS = frozenset(b"IHDR PLTE tRNS IDAT IEND gAMA cHRM sRGB bKGD sBIT pHYs tIME tEXt".split())
_TELLING = (b"exif", b"Raw profile type exif", b"XML:com.adobe.xmp", b"xmp", b"transparency")
"""Keywords of PNG texts that Pillow takes for more than text: an orientation, a transparent colour."""


@dataclass(frozen=True)
class JpegHead:
    """What a JPEG or JPEG-LS stream says before its first scan."""

    marker: int
    """Of the frame header: which process made the stream."""
    precision: int
    """Bits of a sample."""
    rows: int
    """0 where it comes after the first scan."""
    columns: int
    components: int
    segments: tuple[tuple[int, bytes], ...]
    """(marker, content) of each."""
    samples: int
    """Where the coded samples of the first scan begin."""


def jpeg_head(stream: bytes) -> JpegHead | None:
    """The headers of a JPEG or JPEG-LS stream, None where they can not be read."""
    at, segments, frame = len(_START_OF_IMAGE), [], b""
    marker_of_frame = 0
    if not stream.startswith(_START_OF_IMAGE):
        return None
    while at + 4 <= len(stream) and stream[at] == _MARKER:
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4])
        if marker == _MARKER:  # a byte of padding
            at += 1
            continue
        segment = stream[at + 4 : at + 2 + length]
        segments.append((marker, segment))
        at += 2 + length
        if marker in _FRAMES and len(segment) >= 6:
            marker_of_frame, frame = marker, segment
        if marker == _SCAN and frame:
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame)
            return JpegHead(marker_of_frame, precision, rows, columns, components, tuple(segments), at)
        if marker == _SCAN:
            return None
    return None


def jpeg_2000_size(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a bare JPEG 2000 codestream by its SIZ segment (ISO/IEC 15444-1 A.5.1); None for anything else."""
    if not stream.startswith(_JPEG_2000) or len(stream) < _JPEG_2000_SIZ.size:
        return None
    right, bottom, left, top = _JPEG_2000_SIZ.unpack_from(stream)
    return bottom - top, right - left


def has_end(stream: bytes) -> bool:
    """Whether the stream ends with its end marker, and padding at most."""
    return _end(stream) is not None


def _end(stream: bytes) -> int | None:
    """Where the end marker is, None where the stream is cut short."""
    padding = len(stream) - 1
    while padding >= 0 and stream[padding] in b"\0\xff":
        padding -= 1
    return padding - 1 if stream[max(padding - 1, 0) : padding + 1] == _END_OF_IMAGE else None


def lossless_jpeg(stream: bytes, head: JpegHead) -> npt.NDArray[Any] | None:
    """(y, x) uint8 or uint16 of a lossless Huffman stream with one component."""
    if head.marker != _LOSSLESS or not _is_plain(stream, head):
        return None
    return _decoded("jpeg8_decode", stream, head)


def jpeg_ls(stream: bytes, head: JpegHead) -> npt.NDArray[Any] | None:
    """(y, x) uint8 or uint16 of a JPEG-LS stream with one component."""
    return _decoded("jpegls_decode", stream, head) if head.marker == _JPEG_LS else None


@dataclass(frozen=True)
class PngHead:
    """What the header of a plain PNG file says."""

    rows: int
    columns: int
    depth: int
    """Bits of a sample."""
    colour: int
    """Its colour type: 0 grey, 2 RGB, 3 palette, 4 and 6 grey and RGB with alpha."""
    transparent: bool
    """Whether it has alpha, or says which colours are transparent."""


def png_head(data: bytes) -> PngHead | None:
    """The header of a PNG file whose chunks are all whole (length and CRC) and of kinds that change no pixel.

    None for other files: Pillow knows what an orientation, an animation or a colour profile is.
    """
    found = _PNG_BEGINS.match(data)
    if found is None or installed() is None:
        return None
    at, kind, kinds, view = len(_PNG), b"", set(), memoryview(data)
    while kind != b"IEND":
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(data) or _CRC32.calc(view[at + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return None
        if kind not in _PNG_KINDS or (kind == b"tEXt" and data[at + 8 : end].partition(b"\0")[0] in _TELLING):
            return None
        kinds.add(kind)
        at = end + 4
    columns, rows, depth, colour = struct.unpack(">LLBB", found[1])
    return PngHead(rows, columns, depth, colour, colour in (4, 6) or b"tRNS" in kinds)


def png(data: bytes, head: PngHead) -> npt.NDArray[Any] | None:
    """(y, x) or (y, x, channels) of a file with that head: a palette becomes its colours, transparency a last channel.

    uint8, or uint16 where samples have 16 bits.
    """
    pixels = _call("png_decode", data)
    channels = (3 if head.colour in (2, 3, 6) else 1) + head.transparent
    shape = (head.rows, head.columns) if channels == 1 else (head.rows, head.columns, channels)
    if pixels is None or pixels.shape != shape or pixels.dtype.itemsize != max(head.depth // 8, 1):
        return None
    return pixels


def gunzip(data: bytes, n: int) -> bytes | None:
    """The content of a gzip file of one member that holds `n` bytes, its checksum verified; four times as fast as zlib."""
    package = installed() if data[-4:] == n.to_bytes(8, "little")[:4] else None
    if package is None:
        return None
    try:
        content: bytes = package.gzip_decode(data, out=n)
    except (RuntimeError, ValueError):
        return None
    return content if len(content) == n else None


@cache
def installed() -> ModuleType | None:
    """The package, imported when it is first needed (0.1 s)."""
    try:
        import imagecodecs
    except ImportError:
        return None
    found: ModuleType = imagecodecs
    return found


def _call(name: str, data: bytes) -> npt.NDArray[Any] | None:
    package = installed()
    if package is None:
        return None
    try:
        pixels: npt.NDArray[Any] = getattr(package, name)(data)
    except (RuntimeError, ValueError):  # all that its decoders raise, but for MemoryError
        return None
    return pixels


def _decoded(name: str, stream: bytes, head: JpegHead) -> npt.NDArray[Any] | None:
    if head.components != 1 or not 1 < head.precision <= _MOST_BITS:
        return None
    pixels = _call(name, stream)
    expected = np.dtype(np.uint8 if head.precision <= 8 else np.uint16)
    if pixels is None or pixels.shape != (head.rows, head.columns) or pixels.dtype != expected:
        return None
    return pixels


def _is_plain(stream: bytes, head: JpegHead) -> bool:
    """Whether a lossless stream's headers are as every writer makes them, and no marker but the last lies in its samples.

    libjpeg-turbo decodes some that are damaged there, which other decoders refuse.
    """
    for marker, segment in head.segments:
        if marker == _LOSSLESS and segment[8:] != b"\0":  # after its sampling: no quantisation table
            return False
        if marker == _TABLES and not _is_plain_table(segment, head.precision):
            return False
        if marker == _RESTARTS:
            return False
        # one component, its table; a predictor; no shift of its values
        if marker == _SCAN and not _PLAIN_SCAN.fullmatch(segment):
            return False
    end = _end(stream)
    if end is None or end <= head.samples:
        return False
    coded = np.frombuffer(stream, np.uint8, end - head.samples + 1, head.samples)
    marks = np.flatnonzero(coded[:-1] == _MARKER)
    return not coded[marks + 1].any()  # a byte of samples that looks like a marker is followed by 0


def _is_plain_table(segment: bytes, most: int) -> bool:
    """Whether the segment is one Huffman table of differences of up to `most` bits (ISO/IEC 10918-1 B.2.4.2, H.1.2.2)."""
    symbols = segment[17:]
    return sum(segment[1:17]) == len(symbols) == len(set(symbols)) and max(symbols, default=most + 1) <= most
