"""Names, axes and sizes of a store (FORMAT.md, sections 1, 3 and 4)."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from embedcache.types import ArraySpec, Unit

FORMAT = "embedcache"
VERSION = 1
MAX_QUANTUM = 2_048
MAX_SHARD_BYTES = 256 * 2**20
MAX_ROW_BYTES = 2**31
MAX_LAYERS = 10_000
"""Beyond these two a store does not speak the truth."""
INDEX_CHUNK = 65_536
ROOT_DOCUMENT = "zarr.json"
ATTRIBUTE = "embedcache"

SAMPLE_ARRAYS = {
    "slice_start": "int64",
    "slice_count": "int64",
    "sample_id": "string",
    "patient_id": "string",
    "superseded": "bool",
}
SLICE_ARRAYS = {"slice_index": "int32", "row_status": "uint8"}

GRID: Mapping[Unit, tuple[str, ...]] = MappingProxyType({"slice": ("y", "x"), "volume": ("z", "y", "x")})
"""The axes of patches. The row's own axis is called as the unit."""

PENDING, OK, QUARANTINED, PADDING = 0, 1, 2, 3
"""Values of `row_status`."""


def choose_quantum(rows: int) -> int:
    """Q of a first plan: the next power of two at or above the row count, at most 2,048."""
    return min(MAX_QUANTUM, 1 << max(0, rows - 1).bit_length())


def choose_rows_per_shard(arrays: tuple[ArraySpec, ...], quantum: int) -> int:
    """The largest power of two, at most Q, for which no shard of the pass passes 256 MiB (one at least)."""
    widest = max(a.row_bytes for a in arrays)
    rows = quantum
    while rows > 1 and rows * widest > MAX_SHARD_BYTES:
        rows //= 2
    return rows


def chunk_per_row(spec: ArraySpec) -> bool:
    """Whether a shard has an inner chunk for each row (patch tokens), or one for all (vectors)."""
    return spec.kind in ("patch_tokens", "patch_tokens_int8", "patch_scale")


def store_folder(path: str | Path) -> Path:
    """The store that a user calls `path`, in full: inside it `.` has no name, and a bare name says no cache."""
    return Path(os.path.abspath(path))


def chunk_name(path: str, *position: int) -> str:
    """The object name of one chunk or shard."""
    return "/".join([path, "c", *map(str, position)])


def shard_name(spec: ArraySpec, shard: int) -> str:
    """The object name of one shard of a token array; feature axes are one chunk wide."""
    return chunk_name(spec.path, shard, *[0] * len(spec.shape))


def commits_path(pass_name: str) -> str:
    """The array of a pass's commits."""
    return f"commits_{pass_name}"


def log_path(pass_name: str) -> str:
    """The array that holds all commits of a finalised pass in one element."""
    return f"commit_log_{pass_name}"
