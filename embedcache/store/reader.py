"""Opening a store: its root, its index and its token arrays, each byte checked against what vouches for it.

`FeatureCache` is what users hold. numpy only: nothing here imports zarr, torch or a table library until asked.
"""

import json
import re
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
from embedcache.store.encoding import decode_strings, encode_strings, join_strings
from embedcache.store.features import Features, assemble
from embedcache.store.fingerprint import canonical, plan_digest, sha256
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
    except StoreError:  # no plain file
        raise
    except (ValueError, AttributeError, RecursionError) as error:
        raise StoreError(f"the root document of {name} is damaged: it is no JSON object of a Zarr group.") from error
    return Root.parse(attributes, name)


def is_ours(objects: Objects) -> bool:
    """Whether this is a store of ours, if perhaps a damaged one: its root says so, or there is a manifest."""
    try:
        if layout.ATTRIBUTE in json.loads(objects.get(layout.ROOT_DOCUMENT))["attributes"]:
            return True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # no root, or none that can be read: the manifest says
    return any(objects.exists(layout.chunk_name("manifest", copy)) for copy in range(2))


def read_manifest(objects: Objects) -> dict[str, Any]:
    """The store's manifest, from the first copy that holds. Raises FileNotFoundError if there is none."""
    damage: StoreError | None = None
    for copy in range(2):
        name = layout.chunk_name("manifest", copy)
        try:
            return decode_manifest(objects.get(name), name)
        except StoreError as error:
            damage = error
    assert damage is not None
    raise damage


def decode_manifest(data: bytes, name: str) -> dict[str, Any]:
    """A manifest from one copy of it. Raises StoreError, naming the object, if it is damaged or names what no store has."""
    manifest = commit_codec.unseal(commit_codec.sealed_json(data, name), name)
    parts = [manifest.get(key) for key in ("documents", "objects")] + [manifest.get("replacing", {})]
    sound = all(
        isinstance(part, dict) and all(OBJECT_NAME.fullmatch(n) and isinstance(v, str) for n, v in part.items())
        for part in parts
    )
    if not sound or not isinstance(manifest.get("root_attributes"), dict):
        raise StoreError(f"object {name} is no manifest that FORMAT.md allows; run `embedcache verify`.")
    return manifest


def encode_manifest(manifest: Mapping[str, Any]) -> bytes:
    """Each of the two elements of `manifest` as a Zarr chunk."""
    return encode_strings([canonical(commit_codec.seal(dict(manifest)))])


OBJECT_NAME = re.compile(r"[A-Za-z0-9_]{1,64}(/[A-Za-z0-9_]{1,64}){0,2}/(zarr\.json|c/[0-9]{1,18})")
"""Of a metadata document, or of a chunk of an index array."""

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
    index = StoredIndex(
        plan,
        row_status=_read_numbers(objects, vouched, "row_status", root.rows, "|u1"),
        superseded=_read_numbers(objects, vouched, "superseded", root.samples, "|b1"),
    )
    if not is_possible(index, root.slices):
        raise StoreError(f"the index of {objects.root.name} is no plan that FORMAT.md allows; run `embedcache verify`.")
    return index


def is_possible(index: StoredIndex, slices: int) -> bool:
    """Whether the samples' rows lie one after another, each at least one, and they and no others are owned and not padding."""
    plan = index.plan
    start, count = plan.slice_start, plan.slice_count
    if start.min() < 0 or count.min() < 1 or start.max() >= plan.rows or count.max() > plan.rows:
        return False
    stop = start + count
    if (start[1:] < stop[:-1]).any() or stop[-1] > plan.rows or int(count.sum()) != slices:
        return False
    edge = np.zeros(plan.rows + 1, dtype=np.int8)
    edge[start] += 1
    edge[stop] -= 1  # in two steps: where one sample ends and the next begins they cancel out
    owned = np.cumsum(edge[:-1], dtype=np.int8).view(np.bool_)
    return bool(
        np.array_equal(owned, plan.slice_index >= 0)
        and np.array_equal(owned, index.row_status != layout.PADDING)
        and (index.superseded.view(np.uint8) <= 1).all()
    )


def read_commit(objects: Objects, pass_name: str, shard: int) -> Commit:
    """One commit. Raises StoreError if it is damaged, FileNotFoundError if the shard is pending."""
    name = layout.chunk_name(layout.commits_path(pass_name), shard)
    commit = commit_codec.decode_commit(objects.get(name), name)
    if commit.shard != shard:
        raise StoreError(f"object {name} speaks of shard {commit.shard}; run `embedcache verify`.")
    return commit


def committed_shards(objects: Objects, pass_name: str) -> list[int]:
    """The numbers of a pass's committed shards, ascending, found by listing keys: no commit is opened."""
    keys = objects.list_names(f"{layout.commits_path(pass_name)}/c")
    return sorted(int(key) for key in keys if re.fullmatch("0|[1-9][0-9]{0,17}", key))


def _vouched_bytes(objects: Objects, vouched: Vouchers, path: str, k: int, size: int | None = None) -> bytes:
    name = layout.chunk_name(path, k)
    try:
        data = objects.get(name)
    except FileNotFoundError:
        raise missing(name, objects.root.name) from None
    # longer than the root says where an extension was stopped: what is there begins as it did
    if (size is not None and len(data) < size) or sha256(data) not in vouched.get(name, ()):
        raise StoreError(
            f"object {name} of {objects.root.name} is not what the manifest names; run `embedcache verify`."
        )
    return data


def _read_numbers(objects: Objects, vouched: Vouchers, path: str, length: int, dtype: str) -> npt.NDArray[Any]:
    step = min(length, layout.INDEX_CHUNK)
    chunks = [_vouched_bytes(objects, vouched, path, k, step * np.dtype(dtype).itemsize) for k in chunks_of(length)]
    return np.concatenate([np.frombuffer(chunk, dtype, count=step) for chunk in chunks])[:length]


def _read_text(objects: Objects, vouched: Vouchers, path: str, length: int) -> StringArray:
    step = min(length, layout.INDEX_CHUNK)
    chunks = [decode_strings(_vouched_bytes(objects, vouched, path, k), path) for k in chunks_of(length)]
    if any(len(chunk) < step for chunk in chunks):
        raise StoreError(f"{path} of {objects.root.name} has chunks of another length; run `embedcache verify`.")
    return join_strings(chunks, length)


def chunks_of(length: int) -> range:
    """The chunks of an index array of this length."""
    return range(-(-length // layout.INDEX_CHUNK))


def check_sizes(objects: Objects, root: Root) -> None:
    """Raise StoreError unless the index is as long as the root says: before memory is asked for rows that nobody wrote."""
    for path, length in (("slice_start", root.samples), ("slice_index", root.rows)):
        item = np.dtype({**layout.SAMPLE_ARRAYS, **layout.SLICE_ARRAYS}[path]).itemsize
        for k in chunks_of(length):
            name = layout.chunk_name(path, k)
            try:
                size = objects.size(name)
            except FileNotFoundError:
                raise missing(name, objects.root.name) from None
            if size < min(length, layout.INDEX_CHUNK) * item:
                raise StoreError(
                    f"object {name} of {objects.root.name} is damaged: it has {size} bytes; run `embedcache verify`."
                )


class FeatureCache:
    """A finished store, open for reading: `FeatureCache.open(path)`."""

    def __init__(self, path: Path, objects: Objects, root: Root, allow_partial: bool) -> None:
        self.path = path
        self.objects = objects
        self.root = root
        self.allow_partial = allow_partial
        self._committed: dict[str, npt.NDArray[np.bool_]] = {}

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
        check_sizes(objects, root)
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
        """Shape (slice,): 0 pending, 1 ok, 2 quarantined or superseded, 3 padding. Of a partial store: by its commits."""
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
        status[self.index.plan.rows_of(self.index.superseded)] = layout.QUARANTINED
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
        p = self.root.passes[pass_name]
        if self.root.complete[pass_name]:
            name = layout.chunk_name(layout.log_path(pass_name), 0)
            try:
                found = commit_codec.decode_log(self.objects.get(name), name)
            except FileNotFoundError:
                raise missing(name, self.path.name) from None
        else:
            found = [read_commit(self.objects, pass_name, k) for k in committed_shards(self.objects, pass_name)]
        found = [commit for commit in found if not p.is_dropped(commit.shard)]  # a log is not rewritten for that
        shards = [commit.shard for commit in found]
        paths = {spec.path for spec in p.arrays}
        if (
            shards != sorted(set(shards))
            or any(shard >= self.root.rows // p.rows_per_shard for shard in shards[-1:])
            or any(c.rows[1] - c.rows[0] != p.rows_per_shard or c.objects.keys() != paths for c in found)
        ):
            raise StoreError(
                f"the commits of pass {pass_name} of {self.path.name} are not its own; run `embedcache verify`."
            )
        return found

    def committed(self, pass_name: str) -> npt.NDArray[np.bool_]:
        """Shape (shards,): whether each shard of a pass is committed. Of a finished pass the log is read once only.

        Raises StoreError if good rows of a finished pass lie in a shard that is not there: they would be read as zeros.
        """
        known = self._committed.get(pass_name)
        if known is not None:
            return known
        p = self.root.passes[pass_name]
        shards = np.zeros(self.root.rows // p.rows_per_shard, dtype=np.bool_)
        commits = self.commits(pass_name)
        shards[[commit.shard for commit in commits]] = True
        if self.root.complete[pass_name]:
            good = (self.index.row_status == layout.OK).reshape(-1, p.rows_per_shard).any(axis=1)
            if (good & ~shards).any():
                raise StoreError(
                    f"pass {pass_name} of {self.path.name} is complete, and shard {int((good & ~shards).argmax())} has no "
                    "commit; run `embedcache verify`."
                )
            aside = [bad.row for commit in commits for bad in commit.quarantined]
            if (self.index.row_status[aside] == layout.OK).any():
                raise StoreError(
                    f"{self.path.name} takes rows for good that pass {pass_name} set aside; run `embedcache verify`."
                )
            self._committed[pass_name] = shards
        return shards

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
        strict_volumes: bool = False,
    ) -> Features:
        """`X, y, groups = cache.features(...)`: one row per sample, or per slice under `pool=None`.

        kinds: `cls`, `mean`, `cls+mean`, `pooled`. layers: one or several; of several the CLS tokens are concatenated, and
        `mean` is the last one's only (DINOv2's rule); None is the last stored. pool: `mean`, `max`, `mean+max`, `middle` or None.
        task: whose labels to join; None gives no y. split: `train`, `validation` or `test` as the labels say,
        or sample ids; None is every sample. strict_volumes: leave out a pooled sample of which a slice is not there, rather
        than pool the others; either way `incomplete` names it. Superseded, padding, pending and quarantined rows are never
        returned.
        """
        return assemble(self, kinds, layers, pool, task, split, labels, strict_volumes)

    def to_xarray(self) -> "xarray.Dataset":
        """Token arrays, ids and row status as one lazily read xarray Dataset (needs the `xarray` extra)."""
        from embedcache.store.interchange import to_xarray

        return to_xarray(self)

    def _readable(self) -> list[tuple[Pass, ArraySpec]]:
        return [(p, spec) for p in self.passes for spec in p.arrays]
