"""Making a store: plan it, put its shards, commit them, finalise (FORMAT.md, sections 5 to 7).

Every function here is called under the store's exclusive lock (leases.py), except `write_shard`, whose
effects are junk until they are committed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import StoreError
from embedcache.store import commits as commit_codec
from embedcache.store import layout
from embedcache.store.encoding import encode_shard, encode_strings, pad_chunk, pad_strings
from embedcache.store.fingerprint import canonical, plan_digest, sha256
from embedcache.store.layout import Root
from embedcache.store.objects import Objects
from embedcache.store.reader import StoredIndex, open_root, read_commit, read_index, read_manifest
from embedcache.types import ArraySpec, Commit, DatasetInfo, Pass, Plan, Recipe, Shard


@dataclass(frozen=True)
class StoreFiles:
    """Where a store and its leases lie."""

    path: Path

    @property
    def leases(self) -> Path:
        """The folder of locks and temporary files, beside the store and on its file system."""
        return self.path.with_suffix(".leases")

    @property
    def objects(self) -> Objects:
        """The store's objects."""
        return Objects(self.path, self.leases / "scratch")


def new_root(
    recipe: Recipe,
    dataset: DatasetInfo,
    weights: Mapping[str, str],
    id_scheme: str,
    key_id: str,
    plan: Plan,
    selection: str,
) -> Root:
    """The root of a store that holds a plan and no pass yet."""
    return Root(
        recipe=recipe,
        dataset=dataset,
        weights=weights,
        id_scheme=id_scheme,
        key_id=key_id,
        plan_digest=plan_digest(plan),
        samples=len(plan.sample_id),
        slices=int((plan.slice_index >= 0).sum()),
        rows=plan.rows,
        quantum=plan.quantum,
        selection=selection,
        passes={},
        complete={},
    )


def create_store(files: StoreFiles, root: Root, plan: Plan) -> None:
    """Put a new store's index arrays, documents and manifest, then its root document."""
    objects = files.objects
    if any(name.startswith("commits_") and "/c/" in name for name in objects.walk()):
        raise StoreError(
            f"store {files.path.name} has commits but no root document, so something removed it; "
            "run `embedcache verify`, or remove the store to start over."
        )
    objects.clear_scratch()
    status = np.where(plan.slice_index >= 0, layout.PENDING, layout.PADDING).astype(np.uint8)
    _publish(objects, root, encode_index(plan, status, np.zeros(root.samples, dtype=bool)))


def add_pass(files: StoreFiles, root: Root, new: Pass) -> Root:
    """Add a pass's empty arrays to a store, and return its new root. What is there stays untouched."""
    taken = {a.path: p for p in root.passes.values() for a in p.arrays}
    for spec in new.arrays:
        if spec.path in taken:
            raise StoreError(f"store {files.path.name} has {spec.path} already, in pass {taken[spec.path].id}.")
    grown = replace(root, passes={**root.passes, new.id: new}, complete={**root.complete, new.id: False})
    files.objects.clear_scratch()
    _publish(files.objects, grown, {})
    return grown


def write_shard(objects: Objects, p: Pass, shard: Shard, rows: Mapping[str, npt.NDArray[Any]]) -> dict[str, str]:
    """Put the shard's object of every array of the pass, and make it durable.

    rows: array path → shape (rows_per_shard, …) in the stored dtype. Returns array path → SHA-256 of the object.
    """
    digests, names = {}, []
    for spec in p.arrays:
        data = encode_shard(rows[spec.path], layout.chunk_per_row(spec))
        name = layout.shard_name(spec, shard.index)
        objects.put(name, data)
        digests[spec.path] = sha256(data)
        names.append(name)
    objects.sync(names)
    return digests


def commit_shard(objects: Objects, p: Pass, commit: Commit) -> None:
    """Put the shard's commit, last of all. Where another writer was first, its bytes must equal ours."""
    name = layout.chunk_name(layout.commits_path(p.id), commit.shard)
    if objects.put_if_absent(name, commit_codec.encode_commit(commit)):
        objects.sync([name])
        return
    winner = read_commit(objects, p.id, commit.shard)
    if winner.objects != commit.objects:
        raise StoreError(
            f"shard {commit.shard} of pass {p.id} was committed by {winner.host} with other bytes than ours; "
            "the two machines do not compute alike, run `embedcache verify`."
        )


def pending_shards(objects: Objects, plan: Plan, p: Pass) -> list[Shard]:
    """Planned shards without a commit, found by listing keys: no commit is opened."""
    done = {int(k) for k in objects.list_names(f"{layout.commits_path(p.id)}/c") if k.isdigit()}
    return [shard for shard in plan.shards(p.rows_per_shard) if shard.index not in done]


def finalise(files: StoreFiles, root: Root, index: StoredIndex, p: Pass) -> Root:
    """Put the pass's log, the rows' status, the manifest and the root that says `complete`."""
    objects = files.objects
    done = [read_commit(objects, p.id, shard.index) for shard in index.plan.shards(p.rows_per_shard)]
    finished = replace(root, complete={**root.complete, p.id: True})
    status = row_status(index, [done, *other_logs(objects, root, p.id)])
    changed = {
        layout.chunk_name(layout.log_path(p.id), 0): commit_codec.encode_log(done),
        **encode_numeric("row_status", status),
    }
    _publish(objects, finished, changed)
    objects.clear_scratch()
    return finished


def other_logs(objects: Objects, root: Root, but: str) -> Iterable[list[Commit]]:
    """The commit logs of the other passes that are complete."""
    for name, complete in root.complete.items():
        if complete and name != but:
            path = layout.chunk_name(layout.log_path(name), 0)
            yield commit_codec.decode_log(objects.get(path), path)


def row_status(index: StoredIndex, logs: Iterable[list[Commit]]) -> npt.NDArray[np.uint8]:
    """Shape (rows,): ok, or quarantined in at least one finalised pass, or padding."""
    status = np.where(index.plan.slice_index >= 0, layout.OK, layout.PADDING).astype(np.uint8)
    for log in logs:
        for commit in log:
            for bad in commit.quarantined:
                status[bad.row] = layout.QUARANTINED
    return status


def encode_index(plan: Plan, status: npt.NDArray[np.uint8], superseded: npt.NDArray[np.bool_]) -> dict[str, bytes]:
    """Every chunk of every index array: object name → bytes."""
    return {
        **encode_numeric("slice_start", plan.slice_start.astype("<i8")),
        **encode_numeric("slice_count", plan.slice_count.astype("<i8")),
        **encode_numeric("slice_index", plan.slice_index.astype("<i4")),
        **encode_numeric("row_status", status),
        **encode_numeric("superseded", superseded),
        **_encode_text("sample_id", plan.sample_id),
        **_encode_text("patient_id", plan.patient_id),
    }


def encode_numeric(path: str, values: npt.NDArray[Any]) -> dict[str, bytes]:
    """The chunks of one numeric index array."""
    step = min(len(values), layout.INDEX_CHUNK)
    return {
        layout.chunk_name(path, k): pad_chunk(values[k * step : (k + 1) * step], step).tobytes()
        for k in range(-(-len(values) // step))
    }


def _encode_text(path: str, values: npt.NDArray[Any]) -> dict[str, bytes]:
    step = min(len(values), layout.INDEX_CHUNK)
    return {
        layout.chunk_name(path, k): encode_strings(pad_strings(values[k * step : (k + 1) * step], step))
        for k in range(-(-len(values) // step))
    }


def _publish(objects: Objects, root: Root, changed: dict[str, bytes]) -> None:
    """Put index objects, then documents, then the manifest, then the root document, each durable before the next.

    First of all the manifest that is there learns what is about to be replaced, so that a store is whole for its readers,
    and for a resume, wherever between two puts this process is killed.
    """
    texts = {f"{path}/zarr.json": canonical(d) for path, d in layout.documents(root).items()}
    stale = [name for name, text in texts.items() if not objects.exists(name) or objects.get(name) != text.encode()]
    digests = {name: sha256(data) for name, data in changed.items()}
    try:
        before = read_manifest(objects)
    except FileNotFoundError:
        before = None
    if before is not None:
        replacing = {**before.get("replacing", {}), **digests, **{name: sha256(texts[name]) for name in stale}}
        _put_manifest(objects, {**before, "replacing": replacing})
    for name, data in changed.items():
        objects.put(name, data)
    for name in stale:
        objects.put(name, texts[name].encode())
    objects.sync([*changed, *texts])
    known = {} if before is None else before["objects"]
    manifest = {"documents": texts, "root_attributes": root.attributes(), "objects": {**known, **digests}}
    _put_manifest(objects, manifest)
    objects.put(layout.ROOT_DOCUMENT, canonical(layout.root_document(root)).encode())
    objects.sync([layout.ROOT_DOCUMENT])


def _put_manifest(objects: Objects, manifest: dict[str, Any]) -> None:
    """Put both copies and make them durable."""
    chunk = encode_strings([canonical(commit_codec.seal(manifest))])
    copies = [layout.chunk_name("manifest", i) for i in range(2)]
    for name in copies:
        objects.put(name, chunk)
    objects.sync(copies)


def stored_arrays(root: Root) -> dict[str, tuple[Pass, ArraySpec]]:
    """Array path → its pass and description."""
    return {a.path: (p, a) for p in root.passes.values() for a in p.arrays}


def load(files: StoreFiles) -> tuple[Root, StoredIndex]:
    """The root and the index of an existing store."""
    root = open_root(files.objects)
    return root, read_index(files.objects, root)
