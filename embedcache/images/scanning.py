"""A plain DICOM file's elements as pydicom would read them, found in one pass that copies and converts next to nothing.

Those that say nothing of an image are passed over: of the patient (group 0010), and private ones but for Siemens' (mosaic.py).

Plain is: a preamble, meta information, little-endian, no deflation, every length inside the file and every VR of the standard,
down to the items of sequences without a length. `scan` gives None for any other file, and pydicom then says what it holds.
"""

import struct
from functools import lru_cache
from typing import Any

from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR
from pydicom.values import convert_string

_PREAMBLE = 128
_MAGIC = b"DICM"
_UNDEFINED = 0xFFFFFFFF
_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITER_BYTES = 8
_PIXEL_DATA = 0x7FE00010
_SYNTAX = 0x00020010
_CHARACTER_SET = 0x00080005
_NATIVE = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
_ENCAPSULATED = frozenset(
    map(str, (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes, RLELossless))
)
_PATIENT, _SIEMENS = 0x0010, (0x0019, 0x0029)
_VRS = {vr.value.encode(): (vr.value, vr in EXPLICIT_VR_LENGTH_32) for vr in VR if len(vr.value) == 2}
"""Code → name, and whether a length of four bytes follows two that are reserved (PS3.5 7.1.2)."""
_MOST_DEPTH = 16
"""Of sequences in sequences: a file that nests deeper is left to pydicom."""

_explicit = struct.Struct("<HH2sH").unpack_from
_length = struct.Struct("<L").unpack_from


class _Unusual(Exception):
    """The file is not plain."""


def scan(data: bytes) -> Dataset | None:
    """As `dcmread` of `data`, with elements as they are stored; None where the file is not plain.

    Native pixel data is a view of `data`, not a copy: the data set keeps the file's bytes.
    """
    if data[_PREAMBLE : _PREAMBLE + len(_MAGIC)] != _MAGIC:
        return None
    try:
        return _scanned(data)
    except (_Unusual, struct.error, LookupError, ValueError):  # pydicom raises the latter for names of character sets
        return None


def _scanned(data: bytes) -> Dataset:
    at, meta = _meta(data)
    syntax = (meta[BaseTag(_SYNTAX)].value or b"").decode("ascii", "replace").rstrip(" \0")
    if syntax not in _NATIVE and syntax not in _ENCAPSULATED:
        raise _Unusual
    explicit = syntax != _NATIVE[1]
    if data[at : at + 2] in (b"", b"\0\0") or (not explicit and data[at + 4 : at + 6].isupper()):
        raise _Unusual  # nothing, a command set, or VRs where the meta information says that there are none
    view, size = memoryview(data), len(data)
    elements: dict[BaseTag, DataElement | RawDataElement] = {}
    while at < size:
        tag, vr, length, at = _header(data, at, explicit)
        if tag >> 16 == 0xFFFE:
            raise _Unusual  # the end of an item outside of any, where pydicom stops reading
        start = at
        if length == _UNDEFINED:
            vr, stop, at = _undefined(data, at, tag, vr, explicit, syntax)
        else:
            stop = at = at + length
        if at > size:
            raise _Unusual
        group = tag >> 16
        if group == _PATIENT or (group & 1 and group not in _SIEMENS):
            continue
        value: Any
        if not length:
            value = empty_value_for_VR(vr, raw=True)
        else:
            value = view[start:stop] if tag == _PIXEL_DATA and syntax in _NATIVE else data[start:stop]
        key = BaseTag(tag)
        elements[key] = RawDataElement(key, vr, length, value, start, not explicit, True)
    file_meta = FileMetaDataset(meta)
    file_meta.set_original_encoding(False, True, "iso8859")
    dataset = Dataset(elements)
    dataset.file_meta = file_meta
    dataset.set_original_encoding(not explicit, True, _encodings(elements.get(BaseTag(_CHARACTER_SET))))
    return dataset


def _meta(data: bytes) -> tuple[int, dict[BaseTag, DataElement | RawDataElement]]:
    """Where the meta information ends, and its elements."""
    at = _PREAMBLE + len(_MAGIC)
    elements: dict[BaseTag, DataElement | RawDataElement] = {}
    while data[at : at + 2] == b"\x02\0":
        tag, vr, length, start = _header(data, at, True)
        at = start + length
        if tag in (_ITEM, _END_OF_ITEM) or at > len(data):
            raise _Unusual
        key = BaseTag(tag)
        elements[key] = RawDataElement(key, vr, length, data[start:at], start, False, True)
    return at, elements


def _header(data: bytes, at: int, explicit: bool) -> tuple[int, str | None, int, int]:
    """Tag, VR (None where it is implicit), length, and where the value begins, of the element at `at`."""
    group, element, code, length = _explicit(data, at)
    tag = group << 16 | element
    if not explicit or group == 0xFFFE:
        return tag, None, _length(data, at + 4)[0], at + 8
    vr, wide = _VRS[code]
    if wide:
        return tag, vr, _length(data, at + 8)[0], at + 12
    return tag, vr, length, at + 8


def _undefined(
    data: bytes, at: int, tag: int, vr: str | None, explicit: bool, syntax: str
) -> tuple[str | None, int, int]:
    """Of an element without a length whose value begins at `at`: its VR, where the value ends and what follows begins."""
    if tag == _PIXEL_DATA and syntax in _ENCAPSULATED:
        after = _end_of_sequence(data, at, explicit, _MOST_DEPTH)  # its items are fragments, which hold no elements
    elif (vr or dictionary_VR(tag)) == "SQ":
        vr, after = "SQ", _end_of_sequence(data, at, explicit, 1)
    else:
        raise _Unusual
    return vr, after - _DELIMITER_BYTES, after


def _end_of_sequence(data: bytes, at: int, explicit: bool, depth: int) -> int:
    """Behind the delimiter of a sequence without a length whose first item is at `at`."""
    while True:
        tag, _, length, at = _header(data, at, False)
        if tag == _END_OF_SEQUENCE and not length:
            return at
        if tag != _ITEM or (length == _UNDEFINED and depth == _MOST_DEPTH):
            raise _Unusual
        at = at + length if length != _UNDEFINED else _end_of_item(data, at, explicit, depth)


def _end_of_item(data: bytes, at: int, explicit: bool, depth: int) -> int:
    while True:
        tag, vr, length, at = _header(data, at, explicit)
        if tag == _END_OF_ITEM and not length:
            return at
        if tag >> 16 == 0xFFFE or (length == _UNDEFINED and (vr or dictionary_VR(tag)) != "SQ"):
            raise _Unusual
        at = at + length if length != _UNDEFINED else _end_of_sequence(data, at, explicit, depth + 1)


def _encodings(element: DataElement | RawDataElement | None) -> str | list[str]:
    return "iso8859" if element is None else _encodings_of(element.value or b"")


@lru_cache(64)
def _encodings_of(value: bytes) -> list[str]:
    return convert_encodings(convert_string(value, True))
