"""Bytes of Zarr chunks and shards, assembled by hand: data, crc32c, index (FORMAT.md, section 4).

zarr-python's own encoder writes the same bytes (held equal by a test) at a quarter of the speed or less, and
would hand us neither the bytes to hash nor the moment to sync.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import anycrc
import numpy as np
import numpy.typing as npt

from embedcache.errors import StoreError
from embedcache.store.packed import PackedTexts
from embedcache.types import StringArray, strings

CRC_BYTES = 4
ALIKE_AT_LEAST = 64
"""For fewer strings it is as fast to read one after another."""
INDEX_ENTRY = np.dtype([("offset", "<u8"), ("length", "<u8")])


_CRC32C = anycrc.Model("CRC32C")
"""By carry-less products: half as fast again as what uses the processor's own instruction alone (benchmarks/LOG.md)."""


def crc32c(data: Any) -> int:
    """CRC-32C of a contiguous buffer."""
    return int(_CRC32C.calc(memoryview(data).cast("B")))


@dataclass(frozen=True)
class ShardForm:
    """Where the parts of a shard object lie: chunks in order without gaps, each with its crc32c, then the index."""

    chunks: int
    chunk_bytes: int

    @property
    def stride(self) -> int:
        """From one chunk to the next."""
        return self.chunk_bytes + CRC_BYTES

    @property
    def index_start(self) -> int:
        """Where the index begins."""
        return self.chunks * self.stride

    @property
    def size(self) -> int:
        """Bytes of the whole object."""
        return self.index_start + len(shard_index(self))


@lru_cache(maxsize=64)
def shard_index(form: ShardForm) -> bytes:
    """The index that a shard of this form must have, with its crc32c."""
    index = np.empty(form.chunks, dtype=INDEX_ENTRY)
    index["offset"] = np.arange(form.chunks, dtype=np.uint64) * form.stride
    index["length"] = form.stride
    data = index.tobytes()
    return data + struct.pack("<I", crc32c(data))


def encode_shard(rows: npt.NDArray[Any], chunk_per_row: bool) -> bytearray:
    """One shard object holding `rows` (shape (rows_per_shard, …)), an inner chunk a row or one for all."""
    little = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
    chunks = little.reshape(len(little) if chunk_per_row else 1, -1).view(np.uint8)
    form = ShardForm(*chunks.shape)
    shard = bytearray(form.size)
    body = np.frombuffer(shard, dtype=np.uint8, count=form.index_start).reshape(form.chunks, form.stride)
    body[:, : form.chunk_bytes] = chunks
    for i in range(form.chunks):
        body[i, form.chunk_bytes :] = np.frombuffer(struct.pack("<I", crc32c(chunks[i])), dtype=np.uint8)
    shard[form.index_start :] = shard_index(form)
    return shard


def index_fault(tail: bytes, form: ShardForm) -> str:
    """What is wrong with `tail` as the index of a shard of this form (FORMAT.md asks for one and no other); "" if nothing."""
    if tail == shard_index(form):
        return ""
    if struct.unpack("<I", tail[-CRC_BYTES:])[0] != crc32c(tail[:-CRC_BYTES]):
        return "a damaged shard index"
    return "a shard index that FORMAT.md does not allow"


def encode_strings(values: Sequence[str] | StringArray) -> bytes:
    """A chunk of strings under the `vlen-utf8` codec: count, then length and bytes of each."""
    packed = PackedTexts.of(values if isinstance(values, np.ndarray) else strings(values))
    return struct.pack("<I", len(values)) + packed.framed(packed.lengths.astype("<u4")[:, None].view(np.uint8), b"")


def decode_strings(data: bytes, name: str) -> StringArray:
    """The strings of a `vlen-utf8` chunk. Raises StoreError, naming the object, if it is damaged."""
    try:
        (count,) = struct.unpack_from("<I", data)
        if 4 * count > len(data):
            raise ValueError(f"{count} strings in {len(data)} bytes")
        parts, at, left, window = [strings([])], 4, count, ALIKE_AT_LEAST
        while left:
            if len(data) - at == 4 * left and not any(data[at:]):  # empty ones: the padding of a last chunk
                parts.append(strings([""] * left))
                at, left = len(data), 0
                break
            run = _alike(data, at, min(left, window))
            if len(run):
                parts.append(strings(run))
                at, left = at + len(run) * (4 + run.itemsize), left - len(run)
            if len(run) == window:
                window *= 2
                continue
            window, texts = ALIKE_AT_LEAST, []
            for _ in range(min(left, ALIKE_AT_LEAST)):
                text = _one(data, at)
                texts.append(text.decode())
                at += 4 + len(text)
            parts.append(strings(texts))
            left -= len(texts)
        if at != len(data):
            raise ValueError("bytes are left over")
    except (struct.error, ValueError) as error:
        raise StoreError(f"object {name} holds damaged strings ({error}); run `embedcache verify`.") from error
    return np.concatenate(parts)


def _one(data: bytes, at: int) -> bytes:
    (length,) = struct.unpack_from("<I", data, at)
    if at + 4 + length > len(data):
        raise ValueError("a string is longer than its chunk")
    return data[at + 4 : at + 4 + length]


def _alike(data: bytes, at: int, count: int) -> npt.NDArray[np.bytes_]:
    """Of the next `count` strings those at the beginning that are ASCII of one length, as ids of a kind are: read at once."""
    none = np.empty(0, dtype="S1")
    if count < ALIKE_AT_LEAST:
        return none
    (length,) = struct.unpack_from("<I", data, at)
    stride = 4 + length
    if not 0 < length <= len(data) - at - 4:
        return none
    n = min(count, (len(data) - at) // stride)
    heads = np.ndarray((n,), "<u4", data, at, (stride,))
    texts = np.ndarray((n, length), np.uint8, data, at + 4, (stride, 1))
    # a last byte of zero would be taken for padding
    fine = (heads == length) & (texts[:, -1] != 0)
    if not data[at : at + n * stride].isascii():
        fine &= (texts < 0x80).all(axis=1)
    run = len(fine) if fine.all() else int(np.argmin(fine))
    return np.ascontiguousarray(texts[:run]).view(f"S{length}").reshape(run)


def pad_chunk(values: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """The last chunk of an array is stored at full length, as Zarr asks; what is beyond the end is the fill value."""
    if len(values) == length:
        return values
    padded = np.zeros(length, dtype=values.dtype)
    padded[: len(values)] = values
    return padded


def pad_strings(values: StringArray, length: int) -> StringArray:
    """The same for strings."""
    return np.concatenate([values, strings([""] * (length - len(values)))])


def join_strings(chunks: Sequence[StringArray], length: int) -> StringArray:
    """One string array from decoded chunks, cut to `length`."""
    return np.concatenate([strings([]), *chunks])[:length]
