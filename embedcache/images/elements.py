"""Single values of a data set, read from their bytes where these are plain; pydicom takes several times as long to convert one.

Only what pydicom would read in one way is read here. Another VR than the standard's, an odd or empty value, one that was
converted before: all that is left to pydicom, so what `value_of` gives never differs from it by more than the type.
"""

import re
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.uid import UID

_DECIMAL = rb" *[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)? *"
_DECIMALS = re.compile(rb"%b(?:\\%b)*\0?" % (_DECIMAL, _DECIMAL))
_INTEGER = rb" *[+-]?\d{1,9} *"
_INTEGERS = re.compile(rb"%b(?:\\%b)*\0?" % (_INTEGER, _INTEGER))
_UIDS = re.compile(rb"[\d.]+(?:\\[\d.]+)*\0?")
_TEXT = "iso8859"
"""Of values whose VR has no other character set (PS3.5 6.1.2.2); what pydicom takes them for, so no byte is an error."""


def value_of(dataset: Dataset, keyword: str) -> Any:
    """As `dataset.get(keyword)`: numbers as float and int, text as str, several as a list; None where it is absent."""
    tag, vr = _known(keyword)
    element: Any = dataset.get_item(tag)  # None, or a RawDataElement: pydicom's annotation knows neither
    if element is None:
        return None
    if type(element) is RawDataElement and element.value and element.VR in (None, vr) and vr in _READERS:
        values = _READERS[vr](element)
        if values:
            return values[0] if len(values) == 1 else values
    return dataset.get(keyword)


def syntax_of(dataset: Dataset) -> UID:
    """The transfer syntax that the meta information names."""
    return _syntax(value_of(dataset.file_meta, "TransferSyntaxUID"))


def is_absent(dataset: Dataset, keyword: str) -> bool:
    """Whether there is no such element."""
    element: Any = dataset.get_item(_known(keyword)[0])
    return element is None


_syntax = lru_cache(64)(UID)


@cache
def _known(keyword: str) -> tuple[BaseTag, str]:
    """Tag and VR of an element of the standard."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return BaseTag(tag), dictionary_VR(tag)


def _decimals(element: RawDataElement) -> list[Any]:
    value = element.value or b""
    return [float(v) for v in value.rstrip(b"\0").split(b"\\")] if _DECIMALS.fullmatch(value) else []


def _integers(element: RawDataElement) -> list[Any]:
    value = element.value or b""
    return [int(v) for v in value.rstrip(b"\0").split(b"\\")] if _INTEGERS.fullmatch(value) else []


def _short(element: RawDataElement) -> list[Any]:
    value = element.value or b""
    return [int.from_bytes(value, "little" if element.is_little_endian else "big")] if len(value) == 2 else []


def _texts(element: RawDataElement) -> list[Any]:
    return (element.value or b"").decode(_TEXT).rstrip(" \0").split("\\")


def _uids(element: RawDataElement) -> list[Any]:
    return _texts(element) if _UIDS.fullmatch(element.value or b"") else []


_READERS: dict[str, Callable[[RawDataElement], list[Any]]] = {
    "DS": _decimals, "IS": _integers, "US": _short, "CS": _texts, "UI": _uids,
}  # fmt: skip
