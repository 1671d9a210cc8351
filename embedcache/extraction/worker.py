"""The running part of an extraction: rows of one plan through every backbone that still lacks them.

Decode processes feed the main thread, which preprocesses and computes; a writer thread encodes, puts and commits. A GPU
computes one batch while the inputs of the next one are made and the tokens of the one before are taken from it.
Imports torch: only a run that has work to do comes here.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embedcache.errors import TooManyBadError
from embedcache.extraction.decode import DecodePool
from embedcache.extraction.forward import Forward, Pool
from embedcache.extraction.pieces import Piece, Request, SourceSeen, reading
from embedcache.extraction.progress import Progress
from embedcache.extraction.share import Share, Target
from embedcache.extraction.stored import Sent, send_tokens
from embedcache.extraction.together import Gathered, Inputs, Shown
from embedcache.extraction.writing import Finished, Writer, now
from embedcache.types import ImageRecipe, Pass, Plan, Quarantined, Shard, StringArray

FIRST_SAMPLES = 200
"""Of so many samples most must be readable, or the run stops."""
BESIDE = ("cuda",)
"""Devices that compute while this process does something else."""


@dataclass(frozen=True)
class Accepted:
    """A leased shard, and the work for which all its rows are read."""

    work: int
    """Pieces that were asked for before, for another target of other rows a shard, may hold some of its rows, not all."""
    shard: Shard
    wanted: npt.NDArray[np.bool_]
    """Shape (rows_per_shard,): rows that an image is read for; at least one."""
    last_row: int
    """The last of them, with which the shard is whole."""


@dataclass
class Filling:
    """A target's current shard and batch."""

    forward: Forward
    device: torch.device
    pending: dict[int, Accepted] = field(default_factory=dict)
    """By their numbers: leased shards that are not handed to the writer yet."""
    current: Accepted | None = None
    rows: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    arrived: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    """Shape (rows_per_shard,): rows of the current shard whose tokens are in `rows`."""
    quarantined: list[Quarantined] = field(default_factory=list)
    started: str = ""
    batch: int = -1
    x: torch.Tensor | None = None
    filled: list[int] = field(default_factory=list)
    """Rows of the current batch that hold an image."""
    later: deque[Callable[[], None]] = field(default_factory=deque)
    """What awaits the batch that was launched last, in order: its rows are laid down, its shard is handed over."""

    @property
    def target(self) -> Target:
        """What is filled."""
        return self.forward.target

    def then(self, work: Callable[[], None]) -> None:
        """Do `work` once the batch that was launched last has arrived: at once where it has been computed already."""
        self.later.append(work)
        if self.device.type not in BESIDE:
            self.settle()

    def settle(self) -> None:
        """Wait for what was launched, and do all that awaits it."""
        while self.later:
            self.later.popleft()()


@dataclass(frozen=True)
class Hooks:
    """Who is asked and told while the worker runs."""

    stopping: Callable[[], bool]
    """Asked between groups of pieces; when true, whole shards are committed and the rest is left pending."""
    seen: Callable[[int, SourceSeen], str]
    """Told each source's digest before a shard that holds it is committed; a reason that comes back sets the piece aside."""
    settle: Callable[[], None]
    """Called before a shard is committed: what was told so far must be on disk, should the power fail."""
    remark: Callable[[str, tuple[str, ...]], None]
    """Told what a reader says of a sample's image that it read all the same."""
    report: Callable[[Progress], None]
    tell: Callable[[str], None]


def run(
    plan: Plan,
    wanted: npt.NDArray[np.bool_],
    paths: StringArray,
    share: Share,
    pool: DecodePool,
    device: torch.device,
    versions: dict[str, str],
    hooks: Hooks,
) -> int:
    """Fill what can be leased of the targets of `share`, whose stores have the same `plan`. Returns slices decoded.

    wanted: shape (rows,), the rows that an image is read for. paths: source of each sample of the plan.
    Raises TooManyBadError when most of the first samples can not be read.
    """
    pool_of_graphs = Pool() if device.type == "cuda" else None
    fillings = {target: Filling(Forward(target, pool_of_graphs), device) for target in share.targets}
    inputs = Inputs(device)
    gathered = Gathered(device, (target.image for target in share.targets), device.type in BESIDE)
    name = str(device) if device.type == "cpu" else torch.cuda.get_device_name(device)
    writer = Writer(versions, name, hooks.settle, share.committed)
    clock, tally = Clock(), Tally()
    try:
        for group in gathered.groups(pool.pieces(requests(plan, wanted, paths, share, fillings, writer))):
            started = time.monotonic()
            shown, at = Shown(group, str(plan.sample_id[group.whole.sample]), inputs), 0
            for piece in group.pieces:
                slices = 0 if piece.volume is None else piece.stop - piece.start
                piece = heard(piece, str(plan.sample_id[piece.sample]), hooks)
                tally.count(piece)
                first_row = int(plan.slice_start[piece.sample]) + piece.start
                for filling in fillings.values():
                    take(filling, piece, first_row, shown, at, writer, hooks.tell)
                at += slices
                clock.done += piece.stop - piece.start
            clock.computed += time.monotonic() - started
            hooks.report(clock.progress(share.total(), pool.waited, writer.waited))
            if hooks.stopping():
                break
        if any(filling.later for filling in fillings.values()):
            started = time.monotonic()
            for filling in fillings.values():
                filling.settle()
            clock.computed += time.monotonic() - started
            hooks.report(clock.progress(share.total(), pool.waited, writer.waited))
    finally:
        writer.close()
    return clock.done


def heard(piece: Piece, sample: str, hooks: Hooks) -> Piece:
    """The piece, or what is left of it where its source is not what it was; whoever wants to know of either is told."""
    reason = hooks.seen(piece.sample, piece.seen) if piece.seen is not None else ""
    if reason:
        piece = replace(piece, volume=None, stage="open", reason=reason)
    if piece.volume is not None:
        hooks.remark(sample, piece.volume.warnings)
    return piece


@dataclass
class Clock:
    """Counts and seconds of a run."""

    done: int = 0
    computed: float = 0.0

    def progress(self, total: int, waited_decode: float, waited_write: float) -> Progress:
        """As a report; time spent waiting for the writer is no computing."""
        computed = max(0.0, self.computed - waited_write)
        return Progress(self.done, max(self.done, total), waited_decode, waited_write, computed)


@dataclass
class Tally:
    """Whether most of the first samples are bad: then the list or the root is wrong, and not the files."""

    samples: set[int] = field(default_factory=set)
    bad: dict[int, str] = field(default_factory=dict)

    def count(self, piece: Piece) -> None:
        """Raises TooManyBadError, with the commonest reason, when more than half of the first FIRST_SAMPLES are bad."""
        if len(self.samples) >= FIRST_SAMPLES and piece.sample not in self.samples:
            return
        self.samples.add(piece.sample)
        if piece.volume is None:
            self.bad.setdefault(piece.sample, piece.reason)
        if len(self.bad) > FIRST_SAMPLES // 2:
            [(reason, times)] = Counter(self.bad.values()).most_common(1)
            raise TooManyBadError(
                f"{len(self.bad)} of the first {len(self.samples)} samples can not be read, {times} of them since "
                f"{reason.rstrip('.')}; look at --root and the table, then run again with --retry-quarantined. "
                "What was committed stays."
            )


def requests(
    plan: Plan,
    wanted: npt.NDArray[np.bool_],
    paths: StringArray,
    share: Share,
    fillings: dict[Target, Filling],
    writer: Writer,
) -> Iterator[Request]:
    """The slices of one lease after another, as runs of one sample each; a lease is taken when its first is asked for.

    That is while pieces of the leases before are on their way still, so each request bears the number of its work.
    """
    for number in count():
        work = share.next()
        if not work:
            return
        first = min(shard.start for of_target in work for shard in of_target.shards)
        stop = max(shard.stop for of_target in work for shard in of_target.shards)
        needed = np.zeros(stop - first, dtype=np.bool_)
        for of_target in work:
            for shard in of_target.shards:
                needed[shard.start - first : shard.stop - first] = True
                accept(fillings[of_target.target], number, shard, wanted, writer)
        rows = first + np.flatnonzero(needed & wanted[first:stop])
        yield from runs(plan, rows, paths, work[0].target.image, number)


def runs(
    plan: Plan, rows: npt.NDArray[np.int64], paths: StringArray, image: ImageRecipe, work: int = 0
) -> Iterator[Request]:
    """Ascending rows as runs of slices of one sample each, or as whole volumes, as `image` needs them."""
    owner = plan.slice_start.searchsorted(rows, side="right") - 1
    breaks = (np.flatnonzero((np.diff(rows) != 1) | (np.diff(owner) != 0)) + 1).tolist()
    for first, end in zip([0, *breaks], [*breaks, len(rows)], strict=True) if len(rows) else ():
        sample = int(owner[first])
        start = int(rows[first] - plan.slice_start[sample])
        slices, kind = int(plan.slice_count[sample]), reading(image)
        yield Request(sample, str(paths[sample]), slices, start, start + end - first, kind, work)


def accept(filling: Filling, work: int, shard: Shard, wanted: npt.NDArray[np.bool_], writer: Writer) -> None:
    """Make a leased shard one that `take` fills. One that no image is read for is all zeros, and whole already."""
    of_shard = wanted[shard.start : shard.stop]
    rows = np.flatnonzero(of_shard)
    if len(rows):
        filling.pending[shard.index] = Accepted(work, shard, of_shard, shard.start + int(rows[-1]))
    else:
        target = filling.target
        writer.put(Finished(target, shard, of_shard, of_shard, zeros(target.stored_pass), (), now(), target.batch_size))


def take(
    filling: Filling,
    piece: Piece,
    first_row: int,
    shown: Shown,
    at: int,
    writer: Writer,
    tell: Callable[[str], None],
) -> None:
    """Put a piece's rows where the target wants them; compute each batch, and hand over each shard, when it is whole.

    first_row: of the piece in the store. at: of its first slice among all that are `shown`.
    """
    per_shard, size = filling.target.stored_pass.rows_per_shard, filling.target.stored_pass.batch_size
    for i in range(piece.stop - piece.start):
        row = first_row + i
        accepted = filling.pending.get(row // per_shard)
        if accepted is None or accepted.work != piece.work:
            continue
        if filling.current is not accepted:
            open_shard(filling, accepted)
        shard = accepted.shard
        batch, place = divmod(row - shard.start, size)
        if filling.batch != batch:
            compute(filling, tell)
            filling.batch = batch
        if piece.volume is None:
            filling.quarantined.append(Quarantined(row, piece.stage, piece.reason))
        else:
            put_image(filling, place, shown.input_of(filling.target)[at + i])
            filling.filled.append(row - shard.start)
        if row == accepted.last_row:
            compute(filling, tell)
            finish_shard(filling, accepted, writer)


def put_image(filling: Filling, place: int, image: torch.Tensor) -> None:
    """Into the current batch, which is zeros where nothing was put."""
    if filling.x is None:
        filling.x = torch.zeros((filling.target.stored_pass.batch_size, *image.shape), device=filling.device)
    filling.x[place] = image


def open_shard(filling: Filling, accepted: Accepted) -> None:
    """Begin a shard of zeros."""
    filling.current = accepted
    filling.rows = zeros(filling.target.stored_pass)
    filling.arrived = np.zeros_like(accepted.wanted)
    filling.quarantined = []
    filling.started = now()


def zeros(p: Pass) -> dict[str, npt.NDArray[Any]]:
    """The rows of a shard, all zero: what padding and quarantined rows stay."""
    return {a.path: np.zeros((p.rows_per_shard, *a.shape), dtype=a.dtype) for a in p.arrays}


def compute(filling: Filling, tell: Callable[[str], None]) -> None:
    """Run the current batch, always of full size; the rows that hold an image are kept when they have arrived."""
    if filling.filled:
        p = filling.target.stored_pass
        assert filling.x is not None
        tokens = filling.forward.tokens(filling.x, tell)
        rows = span(filling.filled)
        places = span([row % p.batch_size for row in filling.filled])
        sent = send_tokens(tokens, places, p.arrays, filling.target.backbone.info.name)
        filling.settle()  # the batch before, while this one is computed
        filling.then(partial(lay_down, sent, filling.rows, filling.arrived, rows))
        filling.x.zero_()
    filling.filled = []
    filling.batch = -1


def span(rows: list[int]) -> slice | torch.Tensor:
    """Ascending rows as an index: a slice where they follow each other, which copies nothing."""
    if rows[-1] - rows[0] == len(rows) - 1:
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows)


def lay_down(
    sent: Sent, into: dict[str, npt.NDArray[Any]], arrived: npt.NDArray[np.bool_], rows: slice | torch.Tensor
) -> None:
    """Put what arrives of a batch into the rows of its shard."""
    at = rows if isinstance(rows, slice) else rows.numpy()
    for path, values in sent.arrived():
        into[path][at] = values
    arrived[at] = True


def finish_shard(filling: Filling, accepted: Accepted, writer: Writer) -> None:
    """Hand the current shard, of which all is launched, to the writer when all of it has arrived."""
    target, shard, aside = filling.target, accepted.shard, tuple(filling.quarantined)
    rows, arrived, started, batch_size = filling.rows, filling.arrived, filling.started, target.batch_size

    def hand_over() -> None:
        writer.put(Finished(target, shard, accepted.wanted, arrived, rows, aside, started, batch_size))

    filling.then(hand_over)
    del filling.pending[shard.index]
    filling.current = None
