"""The exclusive lock of a store: one process at a time plans, extends and finalises it (FORMAT.md, section 10).

Claims are numbered. Each is created only if absent, so exactly one process gets the next number, and a claim that
was taken for dead can never be confused with its successor. Nothing depends on two hosts' clocks agreeing: a holder on
another host is dead when its counter stood still for a time by the observer's own monotonic clock. A holder that wakes
after that finds its fence closed before it replaces anything.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from embedcache.errors import StoreBusyError
from embedcache.store.objects import Objects
from embedcache.store.processes import lives, process_start, this_host

HEARTBEAT_SECONDS = 5.0
TIME_TO_LIVE_SECONDS = 60.0

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Claim:
    """Who holds a lock, as its file says."""

    host: str
    pid: int
    process_start: str
    """Of the pid, so that a recycled number is not taken for the holder."""
    beat: int
    released: bool = False

    @property
    def alive(self) -> bool | None:
        """Whether the holder lives: known on the same host, None elsewhere."""
        return False if self.released else lives(self.host, self.pid, self.process_start)

    @property
    def who(self) -> str:
        """The holder, for a message."""
        return f"process {self.pid} on host {self.host.split('/')[0]}"


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds."""

    objects: Objects
    epoch: int
    name: str

    def check(self) -> None:
        """The fence. Raises StoreBusyError if another process has taken the lock over meanwhile."""
        newest = _newest(self.objects)
        if newest is not None and newest[0] != self.epoch:
            raise StoreBusyError(
                f"{self.name} was taken over by {newest[1].who} while this process stood still; "
                "nothing more was written. Run the same command again."
            )


@contextmanager
def exclusive(folder: Path, name: str, wait: bool = False, notify: Notify | None = None) -> Iterator[Lock]:
    """Hold the lock in `folder` while the block runs.

    Raises StoreBusyError, naming the holder's host and pid, if another process lives and `wait` is off, or if it gives no
    sign of life though it exists. `notify` receives one line when it starts to wait. `name` is what messages call the store.
    """
    folder.mkdir(parents=True, exist_ok=True)
    objects = Objects(folder, folder / "claims")  # not the store's own scratch, which its holder clears
    epoch = _claim(objects, name, wait, notify)
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(objects, epoch, stop), daemon=True)
    beating.start()
    try:
        yield Lock(objects, epoch, name)
    finally:
        stop.set()
        beating.join()
        _release(objects, epoch)


def holder(folder: Path) -> Claim | None:
    """The claim that counts, or None when nobody holds the lock (as far as this host can know)."""
    found = _newest(Objects(folder, folder / "claims"))
    return found[1] if found and found[1].alive is not False else None


def _claim(objects: Objects, name: str, wait: bool, notify: Notify | None) -> int:
    watched: tuple[int, Claim] | None = None
    since = time.monotonic()
    while True:
        newest = _newest(objects)
        if newest is None or newest[1].alive is False or _silent(newest, watched, since):
            epoch = newest[0] + 1 if newest else 1
            if objects.put_if_absent(_lock_name(epoch), _encode(_own_claim())):
                for older in objects.list_names(""):
                    if older.startswith("lock-") and older < _lock_name(epoch):
                        objects.delete(older)
                return epoch
            continue
        claim = newest[1]
        if not wait and claim.alive:
            raise StoreBusyError(f"{name} is being changed by {claim.who}; wait for it, then run again.")
        if newest != watched:
            if notify and watched is None:
                notify(f"waiting for {claim.who}, which holds {name}")
            elif not wait and watched is not None:  # elsewhere, and its counter moves
                raise StoreBusyError(f"{name} is being changed by {claim.who}; wait for it, then run again.")
            watched, since = newest, time.monotonic()
        elif claim.alive and time.monotonic() - since > TIME_TO_LIVE_SECONDS:
            raise StoreBusyError(
                f"{claim.who} holds {name} and gives no sign of life; end that process, then run again."
            )
        time.sleep(min(0.2, TIME_TO_LIVE_SECONDS / 5))


def _silent(newest: tuple[int, Claim], watched: tuple[int, Claim] | None, since: float) -> bool:
    """Whether a holder on another host has not raised its counter within the time to live, by this host's own clock."""
    return newest[1].alive is None and newest == watched and time.monotonic() - since > TIME_TO_LIVE_SECONDS


def _release(objects: Objects, epoch: int) -> None:
    try:
        objects.put(_lock_name(epoch), _encode(replace(_own_claim(), released=True)))
    except OSError:
        objects.delete(_lock_name(epoch))  # a full disk takes no word of release, but lets go of the claim


def _beat(objects: Objects, epoch: int, stop: threading.Event) -> None:
    claim = _own_claim()
    while not stop.wait(HEARTBEAT_SECONDS):
        claim = replace(claim, beat=claim.beat + 1)
        with contextlib.suppress(OSError):  # on a full disk a beat is missed; the run itself says what is wrong
            objects.put(_lock_name(epoch), _encode(claim))


def _newest(objects: Objects) -> tuple[int, Claim] | None:
    for name in sorted(objects.list_names(""), reverse=True):
        if name.startswith("lock-") and name.endswith(".json"):
            try:
                return int(name[5:-5]), Claim(**json.loads(objects.get(name)))
            except FileNotFoundError:  # a successor tidied up between the listing and the reading
                return _newest(objects)
    return None


def _lock_name(epoch: int) -> str:
    return f"lock-{epoch:08d}.json"


def _own_claim() -> Claim:
    return Claim(this_host(), os.getpid(), process_start(os.getpid()), beat=0)


def _encode(claim: Claim) -> bytes:
    return json.dumps(asdict(claim)).encode()
