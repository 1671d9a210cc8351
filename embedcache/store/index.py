"""What a store says of itself: its root, manifest, index and commits, each byte checked against what vouches for it.

numpy only: nothing here imports zarr, torch or a table library.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.errors import StoreError
from embedcache.store import commits as commit_codec
from embedcache.store import layout
from embedcache.store.encoding import decode_strings, encode_strings, join_strings
from embedcache.store.fingerprint import canonical, plan_digest, sha256
from embedcache.store.objects import Objects
from embedcache.store.root import Root
from embedcache.store.tokens import missing
from embedcache.types import Commit, Plan, StringArray


@dataclass(frozen=True)
class StoredIndex:
    """The index arrays of a store."""

    plan: Plan
    row_status: npt.NDArray[np.uint8]
    superseded: npt.NDArray[np.bool_]


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
    """The store's manifest, from the first copy that holds. Raises StoreError, or FileNotFoundError if there is no copy."""
    lost: FileNotFoundError | None = None
    damage: StoreError | None = None
    for copy in range(2):
        name = layout.chunk_name("manifest", copy)
        try:
            return decode_manifest(objects.get(name), name)
        except FileNotFoundError as error:
            lost = error
        except StoreError as error:
            damage = error
    problem = damage or lost
    assert problem is not None
    raise problem


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
    """The index arrays, each object checked against the manifest and the whole against the plan's digest. Raises StoreError."""
    try:
        manifest = read_manifest(objects)
    except FileNotFoundError:
        raise missing("manifest", objects.root.name) from None
    vouched = vouchers(manifest)
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
