"""Names, metadata documents and root attributes of a store (FORMAT.md, sections 1, 3 and 4).

Documents are composed in memory from one `Root` and one `Plan`, so that a store's metadata is a pure function
of what it holds and can be put at once, the root last.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedcache.errors import NewerFormatError, StoreError
from embedcache.store.fingerprint import fingerprint, pass_document, pass_id, recipe_document
from embedcache.types import ArraySpec, DatasetInfo, ImageRecipe, ModelRecipe, Pass, Recipe, Window

FORMAT = "embedcache"
VERSION = 1
MAX_QUANTUM = 2_048
MAX_SHARD_BYTES = 256 * 2**20
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

    @property
    def fingerprint(self) -> str:
        """Of the recipe."""
        return fingerprint(self.recipe)

    def attributes(self) -> dict[str, Any]:
        """The value of the root attribute `embedcache`."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "unit": "slice",
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
                name: {**describe_pass(p), "complete": self.complete[name]} for name, p in sorted(self.passes.items())
            },
        }

    @classmethod
    def parse(cls, attributes: Mapping[str, Any], store: str) -> "Root":
        """From the root attribute of the store called `store`. Raises StoreError or NewerFormatError."""
        if attributes.get("format") != FORMAT:
            raise StoreError(f"{store} is no embedcache store: its root has no `{ATTRIBUTE}` attribute of that format.")
        if attributes.get("version") != VERSION:
            raise NewerFormatError(
                f"{store} has format version {attributes.get('version')!r}; this embedcache reads version {VERSION}. "
                "Open it with a newer embedcache."
            )
        try:
            return cls._parse(attributes)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(
                f"the root attributes of {store} are damaged ({type(error).__name__}: {error})."
            ) from error

    @classmethod
    def _parse(cls, a: Mapping[str, Any]) -> "Root":
        passes = {name: make_pass(document) for name, document in a["passes"].items()}
        for name, p in passes.items():
            if p.id != name:
                raise ValueError(f"pass {name} has the content of pass {p.id}")
        scheme = a["identifiers"]["scheme"]
        plan = {key: int(a["plan"][key]) for key in ("samples", "slices", "rows", "quantum")}
        if plan["quantum"] < 1 or plan["rows"] % plan["quantum"] or not 0 < plan["slices"] <= plan["rows"]:
            raise ValueError(f"impossible plan {plan}")
        root = cls(
            recipe=parse_recipe(a["recipe"]),
            dataset=DatasetInfo(**a["dataset"], public_ids=scheme == "public"),
            weights=dict(a["weights"]),
            id_scheme=scheme,
            key_id=a["identifiers"]["key_id"],
            plan_digest=a["plan"]["digest"],
            selection=a["selection"],
            passes=passes,
            complete={name: bool(document["complete"]) for name, document in a["passes"].items()},
            **plan,
        )
        if root.fingerprint != a["fingerprint"]:
            raise ValueError("the fingerprint is not the recipe's")
        return root


def parse_recipe(document: Mapping[str, Any]) -> Recipe:
    """A Recipe from the plain JSON values of its document."""
    image, window = dict(document["image"]), dict(document["image"]["window"])
    window["numbers"] = tuple(tuple(pair) for pair in window["numbers"])
    image["window"] = Window(**window)
    for key in ("size", "mean", "std"):
        image[key] = tuple(image[key])
    return Recipe(ImageRecipe(**image), ModelRecipe(**document["model"]))


def describe_pass(p: Pass) -> dict[str, Any]:
    """A pass as plain JSON values, without its id."""
    return pass_document(p.arrays, p.rows_per_shard, p.batch_size, p.threads, p.device_kind)


def make_pass(document: Mapping[str, Any]) -> Pass:
    """A Pass from plain JSON values; its id is computed, not believed."""
    arrays = tuple(ArraySpec(a["layer"], a["kind"], a["dtype"], tuple(a["shape"])) for a in document["arrays"])
    numbers = (document["rows_per_shard"], document["batch_size"], document["threads"], document["device_kind"])
    return Pass(pass_id(pass_document(arrays, *numbers)), arrays, *numbers)


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
        found[name] = index_document(root.rows, dtype, "slice")
    found["manifest"] = array_document((2,), "string", (1,), ("copy",))
    for p in root.passes.values():
        shards = root.rows // p.rows_per_shard
        found[commits_path(p.id)] = array_document((shards,), "string", (1,), (f"shard_{p.id}",))
        found[log_path(p.id)] = array_document((1,), "string", (1,), ("log",))
        for spec in p.arrays:
            document = token_document(spec, root.rows, p.rows_per_shard)
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


def token_document(spec: ArraySpec, rows: int, rows_per_shard: int) -> dict[str, Any]:
    """A sharded token array; its chunks carry crc32c."""
    feature = "pooled_feature" if spec.kind == "pooled" else "feature"
    dimensions = ("slice", "y", "x", feature) if len(spec.shape) == 3 else ("slice", feature)
    inner = (1 if chunk_per_row(spec) else rows_per_shard, *spec.shape)
    return array_document((rows, *spec.shape), spec.dtype, (rows_per_shard, *spec.shape), dimensions, inner)


def chunk_per_row(spec: ArraySpec) -> bool:
    """Whether a shard has an inner chunk for each row (patch tokens), or one for all (vectors)."""
    return spec.kind == "patch_tokens"


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
