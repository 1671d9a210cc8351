"""`embedcache.extract`: prepare, open the stores, share the work, finalise."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedcache.backbones import load_backbone
from embedcache.errors import InputError
from embedcache.extraction import turns
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.decode import DecodePool
from embedcache.extraction.device import default_workers, ready_device
from embedcache.extraction.devices import parse_devices, run_on_devices, threads_each
from embedcache.extraction.like import what_differs
from embedcache.extraction.limits import known_limits
from embedcache.extraction.opening import OpenStore, open_stores, remember, tell_begun
from embedcache.extraction.pieces import SourceSeen, reading
from embedcache.extraction.plan import check_room
from embedcache.extraction.prepare import Prepared, RowPlanner, StorePlan, compare, id_scheme, paths_of, prepare
from embedcache.extraction.progress import Listener, Progress
from embedcache.extraction.regroup import regroup_patients
from embedcache.extraction.remarks import Remarks, remarks_told
from embedcache.extraction.report import ExtractReport, StoreReport
from embedcache.extraction.share import Share, Target
from embedcache.extraction.signals import StopFlag, watch_signals
from embedcache.extraction.sources import Tell
from embedcache.extraction.versions import OF_FAMILY, VERSIONED, family_versions, minor, software_versions
from embedcache.store import layout
from embedcache.store.catalog import quarantined_rows
from embedcache.store.fingerprint import canonical, recipe_document, sha256
from embedcache.store.index import read_commit
from embedcache.store.labels import write_labels
from embedcache.store.leases import forget_the_dead
from embedcache.store.locks import exclusive
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import locate
from embedcache.store.writer import finalise, load, pending_shards
from embedcache.types import ImageRecipe, Pass, Plan

POLL_SECONDS = 0.5


def extract(config: ExtractConfig, listener: Listener | None = None) -> ExtractReport:
    """Run every asked backbone once over every chosen slice and store its tokens; resume what was begun.

    A finished store is recognised without opening an image or importing torch, and nothing is written. Several such runs
    at once, on one host or on many, share the work. Samples that are new, or whose source changed, extend the store; bad
    ones are set aside with a reason. Raises InputError, StoreError, StoreBusyError, TooManyBadError; and Interrupted
    after SIGINT or SIGTERM, when every whole shard was committed.
    """
    started = time.monotonic()
    heard: list[str] = []
    listener = listener or Listener()
    tell = collect(listener.tell, heard)
    if config.devices:
        config = replace(config, device=parse_devices(config.devices)[0], threads=threads_each(config))
    prepared = prepare(config, tell)
    work = config.retry_quarantined or not all(store.finished for store in prepared.stores)
    if work and not config.devices:
        ready_device(config, prepared.threads)  # before anything is written: a pass is bound to its kind of device
    for notice in prepared.notices:
        tell(notice)
    if config.like is not None:
        for found in what_differs(config.like, prepared):
            tell(
                f"unlike the recorded extraction: {found.field} was {found.recorded or 'empty'}, is {found.now or 'empty'}"
            )
    if regroup_patients(prepared, tell):
        prepared = replace(prepared, stores=tuple(again(prepared, store) for store in prepared.stores))
    decoded, binds = 0, ""
    if work:
        planner = RowPlanner(prepared, lambda _: None)
        check_room(prepared, planner)
        remember(prepared, planner)  # else every header is opened twice
        tell_begun(prepared, tell)
    labels = write_labels(prepared.folder, prepared.labels)
    if work and config.devices:
        decoded, binds = run_on_devices(prepared, replace(listener, tell=tell))
    elif work:
        decoded, binds = fill(prepared, replace(listener, tell=tell))
    reports = tuple(describe(store, prepared) for store in prepared.stores)
    return ExtractReport(
        dataset=prepared.dataset.name,
        ids=id_scheme(prepared.dataset, config),
        samples=len(prepared.samples),
        stores=tuple(report for report, _ in reports),
        decoded=decoded,
        seconds=time.monotonic() - started,
        binds=binds,
        quarantined=reports[0][1],
        bad_samples=max(report.bad_samples for report, _ in reports),
        allowed_bad=config.allowed_bad(len(prepared.samples)),
        labels=labels,
        notices=tuple(heard),
    )


def refill(config: ExtractConfig, store: str | Path, listener: Listener | None = None) -> int:
    """Make what a repair gave up in one store again, and nothing else. Returns slices decoded.

    Raises InputError if `config` means another store: `what_differs` says in which fields.
    """
    listener = listener or Listener()
    prepared = replace(prepare(config, listener.tell), refilling=True, changed={})
    if [planned.files.path for planned in prepared.stores] != [Path(store).resolve()]:
        raise InputError(f"the recipe that was asked for is not that of {Path(store).name}; see what differs.")
    ready_device(config, prepared.threads)
    prepared = replace(prepared, stores=tuple(again(prepared, planned) for planned in prepared.stores))
    return fill(prepared, listener)[0]


def fill(prepared: Prepared, listener: Listener) -> tuple[int, str]:
    """Fill what the stores lack, together with whoever else does. Returns slices decoded here and the stage that bound."""
    decoded, binds = 0, ""
    with watch_signals() as stop, ExitStack() as workers, remarks_told(listener.tell, prepared.samples) as remarks:
        # more than once only where another process extends a store meanwhile
        while opened := open_stores(prepared, listener.tell, workers):
            for group in same_plan(opened):
                done, slowest = run_group(prepared, group, stop, listener, remarks)
                decoded, binds = decoded + done, slowest or binds
            for store in opened:
                complete(store, listener.tell)
            workers.close()
            prepared.sources.save()
            prepared = replace(prepared, config=replace(prepared.config, retry_quarantined=False), changed={})
            prepared = replace(prepared, stores=tuple(again(prepared, store) for store in prepared.stores))
    return decoded, binds


def again(prepared: Prepared, store: StorePlan) -> StorePlan:
    """The comparison with a store, as it is now."""
    return compare(prepared, store.info, store.recipe)


def complete(store: OpenStore, tell: Tell) -> None:
    """Finalise the passes of a store of which nothing is pending; one that another process extended is left to the next turn."""
    files, name = store.planned.files, store.planned.name
    with exclusive(files.leases, name, wait=True, notify=tell) as lock:
        guarded = replace(files, fence=lock.check)
        index = load(guarded)[1]
        for p in store.passes:
            if not pending_shards(guarded.objects, index.plan, p):
                finalise(guarded, p.id)
        forget_the_dead(files.leases)
    if gone := rows_gone(store):
        tell(
            f"{name}: {gone} rows that its earlier passes hold can not be read any more, and are set aside in the new arrays "
            "only; `embedcache show` names them"
        )


def rows_gone(store: OpenStore) -> int:
    """Rows, of asked samples or not, that passes filled now had to set aside and that every pass from before holds."""
    cache = FeatureCache.open(store.planned.files.path, allow_partial=True)
    now = {p.id for p in store.passes}
    earlier = [p for p in cache.passes if p.id not in now and cache.root.complete[p.id]]
    if not earlier:
        return 0
    good = cache.good_rows(earlier)
    filled = [p for p in cache.passes if p.id in now and cache.root.complete[p.id]]
    return len(
        {bad.row for p in filled for commit in cache.commits(p.id) for bad in commit.quarantined if good[bad.row]}
    )


@dataclass(frozen=True)
class Group:
    """Stores of one plan, with passes of one thread count: they share the decoding and the process's settings."""

    plan: Plan
    threads: int
    image: ImageRecipe
    """Of one of them: in what a decoder is asked all are alike."""
    stores: tuple[tuple[OpenStore, tuple[Pass, ...]], ...]


def same_plan(opened: list[OpenStore]) -> list[Group]:
    """What can be filled together."""
    groups: dict[tuple[Any, ...], list[tuple[OpenStore, tuple[Pass, ...]]]] = {}
    for store in opened:
        image = store.root.recipe.image
        for threads in sorted({p.threads for p in store.passes}):
            key = (threads, store.root.plan_digest, store.index.superseded.tobytes(), image.window, reading(image))
            passes = tuple(p for p in store.passes if p.threads == threads)
            groups.setdefault(key, []).append((store, passes))
    return [
        Group(found[0][0].index.plan, key[0], found[0][0].root.recipe.image, tuple(found))
        for key, found in groups.items()
    ]


def run_group(
    prepared: Prepared, group: Group, stop: StopFlag, listener: Listener, remarks: Remarks
) -> tuple[int, str]:
    """Run the backbones of a group over what is pending, until nothing is, by whomever: at once, or in turns that fit memory."""
    # stopped between the last commit and the end, only the finalising is left
    waiting = [
        (store, passes)
        for store, passes in group.stores
        if any(pending_shards(store.planned.files.objects, group.plan, p) for p in passes)
    ]
    decoded, binds = 0, ""
    while waiting:
        done, slowest, waiting = run_turn(prepared, replace(group, stores=tuple(waiting)), stop, listener, remarks)
        decoded, binds = decoded + done, slowest or binds
    return decoded, binds


def run_turn(
    prepared: Prepared, group: Group, stop: StopFlag, listener: Listener, remarks: Remarks
) -> tuple[int, str, list[turns.Member]]:
    """Load the backbones that fit and run them. Returns slices decoded, the stage that bound, and the stores that wait."""
    from embedcache.extraction import worker  # as in `ready_device`: torch
    from embedcache.extraction.forward import out_of_memory

    config = prepared.config
    versions = software_versions() | family_versions(*(store.planned.info.family for store, _ in group.stores))
    device = ready_device(config, group.threads)
    last: list[Progress] = []

    def report(progress: Progress) -> None:
        last[:] = [progress]
        listener.progress(progress)

    hooks = worker.Hooks(stop, note(prepared, group.plan), prepared.sources.settle, remarks.note, report, listener.tell)
    decoded = 0
    with ExitStack() as stack:
        free = turns.room(device)
        members, waiting = turns.first_turn(group.stores, free)
        for store, passes in members:
            for p in passes:
                check_versions(store, p, versions, config.mixed)
        backbones = turns.load_turn(members, lambda info: load_backbone(info, str(device)), out_of_memory)
        members, waiting = turns.split(group.stores, set(backbones))
        turns.tell_turn(members, waiting, free, listener.tell)
        targets, workers = [], []
        for store, passes in members:
            assert store.worker is not None
            for p in passes:
                image = store.root.recipe.image
                name = sha256(canonical(recipe_document(store.root.recipe)["image"]))
                backbone = backbones[store.planned.info.name]
                targets.append(Target(store.planned.files, image, p, backbone, name, p.batch_size))
                workers.append(store.worker)
        wanted = members[0][0].wanted
        share = Share(group.plan, wanted, targets, workers)
        batch = max(target.batch_size for target in targets)
        window, options = group.image.window, config.options_for(group.image)
        pool = stack.enter_context(
            DecodePool(
                config.workers or default_workers(device.type),
                window,
                options,
                config.decode_timeout,
                2 * batch,
                stop,
                known_limits(group.plan.sample_id, prepared.sources, window, options),
            )
        )
        paths = paths_of(group.plan, prepared.samples, prepared.sources)
        while not stop():
            decoded += worker.run(group.plan, wanted, paths, share, pool, device, versions, hooks)
            if stop() or not wait_for_others(share, stop, listener.tell):
                break
    if stop():
        prepared.sources.save()
        raise stop.interrupted()
    return decoded, last[-1].binds if last else "", waiting


def wait_for_others(share: Share, stop: StopFlag, tell: Tell) -> bool:
    """Wait until nothing is pending (False), or a lease has become free since its worker died (True)."""
    said = False
    while not stop() and not share.finished():
        others = share.others()
        if not others:
            return True
        if not said:
            tell(f"all that is left is being done by {', '.join(other.who for other in others)}; waiting for it")
            said = True
        time.sleep(POLL_SECONDS)
    return False


def note(prepared: Prepared, plan: Plan) -> Callable[[int, SourceSeen], str]:
    """What is done with a source's digest when it was read: the private index learns it before the shard's commit.

    A source that changed since it was read before gives the reason to set it aside: the next run supersedes it.
    """
    seen: dict[int, str] = {}

    def remember_digest(sample: int, source: SourceSeen) -> str:
        if sample not in seen:
            name = str(plan.sample_id[sample])
            known = prepared.sources.get(name)
            before = known.digest if known is not None and known.digest else source.digest
            if before == source.digest:
                prepared.sources.note_digest(name, source.size, source.mtime_ns, source.digest)
            seen[sample] = before
        same = seen[sample] == source.digest
        return "" if same else "its content changed while it was being extracted; run the same command again"

    return remember_digest


def check_versions(store: OpenStore, p: Pass, versions: dict[str, str], mixed: bool) -> None:
    """Refuse to mix library versions (major.minor) in one pass, unless asked to."""
    done = store.planned.files.objects.list_names(f"{layout.commits_path(p.id)}/c")
    if mixed or not done:
        return
    before = read_commit(store.planned.files.objects, p.id, min(int(k) for k in done)).versions
    own = {*VERSIONED, OF_FAMILY.get(store.planned.info.family, "")} - {"embedcache"}
    differ = [n for n in versions if n in own and n in before and minor(versions[n]) != minor(before[n])]
    if differ:
        told = ", ".join(f"{n} {before[n]} then, {versions[n]} now" for n in differ)
        raise InputError(
            f"pass {p.id} was begun with other versions: {told}; install those, or allow both with --mixed."
        )


def describe(store: StorePlan, prepared: Prepared) -> tuple[StoreReport, dict[str, int]]:
    """What a finished store holds, and why rows of the asked samples are set aside there, the commonest reason first."""
    cache = FeatureCache.open(store.files.path)
    plan = cache.index.plan
    asked = (locate(plan.sample_id, prepared.samples.id) >= 0) & ~cache.index.superseded
    owner = plan.owner()
    bad = {row: q for row, q in quarantined_rows(cache).items() if asked[owner[row]]}
    report = StoreReport(
        backbone=store.info.name,
        view=store.view,
        path=str(store.files.path),
        fingerprint=cache.fingerprint,
        slices=cache.root.slices,
        unit=cache.unit,
        quarantined=len(bad),
        bad_samples=len({int(owner[row]) for row in bad}),
        arrays=tuple(sorted(a.path for p in cache.passes for a in p.arrays)),
    )
    return report, dict(Counter(f"{q.stage}: {q.reason}" for q in bad.values()).most_common())


def collect(tell: Tell, heard: list[str]) -> Tell:
    """Tell, and keep what was told for the report."""

    def both(line: str) -> None:
        heard.append(line)
        tell(line)

    return both
