"""`embedcache gc`: what lies in a cache and is of no use any more, listed and, when asked, removed.

Four kinds: stores whose making was stopped before they had a root document; objects that nothing vouches for (shards of
killed writers, foreign files); shards that hold superseded rows only; what dead workers left beside a store.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from embedcache.errors import InputError, StoreBusyError, StoreError
from embedcache.store import layout
from embedcache.store.catalog import disk_use, find_stores
from embedcache.store.documents import documents
from embedcache.store.index import StoredIndex
from embedcache.store.leases import forget_the_dead, refuse_workers, workers
from embedcache.store.locks import exclusive, holder
from embedcache.store.objects import Objects
from embedcache.store.root import Root
from embedcache.store.writer import StoreFiles, drop_shards, load


@dataclass(frozen=True)
class Rubbish:
    """One thing that may go."""

    store: str
    what: str
    """An object's name, a range of shards, or "" for the whole store."""
    why: str
    bytes: int
    """On disk."""


@dataclass(frozen=True)
class GcReport:
    """What was found, and whether it was removed."""

    found: tuple[Rubbish, ...]
    removed: bool
    skipped: tuple[str, ...]
    """Stores that were not looked into, with the reason."""

    @property
    def bytes(self) -> int:
        """On disk, of all that was found."""
        return sum(item.bytes for item in self.found)


def collect_garbage(path: str | Path, dry_run: bool = False) -> GcReport:
    """List what is of no use in the stores at or below `path`, and remove it unless `dry_run` is on.

    A store that someone works on, or that can not be read, is skipped and named. Raises InputError if there is no store.
    """
    stores = find_stores(path)
    if not stores:
        raise InputError(f"there is no store at or below {path}; `embedcache ls CACHE` lists the stores of a cache.")
    found: list[Rubbish] = []
    skipped = []
    for store in stores:
        files = StoreFiles(store)
        busy = holder(files.leases) or next(iter(workers(files.leases)), None)
        if busy is not None:
            skipped.append(f"{store.name}: {busy.who} works on it")
            continue
        try:
            if dry_run:
                found += _of_store(files, str(store))
            else:
                with exclusive(files.leases, f"store {store.parent.name}/{store.name}") as lock:
                    refuse_workers(files.leases, store.name)  # one that came since we looked
                    guarded = replace(files, fence=lock.check)
                    found += (listed := list(_of_store(guarded, str(store))))
                    _remove(guarded, listed)
                if not store.exists():
                    shutil.rmtree(files.leases, ignore_errors=True)
        except (StoreError, StoreBusyError, FileNotFoundError) as error:
            skipped.append(f"{store.name}: {error}")
    return GcReport(tuple(found), not dry_run, tuple(skipped))


def _of_store(files: StoreFiles, store: str) -> Iterator[Rubbish]:
    objects = files.objects
    if not objects.exists(layout.ROOT_DOCUMENT):
        if any(name.startswith("commits_") and "/c/" in name for name in objects.walk()):
            raise StoreError("it has commits and no root document; run `embedcache repair`")
        yield Rubbish(store, "", "its making was stopped before it had a root document", disk_use(files.path))
        return
    root, index = load(files)
    superseded = superseded_shards(root, index)
    for name, shards in superseded.items():
        size = sum(_size(files, layout.shard_name(a, k)) for k in shards for a in root.passes[name].arrays)
        yield Rubbish(store, f"{len(shards)} shards of pass {name}", "hold superseded rows only", size)
    for name in sorted(set(objects.walk()) - set(owned(files, root, index))):
        yield Rubbish(store, name, "nothing vouches for it", _size(files, name))
    scratch = files.leases / "scratch"
    if size := disk_use(scratch):
        yield Rubbish(store, scratch.name, "temporary files of writers that are gone", size)


def owned(files: StoreFiles, root: Root, index: StoredIndex) -> Iterator[str]:
    """The objects that a store has by its plan and its commits."""
    objects = files.objects
    yield layout.ROOT_DOCUMENT
    for path in documents(root):
        yield f"{path}/zarr.json"
    for copy in range(2):
        yield layout.chunk_name("manifest", copy)
    for path in (*layout.SAMPLE_ARRAYS, *layout.SLICE_ARRAYS):
        length = root.samples if path in layout.SAMPLE_ARRAYS else root.rows
        for k in range(-(-length // layout.INDEX_CHUNK)):
            yield layout.chunk_name(path, k)
    for p in root.passes.values():
        if root.complete[p.id]:
            yield layout.chunk_name(layout.log_path(p.id), 0)
        done = {int(k) for k in objects.list_names(f"{layout.commits_path(p.id)}/c") if k.isdigit()}
        for shard in index.plan.shards_of(p):
            if shard.index in done:
                yield layout.chunk_name(layout.commits_path(p.id), shard.index)
                for spec in p.arrays:
                    yield layout.shard_name(spec, shard.index)


def superseded_shards(root: Root, index: StoredIndex) -> dict[str, list[int]]:
    """Pass → its shards that own rows of superseded samples, and of no others."""
    plan = index.plan
    live = plan.rows_of(~index.superseded)
    found = {
        p.id: [s.index for s in plan.shards_of(p) if not live[s.start : s.stop].any()] for p in root.passes.values()
    }
    return {name: shards for name, shards in found.items() if shards}


def _remove(files: StoreFiles, listed: list[Rubbish]) -> None:
    if any(not item.what for item in listed):
        shutil.rmtree(files.path)
        return
    root, index = load(files)
    if shards := superseded_shards(root, index):
        drop_shards(files, root, shards)
    objects = files.objects
    for item in listed:
        if item.why == "nothing vouches for it" and not _committed_since(objects, root, item.what):
            objects.delete(item.what)
    forget_the_dead(files.leases)
    shutil.rmtree(
        files.leases / "scratch", ignore_errors=True
    )  # nobody works here: it is of dead processes, of any host


def _committed_since(objects: Objects, root: Root, name: str) -> bool:
    """Whether a shard's object has a commit by now: a worker of another host may wake after it was taken for dead."""
    for p in root.passes.values():
        for spec in p.arrays:
            number, _, _ = name.removeprefix(f"{spec.path}/c/").partition("/")
            if number.isdigit() and name == layout.shard_name(spec, int(number)):
                return objects.exists(layout.chunk_name(layout.commits_path(p.id), int(number)))
    return False


def _size(files: StoreFiles, name: str) -> int:
    path = files.path / name
    return os.lstat(path).st_blocks * 512 if path.exists() else 0
