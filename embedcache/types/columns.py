"""Columns of many values: their array types, and texts without a Python object each."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.coded import CodedTexts

StringArray: TypeAlias = npt.NDArray[Any]
"""Of dtype numpy.dtypes.StringDType; numpy's stubs can not name it usefully."""
Texts: TypeAlias = StringArray | CodedTexts
"""A long column of texts, however it is held."""
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
IntArray: TypeAlias = npt.NDArray[np.int64]


_WIDEST = 256
_ROOM = 2**26


def can_be_laid_out(count: int, width: int, total: int) -> bool:
    """Whether `count` texts of `total` bytes may take as much memory each as the longest, of `width` bytes."""
    return width <= _WIDEST and count * width <= max(_ROOM, 8 * total)


def strings(values: Any) -> StringArray:
    """`values` as a compact numpy string array (16 bytes a value and the text once, not a Python object each)."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "U":
        narrow = ascii_bytes(values)  # numpy's own way takes five times as long, and so do Python strings
        values = values.tolist() if narrow is None else narrow
    return np.asarray(values, dtype=np.dtypes.StringDType())


def fixed_width(values: StringArray) -> npt.NDArray[np.str_]:
    """(n,): the texts as numpy's older strings, of one width, which other libraries take."""
    narrow = ascii_bytes(values)
    if narrow is None:
        return np.array(values.tolist(), dtype=np.str_)
    codes = narrow.view(np.uint8).astype(np.uint32)
    return np.asarray(codes.view(f"U{narrow.dtype.itemsize}"))


def ascii_bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.bytes_] | None:
    """(n,): the texts as bytes, all of one width with zeros behind.

    None of a column with a text that is not ASCII, that ends in zeros of its own, or that is long.
    """
    if not values.ndim:
        return None
    if values.dtype.kind == "U":
        width = values.dtype.itemsize // 4
        if not 0 < width <= _WIDEST:
            return None
        codes = np.ascontiguousarray(values).view(np.uint32)
        return codes.astype(np.uint8).view(f"S{width}") if codes.max(initial=0) < 128 else None
    lengths = np.strings.str_len(values)
    width = max(1, int(lengths.max(initial=0)))
    if not can_be_laid_out(values.size, width, int(lengths.sum())):
        return None
    try:
        narrow: npt.NDArray[np.bytes_] = values.astype(f"S{width}")
    except UnicodeEncodeError:
        return None
    # the length of a text, as numpy has it, leaves out zeros at its end
    return narrow if (strings(narrow) == values).all() else None
