"""A pool of decode processes: `pieces` of samples come back in the order in which they were asked for. `decode_process` is one
of them as it is seen here, `decoder` what runs in it.

Pixels travel in their stored dtype through slots of shared memory (unlinked files, so that a killed run leaves nothing
behind). A process that hangs or dies is replaced, and what it was working on is set aside with the reason.

Main memory: what is on its way holds at most BUFFER_BYTES together, or one slice per process where slices are larger than that
allows; for an encoder of volumes whole ones take the place of slices. Beside it each process holds one open image: its file's
bytes and the last piece, and the whole volume decoded where it is cut across its stored slices, windowed over all of them or
asked for as a whole; of a `.npz`, at most `images.npz.HELD_BYTES` of an unpacked array. More than `memory.decoder_limit` no
process gets: what needs more is set aside.
"""

import json
import os
import selectors
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any, Protocol

from embedcache.extraction.decode_process import FIRST_SLOT_BYTES, Decoder, Slot, Ticket
from embedcache.extraction.memory import decoder_limit
from embedcache.extraction.pieces import Piece, Request, answered, split
from embedcache.images.options import ImageOptions
from embedcache.types import Window

BUFFER_BYTES = 2**30
"""What all slots together may hold, unless single slices are larger."""
UNSEEN_SECONDS = 1.0
"""A longer time between two looks at the decoders is not theirs: this process was suspended, perhaps with them, or busy."""


class WholeLimits(Protocol):
    """Who knows the limits of windows over whole volumes, and is told new ones (`limits.KnownLimits`)."""

    def known(self, sample: int) -> dict[str, Any] | None:
        """`digest` and `limits` (n or 1, channels, 2) of a sample, None if it is not known."""

    def learn(self, sample: int, digest: str, limits: list[Any]) -> None:
        """Those that a decode process computed."""


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
        self.alike = json.dumps({"window": asdict(window), "options": asdict(options)})[1:]
        """What every request says, as it is sent."""
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
                    decoder = self.decoders[queue[-1].decoder]
                    decoder.waiting.append(queue[-1])
                    self._send(decoder)
            if not queue:
                return
            started = time.monotonic()
            while queue[0].answer is None:
                self._receive()
                if self.stopping():
                    return
            self.waited += time.monotonic() - started
            ticket = queue.popleft()
            piece, rest = self._piece(ticket)
            if piece is not None:
                yield piece
            decoder = self.decoders[ticket.decoder]
            if ticket.slot is not None:
                decoder.free.append(ticket.slot)
            if rest is not None:  # it goes to the front, and takes the slot that just became free
                queue.appendleft(Ticket(next(self.numbers), rest, ticket.decoder))
                decoder.waiting.appendleft(queue[0])
            self._send(decoder)

    def _room(self) -> int:
        return max(len(self.decoders), min(self.prefetch, BUFFER_BYTES // self.largest))

    def _choose(self, queue: "deque[Ticket]", request: Request) -> int:
        """The decoder that has the sample open, else the one with the least to do."""
        if queue and queue[-1].request.sample == request.sample:
            return queue[-1].decoder
        load = [len(decoder.waiting) + len(decoder.asked) for decoder in self.decoders]
        return load.index(min(load))

    def _start(self, slots: list[Slot], number: int) -> Decoder:
        decoder = Decoder.start(slots, self.memory)
        self.selector.register(decoder.answers, selectors.EVENT_READ, number)
        return decoder

    def _end(self, decoder: Decoder) -> None:
        self.selector.unregister(decoder.answers)
        decoder.end()

    def _send(self, decoder: Decoder) -> None:
        """Ask for what waits for this decoder, as far as it has slots."""
        while decoder.waiting and decoder.free:
            ticket = decoder.waiting.popleft()
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
            **vars(ticket.request),
            "known": self.limits.known(ticket.request.sample) if self.limits is not None else None,
            "slot": slot.fd,
            "slot_bytes": slot.size,
        }
        decoder.ask(f"{json.dumps(message)[:-1]}, {self.alike}")

    def _receive(self) -> None:
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
        fresh.free, fresh.waiting = list(old.free), old.waiting
        asked = list(old.asked)
        if asked:
            asked[0].answer = {"count": 1, "stage": "decode", "reason": reason}
        fresh.asked = deque(asked[1:])
        fresh.since = time.monotonic()
        self.decoders[i] = fresh
        for ticket in fresh.asked:
            self._write(fresh, ticket)

    def _piece(self, ticket: Ticket) -> tuple[Piece | None, Request | None]:
        """The piece that a ticket's answer holds, and what is left of its request."""
        assert ticket.slot is not None
        assert ticket.answer is not None
        request, answer = ticket.request, ticket.answer
        if answer["count"] == 0:
            self.largest = max(self.largest, answer["need"])
            ticket.slot.grow(answer["need"])
            return None, request
        if self.limits is not None and "learned" in answer:
            self.limits.learn(request.sample, answer["digest"], answer["learned"])
        piece = answered(request, answer, ticket.slot.memory)
        return piece, replace(request, start=piece.stop) if piece.stop < request.stop else None


def pool_slots(workers: int, prefetch: int) -> int:
    """Slots of each process, so that one is free while the others wait to be taken."""
    return -(-max(prefetch, 2 * workers) // workers) + 1
