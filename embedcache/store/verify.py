"""Reading every byte of a store and saying which are not what they were (FORMAT.md, sections 5 and 6)."""

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from embedcache.errors import NewerFormatError, StoreError
from embedcache.store import commits as commit_codec
from embedcache.store import layout
from embedcache.store.encoding import decode_strings
from embedcache.store.fingerprint import canonical, sha256
from embedcache.store.layout import Root
from embedcache.store.objects import Objects
from embedcache.store.reader import is_ours, open_root, read_index, read_manifest, vouchers
from embedcache.types import Commit, Pass, Plan


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
    folder = Path(path)
    objects = Objects(folder, folder.with_suffix(".leases") / "scratch")
    try:
        root = open_root(objects)
    except NewerFormatError:
        raise
    except StoreError as error:
        if not is_ours(objects):
            raise
        return VerifyReport(
            folder.name, (Damage(layout.ROOT_DOCUMENT, f"nothing else is checked: {error}"),), (), 0, 0, 0
        )
    check = _Check(objects, root, progress or (lambda _: None))
    damage = list(check.run())
    junk = sorted(set(objects.walk()) - check.seen)
    return VerifyReport(folder.name, tuple(damage), tuple(junk), check.pending, len(check.seen), check.bytes)


@dataclass
class _Check:
    objects: Objects
    root: Root
    progress: Callable[[int], None]

    def __post_init__(self) -> None:
        self.seen: set[str] = set()
        self.pending = 0
        self.bytes = 0

    def run(self) -> Iterator[Damage]:
        yield from self.metadata()
        try:
            plan = read_index(self.objects, self.root).plan
        except (StoreError, FileNotFoundError) as error:
            yield Damage("", f"the index can not be read, so the shards are not checked: {error}")
            return
        for p in self.root.passes.values():
            yield from self.shards(p, plan)

    def metadata(self) -> Iterator[Damage]:
        """Root document, manifest, documents and index objects."""
        expected_root = canonical(layout.root_document(self.root)).encode()
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
            data = self.read(name)
            if data is None:
                yield Damage(name, "is missing", "manifest")
                continue
            try:  # by its own seal: an interrupted writer leaves two different copies, and both are true
                commit_codec.unseal(commit_codec.load_json(decode_strings(data, name)[0], name), name)
            except (StoreError, IndexError):
                yield Damage(name, "is damaged; the other copy holds", "manifest")
        if manifest["root_attributes"] != self.root.attributes():
            yield Damage(
                layout.ROOT_DOCUMENT,
                "has other attributes than the manifest; if a run was stopped at its end, the same `embedcache extract` mends it",
            )
        planned = {*manifest["documents"], *manifest["objects"]}
        for name, digests in vouchers(manifest).items():
            if name in planned or self.objects.exists(
                name
            ):  # else it was announced, and its writer stopped before it came
                yield from self.compare(name, digests, "is not what the manifest names")

    def shards(self, p: Pass, plan: Plan) -> Iterator[Damage]:
        """Commits, the log, and the shard objects that they vouch for."""
        commits: list[Commit] = []
        for shard in plan.shards(p.rows_per_shard):
            path = layout.commits_path(p.id)
            name = layout.chunk_name(path, shard.index)
            rows = (shard.start, shard.stop)
            data = self.read(name)
            if data is None:
                self.pending += 1
                if self.root.complete[p.id]:
                    yield Damage(name, "is missing, though the pass is complete", path, shard.index, rows)
                continue
            try:
                commit = commit_codec.decode_commit(data, name)
            except (StoreError, IndexError, TypeError) as error:
                yield Damage(name, str(error), path, shard.index, rows)
                continue
            if commit.rows != rows or commit.shard != shard.index:
                yield Damage(name, "speaks of another shard", path, shard.index, rows)
                continue
            commits.append(commit)
            for spec in p.arrays:
                object_name = layout.shard_name(spec, shard.index)
                for found in self.compare(object_name, [commit.objects.get(spec.path)], "is not what its commit names"):
                    yield Damage(found.object, found.reason, spec.path, shard.index, rows)
        if self.root.complete[p.id]:
            log = layout.chunk_name(layout.log_path(p.id), 0)
            if self.objects.exists(log) and sha256(commit_codec.encode_log(commits)) != sha256(self.objects.get(log)):
                yield Damage(log, "is not the list of the pass's commits", layout.log_path(p.id))

    def compare(self, name: str, digests: Collection[str | None], reason: str) -> Iterator[Damage]:
        """Damage if the object is missing or its SHA-256 is none of these. Read in pieces: a shard may be 256 MiB."""
        self.seen.add(name)
        running = hashlib.sha256()
        try:
            for piece in self.objects.stream(name):
                running.update(piece)
                self.count(len(piece))
        except FileNotFoundError:
            yield Damage(name, "is missing")
            return
        if running.hexdigest() not in digests:
            yield Damage(name, reason)

    def read(self, name: str) -> bytes | None:
        """The bytes of a small object, or None if it is missing."""
        self.seen.add(name)
        try:
            data = self.objects.get(name)
        except FileNotFoundError:
            self.seen.discard(name)
            return None
        self.count(len(data))
        return data

    def count(self, size: int) -> None:
        """Tell how many bytes were read."""
        self.bytes += size
        self.progress(size)
