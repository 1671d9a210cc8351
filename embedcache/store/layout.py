"""Names, metadata documents and root attributes of a store (FORMAT.md, sections 1, 3 and 4).

Documents are composed in memory from one `Root` and one `Plan`, so that a store's metadata is a pure function
of what it holds and can be put at once, the root last.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from embedcache.errors import NewerFormatError, StoreError
from embedcache.store.fingerprint import canonical, fingerprint, pass_document, pass_id, recipe_document
from embedcache.store.typed import typed
from embedcache.types import ArraySpec, DatasetInfo, Pass, Recipe, Unit

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


@dataclass(frozen=True)
class Root:
    """All that the root document says. Frozen: each change of a store is a new Root, put whole."""

    recipe: Recipe
    dataset: DatasetInfo
    weights: Mapping[str, str]
    id_scheme: str
    key_id: str
    plan_digest: str
    samples: int
    slices: int
    rows: int
    quantum: int
    selection: str
    passes: Mapping[str, Pass]
    complete: Mapping[str, bool]
    reopened: frozenset[str] = frozenset()
    """Passes that were complete until rows were added or are made anew; the next extraction completes them, asked or not."""

    @property
    def fingerprint(self) -> str:
        """Of the recipe."""
        return fingerprint(self.recipe)

    @property
    def unit(self) -> Unit:
        """What a row is: a slice, or a whole volume."""
        return self.recipe.image.unit

    def reopen(self, names: Iterable[str]) -> "Root":
        """With these passes incomplete; of those that were complete it is remembered."""
        again = frozenset(names)
        return replace(
            self,
            complete={name: whole and name not in again for name, whole in self.complete.items()},
            reopened=self.reopened | frozenset(name for name in again if self.complete[name]),
        )

    def finish(self, name: str) -> "Root":
        """With pass `name` complete."""
        return replace(self, complete={**self.complete, name: True}, reopened=self.reopened - {name})

    def attributes(self) -> dict[str, Any]:
        """The value of the root attribute `embedcache`."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "unit": self.unit,
            "recipe": recipe_document(self.recipe),
            "fingerprint": self.fingerprint,
            "dataset": {k: v for k, v in asdict(self.dataset).items() if k != "public_ids"},
            "weights": dict(self.weights),
            "identifiers": {"scheme": self.id_scheme, "key_id": self.key_id},
            "plan": {
                "digest": self.plan_digest,
                "samples": self.samples,
                "slices": self.slices,
                "rows": self.rows,
                "quantum": self.quantum,
            },
            "selection": self.selection,
            "passes": {
                name: {
                    **describe_pass(p),
                    "complete": self.complete[name],
                    **({"reopened": True} if name in self.reopened else {}),
                    **({"dropped": [list(part) for part in p.dropped]} if p.dropped else {}),
                }
                for name, p in sorted(self.passes.items())
            },
        }

    @classmethod
    def parse(cls, attributes: Mapping[str, Any], store: str) -> "Root":
        """From the root attribute of the store called `store`. Raises StoreError or NewerFormatError."""
        if not isinstance(attributes, Mapping) or attributes.get("format") != FORMAT:
            raise StoreError(f"{store} is no embedcache store: its root has no `{ATTRIBUTE}` attribute of that format.")
        version = attributes.get("version")
        if type(version) is not int or version != VERSION:
            raise NewerFormatError(
                f"{store} has format version {version!r:.40}; this embedcache reads version {VERSION}. "
                "Open it with a newer embedcache."
            )
        try:
            canonical(attributes).encode()  # no NaN, no half of a surrogate pair, no endless nesting
            return cls._parse(attributes)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise StoreError(
                f"the root attributes of {store} are damaged ({type(error).__name__}: {str(error)[:200]})."
            ) from error

    @classmethod
    def _parse(cls, a: Mapping[str, Any]) -> "Root":
        stated = typed(_Stated, {f.name: a[f.name] for f in fields(_Stated)})
        plan, scheme, unit = stated.plan, stated.identifiers.scheme, stated.recipe.image.unit
        if stated.unit != unit or (unit == "volume" and plan.slices != plan.samples):
            raise ValueError(
                f"unit {stated.unit!r} with a recipe of a {unit}, {plan.samples} samples, {plan.slices} rows"
            )
        passes, states = {}, {}
        for name, document in a["passes"].items():
            passes[name] = make_pass({key: document[key] for key in PASS_KEYS})
            states[name] = typed(_PassState, {k: v for k, v in document.items() if k not in PASS_KEYS})
            if passes[name].id != name:
                raise ValueError(f"pass {name} has the content of pass {passes[name].id}")
            passes[name] = replace(passes[name], dropped=states[name].dropped)
            ends = [end for part in states[name].dropped for end in part]
            if ends != sorted(set(ends)) or any(
                not 0 <= end <= plan.rows // passes[name].rows_per_shard for end in ends
            ):
                raise ValueError(f"pass {name} has dropped shards that it never had")
            check_pass(passes[name], plan.quantum, unit)
        paths = [spec.path for p in passes.values() for spec in p.arrays]
        if len(set(paths)) < len(paths):
            raise ValueError("two passes have one array")
        dataset = typed(DatasetInfo, a["dataset"], public_ids=scheme == "public")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", dataset.name):
            raise ValueError(f"{dataset.name!r} is no name of a dataset")
        root = cls(
            recipe=stated.recipe,
            dataset=dataset,
            weights=stated.weights,
            id_scheme=scheme,
            key_id=stated.identifiers.key_id,
            plan_digest=plan.digest,
            samples=plan.samples,
            slices=plan.slices,
            rows=plan.rows,
            quantum=plan.quantum,
            selection=stated.selection,
            passes=passes,
            complete={name: state.complete for name, state in states.items()},
            reopened=frozenset(name for name, state in states.items() if state.reopened),
        )
        if root.fingerprint != stated.fingerprint:
            raise ValueError("the fingerprint is not the recipe's")
        return root


PASS_KEYS = ("arrays", "rows_per_shard", "batch_size", "threads", "device_kind")


@dataclass(frozen=True)
class _Identifiers:
    scheme: Literal["public", "pseudonym", "kept"]
    key_id: str


@dataclass(frozen=True)
class _PlanSize:
    digest: str
    samples: int
    slices: int
    rows: int
    quantum: int

    def __post_init__(self) -> None:
        q = self.quantum
        if not 0 < q <= MAX_QUANTUM or q & (q - 1) or self.rows % q or not 0 < self.samples <= self.slices <= self.rows:
            raise ValueError(
                f"impossible plan: {self.samples} samples, {self.slices} slices, {self.rows} rows, quantum {q}"
            )


@dataclass(frozen=True)
class _PassState:
    complete: bool
    reopened: bool = False
    dropped: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class _Stated:
    unit: Unit
    recipe: Recipe
    fingerprint: str
    weights: Mapping[str, str]
    identifiers: _Identifiers
    plan: _PlanSize
    selection: str


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
    content = pass_document(made.arrays, made.rows_per_shard, made.batch_size, made.threads, made.device_kind)
    return replace(made, id=pass_id(content))


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


def chunk_per_row(spec: ArraySpec) -> bool:
    """Whether a shard has an inner chunk for each row (patch tokens), or one for all (vectors)."""
    return spec.kind in ("patch_tokens", "patch_tokens_int8", "patch_scale")


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
