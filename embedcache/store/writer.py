"""Making a store: plan it, put its shards, commit them, finalise (FORMAT.md, sections 5 to 7).

Every function here is called under the store's exclusive lock (leases.py), except `write_shard` and `commit_shard`:
those are called by whoever leased the shard, and do no harm where two believe that they did.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import StoreError
from embedcache.store import commits as commit_codec
from embedcache.store import layout
from embedcache.store.documents import documents, root_document
from embedcache.store.encoding import encode_shard, encode_strings, pad_chunk, pad_strings
from embedcache.store.fingerprint import canonical, plan_digest, sha256
from embedcache.store.index import (
    StoredIndex,
    committed_shards,
    encode_manifest,
    open_root,
    read_commit,
    read_index,
    read_manifest,
)
from embedcache.store.locks import exclusive
from embedcache.store.objects import Objects, sync_folder
from embedcache.store.root import Root
from embedcache.types import Commit, DatasetInfo, Pass, Plan, Recipe, Shard, StringArray


@dataclass(frozen=True)
class StoreFiles:
    """Where a store and its leases lie."""

    path: Path
    fence: Callable[[], None] = field(default=lambda: None, compare=False)
    """Of the lock under which the store is changed; see `Objects`."""

    @property
    def leases(self) -> Path:
        """The folder of locks and temporary files, beside the store and on its file system."""
        return self.path.with_suffix(".leases")

    @property
    def objects(self) -> Objects:
        """The store's objects."""
        return Objects(self.path, self.leases / "scratch", self.fence)


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


def create_store(files: StoreFiles, root: Root, plan: Plan) -> StoredIndex:
    """Put a new store's index arrays, documents and manifest, then its root document. Returns that index."""
    objects = files.objects
    if any(name.startswith("commits_") and "/c/" in name for name in objects.walk()):
        raise StoreError(
            f"store {files.path.name} has commits but no root document, so something removed it; "
            "run `embedcache verify`, or remove the store to start over."
        )
    objects.clear_scratch()
    status = np.where(plan.slice_index >= 0, layout.PENDING, layout.PADDING).astype(np.uint8)
    index = StoredIndex(plan, status, np.zeros(root.samples, dtype=np.bool_))
    _publish(objects, root, encode_index(plan, status, index.superseded))
    for folder in list(files.path.parents)[:3]:  # a new store's own name, and its backbone's and dataset's
        sync_folder(folder)
    return index


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


def extend_store(files: StoreFiles, root: Root, index: StoredIndex, plan: Plan, superseded: npt.NDArray[Any]) -> Root:
    """Put a longer plan, whose beginning is the store's own, and reopen every pass. Returns the new root.

    superseded: shape (samples of the longer plan,). Until a pass is complete again, its readers are refused.
    """
    status = np.where(plan.slice_index >= 0, layout.PENDING, layout.PADDING).astype(np.uint8)
    status[: len(index.row_status)] = index.row_status
    reopened = replace(
        root.reopen(root.passes),
        plan_digest=plan_digest(plan),
        samples=len(plan.sample_id),
        slices=int((plan.slice_index >= 0).sum()),
        rows=plan.rows,
    )
    changed = encode_index(plan, without_superseded(status, plan, superseded), superseded)
    _publish(files.objects, reopened, changed, removed=[log_name(name) for name in root.passes])
    return reopened


def supersede(files: StoreFiles, root: Root, index: StoredIndex, superseded: npt.NDArray[np.bool_]) -> None:
    """Put the flags of samples whose source changed, shape (samples,). Nothing else of the store changes."""
    status = without_superseded(index.row_status.copy(), index.plan, superseded)
    _publish(files.objects, root, {**encode_numeric("superseded", superseded), **encode_numeric("row_status", status)})


def regroup(files: StoreFiles, root: Root, index: StoredIndex, patient_id: StringArray, assumed: bool) -> None:
    """Put other patients of the samples, shape (samples,), and whether they are assumed.

    No token changes; the plan gets another digest with other patients.
    """
    plan = replace(index.plan, patient_id=patient_id)
    named = replace(root, plan_digest=plan_digest(plan), dataset=replace(root.dataset, patients_assumed=assumed))
    _publish(files.objects, named, _encode_text("patient_id", patient_id))


def reopen(files: StoreFiles, root: Root, shards: Mapping[str, Collection[int]]) -> Root:
    """Make shards of passes pending again, backwards: first the root says so, then log and commits go. Returns the new root."""
    objects = files.objects
    reopened = root.reopen(shards)
    _publish(objects, reopened, {}, removed=[log_name(name) for name in shards])
    commits = [layout.chunk_name(layout.commits_path(name), k) for name, of_pass in shards.items() for k in of_pass]
    for name in commits:
        objects.delete(name)
    objects.sync(commits)
    return reopened


def drop_shards(files: StoreFiles, root: Root, shards: Mapping[str, Collection[int]]) -> Root:
    """Remove shards that hold superseded rows only. The root says so first; then their commits and objects go.

    The log keeps their commits until the pass is finalised again: a new log would not fit the old root, were this stopped.
    """
    objects = files.objects
    passes, gone = dict(root.passes), []
    for name, of_pass in shards.items():
        p = root.passes[name]
        numbers = {k for first, stop in p.dropped for k in range(first, stop)} | set(of_pass)
        passes[name] = replace(p, dropped=ranges(numbers))
        for k in sorted(of_pass):
            gone += [layout.chunk_name(layout.commits_path(name), k), *(layout.shard_name(a, k) for a in p.arrays)]
    smaller = replace(root, passes=passes)
    _publish(objects, smaller, {})
    present = [name for name in gone if objects.exists(name)]
    for name in present:
        objects.delete(name)
    objects.sync(present)
    return smaller


def ranges(numbers: Collection[int]) -> tuple[tuple[int, int], ...]:
    """Numbers as ascending ranges [first, stop)."""
    found: list[tuple[int, int]] = []
    for k in sorted(numbers):
        if found and found[-1][1] == k:
            found[-1] = (found[-1][0], k + 1)
        else:
            found.append((k, k + 1))
    return tuple(found)


def write_shard(objects: Objects, p: Pass, shard: Shard, rows: Mapping[str, npt.NDArray[Any]]) -> dict[str, str]:
    """Put the shard's object of every array of the pass, and make it durable, unless the shard is committed already.

    rows: array path → shape (rows_per_shard, …) in the stored dtype. Returns array path → SHA-256 of the object.
    """
    digests, names = {}, []
    for spec in p.arrays:
        data = encode_shard(rows[spec.path], layout.chunk_per_row(spec))
        digests[spec.path] = sha256(data)
        if is_committed(objects, p, shard):  # another took us for dead: what is committed is not written over
            continue
        name = layout.shard_name(spec, shard.index)
        objects.put(name, data)
        names.append(name)
    objects.sync(names)
    return digests


def commit_shard(objects: Objects, p: Pass, commit: Commit) -> None:
    """Put the shard's commit, last of all. Where another writer was first, its bytes must equal ours.

    Raises StoreError if they do not; the shard is then pending again, since nobody knows whose bytes came last. Of a pass
    that is complete that is looked at, under the store's lock: a put that began before the other's commit may have ended after.
    """
    name = layout.chunk_name(layout.commits_path(p.id), commit.shard)
    if objects.put_if_absent(name, commit_codec.encode_commit(commit)):
        objects.sync([name])
        return
    winner = read_commit(objects, p.id, commit.shard)
    if winner.objects != commit.objects:
        if not open_root(objects).complete[p.id]:
            objects.delete(name)
            objects.sync([name])
        else:
            _reopen_overwritten(objects, p, winner)
        raise StoreError(
            f"shard {commit.shard} of pass {p.id} was committed by {winner.host} with other bytes than ours; "
            "the two machines do not compute alike. Run the same `embedcache extract` on one of them, then `embedcache verify`."
        )


def _reopen_overwritten(objects: Objects, p: Pass, commit: Commit) -> None:
    """Make a shard of a complete pass pending again if its objects are not those that its commit names."""
    files = StoreFiles(objects.root)
    with exclusive(files.leases, files.path.name, wait=True) as lock:
        if any(sha256(objects.get(layout.shard_name(a, commit.shard))) != commit.objects[a.path] for a in p.arrays):
            reopen(replace(files, fence=lock.check), open_root(objects), {p.id: {commit.shard}})


def is_committed(objects: Objects, p: Pass, shard: Shard) -> bool:
    """Whether the shard's commit is there; it is not opened."""
    return objects.exists(layout.chunk_name(layout.commits_path(p.id), shard.index))


def pending_shards(objects: Objects, plan: Plan, p: Pass) -> list[Shard]:
    """Planned shards without a commit, found by listing keys: no commit is opened."""
    done = set(committed_shards(objects, p.id))
    return [shard for shard in plan.shards_of(p) if shard.index not in done]


def finalise(files: StoreFiles, name: str) -> Root:
    """Put the log of pass `name`, the rows' status, the manifest and the root that says `complete`.

    Does nothing to a pass that another process has finished. Raises FileNotFoundError if a shard is pending.
    """
    objects = files.objects
    root, index = load(files)
    p = root.passes[name]
    if root.complete[name]:
        return root
    done = [read_commit(objects, name, shard.index) for shard in index.plan.shards_of(p)]
    finished = root.finish(name)
    status = row_status(index, [done, *other_logs(objects, root, name)])
    changed = {log_name(name): commit_codec.encode_log(done), **encode_numeric("row_status", status)}
    _publish(objects, finished, changed)
    objects.clear_scratch()
    return finished


def log_name(pass_name: str) -> str:
    """The object that holds all commits of a finished pass."""
    return layout.chunk_name(layout.log_path(pass_name), 0)


def other_logs(objects: Objects, root: Root, but: str) -> Iterable[list[Commit]]:
    """The commit logs of the other passes that are complete."""
    for name, complete in root.complete.items():
        if complete and name != but:
            yield commit_codec.decode_log(objects.get(log_name(name)), log_name(name))


def row_status(index: StoredIndex, logs: Iterable[list[Commit]]) -> npt.NDArray[np.uint8]:
    """Shape (rows,): ok; or quarantined in at least one finalised pass, or of a superseded sample; or padding."""
    status = np.where(index.plan.slice_index >= 0, layout.OK, layout.PADDING).astype(np.uint8)
    for log in logs:
        for commit in log:
            for bad in commit.quarantined:
                status[bad.row] = layout.QUARANTINED
    return without_superseded(status, index.plan, index.superseded)


def without_superseded(
    status: npt.NDArray[np.uint8], plan: Plan, superseded: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    """`status` in which the rows of superseded samples are set aside, so that no reader takes them for current."""
    status[plan.rows_of(superseded)] = layout.QUARANTINED
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


def _publish(objects: Objects, root: Root, changed: dict[str, bytes], removed: Collection[str] = ()) -> None:
    """Put index objects, then documents, then the manifest, then the root document, each durable before the next.

    removed: objects that are no longer vouched for; they are deleted last of all.

    First of all the manifest that is there learns what is about to be replaced, so that a store is whole for its readers,
    and for a resume, wherever between two puts this process is killed.
    """
    texts = {f"{path}/zarr.json": canonical(d) for path, d in documents(root).items()}
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
    known = {} if before is None else {n: d for n, d in before["objects"].items() if n not in removed}
    manifest = {"documents": texts, "root_attributes": root.attributes(), "objects": {**known, **digests}}
    _put_manifest(objects, manifest)
    objects.put(layout.ROOT_DOCUMENT, canonical(root_document(root)).encode())
    objects.sync([layout.ROOT_DOCUMENT])
    gone = [name for name in removed if objects.exists(name)]
    for name in gone:
        objects.delete(name)
    objects.sync(gone)


def _put_manifest(objects: Objects, manifest: dict[str, Any]) -> None:
    """Put both copies and make them durable."""
    chunk = encode_manifest(manifest)
    copies = [layout.chunk_name("manifest", i) for i in range(2)]
    for name in copies:
        objects.put(name, chunk)
    objects.sync(copies)


def load(files: StoreFiles) -> tuple[Root, StoredIndex]:
    """The root and the index of an existing store."""
    root = open_root(files.objects)
    return root, read_index(files.objects, root)
