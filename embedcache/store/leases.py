"""The exclusive lock of a store: one process plans, extracts and finalises at a time (FORMAT.md, section 10).

Claims are numbered. Each is created only if absent, so exactly one process gets the next number, and a claim that
was taken for dead can never be confused with its successor. Nothing depends on two hosts' clocks agreeing.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from embedcache.errors import StoreBusyError
from embedcache.store.objects import Objects

HEARTBEAT_SECONDS = 5.0
TIME_TO_LIVE_SECONDS = 60.0


@dataclass(frozen=True)
class Claim:
    """Who holds a store, as its lock file says."""

    host: str
    pid: int
    process_start: str
    """Of the pid, so that a recycled number is not taken for the holder."""
    beat: int
    released: bool = False


def this_host() -> str:
    """A name for this machine and boot and process namespace: pids mean something only within it."""
    parts = [socket.gethostname()]
    for source in ("/proc/sys/kernel/random/boot_id",):
        if os.path.exists(source):
            parts.append(Path(source).read_text().strip()[:8])
    if os.path.exists("/proc/self/ns/pid"):
        parts.append(os.readlink("/proc/self/ns/pid").strip("pid:[]"))
    return "/".join(parts)


def process_start(pid: int) -> str:
    """When process `pid` began, in the kernel's own units; "" if it is gone or the system does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = stat[stat.rindex(")") + 2 :].split()
    return "" if state == "Z" else fields[18]


def alive(claim: Claim) -> bool | None:
    """Whether the holder lives: known on the same host, None elsewhere."""
    if claim.released:
        return False
    if claim.host != this_host():
        return None
    if os.path.isdir("/proc/self"):
        return process_start(claim.pid) == claim.process_start != ""
    try:
        os.kill(claim.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def exclusive(
    folder: Path, name: str, wait: bool = False, notify: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold the lock in `folder` while the block runs.

    Raises StoreBusyError, naming the holder's host and pid, if another process lives and `wait` is off. `notify`
    receives one line when it starts to wait. `name` is what messages call the locked thing.
    """
    objects = Objects(folder, folder / "claims")  # not the store's own scratch, which its holder clears
    epoch = _claim(objects, name, wait, notify)
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(objects, epoch, stop), daemon=True)
    beating.start()
    try:
        yield
    finally:
        stop.set()
        beating.join()
        _release(objects, epoch)


def holder(folder: Path) -> Claim | None:
    """The claim that counts, or None when nobody holds the lock (as far as this host can know)."""
    found = _newest(Objects(folder, folder / "claims"))
    return found[1] if found and alive(found[1]) is not False else None


def _claim(objects: Objects, name: str, wait: bool, notify: Callable[[str], None] | None) -> int:
    said = False
    while True:
        newest = _newest(objects)
        if newest is not None:
            epoch, claim = newest
            living = alive(claim)
            if living is None and not _beats(objects, epoch, claim, name, notify):
                living = False
            if living is not False:
                if not wait:
                    raise StoreBusyError(
                        f"{name} is being written by process {claim.pid} on host {claim.host.split('/')[0]}; "
                        "wait for it, or run again with --wait."
                    )
                if notify and not said:
                    notify(f"waiting for process {claim.pid} on host {claim.host.split('/')[0]}, which holds {name}")
                    said = True
                time.sleep(1.0)
                continue
        epoch = newest[0] + 1 if newest else 1
        if objects.put_if_absent(_lock_name(epoch), _encode(_own_claim())):
            for older in objects.list_names(""):
                if older.startswith("lock-") and older < _lock_name(epoch):
                    objects.delete(older)
            return epoch


def _release(objects: Objects, epoch: int) -> None:
    try:
        objects.put(_lock_name(epoch), _encode(replace(_own_claim(), released=True)))
    except OSError:
        objects.delete(_lock_name(epoch))  # a full disk takes no word of release, but lets go of the claim


def _beats(objects: Objects, epoch: int, claim: Claim, name: str, notify: Callable[[str], None] | None) -> bool:
    """Whether a holder on another host raises its counter within the time to live, by this host's own clock."""
    if notify:
        notify(
            f"{name} is held from host {claim.host.split('/')[0]}; watching its heartbeat for {TIME_TO_LIVE_SECONDS:.0f} s"
        )
    end = time.monotonic() + TIME_TO_LIVE_SECONDS
    while time.monotonic() < end:
        time.sleep(min(1.0, TIME_TO_LIVE_SECONDS / 5))
        newest = _newest(objects)
        if newest is None or newest[0] != epoch or newest[1] != claim:
            return newest is not None and not newest[1].released
    return False


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
