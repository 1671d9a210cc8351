"""`embedcache.extract`: prepare, lock, plan, run, finalise."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np

from embedcache.backbones import load_backbone
from embedcache.datasets.index import IndexRow
from embedcache.errors import InputError, Interrupted, MissingPackageError, SourceChangedError
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.decode import DecodePool, SourceSeen
from embedcache.extraction.plan import (
    PlanReport,
    Prepared,
    StorePlan,
    Tell,
    choose_device,
    forecast,
    id_scheme,
    new_plan,
    paths_of,
    prepare,
)
from embedcache.extraction.progress import Listener, Progress
from embedcache.images import parse_window
from embedcache.store import layout
from embedcache.store.fingerprint import canonical, recipe_document, sha256
from embedcache.store.labels import write_labels
from embedcache.store.layout import Root
from embedcache.store.leases import exclusive
from embedcache.store.reader import FeatureCache, StoredIndex, read_commit
from embedcache.store.writer import add_pass, create_store, finalise, load, new_root, pending_shards
from embedcache.types import Pass, Plan

if TYPE_CHECKING:
    import torch

VERSIONED = ("embedcache", "torch", "transformers", "numpy", "pillow", "pydicom", "nibabel")
"""Libraries that decide a token's bits, named in every commit."""


@dataclass(frozen=True)
class StoreReport:
    """One backbone's store after the run."""

    backbone: str
    path: str
    fingerprint: str
    slices: int
    quarantined: int
    arrays: tuple[str, ...]


@dataclass(frozen=True)
class ExtractReport:
    """What an extraction did."""

    dataset: str
    samples: int
    stores: tuple[StoreReport, ...]
    decoded: int
    """Slices that were decoded in this run: 0 where everything was there."""
    seconds: float
    binds: str
    """The stage that everything else waited for, "" where nothing ran."""
    quarantined: dict[str, int]
    """Reason → rows that were set aside for it (counted in the first store)."""
    labels: str
    """Digest of the label table."""
    notices: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 where samples were set aside, else 0."""
        return 1 if any(s.quarantined for s in self.stores) else 0


def plan(config: ExtractConfig, tell: Tell = lambda _: None) -> PlanReport:
    """Rows and bytes that `extract(config)` would write. Writes nothing to the cache, computes nothing."""
    return forecast(prepare(config, tell), tell)


def extract(config: ExtractConfig, listener: Listener | None = None) -> ExtractReport:
    """Run every asked backbone once over every chosen slice and store its tokens; resume what was begun.

    A finished store is recognised without opening an image or importing torch, and nothing is written. Bad samples
    are set aside with a reason (`exit_code` 1). Raises InputError, StoreError, StoreBusyError, SourceChangedError; and
    Interrupted after SIGINT or SIGTERM, when every whole shard was committed.
    """
    started = time.monotonic()
    heard: list[str] = []
    listener = listener or Listener()
    tell = collect(listener.tell, heard)
    prepared = prepare(config, tell)
    work = not all(store.finished for store in prepared.stores)
    if work:
        ready_device(config, prepared.threads)  # before anything is written: a pass is bound to its kind of device
    for notice in prepared.notices:
        tell(notice)
    decoded, binds = 0, ""
    labels = write_labels(prepared.folder, prepared.labels)
    if work:
        decoded, binds = fill(prepared, replace(listener, tell=tell))
    stores = tuple(describe(store) for store in prepared.stores)
    return ExtractReport(
        dataset=prepared.dataset.name,
        samples=len(prepared.samples),
        stores=stores,
        decoded=decoded,
        seconds=time.monotonic() - started,
        binds=binds,
        quarantined=reasons(prepared.stores[0]),
        labels=labels,
        notices=tuple(heard),
    )


def ready_device(config: ExtractConfig, threads: int) -> "torch.device":
    """The asked device, set up; imports torch. Raises InputError if it is not there, MissingPackageError without torch."""
    try:
        from embedcache.backbones.device import prepare_device  # torch is imported here, and only where there is work
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"an extraction needs {error.name}: pip install 'embedcache[cpu]', or 'embedcache[gpu]' with a GPU."
        ) from error
    return prepare_device(choose_device(config.device), threads)


@dataclass
class OpenStore:
    """A store that is locked by this process and being filled."""

    planned: StorePlan
    root: Root
    index: StoredIndex
    passes: list[Pass] = field(default_factory=list)


def fill(prepared: Prepared, listener: Listener) -> tuple[int, str]:
    """Fill what the stores lack, those of one plan together. Returns slices decoded and the stage that bound."""
    with ExitStack() as locks:
        for store in sorted(prepared.stores, key=lambda s: s.files.path):
            if not store.finished:
                name = f"{store.info.store_name}/{store.files.path.name}"
                store.files.leases.mkdir(parents=True, exist_ok=True)
                locks.enter_context(exclusive(store.files.leases, name, prepared.config.wait, listener.tell))
        # another process may have done some of it before the locks were ours
        current = prepare(prepared.config, lambda _: None)
        unfinished = [store for store in current.stores if not store.finished]
        if not unfinished:
            return 0, ""
        opened = open_stores(current, unfinished, listener.tell)
        decoded, binds = 0, ""
        with watch_signals() as stop:
            for group in same_plan(opened):
                done, binds = run_group(current, group, stop, listener)
                decoded += done
        for filled in opened:
            for p in filled.passes:
                filled.root = finalise(filled.planned.files, filled.root, filled.index, p)
        current.sources.save()
    return decoded, binds


def open_stores(prepared: Prepared, unfinished: list[StorePlan], tell: Tell) -> list[OpenStore]:
    """Create the stores and passes that are missing. All new stores of a run share one plan."""
    fresh: Plan | None = None
    opened = []
    for store in unfinished:
        if store.root is None:
            if fresh is None:
                fresh, learned = new_plan(prepared.samples, prepared.sources, tell)
                remember(prepared, fresh, learned)
            weights = {"licence": store.info.licence, "citation": store.info.citation}
            scheme = id_scheme(prepared.dataset, prepared.config)
            key_id = prepared.key.id if prepared.key else ""
            root = new_root(store.recipe, prepared.dataset, weights, scheme, key_id, fresh, prepared.selection)
            create_store(store.files, root, fresh)
        root, index = load(store.files)
        passes = list(store.unfinished)
        if store.missing:
            added = prepared.new_pass(store.missing, root.quantum)
            root = add_pass(store.files, root, added)
            passes.append(added)
        opened.append(OpenStore(store, root, index, passes))
    return opened


def remember(prepared: Prepared, plan: Plan, learned: list[IndexRow]) -> None:
    """Put into the private index what it did not know of the sources."""
    if learned:
        prepared.sources.put(learned)
        prepared.sources.save()


def same_plan(stores: list[OpenStore]) -> list[list[OpenStore]]:
    """The stores by plan: those of one plan share the decoding."""
    groups: dict[str, list[OpenStore]] = {}
    for store in stores:
        groups.setdefault(store.root.plan_digest, []).append(store)
    return list(groups.values())


def run_group(prepared: Prepared, group: list[OpenStore], stop: "StopFlag", listener: Listener) -> tuple[int, str]:
    """Load the backbones of stores of one plan and run them over what is pending."""
    from embedcache.extraction import worker  # as in `ready_device`: torch

    config, plan = prepared.config, group[0].index.plan
    # stopped between the last commit and the end, only the finalising is left
    pending = [[pending_shards(store.planned.files.objects, plan, p) for p in store.passes] for store in group]
    if not any(shards for of_store in pending for shards in of_store):
        return 0, ""
    versions = software_versions()
    targets = []
    threads = {p.threads for store in group for p in store.passes}
    if len(threads) > 1:
        raise InputError(
            f"the passes to resume were planned with different --threads ({sorted(threads)}); resume them one by one."
        )
    device = ready_device(config, threads.pop())
    for store, of_store in zip(group, pending, strict=True):
        backbone = load_backbone(store.planned.info, str(device))
        for p, shards in zip(store.passes, of_store, strict=True):
            check_versions(store, p, versions, config.mixed)
            image = store.root.recipe.image
            name = sha256(canonical(recipe_document(store.root.recipe)["image"]))
            targets.append(worker.Target(store.planned.files, image, p, shards, backbone, name))
    last: list[Progress] = []

    def report(progress: Progress) -> None:
        last[:] = [progress]
        listener.progress(progress)

    batch = max(p.batch_size for store in group for p in store.passes)
    workers = config.workers or default_workers(device.type)
    with DecodePool(workers, parse_window(config.window), config.decode_timeout, 2 * batch, stop) as pool:
        paths = paths_of(plan, prepared.samples, prepared.sources)
        done = worker.run(plan, paths, targets, pool, device, versions, stop, note(prepared, plan), report)
    if stop():
        prepared.sources.save()
        raise Interrupted(
            f"stopped by {signal.Signals(stop.number).name}; every whole shard is committed, "
            "and the same command resumes the run",
            stop.number,
        )
    return done, last[-1].binds if last else ""


def note(prepared: Prepared, plan: Plan) -> Callable[[int, SourceSeen], None]:
    """What is done with a source's digest when it was read: the private index learns it before the shard's commit."""
    seen: set[int] = set()

    def remember_digest(sample: int, source: SourceSeen) -> None:
        if sample in seen:
            return
        seen.add(sample)
        name = str(plan.sample_id[sample])
        known = prepared.sources.get(name)
        if known is not None and known.digest and known.digest != source.digest:
            raise SourceChangedError(
                f"the content of sample {name} changed since it was first read; what is committed stays. "
                "Restore it, or extract into another --cache."
            )
        prepared.sources.note_digest(name, source.size, source.mtime_ns, source.digest)

    return remember_digest


def check_versions(store: OpenStore, p: Pass, versions: dict[str, str], mixed: bool) -> None:
    """Refuse to mix library versions (major.minor) in one pass, unless asked to."""
    done = store.planned.files.objects.list_names(f"{layout.commits_path(p.id)}/c")
    if mixed or not done:
        return
    before = read_commit(store.planned.files.objects, p.id, min(int(k) for k in done)).versions
    differ = [n for n in versions if minor(versions[n]) != minor(before.get(n, "")) and n != "embedcache"]
    if differ:
        told = ", ".join(f"{n} {before.get(n, 'absent')} then, {versions[n]} now" for n in differ)
        raise InputError(
            f"pass {p.id} was begun with other versions: {told}; install those, or allow both with --mixed."
        )


def minor(text: str) -> str:
    """Major and minor of a version."""
    return ".".join(text.split(".")[:2])


def software_versions() -> dict[str, str]:
    """The versions that a commit records."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def default_workers(device_type: str) -> int:
    """Decode processes: on a CPU they share the cores with the forward pass."""
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // 2) if device_type == "cpu" else max(1, min(cores - 1, 32))


def describe(store: StorePlan) -> StoreReport:
    """What a finished store holds."""
    cache = FeatureCache.open(store.files.path)
    status = cache.row_status
    return StoreReport(
        backbone=store.info.name,
        path=str(store.files.path),
        fingerprint=cache.fingerprint,
        slices=cache.root.slices,
        quarantined=int((status == layout.QUARANTINED).sum()),
        arrays=tuple(sorted(a.path for p in cache.passes for a in p.arrays)),
    )


def reasons(store: StorePlan) -> dict[str, int]:
    """Why rows of a store were set aside, the commonest first."""
    cache = FeatureCache.open(store.files.path)
    rows = {q.row: f"{q.stage}: {q.reason}" for p in cache.passes for c in cache.commits(p.id) for q in c.quarantined}
    names, counts = np.unique(list(rows.values()), return_counts=True)
    return {str(names[i]): int(counts[i]) for i in np.argsort(-counts, kind="stable")}


def collect(tell: Tell, heard: list[str]) -> Tell:
    """Tell, and keep what was told for the report."""

    def both(line: str) -> None:
        heard.append(line)
        tell(line)

    return both


class StopFlag:
    """Set by the first SIGINT or SIGTERM; asked between pieces."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> bool:
        """Whether the run should end."""
        return self.number != 0

    def signalled(self, number: int, frame: FrameType | None) -> None:
        """The first signal asks for a clean end, a second SIGINT ends at once."""
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def watch_signals() -> Iterator[StopFlag]:
    """While the block runs, SIGINT and SIGTERM set a flag (in the main thread; elsewhere they keep their meaning)."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {n: signal.signal(n, flag.signalled) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
