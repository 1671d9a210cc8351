"""Whole shards on their way to disk: encoded, put and committed by a thread, while the next ones are computed."""

import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import StoreError
from embedcache.extraction.share import Target
from embedcache.store.processes import this_host
from embedcache.store.writer import commit_shard, write_shard
from embedcache.types import Commit, Quarantined, Shard


@dataclass(frozen=True)
class Finished:
    """A whole shard on its way to disk. Raises StoreError where a row is missing: it would be committed as zeros."""

    target: Target
    shard: Shard
    wanted: npt.NDArray[np.bool_]
    """Shape (rows_per_shard,): rows that an image is read for."""
    arrived: npt.NDArray[np.bool_]
    """Shape (rows_per_shard,): rows whose tokens were computed; each other one that is wanted must be set aside."""
    rows: dict[str, npt.NDArray[Any]]
    quarantined: tuple[Quarantined, ...]
    started: str
    batch_size: int

    def __post_init__(self) -> None:
        accounted = self.arrived.copy()
        accounted[[bad.row - self.shard.start for bad in self.quarantined]] = True
        if not np.array_equal(accounted, self.wanted):
            raise StoreError(
                f"shard {self.shard.index} of pass {self.target.stored_pass.id} of store {self.target.files.path.name}: "
                f"{int((self.wanted & ~accounted).sum())} of its {int(self.wanted.sum())} rows did not arrive, so it was "
                "not committed. What was committed stays; run the same command again, and please report this."
            )


class Writer:
    """A thread that encodes, puts and commits whole shards while the next ones are computed."""

    def __init__(
        self,
        versions: dict[str, str],
        device: str,
        settle: Callable[[], None],
        committed: Callable[[Target, Shard], None],
    ) -> None:
        self.versions = versions
        self.device = device
        self.settle = settle
        self.committed = committed
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
            batch_size=finished.batch_size,
            device=self.device,
            versions=self.versions,
            objects=digests,
            host=f"{this_host().split('/')[0]}:{os.getpid()}",
            started=finished.started,
            finished=now(),
        )
        self.settle()
        commit_shard(objects, p, commit)
        self.committed(finished.target, shard)


def now() -> str:
    """UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
