"""Long columns of texts as numbers. A text compared or hashed a million times is slow, an integer is not."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcache.coded import CodedTexts
from embedcache.store.packed import PackedTexts
from embedcache.types import IntArray, StringArray, Texts, can_be_laid_out, strings

ID_BYTES = 16
"""A column of texts that are all alike this long or longer is taken for one of ids."""


def factorise(values: Texts) -> tuple[StringArray, IntArray]:
    """(words, codes): the distinct values, sorted, and for each of the n values its place among them.

    Runs of equal values, as in a column of sample ids with a row per class, are hashed once each.
    """
    if isinstance(values, CodedTexts):
        used = values.used()
        return used.words, used.codes
    if not len(values):
        return strings([]), np.zeros(0, dtype=np.int64)
    heads, run = _runs(values)
    if _ascend(heads):  # as ids lie in a store: to see that is a hundredth of the work of sorting them
        return heads, run
    words, codes = _words(heads)
    return words, codes[run]


def _ascend(values: StringArray) -> bool:
    """Whether each is greater than the one before it."""
    return bool((values[1:] > values[:-1]).all())


def _runs(values: StringArray) -> tuple[StringArray, IntArray]:
    """The values without repetitions of the one before, and for each of the n > 0 values its place among those."""
    starts = np.concatenate([[True], values[1:] != values[:-1]])
    return (values if starts.all() else values[starts]), np.cumsum(starts) - 1


def _words(values: StringArray) -> tuple[StringArray, IntArray]:
    packed = PackedTexts.of(values)
    order = packed.sort() if (packed.width or 0) >= ID_BYTES else None
    if order is not None:  # ids: mostly distinct, so sorting is less work than a table of words
        # as bytes of one width; that numpy ignores zeros at the end tells two texts of one length apart no less
        ordered = np.frombuffer(packed.data, dtype=f"S{packed.width}")[order]
        new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        codes = np.empty(len(values), dtype=np.int64)
        codes[order] = np.cumsum(new) - 1
        return values[order[new]], codes
    encoded = _arrow(packed).dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    rank = np.empty(len(order), dtype=np.int64)
    rank[whole_numbers(order)] = np.arange(len(order))
    codes = whole_numbers(encoded.indices)
    return from_arrow(encoded.dictionary.take(order)), rank[codes]


def sort(values: StringArray) -> IntArray:
    """Shape (n,): a stable order of the texts."""
    order = PackedTexts.of(values).sort()
    return np.argsort(values, kind="stable") if order is None else order


def to_arrow(values: StringArray) -> pa.Array:
    """The column as Arrow has it."""
    return _arrow(PackedTexts.of(values))


def _arrow(packed: PackedTexts) -> pa.Array:
    # 64-bit offsets: a column of 10^8 ids is longer than 32 bits can say
    offsets = np.concatenate([[0], np.cumsum(packed.lengths)]).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(packed.data)]
    return pa.Array.from_buffers(pa.large_string(), len(packed.lengths), buffers)


def from_arrow(texts: pa.Array) -> StringArray:
    """A column of Arrow's texts."""
    wide = texts.cast(pa.large_string())
    n = len(wide)
    ends = (
        np.frombuffer(wide.buffers()[1], dtype=np.int64)[wide.offset : wide.offset + n + 1]
        if n
        else np.zeros(1, np.int64)
    )
    lengths, data = np.diff(ends), np.frombuffer(wide.buffers()[2] or b"", dtype=np.uint8)[ends[0] : ends[-1]]
    width = max(1, int(lengths.max(initial=0)))
    plain = can_be_laid_out(n, width, len(data)) and not texts.null_count and not ((data == 0) | (data >= 0x80)).any()
    if not plain:
        return strings(texts.to_pylist())
    laid_out = np.zeros((n, width), dtype=np.uint8)
    laid_out[np.arange(width) < lengths[:, None]] = data
    return strings(laid_out.view(f"S{width}")[:, 0])


def joint_codes(a: Texts, b: Texts) -> tuple[int, IntArray, IntArray]:
    """The number of distinct values in both, and codes under which equal values of `a` and `b` are equal."""
    words, codes = factorise(np.concatenate([a, b]))
    return len(words), codes[: len(a)], codes[len(a) :]


def rows_of(mask: npt.NDArray[np.bool_]) -> slice | npt.NDArray[np.bool_]:
    """The mask, or all rows where it has all: a column of a million is not copied then."""
    return slice(None) if mask.all() else mask


def locate(values: Texts, among: Texts) -> IntArray:
    """Shape (n,): the first position of each of `values` in `among`, -1 where it is not there.

    By hashing in Arrow: numpy's searchsorted on large arrays of its own strings ends the process (numpy 2.4).
    """
    if isinstance(values, CodedTexts):
        return locate(values.words, among)[values.codes]
    if isinstance(among, CodedTexts):
        return _first_rows(among)[locate(values, among.words)]
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    if len(values) == len(among) and bool((values == among).all()) and _ascend(values):  # the same ids, each once
        return np.arange(len(values))
    heads, run = _runs(values)
    found = pc.index_in(to_arrow(heads), to_arrow(among))
    return from_nullable(found, -1).astype(np.int64)[run]


def _first_rows(column: CodedTexts) -> IntArray:
    """(words + 1,): the first row of each word, -1 for one that no row has, and -1 once more at the end."""
    first = np.full(len(column.words) + 1, -1, dtype=np.int64)
    first[column.codes[::-1]] = np.arange(len(column))[::-1]  # of several assignments the last holds
    return first


def whole_numbers(column: pa.Array) -> IntArray:
    """The whole numbers of a column, 0 where there is none."""
    return from_nullable(column, 0).astype(np.int64) if column.null_count else _in_memory(column).astype(np.int64)


def from_nullable(column: pa.Array | pa.ChunkedArray, missing: float) -> npt.NDArray[np.float64]:
    """The numbers of a column, `missing` where there is none; exact up to 2^53.

    What lies in Arrow's memory is taken as it lies: for any conversion of nulls Arrow imports pandas, where there is one, in
    half a second.
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    found = [_of_memory(chunk, missing) for chunk in chunks]
    return found[0] if len(found) == 1 else np.concatenate([np.zeros(0), *found])


def _of_memory(chunk: pa.Array, missing: float) -> npt.NDArray[np.float64]:
    numbers = _in_memory(chunk).astype(np.float64)
    validity = chunk.buffers()[0]
    if validity is not None and chunk.null_count:
        bits = np.unpackbits(np.frombuffer(validity, dtype=np.uint8), bitorder="little")
        numbers[bits[chunk.offset : chunk.offset + len(chunk)] == 0] = missing
    return numbers


def _in_memory(chunk: pa.Array) -> npt.NDArray[Any]:
    """The numbers of a chunk as they lie there, whatever where there is none."""
    if not len(chunk):
        return np.zeros(0, dtype=chunk.type.to_pandas_dtype())
    values = np.frombuffer(chunk.buffers()[1], dtype=chunk.type.to_pandas_dtype())
    return values[chunk.offset : chunk.offset + len(chunk)]


def to_numbers(values: npt.NDArray[Any], kind: pa.DataType, missing: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Numbers as a column of `kind`, null where `missing`; `pyarrow.array` would import pandas, where there is one."""
    numbers = np.ascontiguousarray(values, dtype=kind.to_pandas_dtype())
    valid = None
    if missing is not None and missing.any():
        numbers, valid = np.where(missing, 0, numbers), pa.py_buffer(np.packbits(~missing, bitorder="little"))
    return pa.Array.from_buffers(kind, len(numbers), [valid, pa.py_buffer(numbers)])
