"""`embedcache.plan`: rows, bytes, files and time of an extraction, for one or many backbones, before it is run."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from embedcache.errors import InputError, MissingPackageError
from embedcache.extraction.budget import Proposal, parse_bytes, proposals, say_bytes
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.device import ready_device
from embedcache.extraction.devices import parse_devices, threads_each
from embedcache.extraction.peak import Memory, peak_memory
from embedcache.extraction.pending import PendingPass, needed_bytes, pending_passes
from embedcache.extraction.prepare import Prepared, RowPlanner, prepare
from embedcache.extraction.rates import Rates, RunTime, run_time
from embedcache.extraction.sources import Tell

RESERVE_BYTES = 64 * 2**20
"""Left free on the cache's disk, or a hundredth of a small one: labels, results, and what others write meanwhile."""


@dataclass(frozen=True)
class PassForecast:
    """What one pass will hold."""

    backbone: str
    view: int
    """Which view of the slices."""
    unit: str
    """What its rows are: `slice` or `volume`."""
    store: str
    arrays: dict[str, int]
    """Array path → bytes on disk."""
    rows_per_shard: int
    pending_shards: int
    pending_slices: int
    files: int
    slices_per_second: float | None
    """Of the backbone alone, without preprocessing; None where it was not calibrated."""


@dataclass(frozen=True)
class PlanReport:
    """What an extraction would write, and how long it would take."""

    dataset: str
    samples: int
    slices: int
    """Rows of the first backbone's store: whole volumes, if it takes those."""
    unit: str
    passes: tuple[PassForecast, ...]
    needed: int
    """Bytes of disk: the arrays, and what checksums, commits, indexes and directories take beside them."""
    free: int
    """Bytes that the cache's file system has left, the reserve taken off."""
    budget: int | None
    """Bytes that the user allows."""
    proposals: tuple[Proposal, ...]
    """Under a budget: what was asked, and what would lose the least after it."""
    time: RunTime | None
    """None where it was not calibrated."""
    rates: Rates | None
    memory: Memory | None
    """Main memory at the peak; None where nothing is pending."""
    notices: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Of the arrays of all passes."""
        return sum(sum(p.arrays.values()) for p in self.passes)

    @property
    def fits(self) -> bool:
        """Whether what was asked fits the budget and the disk."""
        return self.needed <= room(self.free, self.budget)

    @property
    def rows_at_risk(self) -> int:
        """What a kill costs as a rule: the rows of the largest shard that is being filled, of each backbone."""
        return max((min(p.rows_per_shard, p.pending_slices) for p in self.passes if p.pending_shards), default=0)

    @property
    def seconds_at_risk(self) -> float | None:
        """How long a run takes to make these again, start-up not counted; None where no time is forecast."""
        if self.time is None or self.rates is None:
            return None
        parts = [p.rows_per_shard / p.pending_slices for p in self.passes if p.pending_slices]
        return min(1.0, self.rates.processes * max(parts, default=0.0)) * (self.time.seconds - self.time.startup)

    @property
    def exit_code(self) -> int:
        """0 where what was asked fits, or under a budget one of the proposals; else 2."""
        return 0 if self.fits or any(p.fits for p in self.proposals) else 2

    @property
    def problem(self) -> str:
        """Why `exit_code` is 2, in a line that says what to do."""
        if self.budget is None:
            return shortage(self.needed, self.free)
        return (
            f"nothing that can be asked of these backbones fits into {say_bytes(room(self.free, self.budget))}; name fewer "
            "samples with --limit or --where, fewer backbones, or another --cache."
        )


def plan(
    config: ExtractConfig,
    tell: Tell = lambda _: None,
    *,
    calibrate: bool = False,
    budget: str | int | None = None,
) -> PlanReport:
    """What `extract(config)` would write, and with `calibrate` how long it would take. Writes nothing to the cache.

    calibrate: load the backbones on the asked device and run a few batches, decode a few images and write one object
    into a temporary folder: some seconds for each backbone. Without torch there is no time, and a notice says so.
    budget: bytes, or a size such as `50GiB`; the report then has `proposals` that cost less.
    Raises InputError and StoreError as `extract` does, but not where the disk is too small: see `fits`.
    """
    allowed = parse_bytes(budget) if isinstance(budget, str) else budget
    heard: list[str] = []

    def say(line: str) -> None:
        heard.append(line)
        tell(line)

    devices = parse_devices(config.devices) if config.devices else (config.device,)
    if config.devices:
        config = replace(config, device=devices[0], threads=threads_each(config))
    prepared = prepare(config, say)
    planner = RowPlanner(prepared, say)
    passes = pending_passes(prepared, planner)
    needed, free = needed_bytes(prepared, passes, planner), free_bytes(prepared)
    offered = () if allowed is None else proposals(prepared, planner, room(free, allowed))
    memory = peak_memory(prepared, planner, passes, len(devices))
    if memory is not None and not memory.fits:
        say(
            f"the extraction may take {say_bytes(memory.total)} of main memory and there is {say_bytes(memory.available)}; "
            "fewer --workers, a smaller --batch-size or fewer backbones in one run take less"
        )
    rates = calibrated(prepared, passes, len(devices), say) if calibrate and any(p.shards for p in passes) else None
    return PlanReport(
        dataset=prepared.dataset.name,
        samples=len(prepared.samples),
        slices=int(planner.plan(prepared.stores[0]).slice_count.sum()),
        unit=prepared.stores[0].recipe.image.unit,
        passes=tuple(describe(prepared, p, rates) for p in passes),
        needed=needed,
        free=free,
        budget=allowed,
        proposals=offered,
        time=run_time(passes, rates) if rates else None,
        rates=rates,
        memory=memory,
        notices=(*prepared.notices, *heard),
    )


def describe(prepared: Prepared, p: PendingPass, rates: Rates | None) -> PassForecast:
    """A pending pass as the user sees it."""
    return PassForecast(
        backbone=p.store.info.name,
        view=p.store.view,
        unit=p.unit,
        store=str(p.store.files.path.relative_to(prepared.config.cache_folder)),
        arrays=p.array_bytes(),
        rows_per_shard=p.stored_pass.rows_per_shard,
        pending_shards=len(p.shards),
        pending_slices=int(p.rows().sum()),
        files=p.files(),
        slices_per_second=p.stored_pass.batch_size / rates.batch[p.name] if rates else None,
    )


def calibrated(prepared: Prepared, passes: Sequence[PendingPass], processes: int, tell: Tell) -> Rates | None:
    """The rates of this machine for what is pending; None, and a notice, where there is no torch."""
    pending = [p for p in passes if p.shards]
    started = time.monotonic()
    tell(
        "calibrating: a few images, a few batches of each backbone and one file are tried; --no-calibrate leaves it out"
    )
    try:
        device = ready_device(prepared.config, pending[0].stored_pass.threads)
    except MissingPackageError as error:
        tell(f"no time is forecast: {error}")
        return None
    from embedcache.extraction.calibrate import measure  # imports torch, as `ready_device` just did

    return measure(prepared, pending, device, processes, time.monotonic() - started, tell)


# --- room on the disk -----------------------------------------------------------------------------


def check_room(prepared: Prepared, planner: RowPlanner) -> None:
    """Raise InputError if the cache's disk can not hold what is pending."""
    needed = needed_bytes(prepared, pending_passes(prepared, planner), planner)
    free = free_bytes(prepared)
    if needed > free:
        raise InputError(shortage(needed, free))


def shortage(needed: int, free: int) -> str:
    """What is said where the disk is too small."""
    return (
        f"the extraction needs {say_bytes(needed)} and {say_bytes(free)} is free for it at the cache; free some space, name "
        "another --cache, or let `embedcache plan --budget SIZE` propose what fits."
    )


def free_bytes(prepared: Prepared) -> int:
    """What this user may still write where the cache is or will be, without the reserve. A quota is not seen."""
    cache = prepared.config.cache_folder
    usage = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.is_dir()))
    return max(0, usage.free - min(RESERVE_BYTES, usage.total // 100))


def room(free: int, budget: int | None) -> int:
    """What may be written: no more than is free, nor than the user allows."""
    return free if budget is None else min(free, budget)
