"""A pool of decode processes: pieces of samples come back in the order in which they were asked for.

Pixels travel in their stored dtype through slots of shared memory (unlinked files, so that a killed run leaves nothing
behind). A process that hangs or dies is replaced, and what it was working on is set aside with the reason.

Main memory: what is on its way holds at most BUFFER_BYTES together, or one slice per process where slices are larger than that
allows; for an encoder of volumes whole ones take the place of slices. Beside it each process holds one open image: its file's
bytes and the last piece, and the whole volume decoded where it is cut across its stored slices, windowed over all of them or
asked for as a whole; of a `.npz`, at most `images.npz.HELD_BYTES` of an unpacked array. More than `memory.decoder_limit` no
process gets: what needs more is set aside.
"""

import json
import mmap
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from embedcache.extraction.memory import decoder_limit
from embedcache.images.options import ImageOptions
from embedcache.types import Calibration, ImageRecipe, Volume, Window

PIECE_SLICES = 32
"""A volume is asked for in pieces, so that its first slices are computed while the next are decoded."""
FIRST_SLOT_BYTES = 2**20
BUFFER_BYTES = 2**30
"""What all slots together may hold, unless single slices are larger."""
UNSEEN_SECONDS = 1.0
"""A longer time between two looks at the decoders is not theirs: this process was suspended, perhaps with them, or busy."""


@dataclass(frozen=True)
class Request:
    """Slices [start, stop) of one sample."""

    sample: int
    path: str
    slices: int
    """How many the plan says it has."""
    start: int
    stop: int
    kind: Literal["read", "volume", "volume-in-mm", "count", "examine", "measure"] = "read"
    """`volume`: the one row is the whole image, axial; `volume-in-mm`: and its file must say how far apart its voxels are.
    `count`, `examine` (also its digest) and `measure` (also the bytes of a slice) give no pixels but `Piece.found`."""
    work: int = 0
    """Whom it is read for: a number that its pieces bear too."""


WITHOUT_PIXELS = ("count", "examine", "measure")


@dataclass(frozen=True)
class Found:
    """What the decoder found of a source without handing over pixels."""

    slices: int
    size: int
    """Bytes of its files."""
    mtime_ns: int
    digest: str = ""
    """"" where it was only counted."""
    slice_bytes: int = 0
    """Of its first slice in memory, where it was measured."""


class WholeLimits(Protocol):
    """Who knows the limits of windows over whole volumes, and is told new ones (`limits.KnownLimits`)."""

    def known(self, sample: int) -> dict[str, Any] | None:
        """`digest` and `limits` (n or 1, channels, 2) of a sample, None if it is not known."""

    def learn(self, sample: int, digest: str, limits: list[Any]) -> None:
        """Those that a decode process computed."""


@dataclass(frozen=True)
class SourceSeen:
    """What the decoder saw of a source, for the private index."""

    digest: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Piece:
    """Slices [start, stop) of one sample: pixels, or the reason why there are none.

    Of a whole volume it is the one row, and `volume` has all slices. `volume.pixels` lies in shared memory that is handed out
    again when the next piece is asked for: use it at once.
    """

    sample: int
    start: int
    stop: int
    volume: Volume | None = None
    limits: npt.NDArray[np.float64] | None = None
    seen: SourceSeen | None = None
    found: Found | None = None
    stage: str = ""
    reason: str = ""
    work: int = 0
    """That of its request."""


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
class Decoder:
    """One child process with its slots and what it was asked, oldest first."""

    process: subprocess.Popen[bytes]
    slots: list[Slot]
    free: list[Slot]
    asked: "deque[Ticket]" = field(default_factory=deque)
    unread: bytes = b""
    """The beginning of an answer whose end has not arrived."""
    since: float = 0.0
    """When the oldest open request became the oldest."""


@dataclass
class Ticket:
    """A request on its way, in the order of the whole run."""

    number: int
    request: Request
    decoder: int
    slot: Slot | None = None
    answer: dict[str, Any] | None = None


class DecodePool:
    """`with DecodePool(workers, window, options, …) as pool: for piece in pool.pieces(requests): …`."""

    def __init__(
        self,
        workers: int,
        window: Window,
        options: ImageOptions,
        timeout: float,
        prefetch: int,
        stopping: Callable[[], bool],
        limits: WholeLimits | None = None,
    ) -> None:
        self.memory = decoder_limit(workers)
        self.limits = limits
        self.window = asdict(window)
        self.options = asdict(options)
        self.timeout = timeout
        self.stopping = stopping
        self.prefetch = max(prefetch, 2 * workers)
        self.slots_each = pool_slots(workers, prefetch)
        self.largest = FIRST_SLOT_BYTES
        self.waited = 0.0
        """Seconds in which the caller had nothing to do but wait for a piece."""
        self.looked = time.monotonic()
        """When the decoders were last looked at."""
        self.numbers = iter(range(sys.maxsize))
        self.selector = selectors.DefaultSelector()
        self.decoders = [self._start([Slot.make() for _ in range(self.slots_each)], i) for i in range(workers)]

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(self, *_: object) -> None:
        for decoder in self.decoders:
            self._end(decoder)
            for slot in decoder.slots:
                slot.close()
        self.selector.close()

    def pieces(self, requests: Iterable[Request]) -> Iterator[Piece]:
        """The pieces of all requests, in order. Ends early, between pieces, when `stopping()` says so."""
        source = split(requests)
        queue: deque[Ticket] = deque()
        exhausted = False
        while True:
            while not exhausted and len(queue) < self._room():
                request = next(source, None)
                if request is None:
                    exhausted = True
                else:
                    queue.append(Ticket(next(self.numbers), request, self._choose(queue, request)))
            self._send(queue)
            if not queue:
                return
            started = time.monotonic()
            while queue[0].answer is None:
                self._receive(queue)
                if self.stopping():
                    return
            self.waited += time.monotonic() - started
            ticket = queue.popleft()
            piece, rest = self._piece(ticket)
            if piece is not None:
                yield replace(piece, work=ticket.request.work)
            self._release(ticket)
            if rest is not None:  # it goes to the front, and takes the slot that just became free
                queue.appendleft(Ticket(next(self.numbers), rest, ticket.decoder))

    def _room(self) -> int:
        return max(len(self.decoders), min(self.prefetch, BUFFER_BYTES // self.largest))

    def _choose(self, queue: "deque[Ticket]", request: Request) -> int:
        """The decoder that has the sample open, else the one with the least to do."""
        if queue and queue[-1].request.sample == request.sample:
            return queue[-1].decoder
        load = [0] * len(self.decoders)
        for ticket in queue:
            load[ticket.decoder] += ticket.answer is None
        return load.index(min(load))

    def _start(self, slots: list[Slot], number: int) -> Decoder:
        package_root = str(Path(__file__).resolve().parents[2])
        paths = os.environ.get("PYTHONPATH", "")
        process = subprocess.Popen(
            [sys.executable, "-m", "embedcache.extraction.decoder", str(self.memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[slot.fd for slot in slots],
            # one thread a process: the pool is the parallelism
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": package_root + (os.pathsep + paths if paths else ""),
            },
        )
        assert process.stdout is not None
        self.selector.register(process.stdout, selectors.EVENT_READ, number)
        return Decoder(process, slots, list(slots))

    def _end(self, decoder: Decoder) -> None:
        process = decoder.process
        assert process.stdin is not None
        assert process.stdout is not None
        self.selector.unregister(process.stdout)
        process.kill()
        process.wait()
        process.stdout.close()
        with suppress(BrokenPipeError):  # a message that it did not live to read is still buffered, and flushed here
            process.stdin.close()

    def _send(self, queue: Iterable[Ticket]) -> None:
        for ticket in queue:
            decoder = self.decoders[ticket.decoder]
            if ticket.slot is not None or ticket.answer is not None or not decoder.free:
                continue
            ticket.slot = decoder.free.pop()
            if not decoder.asked:
                decoder.since = time.monotonic()
            decoder.asked.append(ticket)
            self._write(decoder, ticket)

    def _write(self, decoder: Decoder, ticket: Ticket) -> None:
        assert ticket.slot is not None
        slot = ticket.slot
        message = {
            "request": ticket.number,
            **asdict(ticket.request),
            "window": self.window,
            "options": self.options,
            "known": self.limits.known(ticket.request.sample) if self.limits is not None else None,
            "slot": slot.fd,
            "slot_bytes": slot.size,
        }
        try:
            stdin = decoder.process.stdin
            assert stdin is not None
            stdin.write(json.dumps(message).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            return  # it died; `_receive` sees its closed stdout and replaces it

    def _receive(self, queue: "deque[Ticket]") -> None:
        ready = self.selector.select(timeout=0.25)
        self._discount_unseen()
        for key, _ in ready:
            decoder = self.decoders[key.data]
            arrived = os.read(key.fd, 2**20)
            if not arrived:
                self._replace(key.data, "its decoder process died")
                continue
            *lines, decoder.unread = (decoder.unread + arrived).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                ticket = decoder.asked.popleft()
                decoder.since = time.monotonic()
                assert ticket.number == answer["request"]
                ticket.answer = answer
        for i, decoder in enumerate(self.decoders):
            if decoder.asked and time.monotonic() - decoder.since > self.timeout:
                self._replace(i, f"its decoder gave no answer within {self.timeout:g} s")
        self._send(queue)

    def _discount_unseen(self) -> None:
        """Count no time against the decoders in which nobody looked: after a Ctrl-Z they need a moment to go on."""
        now = time.monotonic()
        unseen = now - self.looked
        self.looked = now
        if unseen > UNSEEN_SECONDS:
            for decoder in self.decoders:
                decoder.since = min(decoder.since + unseen, now)

    def _replace(self, i: int, reason: str) -> None:
        """A new process for decoder `i`; the oldest open request is blamed, the others are asked again."""
        old = self.decoders[i]
        self._end(old)
        fresh = self._start(old.slots, i)
        fresh.free = list(old.free)
        asked = list(old.asked)
        if asked:
            asked[0].answer = {"count": 1, "stage": "decode", "reason": reason}
        fresh.asked = deque(asked[1:])
        fresh.since = time.monotonic()
        self.decoders[i] = fresh
        for ticket in fresh.asked:
            self._write(fresh, ticket)

    def _release(self, ticket: Ticket) -> None:
        if ticket.slot is not None:
            self.decoders[ticket.decoder].free.append(ticket.slot)
            ticket.slot = None

    def _piece(self, ticket: Ticket) -> tuple[Piece | None, Request | None]:
        """The piece that a ticket's answer holds, and what is left of its request."""
        assert ticket.slot is not None
        assert ticket.answer is not None
        request, answer = ticket.request, ticket.answer
        if answer["count"] == 0:
            self.largest = max(self.largest, answer["need"])
            ticket.slot.grow(answer["need"])
            return None, request
        stop = request.start + answer["count"]
        rest = replace(request, start=stop) if stop < request.stop else None
        if "reason" in answer:
            return Piece(request.sample, request.start, stop, stage=answer["stage"], reason=answer["reason"]), rest
        if request.kind in WITHOUT_PIXELS:
            found = {name: answer[name] for name in ("slices", "size", "mtime_ns", "digest", "slice_bytes")}
            return Piece(request.sample, request.start, stop, found=Found(**found)), rest
        if self.limits is not None and "learned" in answer:
            self.limits.learn(request.sample, answer["digest"], answer["learned"])
        pixels = np.ndarray(answer["shape"], answer["dtype"], buffer=ticket.slot.memory)
        calibration = Calibration(
            np.asarray(answer["slope"]),
            np.asarray(answer["intercept"]),
            invert=answer["invert"],
            padding=tuple(answer["padding"]) if answer["padding"] else None,
        )
        volume = Volume(
            pixels,
            calibration,
            answer["kind"],
            modality=answer["modality"],
            spacing=tuple(answer["spacing"]) if answer["spacing"] else None,
            warnings=tuple(answer["warnings"]),
        )
        seen = SourceSeen(answer["digest"], answer["size"], answer["mtime_ns"])
        return Piece(request.sample, request.start, stop, volume, np.asarray(answer["limits"]), seen), rest


def pool_slots(workers: int, prefetch: int) -> int:
    """Slots of each process, so that one is free while the others wait to be taken."""
    return -(-max(prefetch, 2 * workers) // workers) + 1


def split(requests: Iterable[Request]) -> Iterator[Request]:
    """The same slices in pieces of at most PIECE_SLICES."""
    for r in requests:
        for start in range(r.start, r.stop, PIECE_SLICES):
            yield replace(r, start=start, stop=min(start + PIECE_SLICES, r.stop))


def reading(image: ImageRecipe) -> Literal["read", "volume", "volume-in-mm"]:
    """The kind of requests that a recipe needs."""
    if image.volume is None:
        return "read"
    return "volume" if image.volume.spacing is None else "volume-in-mm"
