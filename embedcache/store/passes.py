"""The passes of a store (FORMAT.md, section 5): read from plain JSON values, written as such, and held to what is allowed."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from embedcache.store.fingerprint import pass_document, pass_id
from embedcache.store.layout import GRID, MAX_LAYERS, MAX_ROW_BYTES, MAX_SHARD_BYTES
from embedcache.store.typed import typed
from embedcache.types import Pass, Unit

PASS_KEYS = ("arrays", "rows_per_shard", "batch_size", "threads", "device_kind")


def check_pass(p: Pass, quantum: int, unit: Unit = "slice") -> None:
    """Raise ValueError unless a pass is one that FORMAT.md allows in a store of this quantum and unit."""
    rows = p.rows_per_shard
    if not 0 < rows <= quantum or rows & (rows - 1) or p.batch_size < 1 or p.threads < 1 or not p.arrays:
        raise ValueError(f"impossible pass {p.id}: {rows} rows a shard, batches of {p.batch_size}, {p.threads} threads")
    grid = len(GRID[unit])
    for spec in p.arrays:
        axes = {"patch_tokens": grid + 1, "patch_tokens_int8": grid + 1, "patch_scale": grid}.get(spec.kind, 1)
        dtypes = {"patch_tokens_int8": ("int8",), "patch_scale": ("float16",)}.get(spec.kind, ("float16", "float32"))
        if (
            len(spec.shape) != axes
            or min(spec.shape) < 1
            or spec.dtype not in dtypes
            or not 0 <= spec.layer < MAX_LAYERS
            or (spec.layer == 0) != (spec.kind == "pooled")
            or math.prod(spec.shape) * np.dtype(spec.dtype).itemsize > MAX_ROW_BYTES
            or (rows > 1 and rows * spec.row_bytes > MAX_SHARD_BYTES)
        ):
            raise ValueError(f"impossible array {spec.path} of pass {p.id}")


def describe_pass(p: Pass) -> dict[str, Any]:
    """A pass as plain JSON values, without its id."""
    return pass_document(p.arrays, p.rows_per_shard, p.batch_size, p.threads, p.device_kind)


def make_pass(document: Any) -> Pass:
    """A Pass from plain JSON values; its id is computed, not believed. Raises ValueError for values of other types."""
    made = typed(Pass, document, id="")
    return replace(made, id=pass_id(describe_pass(made)))
