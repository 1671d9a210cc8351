"""Reading every byte of a store and saying which are not what they were (FORMAT.md, sections 5 and 6)."""

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.errors import NewerFormatError, StoreError
from embedcache.store import commits as commit_codec
from embedcache.store import layout
from embedcache.store.documents import documents, root_document
from embedcache.store.encoding import CRC_BYTES, ShardForm, crc32c, shard_index
from embedcache.store.fingerprint import canonical, sha256
from embedcache.store.index import (
    StoredIndex,
    decode_manifest,
    encode_manifest,
    is_ours,
    open_root,
    read_index,
    read_manifest,
    vouchers,
)
from embedcache.store.labels import damage_of_labels
from embedcache.store.lost_rows import LOST, lost_rows
from embedcache.store.objects import Objects
from embedcache.store.root import Root
from embedcache.store.writer import row_status
from embedcache.types import ArraySpec, Commit, Pass, Shard


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it was written."""

    object: str
    """Its name in the store."""
    reason: str
    array: str = ""
    shard: int | None = None
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found in one store."""

    store: str
    damage: tuple[Damage, ...]
    junk: tuple[str, ...]
    """Objects that nothing vouches for: shards of killed writers, foreign files. No damage."""
    pending: int
    """Shards that are planned and not committed."""
    objects: int
    bytes: int

    @property
    def intact(self) -> bool:
        """Whether every byte that is vouched for is as it was written."""
        return not self.damage


def verify_store(path: str | Path, progress: Callable[[int], None] | None = None) -> VerifyReport:
    """Read every object of the store at `path` and compare it with what vouches for it.

    progress: called with the number of bytes read since the last call. Raises StoreError if this is no store of ours, and
    NewerFormatError; all damage is in the report.
    """
    folder = layout.store_folder(path)
    objects = Objects(folder, folder.with_suffix(".leases") / "scratch")
    if not is_ours(objects):
        raise StoreError(f"{folder.name} is no store: neither its root document nor a manifest says so.")
    damage: list[Damage] = []
    try:
        root = open_root(objects)
    except StoreError as error:
        # the manifest repeats what the root said; only where that is lost too, nothing else can be checked
        try:
            root = Root.parse(read_manifest(objects)["root_attributes"], folder.name)
        except NewerFormatError:
            raise
        except (StoreError, FileNotFoundError):
            if isinstance(error, NewerFormatError):
                raise error from None
            lost = Damage(layout.ROOT_DOCUMENT, f"nothing else is checked: {error}")
            return VerifyReport(folder.name, (lost,), (), 0, 0, 0)
        damage.append(Damage(layout.ROOT_DOCUMENT, str(error)))
    check = _Check(objects, root, progress or (lambda _: None))
    # a root that can not be opened is named once
    damage += [d for d in check.run() if not (damage and d.object == layout.ROOT_DOCUMENT)]
    junk = sorted(set(objects.walk()) - check.seen)
    return VerifyReport(folder.name, tuple(damage), tuple(junk), check.pending, len(check.seen), check.bytes)


def verify_labels(folder: str | Path) -> tuple[Damage, ...]:
    """What is wrong with the label table of a dataset's folder in a cache, and with the digest beside it; () of none."""
    return tuple(Damage(name, reason) for name, reason in damage_of_labels(Path(folder)).items())


@dataclass
class _Check:
    objects: Objects
    root: Root
    progress: Callable[[int], None]

    def __post_init__(self) -> None:
        self.seen: set[str] = set()
        self.pending = 0
        self.bytes = 0
        self.replacing = False

    def run(self) -> Iterator[Damage]:
        yield from self.metadata()
        try:
            index = read_index(self.objects, self.root)
        except (StoreError, FileNotFoundError) as error:
            yield Damage("", f"the index can not be read, so the shards are not checked: {error}")
            return
        logs: list[list[Commit]] = []
        for p in self.root.passes.values():
            yield from self.shards(p, index, logs)
        whole = len(logs) == len(self.root.passes) and self.root.complete and all(self.root.complete.values())
        if whole and not self.replacing:  # else the writer of its status stopped before the root that fits it
            yield from self.status(index, logs)

    def metadata(self) -> Iterator[Damage]:
        """Root document, manifest, documents and index objects."""
        expected_root = canonical(root_document(self.root)).encode()
        yield from self.compare(
            layout.ROOT_DOCUMENT, [sha256(expected_root)], "is not the root document of what it says"
        )
        try:
            manifest = read_manifest(self.objects)
        except (StoreError, FileNotFoundError) as error:
            self.seen |= {layout.chunk_name("manifest", copy) for copy in range(2)}
            yield Damage("manifest", f"neither copy holds, so metadata can not be checked: {error}")
            return
        for copy in range(2):
            name = layout.chunk_name("manifest", copy)
            try:  # by its own seal: an interrupted writer leaves two different copies, and both are true
                data = self.read(name)
                if data is None:
                    yield Damage(name, "is missing", "manifest")
                    continue
                holds = encode_manifest(decode_manifest(data, name)) == data
            except StoreError:
                holds = False
            if not holds:
                yield Damage(name, "is damaged; the other copy holds", "manifest")
        yield from self.agreement(manifest)
        self.replacing = bool(manifest.get("replacing"))
        planned = {*manifest["documents"], *manifest["objects"]}
        for name, digests in vouchers(manifest).items():
            if name in planned or self.objects.exists(
                name
            ):  # else it was announced, and its writer stopped before it came
                yield from self.compare(name, digests, "is not what the manifest names")

    def agreement(self, manifest: dict[str, Any]) -> Iterator[Damage]:
        """The manifest against the root, and its documents against what they must be."""
        if manifest["root_attributes"] != self.root.attributes():
            yield Damage(
                layout.ROOT_DOCUMENT,
                "has other attributes than the manifest; if a run was stopped at its end, the same `embedcache extract` mends it",
            )
        try:
            root = Root.parse(manifest["root_attributes"], self.objects.root.name)
        except StoreError as error:
            yield Damage("manifest", f"holds attributes that no store has: {error}", "manifest")
            return
        expected = {f"{path}/zarr.json": canonical(document) for path, document in documents(root).items()}
        if manifest["documents"] != expected:
            yield Damage("manifest", "holds other documents than its attributes ask for", "manifest")

    def shards(self, p: Pass, index: StoredIndex, logs: list[list[Commit]]) -> Iterator[Damage]:
        """Commits, the log, and the shard objects that they vouch for. The commits of a pass that has all come into `logs`."""
        commits: list[Commit] = []
        whole = True
        path = layout.commits_path(p.id)
        for shard in index.plan.shards_of(p):
            name = layout.chunk_name(path, shard.index)
            rows = (shard.start, shard.stop)
            try:
                data = self.read(name)
                if data is None:
                    self.pending += 1
                    whole = False
                    if self.root.complete[p.id]:
                        yield Damage(name, "is missing, though the pass is complete", path, shard.index, rows)
                    continue
                commit = commit_codec.decode_commit(data, name)
                if commit_codec.encode_commit(commit) != data:
                    raise StoreError("says what it did, in other bytes")
            except StoreError as error:
                whole = False
                yield Damage(name, str(error), path, shard.index, rows)
                continue
            if commit.rows != rows or commit.shard != shard.index:
                whole = False
                yield Damage(name, "speaks of another shard", path, shard.index, rows)
                continue
            commits.append(commit)
            as_written = True
            for spec in p.arrays:
                object_name = layout.shard_name(spec, shard.index)
                for found in self.compare(object_name, [commit.objects.get(spec.path)], "is not what its commit names"):
                    as_written = False
                    for some in rows_of_damage(self.objects, p, spec, shard):
                        yield replace(found, array=spec.path, shard=shard.index, rows=some)
            for some in lost_rows(self.objects, self.root, index, p, commit) if as_written else ():
                yield Damage(layout.shard_name(p.arrays[0], shard.index), LOST, p.arrays[0].path, shard.index, some)
        if self.root.complete[p.id] and whole:
            logs.append(commits)
            log = layout.chunk_name(layout.log_path(p.id), 0)
            if self.objects.exists(log) and not self.is_log(log, p, commits):
                yield Damage(log, "is not the list of the pass's commits", layout.log_path(p.id))

    def is_log(self, name: str, p: Pass, commits: list[Commit]) -> bool:
        """Whether the log holds these commits, and none else but of shards that were dropped since."""
        try:
            found = commit_codec.decode_log(self.objects.get(name), name)
        except StoreError:
            return False
        return [commit for commit in found if not p.is_dropped(commit.shard)] == commits

    def status(self, index: StoredIndex, logs: list[list[Commit]]) -> Iterator[Damage]:
        """Whether a complete store sets those rows aside that its commits do, and those of superseded samples."""
        differ = np.flatnonzero(row_status(index, logs) != index.row_status)
        if len(differ):
            rows = (int(differ[0]), int(differ[-1]) + 1)
            yield Damage("", "is not what the commits say of these rows", "row_status", rows=rows)

    def compare(self, name: str, digests: Collection[str | None], reason: str) -> Iterator[Damage]:
        """Damage if the object is missing or its SHA-256 is none of these. Read in pieces: a shard may be 256 MiB."""
        self.seen.add(name)
        running = hashlib.sha256()
        try:
            for piece in self.objects.stream(name):
                running.update(piece)
                self.count(len(piece))
        except (FileNotFoundError, NotADirectoryError):
            yield Damage(name, "is missing")
            return
        except StoreError as error:
            yield Damage(name, str(error))
            return
        if running.hexdigest() not in digests:
            yield Damage(name, reason)

    def read(self, name: str) -> bytes | None:
        """The bytes of a small object, or None if it is missing."""
        self.seen.add(name)
        try:
            data = self.objects.get(name)
        except (FileNotFoundError, NotADirectoryError):
            self.seen.discard(name)
            return None
        self.count(len(data))
        return data

    def count(self, size: int) -> None:
        """Tell how many bytes were read."""
        self.bytes += size
        self.progress(size)


def rows_of_damage(objects: Objects, p: Pass, spec: ArraySpec, shard: Shard) -> list[tuple[int, int]]:
    """Of a shard object that is not what it was: the runs [start, stop) of rows that are wrong, as far as can be told.

    Where each row has a chunk and the shard's length and index hold, those whose checksum is wrong; else the whole shard.
    """
    whole = [(shard.start, shard.stop)]
    if not layout.chunk_per_row(spec):
        return whole
    form = ShardForm(p.rows_per_shard, spec.row_bytes)
    try:
        data = objects.get(layout.shard_name(spec, shard.index))
    except (StoreError, OSError):
        return whole
    if len(data) != form.size or data[form.index_start :] != shard_index(form):
        return whole
    wrong = np.zeros(form.chunks, dtype=np.bool_)
    for i, start in enumerate(range(0, form.index_start, form.stride)):
        end = start + form.chunk_bytes
        wrong[i] = crc32c(data[start:end]).to_bytes(CRC_BYTES, "little") != data[end : end + CRC_BYTES]
    edges = np.flatnonzero(np.diff(wrong, prepend=False, append=False)).tolist()
    runs = list(zip(edges[::2], edges[1::2], strict=True))
    return [(shard.start + start, shard.start + stop) for start, stop in runs] or whole
