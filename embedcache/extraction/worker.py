"""The running part of an extraction: rows of one plan through every backbone that still lacks them.

Decode processes feed the main thread, which preprocesses and computes; a writer thread encodes, puts and commits.
Imports torch: only a run that has work to do comes here.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embedcache.backbones import Backbone
from embedcache.backbones.preprocess import preprocess
from embedcache.errors import TokenOverflowError
from embedcache.extraction.decode import DecodePool, Piece, Request, SourceSeen
from embedcache.extraction.progress import Progress
from embedcache.store.leases import this_host
from embedcache.store.writer import StoreFiles, commit_shard, write_shard
from embedcache.types import Commit, ImageRecipe, Pass, Plan, Quarantined, Shard, StringArray


@dataclass
class Target:
    """One pass of one store that lacks shards, and the backbone that fills it."""

    files: StoreFiles
    image: ImageRecipe
    stored_pass: Pass
    pending: list[Shard]
    backbone: Backbone
    input_name: str
    """Digest of `image`: targets of one input name share the preprocessed batch."""


@dataclass
class Filling:
    """A target's current shard and batch."""

    target: Target
    pending: dict[int, Shard]
    last_row: dict[int, int]
    """Of each pending shard: its last owned row, with which it is whole."""
    device: torch.device
    shard: Shard | None = None
    rows: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    started: str = ""
    batch: int = -1
    x: torch.Tensor | None = None
    filled: list[int] = field(default_factory=list)
    """Rows of the current batch that hold an image."""


def run(
    plan: Plan,
    paths: StringArray,
    targets: list[Target],
    pool: DecodePool,
    device: torch.device,
    versions: dict[str, str],
    stopping: Callable[[], bool],
    seen: Callable[[int, SourceSeen], None],
    report: Callable[[Progress], None],
) -> int:
    """Fill every pending shard of `targets`, whose stores have the same `plan`, and return how many slices were decoded.

    paths: source of each sample of the plan. stopping: asked between batches; when true, whole shards are committed and
    the rest is left pending. seen: told each source's digest before the first shard that holds it is committed.
    """
    fillings = [Filling(t, {s.index: s for s in t.pending}, last_rows(plan, t.pending), device) for t in targets]
    rows = needed_rows(plan, targets)
    writer = Writer(versions, str(device) if device.type == "cpu" else torch.cuda.get_device_name(device))
    clock = Clock(len(rows))
    try:
        for piece in pool.pieces(requests(plan, rows, paths)):
            started = time.monotonic()
            if piece.seen is not None:
                seen(piece.sample, piece.seen)
            first = int(plan.slice_start[piece.sample])
            inputs: dict[str, torch.Tensor] = {}
            for filling in fillings:
                take(filling, first + piece.start, piece, inputs, writer)
            clock.done += piece.stop - piece.start
            clock.computed += time.monotonic() - started
            report(clock.progress(pool.waited, writer.waited))
            if stopping():
                break
    finally:
        writer.close()
    return clock.done


@dataclass
class Clock:
    """Counts and seconds of a run."""

    total: int
    done: int = 0
    computed: float = 0.0

    def progress(self, waited_decode: float, waited_write: float) -> Progress:
        """As a report; time spent waiting for the writer is no computing."""
        return Progress(self.done, self.total, waited_decode, waited_write, max(0.0, self.computed - waited_write))


def needed_rows(plan: Plan, targets: Iterable[Target]) -> npt.NDArray[np.int64]:
    """Owned rows that at least one target lacks, ascending."""
    wanted = np.zeros(plan.rows, dtype=np.bool_)
    for target in targets:
        for shard in target.pending:
            wanted[shard.start : shard.stop] = True
    return np.flatnonzero(wanted & (plan.slice_index >= 0))


def last_rows(plan: Plan, shards: Iterable[Shard]) -> dict[int, int]:
    """The last owned row of each shard; padding may follow it."""
    return {s.index: s.start + int(np.flatnonzero(plan.slice_index[s.start : s.stop] >= 0)[-1]) for s in shards}


def requests(plan: Plan, rows: npt.NDArray[np.int64], paths: StringArray) -> Iterator[Request]:
    """The slices of these rows, as runs of one sample each."""
    owner = plan.owner()[rows]
    breaks = (np.flatnonzero((np.diff(rows) != 1) | (np.diff(owner) != 0)) + 1).tolist()
    for first, end in zip([0, *breaks], [*breaks, len(rows)], strict=True):
        sample = int(owner[first])
        start = int(rows[first] - plan.slice_start[sample])
        yield Request(sample, str(paths[sample]), int(plan.slice_count[sample]), start, start + end - first)


def take(filling: Filling, first_row: int, piece: Piece, inputs: dict[str, torch.Tensor], writer: "Writer") -> None:
    """Put a piece's rows where the target wants them; compute each batch, and hand over each shard, when it is whole."""
    per_shard, size = filling.target.stored_pass.rows_per_shard, filling.target.stored_pass.batch_size
    for i in range(piece.stop - piece.start):
        row = first_row + i
        shard = filling.pending.get(row // per_shard)
        if shard is None:
            continue
        if filling.shard != shard:
            open_shard(filling, shard)
        batch, place = divmod(row - shard.start, size)
        if filling.batch != batch:
            compute(filling)
            filling.batch = batch
        if piece.volume is None:
            filling.quarantined.append(Quarantined(row, piece.stage, piece.reason))
        else:
            put_image(filling, place, input_of(filling, piece, inputs)[i])
            filling.filled.append(row - shard.start)
        if row == filling.last_row[shard.index]:
            finish_shard(filling, writer)


def input_of(filling: Filling, piece: Piece, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The piece's slices as the target's backbone sees them, made once for all targets of one image recipe."""
    target = filling.target
    if target.input_name not in inputs:
        assert piece.volume is not None
        assert piece.limits is not None
        inputs[target.input_name] = preprocess(piece.volume, piece.limits, target.image, filling.device)
    return inputs[target.input_name]


def put_image(filling: Filling, place: int, image: torch.Tensor) -> None:
    """Into the current batch, which is zeros where nothing was put."""
    if filling.x is None:
        filling.x = torch.zeros((filling.target.stored_pass.batch_size, *image.shape), device=filling.device)
    filling.x[place] = image


def open_shard(filling: Filling, shard: Shard) -> None:
    """Begin a shard of zeros."""
    p = filling.target.stored_pass
    filling.shard = shard
    filling.rows = {a.path: np.zeros((p.rows_per_shard, *a.shape), dtype=a.dtype) for a in p.arrays}
    filling.quarantined = []
    filling.started = now()


def compute(filling: Filling) -> None:
    """Run the current batch, always of full size, and keep the rows that hold an image."""
    if filling.filled:
        p = filling.target.stored_pass
        assert filling.x is not None
        tokens = filling.target.backbone.tokens(filling.x, p.arrays)
        rows = np.asarray(filling.filled)
        places = torch.from_numpy(rows % p.batch_size).to(filling.device)
        for spec in p.arrays:
            stored = tokens[spec.path][places].to(getattr(torch, spec.dtype))
            if not bool(torch.isfinite(stored).all()):
                raise TokenOverflowError(
                    f"{spec.path} of {filling.target.backbone.info.name} holds values that {spec.dtype} can not, or NaN; "
                    "extract with --dtype float32, or another --compute-dtype if that does not help."
                )
            filling.rows[spec.path][rows] = stored.cpu().numpy()
        filling.x.zero_()
    filling.filled = []
    filling.batch = -1


def finish_shard(filling: Filling, writer: "Writer") -> None:
    """Compute what is left of the current shard and hand it to the writer."""
    assert filling.shard is not None
    compute(filling)
    writer.put(Finished(filling.target, filling.shard, filling.rows, tuple(filling.quarantined), filling.started))
    filling.shard = None


@dataclass(frozen=True)
class Finished:
    """A whole shard on its way to disk."""

    target: Target
    shard: Shard
    rows: dict[str, npt.NDArray[Any]]
    quarantined: tuple[Quarantined, ...]
    started: str


class Writer:
    """A thread that encodes, puts and commits whole shards while the next ones are computed."""

    def __init__(self, versions: dict[str, str], device: str) -> None:
        self.versions = versions
        self.device = device
        self.waited = 0.0
        """Seconds in which the computing thread waited for this one."""
        self.failure: BaseException | None = None
        self.queue: queue.Queue[Finished | None] = queue.Queue(maxsize=2)  # bounds memory: two shards of every array
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def put(self, finished: Finished) -> None:
        """Hand over a shard; waits while two are on their way. Raises what the thread failed with."""
        self._raise()
        started = time.monotonic()
        self.queue.put(finished)
        self.waited += time.monotonic() - started

    def close(self) -> None:
        """Wait until all is committed. Raises what the thread failed with."""
        started = time.monotonic()
        self.queue.put(None)
        self.thread.join()
        self.waited += time.monotonic() - started
        self._raise()

    def _raise(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _work(self) -> None:
        while (finished := self.queue.get()) is not None:
            if self.failure is None:
                try:
                    self._write(finished)
                except BaseException as error:  # noqa: BLE001 it is raised again in the computing thread
                    self.failure = error

    def _write(self, finished: Finished) -> None:
        p, shard, objects = finished.target.stored_pass, finished.shard, finished.target.files.objects
        digests = write_shard(objects, p, shard, finished.rows)
        commit = Commit(
            shard=shard.index,
            rows=(shard.start, shard.stop),
            quarantined=finished.quarantined,
            batch_size=p.batch_size,
            device=self.device,
            versions=self.versions,
            objects=digests,
            host=f"{this_host().split('/')[0]}:{os.getpid()}",
            started=finished.started,
            finished=now(),
        )
        commit_shard(objects, p, commit)


def now() -> str:
    """UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
