"""What this process does next, agreed by leases with every other one that fills the same stores."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from embedcache.store.leases import Lease, Worker, WorkerFile, cut
from embedcache.store.writer import StoreFiles, is_committed, pending_shards
from embedcache.types import ImageRecipe, Pass, Plan, Shard

if TYPE_CHECKING:
    from embedcache.backbones import Backbone

RECOUNT_SECONDS = 10.0
"""How often all commits are listed again for the progress of everybody's work together."""

MOST_LEASES = 4
"""What is taken at once begins within so many times the rows of the widest lease: others must find something to do."""


@dataclass(eq=False)
class Target:
    """One pass of one store that lacks shards, and the backbone that fills it. Equal only to itself."""

    files: StoreFiles
    image: ImageRecipe
    stored_pass: Pass
    backbone: "Backbone"
    input_name: str
    """Digest of `image`: targets of one input name share the preprocessed batch."""
    batch_size: int
    """What is computed at once: the pass's, or less once memory ran out."""

    def pending(self, plan: Plan) -> list[Shard]:
        """Its planned shards without a commit, by whomever."""
        return pending_shards(self.files.objects, plan, self.stored_pass)


@dataclass(frozen=True)
class Work:
    """Shards of one target that this process has leased and are pending."""

    target: Target
    shards: tuple[Shard, ...]


@dataclass(eq=False)
class _Entry:
    target: Target
    lease: Lease
    worker: Worker
    open_shards: set[int]
    """Of a lease that is ours: shards that are not committed yet."""


class Share:
    """The pending leases of several targets with one plan, handed out in the order of their rows."""

    def __init__(
        self, plan: Plan, wanted: npt.NDArray[np.bool_], targets: Sequence[Target], workers: Sequence[Worker]
    ) -> None:
        self.plan = plan
        self.wanted = wanted
        """Shape (rows,): rows of which an image is read."""
        self.targets = targets
        self.entries = [
            _Entry(target, lease, worker, set())
            for target, worker in zip(targets, workers, strict=True)
            for lease in cut(plan, target.stored_pass)
        ]
        self.entries.sort(key=lambda e: e.lease.start)
        self.at = 0
        self.mine: dict[tuple[Target, int], _Entry] = {}
        """Target and number of a shard that is ours → the lease that it belongs to."""
        self.pending_at_first = self._pending()
        self.ours = np.zeros(plan.rows, dtype=np.bool_)
        """Rows that this process has leased, at one time or another."""
        self.counted = 0
        self.counted_until = 0.0

    def next(self) -> list[Work]:
        """The next free lease, with those that begin within its rows, or within theirs; [] if none is free now."""
        tried = 0
        while self.entries and tried < len(self.entries):
            if self.at >= len(self.entries):
                self.at = 0
            taken = self._try_next()
            if taken is None:
                continue  # it was done, and is no entry any more
            tried += 1
            if taken:
                first = self.entries[self.at].lease
                self.at += 1
                return [taken, *self._beside(first)]
            self.at += 1
        return []

    def _beside(self, first: Lease) -> list[Work]:
        """Where leases of targets end at different rows, taken until they end together: no row is decoded twice."""
        found = []
        stop = first.stop
        # near ends of volumes they may never do so; the rest is for others
        most = first.start + MOST_LEASES * max(entry.lease.stop - entry.lease.start for entry in self.entries)
        while self.at < len(self.entries) and self.entries[self.at].lease.start < min(stop, most):
            lease = self.entries[self.at].lease
            taken = self._try_next()
            if taken is None:
                continue
            self.at += 1
            if taken:
                found.append(taken)
                stop = max(stop, lease.stop)
        return found

    def _try_next(self) -> Work | Literal[False] | None:
        """The work of the entry that is next; False if another has it, or we already; None if it was done and is gone."""
        entry = self.entries[self.at]
        if entry.open_shards:
            return False
        objects, p = entry.target.files.objects, entry.target.stored_pass
        if all(is_committed(objects, p, shard) for shard in entry.lease.shards):
            del self.entries[self.at]
            return None
        if not entry.worker.take(entry.lease.name):
            return False
        # looked at again: whoever had it may have committed, and let go, in between
        pending = tuple(shard for shard in entry.lease.shards if not is_committed(objects, p, shard))
        if not pending:
            entry.worker.give(entry.lease.name)
            del self.entries[self.at]
            return None
        entry.open_shards = {shard.index for shard in pending}
        self.ours[entry.lease.start : entry.lease.stop] = True
        self.mine |= {(entry.target, shard.index): entry for shard in pending}
        return Work(entry.target, pending)

    def committed(self, target: Target, shard: Shard) -> None:
        """Note that a shard is committed; its lease goes back with its last one. Called by the writer's thread."""
        entry = self.mine.pop((target, shard.index))
        entry.open_shards.discard(shard.index)
        if not entry.open_shards:
            entry.worker.give(entry.lease.name)

    def total(self) -> int:
        """Rows that this process has read or will, as of a few seconds ago: what was pending, less what others did of it."""
        started = time.monotonic()
        if started >= self.counted_until:
            theirs = self.pending_at_first & ~self._pending() & ~self.ours
            self.counted = int(self.pending_at_first.sum() - theirs.sum())
            # of 10^5 shards a listing takes a while; it may take 2% of the time
            self.counted_until = time.monotonic() + max(RECOUNT_SECONDS, 50 * (time.monotonic() - started))
        return self.counted

    def _pending(self) -> npt.NDArray[np.bool_]:
        """Shape (rows,): wanted rows that are pending in any target."""
        pending = np.zeros(self.plan.rows, dtype=np.bool_)
        for target in self.targets:
            for shard in target.pending(self.plan):
                pending[shard.start : shard.stop] = True
        return pending & self.wanted

    def finished(self) -> bool:
        """Whether every shard of every target is committed, by whomever."""
        return not any(target.pending(self.plan) for target in self.targets)

    def others(self) -> list[WorkerFile]:
        """The living workers that hold what is left."""
        found: dict[str, WorkerFile] = {}
        for worker in {id(e.worker): e.worker for e in self.entries}.values():
            held = worker.holders()
            for entry in self.entries:
                if entry.worker is worker and entry.lease.name in held:
                    found[held[entry.lease.name].who] = held[entry.lease.name]
        return list(found.values())
