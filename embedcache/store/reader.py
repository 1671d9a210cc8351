"""Opening a store: its root, its index and its token arrays, each byte checked against what vouches for it.

`FeatureCache` is what users hold. numpy only: nothing here imports zarr, torch or a table library until asked.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.errors import IncompleteStoreError, InputError, StoreError, suggest
from embedcache.store import commits as commit_codec
from embedcache.store import layout
from embedcache.store.encoding import decode_strings, join_strings
from embedcache.store.features import Features, assemble
from embedcache.store.fingerprint import plan_digest, sha256
from embedcache.store.labels import LABELS, read_labels
from embedcache.store.layout import Root
from embedcache.store.objects import Objects
from embedcache.store.tokens import Layer, TokenArray, missing
from embedcache.types import ArraySpec, Commit, Labels, Pass, Plan, Recipe, StringArray

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class StoredIndex:
    """The index arrays of a store."""

    plan: Plan
    row_status: npt.NDArray[np.uint8]
    superseded: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class StoredSamples:
    """The samples of a store, by column."""

    id: StringArray
    patient_id: StringArray
    slices: npt.NDArray[np.int64]
    """Slices that each sample has."""
    ok_slices: npt.NDArray[np.int64]
    """Of these, how many can be read as features."""
    superseded: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.id)


def open_root(objects: Objects) -> Root:
    """The root of a store. Raises StoreError if there is none, it is damaged, or of a newer format."""
    name = objects.root.name
    try:
        attributes = json.loads(objects.get(layout.ROOT_DOCUMENT)).get("attributes", {}).get(layout.ATTRIBUTE, {})
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{name} is no store: it has no {layout.ROOT_DOCUMENT}.") from None
    except (ValueError, AttributeError) as error:
        raise StoreError(f"the root document of {name} is damaged: it is no JSON object of a Zarr group.") from error
    return Root.parse(attributes, name)


def is_ours(objects: Objects) -> bool:
    """Whether this is a store of ours, if perhaps a damaged one: its root says so, or there is a manifest."""
    try:
        if layout.ATTRIBUTE in json.loads(objects.get(layout.ROOT_DOCUMENT))["attributes"]:
            return True
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no root, or none that can be read: the manifest says
    return any(objects.exists(layout.chunk_name("manifest", copy)) for copy in range(2))


def read_manifest(objects: Objects) -> dict[str, Any]:
    """The store's manifest, from the first copy that holds. Raises FileNotFoundError if there is none."""
    damage: StoreError | None = None
    for copy in range(2):
        name = layout.chunk_name("manifest", copy)
        try:
            text = decode_strings(objects.get(name), name)[0]
            return commit_codec.unseal(commit_codec.load_json(text, name), name)
        except StoreError as error:
            damage = error
        except IndexError:
            damage = StoreError(f"object {name} is empty; run `embedcache verify`.")
    assert damage is not None
    raise damage


Vouchers: TypeAlias = Mapping[str, Collection[str]]
"""Object → the SHA-256 that it may have: one, or two while it is being replaced."""


def vouchers(manifest: Mapping[str, Any]) -> Vouchers:
    """What a manifest vouches for: its documents and index objects, and what is about to replace them."""
    found = {name: {digest} for name, digest in manifest["objects"].items()}
    found |= {name: {sha256(text)} for name, text in manifest["documents"].items()}
    for name, digest in manifest.get("replacing", {}).items():
        found.setdefault(name, set()).add(digest)
    return found


def read_index(objects: Objects, root: Root) -> StoredIndex:
    """The index arrays, each object checked against the manifest and the whole against the plan's digest."""
    vouched = vouchers(read_manifest(objects))
    plan = Plan(
        sample_id=_read_text(objects, vouched, "sample_id", root.samples),
        patient_id=_read_text(objects, vouched, "patient_id", root.samples),
        slice_start=_read_numbers(objects, vouched, "slice_start", root.samples, "<i8"),
        slice_count=_read_numbers(objects, vouched, "slice_count", root.samples, "<i8"),
        slice_index=_read_numbers(objects, vouched, "slice_index", root.rows, "<i4"),
        quantum=root.quantum,
    )
    if plan_digest(plan) != root.plan_digest:
        raise StoreError(
            f"the index of {objects.root.name} is not the plan that its root names; run `embedcache verify`."
        )
    return StoredIndex(
        plan,
        row_status=_read_numbers(objects, vouched, "row_status", root.rows, "|u1"),
        superseded=_read_numbers(objects, vouched, "superseded", root.samples, "|b1"),
    )


def read_commit(objects: Objects, pass_name: str, shard: int) -> Commit:
    """One commit. Raises StoreError if it is damaged, FileNotFoundError if the shard is pending."""
    name = layout.chunk_name(layout.commits_path(pass_name), shard)
    return commit_codec.decode_commit(objects.get(name), name)


def _vouched_bytes(objects: Objects, vouched: Vouchers, path: str, k: int) -> bytes:
    name = layout.chunk_name(path, k)
    try:
        data = objects.get(name)
    except FileNotFoundError:
        raise missing(name, objects.root.name) from None
    if sha256(data) not in vouched.get(name, ()):
        raise StoreError(
            f"object {name} of {objects.root.name} is not what the manifest names; run `embedcache verify`."
        )
    return data


def _read_numbers(objects: Objects, vouched: Vouchers, path: str, length: int, dtype: str) -> npt.NDArray[Any]:
    step = min(length, layout.INDEX_CHUNK)
    chunks = [np.frombuffer(_vouched_bytes(objects, vouched, path, k), dtype) for k in range(-(-length // step))]
    return np.concatenate(chunks)[:length]


def _read_text(objects: Objects, vouched: Vouchers, path: str, length: int) -> StringArray:
    step = min(length, layout.INDEX_CHUNK)
    chunks = [decode_strings(_vouched_bytes(objects, vouched, path, k), path) for k in range(-(-length // step))]
    return join_strings(chunks, length)


class FeatureCache:
    """A finished store, open for reading: `FeatureCache.open(path)`."""

    def __init__(self, path: Path, objects: Objects, root: Root, allow_partial: bool) -> None:
        self.path = path
        self.objects = objects
        self.root = root
        self.allow_partial = allow_partial

    @classmethod
    def open(cls, path: str | Path, allow_partial: bool = False) -> "FeatureCache":
        """Open the store at `path`.

        Raises StoreError if it is none or damaged, NewerFormatError, and IncompleteStoreError if no pass is finished and
        `allow_partial` is off. A pass that is not finished is not offered, unless `allow_partial` is on.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(f"there is no store at {path}; `embedcache ls CACHE` lists the stores of a cache.")
        objects = Objects(folder, folder.with_suffix(".leases") / "scratch")
        root = open_root(objects)
        if not allow_partial and not any(root.complete.values()):
            raise IncompleteStoreError(
                f"{folder.name} is not finished; run the same `embedcache extract` again to resume it, "
                "or open it with allow_partial=True."
            )
        return cls(folder, objects, root, allow_partial)

    def __repr__(self) -> str:
        r = self.root
        arrays = ", ".join(sorted(spec.path for _, spec in self._readable()))
        return f"<FeatureCache {r.dataset.name} x {r.recipe.model.source}: {r.samples} samples, {r.slices} slices; {arrays}>"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the recipe."""
        return self.root.fingerprint

    @property
    def recipe(self) -> Recipe:
        """All that decided the values."""
        return self.root.recipe

    @property
    def plan_digest(self) -> str:
        """Digest of the rows in order."""
        return self.root.plan_digest

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The passes that may be read."""
        return tuple(p for p in self.root.passes.values() if self.allow_partial or self.root.complete[p.id])

    @property
    def layers(self) -> tuple[int, ...]:
        """Stored layers, ascending."""
        return tuple(sorted({spec.layer for _, spec in self._readable() if spec.layer}))

    @property
    def dataset_folder(self) -> Path | None:
        """`<cache>/<dataset>` if the store lies in a cache's layout (labels two levels up), else None."""
        folder = self.path.resolve().parent.parent
        return folder if (folder / LABELS).is_file() else None

    @cached_property
    def index(self) -> StoredIndex:
        """The index arrays, checked."""
        return read_index(self.objects, self.root)

    @property
    def row_status(self) -> npt.NDArray[np.uint8]:
        """Shape (slice,): 0 pending, 1 ok, 2 quarantined, 3 padding. Of a partial store: by its commits."""
        if not self.allow_partial:
            return self.index.row_status
        status = np.where(self.index.plan.slice_index >= 0, layout.PENDING, layout.PADDING).astype(np.uint8)
        for p in self.passes:
            for commit in self.commits(p.id):
                part = status[slice(*commit.rows)]
                part[part == layout.PENDING] = layout.OK
        for p in self.passes:
            for commit in self.commits(p.id):
                for bad in commit.quarantined:
                    status[bad.row] = layout.QUARANTINED
        return status

    def layer(self, number: int) -> Layer:
        """Layer `number` (from 1; negative counts from the last one stored)."""
        return Layer(self, self.layer_number(number))

    def layer_number(self, number: int) -> int:
        """The stored layer that `number` means. Raises InputError, listing what there is."""
        layers = self.layers
        found = layers[number] if number < 0 and -number <= len(layers) else number
        if found not in layers:
            raise InputError(f"{self.path.name} holds layers {list(layers)}, not {number}; extract it with --layers.")
        return found

    def tokens(self, layer: int, kind: str) -> TokenArray:
        """The array of one layer (0 for `pooled`) and kind."""
        for p, spec in self._readable():
            if spec.layer == layer and spec.kind == kind:
                return TokenArray(self, spec, p)
        raise suggest(f"array in {self.path.name}", f"layer_{layer}/{kind}", [s.path for _, s in self._readable()])

    def commits(self, pass_name: str) -> list[Commit]:
        """The commits of a pass in shard order: from its log, or one by one if it is not finished."""
        if self.root.complete[pass_name]:
            name = layout.chunk_name(layout.log_path(pass_name), 0)
            try:
                return commit_codec.decode_log(self.objects.get(name), name)
            except FileNotFoundError:
                raise missing(name, self.path.name) from None
        keys = self.objects.list_names(f"{layout.commits_path(pass_name)}/c")
        return [read_commit(self.objects, pass_name, k) for k in sorted(int(key) for key in keys if key.isdigit())]

    def samples(self) -> StoredSamples:
        """The samples in the store's order."""
        plan = self.index.plan
        owner = plan.owner()
        ok = owner[self.row_status == layout.OK]
        return StoredSamples(
            plan.sample_id,
            plan.patient_id,
            plan.slice_count,
            np.bincount(ok, minlength=len(plan.sample_id)).astype(np.int64),
            self.index.superseded,
        )

    def labels(self, file: str | Path | None = None) -> Labels:
        """The labels beside the store (`<cache>/<dataset>/labels.parquet`), or those of `file`."""
        if file is not None:
            return read_labels(Path(file))
        if self.dataset_folder is None:
            raise InputError(f"no {LABELS} lies beside {self.path.name}; give one with --labels FILE.")
        return read_labels(self.dataset_folder)

    def features(
        self,
        kinds: str = "cls+mean",
        layers: int | tuple[int, ...] | None = None,
        pool: str | None = "mean",
        task: str | None = None,
        split: str | Iterable[str] | None = None,
        labels: Labels | None = None,
    ) -> Features:
        """`X, y, groups = cache.features(...)`: one row per sample, or per slice under `pool=None`.

        kinds: `cls`, `mean`, `cls+mean`, `pooled`. layers: one or several; of several the CLS tokens are concatenated, and
        `mean` is the last one's only (DINOv2's rule); None is the last stored. pool: `mean`, `max`, `mean+max`, `middle` or None.
        task: whose labels to join; None gives no y. split: `train`, `validation` or `test` as the labels say,
        or sample ids; None is every sample. Superseded, padding, pending and quarantined rows are never returned.
        """
        return assemble(self, kinds, layers, pool, task, split, labels)

    def to_xarray(self) -> "xarray.Dataset":
        """Token arrays, ids and row status as one lazily read xarray Dataset (needs the `xarray` extra)."""
        from embedcache.store.interchange import to_xarray

        return to_xarray(self)

    def _readable(self) -> list[tuple[Pass, ArraySpec]]:
        return [(p, spec) for p in self.passes for spec in p.arrays]
