"""Leases: how several processes, on one host or on many, share the shards of a store (FORMAT.md, section 10).

A lease only saves work; nothing depends on it. Shards are put whole and committed only if absent, so two workers that
both believe they hold a lease write the same bytes twice. A worker is known by one file whose counter it raises; it is
dead when its process is known dead on this host, or when the counter stood still by the observer's own monotonic clock.
"""

import contextlib
import json
import os
import secrets
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from embedcache.errors import StoreBusyError
from embedcache.store import locks
from embedcache.store.objects import Objects
from embedcache.store.processes import lives, own_token, process_start, this_host
from embedcache.types import Pass, Plan, Shard

LEASE_ROWS = 256
"""A lease has at least so many rows, or one shard: enough to keep a volume open over several shards."""
FEWEST_LEASES = 32
"""Of a small plan leases are shorter, so that there are so many to share, if there are so many shards."""


@dataclass(frozen=True)
class Lease:
    """A run of consecutive planned shards of one pass, which one worker takes."""

    pass_id: str
    shards: tuple[Shard, ...]

    @property
    def name(self) -> str:
        """The same for every process that sees the same plan."""
        return f"{self.pass_id}-{self.shards[0].index:08d}"

    @property
    def start(self) -> int:
        """Its first row."""
        return self.shards[0].start

    @property
    def stop(self) -> int:
        """The row after its last one."""
        return self.shards[-1].stop


def cut(plan: Plan, p: Pass) -> list[Lease]:
    """The leases of a pass: runs of planned shards of at least so many rows, less than twice that, cut near ends of volumes.

    A function of the plan and the pass alone, so that all workers mean the same by a name.
    """
    shards = list(plan.shards_of(p))
    least = max(1, min(LEASE_ROWS // p.rows_per_shard, len(shards) // FEWEST_LEASES))
    found, at = [], 0
    while at < len(shards):
        ends = range(at + least, min(at + 2 * least, len(shards) + 1))
        # how much of a volume would be opened twice; of equal ends the first
        end = min(ends, key=lambda k: _cut_volume(plan, shards[k - 1].stop), default=len(shards))
        found.append(Lease(p.id, tuple(shards[at:end])))
        at = end
    return found


def _cut_volume(plan: Plan, row: int) -> int:
    """Slices on the smaller side of a cut before `row`; 0 where no volume is cut."""
    position = int(plan.slice_index[row]) if row < plan.rows else 0
    if position <= 0:
        return 0
    sample = int(plan.slice_start.searchsorted(row, side="right")) - 1
    return min(position, int(plan.slice_count[sample]) - position)


@dataclass(frozen=True)
class WorkerFile:
    """Who works on a store, as its file says."""

    host: str
    pid: int
    process_start: str
    beat: int

    @property
    def who(self) -> str:
        """The worker, for a message."""
        return f"process {self.pid} on host {self.host.split('/')[0]}"


class Watch:
    """Which workers live, as far as one observer can tell."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.seen: dict[str, tuple[int, float]] = {}
        """Worker → the counter last seen, and when it was first seen so, by this process's monotonic clock."""

    def living(self, worker: str) -> WorkerFile | None:
        """The worker's file if it may live, else None."""
        try:
            found = WorkerFile(**json.loads(self.objects.get(_worker_name(worker))))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        if lives(found.host, found.pid, found.process_start) is False:
            return None
        beat, since = self.seen.get(worker, (-1, 0.0))
        if beat != found.beat:
            self.seen[worker] = (found.beat, time.monotonic())
            return found
        return found if time.monotonic() - since <= locks.TIME_TO_LIVE_SECONDS else None


class Worker:
    """This process as a worker on one store: `with Worker(folder) as worker: if worker.take(lease): …`.

    Any thread may call it. `folder` is the store's folder of leases.
    """

    def __init__(self, folder: Path) -> None:
        self.objects = Objects(folder, folder / "claims")
        self.id = f"{own_token()}-{secrets.token_hex(4)}"
        self.watch = Watch(self.objects)
        self.mine: set[str] = set()
        self.guard = threading.Lock()
        self.stopping = threading.Event()
        self.beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Worker":
        self._put(0)
        self.beating.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.beating.join()
        with contextlib.suppress(OSError):  # what can not be removed now is dead with this process
            for lease in list(self.mine):
                self.give(lease)
            self.objects.delete(_worker_name(self.id))

    def take(self, lease: str) -> bool:
        """Try to get a lease. False if a living worker has it, this one too."""
        with self.guard:
            epoch, owner = self._owners().get(lease, (0, ""))
            if owner and self.watch.living(owner):
                return False
            if not self.objects.put_if_absent(_lease_name(lease, epoch + 1), self.id.encode()):
                return False
            if epoch:
                self.objects.delete(_lease_name(lease, epoch))
            self.mine.add(lease)
            return True

    def give(self, lease: str) -> None:
        """Let go of a lease that is done. If it was taken over meanwhile, it stays the other's."""
        with self.guard:
            self.mine.discard(lease)
            epoch, owner = self._owners().get(lease, (0, ""))
            if owner == self.id:
                self.objects.delete(_lease_name(lease, epoch))

    def holders(self) -> dict[str, WorkerFile]:
        """Lease → the living worker that has it, other than this one."""
        with self.guard:
            found = {}
            for lease, (_, owner) in self._owners().items():
                if owner != self.id and (living := self.watch.living(owner)):
                    found[lease] = living
            return found

    def _owners(self) -> dict[str, tuple[int, str]]:
        """Lease → (the number of its newest claim, the worker that made it)."""
        found: dict[str, tuple[int, str]] = {}
        for file in self.objects.list_names("taken"):
            lease, _, number = file.rpartition(".")
            if number.isdigit() and int(number) > found.get(lease, (0, ""))[0]:
                with contextlib.suppress(FileNotFoundError):  # given back between the listing and the reading
                    found[lease] = (int(number), self.objects.get(f"taken/{file}").decode())
        return found

    def _beat(self) -> None:
        beat = 0
        while not self.stopping.wait(locks.HEARTBEAT_SECONDS):
            beat += 1
            with contextlib.suppress(OSError):  # on a full disk a beat is missed; the run itself says what is wrong
                self._put(beat)

    def _put(self, beat: int) -> None:
        file = WorkerFile(this_host(), os.getpid(), process_start(os.getpid()), beat)
        self.objects.put(_worker_name(self.id), json.dumps(asdict(file)).encode())


def workers(folder: Path, watch: Watch | None = None) -> list[WorkerFile]:
    """Those that work on the store with this folder of leases, as far as this host can know."""
    observer = watch or Watch(Objects(folder, folder / "claims"))
    names = [name.removesuffix(".json") for name in observer.objects.list_names("workers")]
    return [found for name in names if (found := observer.living(name))]


def refuse_workers(folder: Path, name: str) -> None:
    """Raise StoreBusyError if a process fills the store, which messages call `name`. Sure only under the store's lock.

    Whoever begins to fill a store says so before it lets go of that lock.
    """
    for worker in workers(folder):
        raise StoreBusyError(f"{name} is being filled by {worker.who}; wait for it or stop it first, then run again.")


def forget_the_dead(folder: Path) -> None:
    """Remove the files of workers whose processes of this host are gone, and the leases that they had."""
    objects = Objects(folder, folder / "claims")
    watch = Watch(objects)
    for file in objects.list_names("workers"):
        if watch.living(file.removesuffix(".json")) is None:
            objects.delete(f"workers/{file}")
    for file in objects.list_names("taken"):
        with contextlib.suppress(FileNotFoundError):
            if watch.living(objects.get(f"taken/{file}").decode()) is None:
                objects.delete(f"taken/{file}")
    objects.clear_scratch()


def _worker_name(worker: str) -> str:
    return f"workers/{worker}.json"


def _lease_name(lease: str, number: int) -> str:
    return f"taken/{lease}.{number}"
