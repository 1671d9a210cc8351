"""Whether a file system does what a store needs of it, tried with real files and real processes.

What may fail on a network file system or in a container's layer: a rename that is not atomic, a hard link that two
processes both win, a listing that is stale, a lock that is not shared. Run as `python -m embedcache.store.trial ROLE FOLDER …`
this module is one of those processes: a plain child, so that a caller's script needs no `__main__` guard.
"""

import contextlib
import errno
import fcntl
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedcache.errors import InputError
from embedcache.store.objects import Objects, sync_folder
from embedcache.store.processes import child_environment

RACERS = 8
ROUNDS = 50
REPLACEMENTS = 200
OBJECT_BYTES = 64 * 2**10
PATIENCE = 60.0
"""Seconds that a trial may take; then its processes are ended, and it has failed."""


@dataclass(frozen=True)
class Trial:
    """One thing that a store needs, and whether the file system does it."""

    name: str
    ok: bool
    meaning: str
    """What follows for the user."""
    seen: str = ""
    """What went wrong, "" where nothing did."""


def try_file_system(folder: Path) -> tuple[tuple[Trial, ...], int]:
    """All trials in a temporary folder inside `folder`, which is removed; and the free bytes.

    Raises InputError if the folder is not there, or nothing can be written into it.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; make it first, or name the folder that a cache is to lie in.")
    try:
        place = Path(tempfile.mkdtemp(prefix=".embedcache-trial-", dir=folder))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise InputError(f"nothing can be written into {folder} ({reason}); name a folder that can be.") from None
    try:
        found = tuple(_tried(place / str(i), *row) for i, row in enumerate(TRIALS))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return found, shutil.disk_usage(folder).free


def _tried(place: Path, name: str, work: Callable[[Path], str], good: str, bad: str) -> Trial:
    place.mkdir()
    try:
        seen = work(place)
    except ChildProcessError as error:
        seen = str(error.strerror)
    except OSError as error:
        seen = os.strerror(error.errno or 0)
    return Trial(name, not seen, bad if seen else good, seen)


# --- what is tried: each returns what went wrong, "" where nothing did ------------------------------


def rename_replaces(place: Path) -> str:
    """A file is replaced while another process reads it, which sees the old bytes or the new, whole."""
    objects = Objects(place / "store", place / "scratch")
    objects.put("object", bytes([0]) * OBJECT_BYTES)
    with Child("read", place / "store" / "object") as reader:
        reader.line()  # it has read the file once
        for i in range(1, REPLACEMENTS):
            objects.put("object", bytes([i % 256]) * OBJECT_BYTES)
        reader.say("stop")
        torn = reader.line()
    if torn != "whole":
        return torn
    newest = objects.get("object")
    return "" if newest == bytes([(REPLACEMENTS - 1) % 256]) * OBJECT_BYTES else "the file does not hold the last bytes"


def sync_works(place: Path) -> str:
    """A file and its folder are synced."""
    with open(place / "file", "wb") as file:
        file.write(b"bytes")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(place)
    return ""


def link_is_exclusive(place: Path) -> str:
    """A hard link to a name that is taken fails, and leaves the file as it was."""
    objects = Objects(place / "store", place / "scratch")
    if not objects.put_if_absent("name", b"first"):
        return "a free name counted as taken"
    if objects.put_if_absent("name", b"second"):
        return "a taken name was given again"
    return "" if objects.get("name") == b"first" else "the first file was changed"


def one_racer_wins(place: Path) -> str:
    """Of many processes that want one name, exactly one gets it, every time."""
    children = [Child("race", place, str(i)) for i in range(RACERS)]
    try:
        for child in children:
            child.line()  # it is ready
        for k in range(ROUNDS):
            for child in children:
                child.say(f"name-{k}")
            won = [i for i, child in enumerate(children) if child.line() == "won"]
            if len(won) != 1:
                return f"in round {k + 1} of {ROUNDS}, {len(won)} of {RACERS} processes got the name"
            if (place / "store" / f"name-{k}").read_bytes() != str(won[0]).encode():
                return f"in round {k + 1} of {ROUNDS}, the file is not the winner's"
    finally:
        for child in children:
            child.end()
    return ""


def listing_is_current(place: Path) -> str:
    """A listing shows at once what this process and another one made and removed."""
    with Child("make", place) as maker:
        maker.line()  # it is ready
        for k in range(ROUNDS):
            (place / f"mine-{k}").write_bytes(b"")
            if f"mine-{k}" not in os.listdir(place):
                return "a file of this process was not listed at once"
            maker.say(f"theirs-{k}")
            maker.line()
            if f"theirs-{k}" not in os.listdir(place):
                return "a file of another process was not listed at once"
            (place / f"theirs-{k}").unlink()
            if f"theirs-{k}" in os.listdir(place):
                return "a removed file was still listed"
    return ""


def lock_is_shared(place: Path) -> str:
    """An advisory lock that another process holds is not given, and is free when that process has died."""
    with open(place / "lock", "wb") as file:
        with Child("lock", place / "lock") as holder:
            holder.line()  # it holds the lock
            if _locks(file.fileno()):
                return "two processes hold one lock"
        end = time.monotonic() + PATIENCE
        while not _locks(file.fileno()):  # the system may take a moment to clear up after the dead
            if time.monotonic() > end:
                return "the lock of a process that died is still held"
            time.sleep(0.05)
    return ""


def _locks(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


TRIALS: tuple[tuple[str, Callable[[Path], str], str, str], ...] = (
    (
        "replace by rename",
        rename_replaces,
        "a reader sees a file as it was or as it is, never half of it",
        "readers may see half a file while it is replaced; keep the cache on another file system",
    ),
    (
        "sync",
        sync_works,
        "what was committed survives a power loss, as far as the disk keeps its word",
        "a power loss may take what was committed; keep the cache on another file system",
    ),
    (
        "exclusive create",
        link_is_exclusive,
        "a name is given once, by hard link",
        "commits and locks need hard links; keep the cache on another file system",
    ),
    (
        f"{RACERS} processes, one name",
        one_racer_wins,
        "several extractions can share a cache",
        "two extractions may both believe that a shard is theirs; run one at a time, or use another file system",
    ),
    (
        "listing",
        listing_is_current,
        "a resume sees at once what others committed",
        "a resume may not see what others committed and do it again; run one extraction at a time",
    ),
    (
        "lock",
        lock_is_shared,
        "the label table can be written by several processes",
        "two commands may write the label table at once and lose rows; run one command at a time",
    ),
)


# --- the other processes ----------------------------------------------------------------------------


class Child:
    """This module as a process of its own: lines in, lines out. It ends when its stdin closes, or is ended here."""

    def __init__(self, role: str, *arguments: Path | str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "embedcache.store.trial", role, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=child_environment(),
        )
        self.watchdog = threading.Timer(PATIENCE, self.process.kill)
        self.watchdog.daemon = True
        self.watchdog.start()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def say(self, line: str) -> None:
        """Send a line. Raises OSError if the process is gone."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def line(self) -> str:
        """The next line that it says. Raises ChildProcessError if it ended."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline().strip()
        if not said:
            raise ChildProcessError(errno.ECHILD, "a process of the trial failed or gave no answer")
        return said

    def end(self) -> None:
        """Kill it."""
        self.watchdog.cancel()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # a line that it did not live to read
                pipe.close()


def read(path: str) -> None:
    """Read `path` until a line is sent; say whether it was ever torn."""
    print("ready" if _whole(path) else "torn at once", flush=True)
    whole = True
    while not select.select([sys.stdin], [], [], 0)[0]:
        whole = whole and _whole(path)
    print("whole" if whole else "a reader saw half a file", flush=True)


def _whole(path: str) -> bool:
    data = Path(path).read_bytes()
    return len(data) == OBJECT_BYTES and data == data[:1] * OBJECT_BYTES


def race(folder: str, number: str) -> None:
    """For each name that is sent, try to get it."""
    objects = Objects(Path(folder) / "store", Path(folder) / "scratch")
    print("ready", flush=True)
    for line in sys.stdin:
        print("won" if objects.put_if_absent(line.strip(), number.encode()) else "lost", flush=True)


def make(folder: str) -> None:
    """Make each file that is sent."""
    print("ready", flush=True)
    for line in sys.stdin:
        (Path(folder) / line.strip()).write_bytes(b"")
        print("made", flush=True)


def lock(path: str) -> None:
    """Hold the lock until killed."""
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        print("locked", flush=True)
        sys.stdin.read()


ROLES: dict[str, Callable[..., None]] = {"read": read, "race": race, "make": make, "lock": lock}

if __name__ == "__main__":
    ROLES[sys.argv[1]](*sys.argv[2:])
