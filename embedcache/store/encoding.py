"""Bytes of Zarr chunks and shards, assembled by hand: data, crc32c, index (FORMAT.md, section 4).

zarr-python's own encoder writes the same bytes (held equal by a test) at a quarter of the speed or less, and
would hand us neither the bytes to hash nor the moment to sync.
"""

import struct
from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from embedcache.errors import StoreError
from embedcache.types import StringArray, strings

CRC_BYTES = 4
INDEX_ENTRY = np.dtype([("offset", "<u8"), ("length", "<u8")])


def crc32c(data: Any) -> int:
    """CRC-32C of a buffer."""
    return int(google_crc32c.value(data))


def encode_shard(rows: npt.NDArray[Any], chunk_per_row: bool) -> bytearray:
    """One shard object holding `rows` (shape (rows_per_shard, …)), an inner chunk a row or one for all."""
    little = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
    chunks = little.reshape(len(little) if chunk_per_row else 1, -1).view(np.uint8)
    count, length = chunks.shape
    stride = length + CRC_BYTES
    shard = bytearray(count * stride + index_bytes(count))
    body = np.frombuffer(shard, dtype=np.uint8, count=count * stride).reshape(count, stride)
    body[:, :length] = chunks
    index = np.empty(count, dtype=INDEX_ENTRY)
    index["offset"] = np.arange(count, dtype=np.uint64) * stride
    index["length"] = stride
    for i in range(count):
        body[i, length:] = np.frombuffer(struct.pack("<I", crc32c(chunks[i])), dtype=np.uint8)
    tail = index.tobytes()
    shard[count * stride :] = tail + struct.pack("<I", crc32c(tail))
    return shard


def decode_shard(data: bytes, shape: tuple[int, ...], dtype: str, chunk_per_row: bool, name: str) -> npt.NDArray[Any]:
    """The rows (read-only, of `shape`) of one shard object. Raises StoreError, naming the object, if a byte is wrong."""
    count = shape[0] if chunk_per_row else 1
    stored = np.dtype(dtype).newbyteorder("<")
    length = int(np.prod(shape, dtype=np.int64)) * stored.itemsize // count
    stride = length + CRC_BYTES
    tail = data[count * stride :]
    if len(tail) != index_bytes(count) or struct.unpack("<I", tail[-CRC_BYTES:])[0] != crc32c(tail[:-CRC_BYTES]):
        raise StoreError(f"object {name} has a damaged shard index; run `embedcache verify`.")
    index = np.frombuffer(tail, dtype=INDEX_ENTRY, count=count)
    if (index["offset"] != np.arange(count, dtype=np.uint64) * stride).any() or (index["length"] != stride).any():
        raise StoreError(f"object {name} has a shard index that FORMAT.md does not allow; run `embedcache verify`.")
    body = np.frombuffer(data, dtype=np.uint8, count=count * stride).reshape(count, stride)
    for i in range(count):
        if struct.unpack("<I", body[i, length:].tobytes())[0] != crc32c(body[i, :length]):
            raise StoreError(f"object {name} fails its checksum in chunk {i}; run `embedcache verify`.")
    return np.ascontiguousarray(body[:, :length]).view(stored).reshape(shape)


def chunk_range(row: int, row_bytes: int) -> tuple[int, int]:
    """Offset and length of one row's inner chunk in a shard with a chunk per row: FORMAT.md leaves no gaps."""
    stride = row_bytes + CRC_BYTES
    return row * stride, stride


def decode_chunk(data: bytes, shape: tuple[int, ...], dtype: str, name: str) -> npt.NDArray[Any]:
    """One row (read-only, of `shape`) from its inner chunk. Raises StoreError, naming the object, if a byte is wrong."""
    if struct.unpack("<I", data[-CRC_BYTES:])[0] != crc32c(data[:-CRC_BYTES]):
        raise StoreError(f"object {name} fails its checksum; run `embedcache verify`.")
    return np.frombuffer(data, dtype=np.dtype(dtype).newbyteorder("<"), count=int(np.prod(shape))).reshape(shape)


def index_bytes(chunks: int) -> int:
    """Length of a shard's index with its checksum."""
    return chunks * INDEX_ENTRY.itemsize + CRC_BYTES


def encode_strings(values: Sequence[str]) -> bytes:
    """A chunk of strings under the `vlen-utf8` codec: count, then length and bytes of each."""
    parts = [struct.pack("<I", len(values))]
    for value in values:
        text = value.encode()
        parts += (struct.pack("<I", len(text)), text)
    return b"".join(parts)


def decode_strings(data: bytes, name: str) -> list[str]:
    """The strings of a `vlen-utf8` chunk. Raises StoreError, naming the object, if it is damaged."""
    try:
        (count,) = struct.unpack_from("<I", data)
        values, at = [], 4
        for _ in range(count):
            (length,) = struct.unpack_from("<I", data, at)
            if at + 4 + length > len(data):
                raise ValueError("a string is longer than its chunk")
            values.append(data[at + 4 : at + 4 + length].decode())
            at += 4 + length
        if at != len(data):
            raise ValueError("bytes are left over")
    except (struct.error, ValueError) as error:
        raise StoreError(f"object {name} holds damaged strings ({error}); run `embedcache verify`.") from error
    return values


def pad_chunk(values: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """The last chunk of an array is stored at full length, as Zarr asks; what is beyond the end is the fill value."""
    if len(values) == length:
        return values
    padded = np.zeros(length, dtype=values.dtype)
    padded[: len(values)] = values
    return padded


def pad_strings(values: StringArray, length: int) -> list[str]:
    """The same for strings."""
    return [*values.tolist(), *[""] * (length - len(values))]


def join_strings(chunks: list[list[str]], length: int) -> StringArray:
    """One string array from decoded chunks, cut to `length`."""
    return strings([s for chunk in chunks for s in chunk][:length])
