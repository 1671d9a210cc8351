"""One decode process as its pool sees it: the process, its slots of shared memory, and what it was asked."""

import mmap
import os
import subprocess
import sys
import tempfile
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from embedcache.extraction.pieces import Request
from embedcache.store.processes import child_environment

FIRST_SLOT_BYTES = 2**20


@dataclass
class Slot:
    """A piece of shared memory."""

    fd: int
    size: int
    memory: mmap.mmap

    @classmethod
    def make(cls) -> "Slot":
        """An unlinked file in memory where the system has one for that, else in the temporary folder."""
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryFile(dir=shm) as file:
            fd = os.dup(file.fileno())
        os.set_inheritable(fd, True)
        os.ftruncate(fd, FIRST_SLOT_BYTES)
        return cls(fd, FIRST_SLOT_BYTES, mmap.mmap(fd, FIRST_SLOT_BYTES))

    def grow(self, size: int) -> None:
        """Make room for a slice of `size` bytes."""
        os.ftruncate(self.fd, size)
        self.size = size
        self.memory = mmap.mmap(self.fd, size)

    def close(self) -> None:
        """Let the memory go. What a piece still shows of it stays until the piece is gone."""
        os.close(self.fd)
        with suppress(BufferError):  # a piece's pixels still lie in it: it goes with them
            self.memory.close()


@dataclass
class Ticket:
    """A request on its way, in the order of the whole run."""

    number: int
    request: Request
    decoder: int
    slot: Slot | None = None
    answer: dict[str, Any] | None = None


@dataclass
class Decoder:
    """One child process with its slots and what it was asked, oldest first."""

    process: subprocess.Popen[bytes]
    slots: list[Slot]
    free: list[Slot]
    waiting: deque[Ticket] = field(default_factory=deque)
    """What it is to be asked when it has a free slot, oldest first."""
    asked: deque[Ticket] = field(default_factory=deque)
    unread: bytes = b""
    """The beginning of an answer whose end has not arrived."""
    since: float = 0.0
    """When the oldest open request became the oldest."""

    @classmethod
    def start(cls, slots: list[Slot], memory: int) -> "Decoder":
        """A process that may take `memory` bytes, with all of its slots free."""
        process = subprocess.Popen(
            [sys.executable, "-m", "embedcache.extraction.decoder", str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[slot.fd for slot in slots],
            env=child_environment(OMP_NUM_THREADS="1"),  # one thread a process: the pool is the parallelism
        )
        return cls(process, slots, list(slots))

    @property
    def answers(self) -> IO[bytes]:
        """Where its answers arrive, a JSON line each; closed when it died."""
        assert self.process.stdout is not None
        return self.process.stdout

    def ask(self, message: str) -> None:
        """Send a request, a JSON document. One that died is asked in vain: its pool sees that its answers are closed."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(message.encode() + b"\n")
            self.process.stdin.flush()

    def end(self) -> None:
        """Kill it. Its slots stay."""
        assert self.process.stdin is not None
        self.process.kill()
        self.process.wait()
        self.answers.close()
        with suppress(BrokenPipeError):  # a message that it did not live to read is still buffered, and flushed here
            self.process.stdin.close()
