"""The metadata documents of a store, composed in memory from its `Root` (FORMAT.md, sections 3 and 4)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from embedcache.store.layout import (
    ATTRIBUTE,
    GRID,
    INDEX_CHUNK,
    SAMPLE_ARRAYS,
    SLICE_ARRAYS,
    chunk_per_row,
    commits_path,
    log_path,
)
from embedcache.store.root import Root
from embedcache.types import ArraySpec, Unit


def documents(root: Root) -> dict[str, dict[str, Any]]:
    """Every metadata document but the root's: path of the group or array → its content."""
    found: dict[str, dict[str, Any]] = {}
    for name, dtype in SAMPLE_ARRAYS.items():
        found[name] = index_document(root.samples, dtype, "sample")
    for name, dtype in SLICE_ARRAYS.items():
        found[name] = index_document(root.rows, dtype, root.unit)
    found["manifest"] = array_document((2,), "string", (1,), ("copy",))
    for p in root.passes.values():
        shards = root.rows // p.rows_per_shard
        found[commits_path(p.id)] = array_document((shards,), "string", (1,), (f"shard_{p.id}",))
        found[log_path(p.id)] = array_document((1,), "string", (1,), ("log",))
        for spec in p.arrays:
            document = token_document(spec, root.rows, p.rows_per_shard, root.unit)
            found[spec.path] = document
            if spec.layer:
                group = found.setdefault(
                    f"layer_{spec.layer}",
                    # consolidated for itself too: `xarray.open_zarr(store, group="layer_12")` opens it without a listing
                    {
                        "zarr_format": 3,
                        "node_type": "group",
                        "attributes": {},
                        "consolidated_metadata": consolidated({}),
                    },
                )
                group["consolidated_metadata"]["metadata"][spec.kind] = document
    return found


def root_document(root: Root) -> dict[str, Any]:
    """The root group's document, with every other one inlined as consolidated metadata."""
    inlined = {
        path: {**document, "consolidated_metadata": consolidated({})} if document["node_type"] == "group" else document
        for path, document in documents(root).items()
    }
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {ATTRIBUTE: root.attributes()},
        "consolidated_metadata": consolidated(inlined),
    }


def consolidated(members: Mapping[str, Any]) -> dict[str, Any]:
    """Inline consolidated metadata, as zarr-python writes it: a flat mapping at the root, empty in nested groups."""
    return {"kind": "inline", "must_understand": False, "metadata": dict(members)}


def index_document(length: int, dtype: str, dimension: str) -> dict[str, Any]:
    """An uncompressed 1-D array in chunks of at most 65,536."""
    return array_document((length,), dtype, (min(length, INDEX_CHUNK),), (dimension,))


def token_document(spec: ArraySpec, rows: int, rows_per_shard: int, unit: Unit = "slice") -> dict[str, Any]:
    """A sharded token array; its chunks carry crc32c."""
    feature = "pooled_feature" if spec.kind == "pooled" else "feature"
    grid = GRID[unit] if chunk_per_row(spec) else ()
    dimensions = (unit, *grid) if spec.kind == "patch_scale" else (unit, *grid, feature)
    inner = (1 if chunk_per_row(spec) else rows_per_shard, *spec.shape)
    return array_document((rows, *spec.shape), spec.dtype, (rows_per_shard, *spec.shape), dimensions, inner)


def array_document(
    shape: tuple[int, ...],
    dtype: str,
    chunks: tuple[int, ...],
    dimensions: tuple[str, ...],
    inner: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """A Zarr 3 array document; with `inner` the chunks are shards of such inner chunks."""
    if dtype == "string":
        codecs: list[dict[str, Any]] = [{"name": "vlen-utf8", "configuration": {}}]
    else:
        codecs = [bytes_codec(dtype)]
    if inner is not None:
        codecs = [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": list(inner),
                    "codecs": [*codecs, {"name": "crc32c"}],
                    "index_codecs": [bytes_codec("uint64"), {"name": "crc32c"}],
                    "index_location": "end",
                },
            }
        ]
    fill: Any = {"string": "", "bool": False}.get(dtype, 0.0 if dtype.startswith("float") else 0)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": {},
        "dimension_names": list(dimensions),
        "storage_transformers": [],
    }


def bytes_codec(dtype: str) -> dict[str, Any]:
    """The `bytes` codec; one-byte types have no byte order."""
    if np.dtype(dtype).itemsize == 1:
        return {"name": "bytes"}
    return {"name": "bytes", "configuration": {"endian": "little"}}
