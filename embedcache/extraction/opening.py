"""Stores made ready to be filled: created, extended, given a pass, reopened for a retry; each under its lock, and briefly."""

from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedcache.datasets.index import PrivateIndex
from embedcache.extraction.apart import count_each
from embedcache.extraction.prepare import Prepared, RowPlanner, StorePlan, check_device, compare, id_scheme
from embedcache.extraction.sources import Tell
from embedcache.store import layout
from embedcache.store.index import StoredIndex, open_root, read_index
from embedcache.store.leases import Worker, workers
from embedcache.store.locks import exclusive
from embedcache.store.reader import FeatureCache
from embedcache.store.root import Root
from embedcache.store.texts import locate
from embedcache.store.writer import (
    StoreFiles,
    add_pass,
    create_store,
    extend_store,
    load,
    new_root,
    pending_shards,
    reopen,
    supersede,
)
from embedcache.types import Pass, strings


@dataclass(frozen=True)
class OpenStore:
    """A store with all rows and passes that this extraction fills."""

    planned: StorePlan
    root: Root
    index: StoredIndex
    passes: tuple[Pass, ...]
    """Those that are not complete and that this extraction completes."""
    worker: Worker | None = None
    """This process as one that fills it, known to others before the store's lock was let go; None if there is nothing to do."""

    @property
    def wanted(self) -> npt.NDArray[np.bool_]:
        """Shape (rows,): rows that an image is read for; a superseded sample's are not, its source is another now."""
        return self.index.plan.rows_of(~self.index.superseded)


def tell_begun(prepared: Prepared, tell: Tell) -> None:
    """Say what is there of each store that an earlier run began and did not finish; of one that is being filled, nothing."""
    for store in prepared.stores:
        if store.root is None or store.index is None or workers(store.files.leases):
            continue
        root, plan = store.root, store.index.plan
        begun = [p for p in store.unfinished if not root.complete[p.id]]
        if not begun:
            continue
        wanted = plan.rows_of(~store.index.superseded)
        there = wanted.copy()
        for p in begun:
            for shard in pending_shards(store.files.objects, plan, p):
                there[shard.start : shard.stop] = False
        n, of, noun = int(there.sum()), int(wanted.sum()), root.unit + "s"
        if n == of:
            tell(f"{store.name}: all {of} {noun} are there, and it is finished now")
        elif n:
            tell(f"{store.name}: {n} of {of} {noun} are there; this run goes on with the rest")
        else:
            tell(
                f"{store.name}: none of {of} {noun} was committed before an earlier run ended; the shard that it was "
                "filling is begun again"
            )


def open_stores(prepared: Prepared, tell: Tell, workers: ExitStack) -> list[OpenStore]:
    """Make every store ready that is not finished. Whoever changes one at the same time is waited for.

    workers: while it is open, this process is known as one that fills them, so that nobody tidies them up or removes them.
    """
    supersede_changed(prepared, tell)
    planner = RowPlanner(prepared, tell)
    opened = []
    for store in prepared.stores:
        if not store.finished or prepared.config.retry_quarantined:
            with exclusive(store.files.leases, store.name, wait=True, notify=tell) as lock:
                guarded = replace(store.files, fence=lock.check)
                # compared again: another process may have done some of it before the lock was ours
                ready = open_store(prepared, compare(prepared, store.info, store.recipe), guarded, planner, tell)
                if ready.passes:
                    opened.append(replace(ready, worker=workers.enter_context(Worker(store.files.leases))))
    return opened


def open_store(prepared: Prepared, store: StorePlan, files: StoreFiles, planner: RowPlanner, tell: Tell) -> OpenStore:
    """Under the lock of one store: bring it to what was asked for. `files` carries the lock's fence."""
    plan = planner.plan(store)
    remember(prepared, planner)
    index: StoredIndex | None = None
    if store.root is None:
        weights = {"licence": store.info.licence, "citation": store.info.citation}
        scheme, key_id = id_scheme(prepared.dataset, prepared.config), prepared.key.id if prepared.key else ""
        root = new_root(store.recipe, prepared.dataset, weights, scheme, key_id, plan, prepared.selection)
        index = create_store(files, root, plan)
    elif store.index is not None and len(store.new):
        tell(f"{store.name} is extended by {len(store.new)} samples")
        if len(store.new) == len(prepared.samples):
            tell(
                f"none of them was in {store.name} before: where this is another listing under the name of an earlier one, "
                "give it a name of its own (--name), or their patients may be taken for the same"
            )
        none = np.zeros(len(store.new), dtype=np.bool_)
        extend_store(files, store.root, store.index, plan, np.concatenate([store.index.superseded, none]))
    if prepared.config.retry_quarantined and store.root is not None:
        retry(prepared, store, files, tell)
    root = open_root(files.objects)
    if store.missing:
        root = add_pass(files, root, prepared.new_pass(store.missing, plan.quantum, store.recipe.image.unit))
    if index is None:  # new stores share their one plan: at 10^7 rows each reading of it takes 150 MiB
        index = read_index(files.objects, root)
    rows = prepared.config.rows_per_shard
    for p in store.unfinished:
        if rows is not None and rows != p.rows_per_shard:
            tell(f"{store.name}: pass {p.id} was begun with {p.rows_per_shard} rows per shard, and goes on with them")
    asked = {spec.path for spec in store.missing} | {a.path for p in store.unfinished for a in p.arrays}
    passes = tuple(
        p
        for p in root.passes.values()
        if not root.complete[p.id] and (p.id in root.reopened or any(a.path in asked for a in p.arrays))
    )
    return OpenStore(replace(store, root=root, index=index), root, index, passes)


def remember(prepared: Prepared, planner: RowPlanner) -> None:
    """Put into the private index what it did not know of the sources."""
    if planner.learned:
        prepared.sources.put(planner.learned)
        prepared.sources.save()
        planner.learned.clear()


def supersede_changed(prepared: Prepared, tell: Tell) -> None:
    """Flag samples whose source changed in every store of the dataset, then let the index know the new content.

    In that order: stopped in between, the next run finds the change again. A store of another backbone then lacks these
    samples until it is extracted again, and never offers tokens of what no longer is.
    """
    if not prepared.changed:
        return
    tell(f"the content of {len(prepared.changed)} sources changed since they were extracted: their rows are superseded")
    for path in sorted(prepared.folder.glob("*/*.zarr")):
        if not (path / layout.ROOT_DOCUMENT).exists():
            continue
        files = StoreFiles(path)
        with exclusive(files.leases, f"store {path.parent.name}/{path.name}", wait=True, notify=tell) as lock:
            root, index = load(files)
            now = PrivateIndex.open(prepared.folder)  # another process may have superseded, and extended, already
            ids = [
                name for name, seen in prepared.changed.items() if (row := now.get(name)) and row.digest != seen.digest
            ]
            hit = (locate(index.plan.sample_id, strings(ids)) >= 0) & ~index.superseded
            if hit.any():
                supersede(replace(files, fence=lock.check), root, index, index.superseded | hit)
    prepared.sources.put(prepared.changed.values())
    prepared.sources.save()


def retry(prepared: Prepared, store: StorePlan, files: StoreFiles, tell: Tell) -> None:
    """Make the shards with quarantined rows of chosen samples pending again.

    A sample that has another number of slices now than its rows allow, since it could not be opened when it was planned,
    is superseded instead, and gets rows anew.
    """
    root, index = load(files)
    bad = rows_set_aside(files, index)
    plan = index.plan
    owner = plan.owner()
    place = locate(plan.sample_id, prepared.samples.id)
    owners = np.unique([owner[row] for rows in bad.values() for row in rows]).astype(np.int64)
    asked = owners[place[owners] >= 0]
    if root.unit == "volume":  # a volume has one row, however many slices it has now
        recounted = dict.fromkeys(asked.tolist(), True)
    else:
        counts = count_each(prepared.samples.path[place[asked]].tolist(), prepared.config)
        # one that can not be opened is tried as it is
        recounted = {
            sample: count in (0, int(plan.slice_count[sample]))
            for sample, count in zip(asked.tolist(), counts, strict=True)
        }
    shards: dict[str, set[int]] = {}
    for name, rows in bad.items():
        for row in rows:
            if recounted.get(int(owner[row])):
                shards.setdefault(name, set()).add(row // root.passes[name].rows_per_shard)
    for name in shards:
        check_device(prepared, store.name, root.passes[name])
    misfits = [sample for sample, same in recounted.items() if not same]
    if shards:
        tell(f"{store.name}: {sum(map(len, shards.values()))} shards with samples that were set aside are made again")
        root = reopen(files, root, shards)
    if misfits:
        replan(prepared, store, files, misfits)


def replan(prepared: Prepared, store: StorePlan, files: StoreFiles, misfits: list[int]) -> None:
    """Supersede samples of the store and append them with the slices that they have now."""
    root, index = load(files)
    names = index.plan.sample_id[misfits]
    known = [row for name in names.tolist() if (row := prepared.sources.get(name))]
    prepared.sources.put([replace(row, digest="", slices=0) for row in known])  # so that they are counted again
    planner = RowPlanner(prepared, lambda _: None)
    new = np.flatnonzero(locate(prepared.samples.id, names) >= 0)
    plan = planner.plan(replace(store, root=root, index=index, new=new))
    remember(prepared, planner)
    superseded = index.superseded.copy()
    superseded[misfits] = True
    extend_store(files, root, index, plan, np.concatenate([superseded, np.zeros(len(new), dtype=np.bool_)]))


def rows_set_aside(files: StoreFiles, index: StoredIndex) -> dict[str, list[int]]:
    """Pass → its quarantined rows, of samples that are not superseded."""
    cache = FeatureCache.open(files.path, allow_partial=True)
    current = index.plan.rows_of(~index.superseded)
    return {
        p.id: [bad.row for commit in cache.commits(p.id) for bad in commit.quarantined if current[bad.row]]
        for p in cache.passes
    }
