"""One decode process: reads requests from stdin, writes pixels into shared memory, answers on stdout.

Run as `python -m embedcache.extraction.decoder BYTES`, the memory that it may take; never imported by the parent. It is a plain
child process and no `multiprocessing` worker, so that a caller's script needs no `__main__` guard, no thread is forked, torch
is not imported, and it ends by itself when its parent dies (its stdin closes). Messages are JSON lines; nothing is pickled.
"""

import json
import mmap
import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TextIO

import numpy as np

from embedcache.errors import ImageError
from embedcache.extraction.memory import limit_this_process
from embedcache.images.files import SourceState, stat_source
from embedcache.images.memory import keep_freed_images
from embedcache.images.options import ImageOptions
from embedcache.images.resample import in_axial, read_whole
from embedcache.images.source import OpenedImage, count_slices, open_image
from embedcache.images.windows import doubts
from embedcache.types import Volume, Window


@dataclass
class Opened:
    """The image that was opened last: pieces of one volume come one after another."""

    path: str
    image: OpenedImage


HELD = ("read", "volume", "volume-in-mm")
"""Kinds of requests that are followed by others for the same image."""
TOO_LARGE = "the image needs more memory than there is for one decode process; if it is whole, use fewer --workers"


def main() -> None:
    """Answer requests until stdin closes."""
    limit_this_process(int(sys.argv[1]))
    keep_freed_images()
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to a whole process group; the parent decides when a run ends
        signal.signal(number, signal.SIG_IGN)
    warnings.simplefilter(
        "ignore"
    )  # what matters of a file is in `Volume.warnings`; a library's text may name a patient
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a decoder that prints must not break the protocol
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    serve(sys.stdin, answers)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer one JSON line for each request line."""
    opened: Opened | None = None
    for line in requests:
        request = json.loads(line)
        path, options = request["path"], ImageOptions(**request["options"])
        try:
            if opened is None or opened.path != path or request["kind"] not in HELD:
                opened = None  # let go of the last volume before the next one is read
            if request["kind"] == "count":
                answer = counted(path, options)
            else:
                opened = opened or Opened(path, opened_for(request["kind"], path, options))
                answer = WORK[request["kind"]](opened.image, request)
        except ImageError as error:
            answer = {"count": 1, "stage": error.stage, "reason": error.reason}
        except MemoryError:
            opened = None
            answer = {"count": 1, "stage": "decode", "reason": TOO_LARGE}
        except Exception as error:  # noqa: BLE001 a decoder may raise anything on rubbish; one bad file must not end the run
            # the text of a foreign exception may hold a path or a tag's value, so only its type is passed on
            answer = {"count": 1, "stage": "decode", "reason": f"its decoder failed with {type(error).__name__}"}
        answers.write(json.dumps({"request": request["request"], **answer}) + "\n")


def opened_for(kind: str, path: str, options: ImageOptions) -> OpenedImage:
    """The image as that kind of request takes it."""
    image = open_image(path, options)
    return in_axial(image) if kind.startswith("volume") else image


def counted(path: str, options: ImageOptions) -> dict[str, Any]:
    """The slices of an image, from its headers where its form allows that."""
    return found(count_slices(path, options), stat_source(path), "")


def examine(image: OpenedImage, _: dict[str, Any]) -> dict[str, Any]:
    """An image's content and its slices."""
    return found(image.n_slices, image.state, image.digest)


def measure(image: OpenedImage, request: dict[str, Any]) -> dict[str, Any]:
    """The same, and what one slice takes in memory."""
    return {**examine(image, request), "slice_bytes": image.read(0, 1).pixels.nbytes}


def found(slices: int, state: SourceState, digest: str) -> dict[str, Any]:
    """The answer of a request that wants no pixels."""
    return {
        "count": 1,
        "slices": slices,
        "size": state.size,
        "mtime_ns": state.mtime_ns,
        "digest": digest,
        "slice_bytes": 0,
    }


def read_piece(image: OpenedImage, request: dict[str, Any]) -> dict[str, Any]:
    """Read as many of the asked slices as fit the slot; the answer says how many."""
    start, stop = request["start"], request["stop"]
    window = window_of(request)
    if image.n_slices != request["slices"]:
        raise ImageError(f"it has {image.n_slices} slices where the plan has {request['slices']}", "open")
    try:
        volume = image.read(start, stop, window)
    except (ImageError, MemoryError):
        if stop - start == 1:
            raise
        volume = image.read(start, start + 1, window)  # one bad slice must not take its neighbours with it
    slice_bytes = volume.pixels[:1].nbytes
    count = min(len(volume.pixels), request["slot_bytes"] // slice_bytes)
    if count == 0:
        return {"count": 0, "need": slice_bytes}
    known = request["known"]
    told = known is not None and known["digest"] == image.digest
    if told:
        image.know(window, np.asarray(known["limits"]))
    limits = image.limits(window, start, start + count)
    pixels = volume.pixels[:count]
    with mmap.mmap(request["slot"], request["slot_bytes"]) as memory:
        # freed with the view that numpy makes of it, before the memory is let go
        np.frombuffer(memory, np.uint8, pixels.nbytes).view(pixels.dtype).reshape(pixels.shape)[...] = pixels
    answer = {"count": count, "limits": limits.tolist(), **describe(image, volume, pixels, count, window, limits)}
    learned = None if told or image.n_slices == 1 else image.known(window)
    return answer if learned is None else {**answer, "learned": learned.tolist()}


def read_volume(image: OpenedImage, request: dict[str, Any]) -> dict[str, Any]:
    """Read all slices, which are one row; or ask for a slot that they fit."""
    window = window_of(request)
    volume = read_whole(image, window, spaced=request["kind"] == "volume-in-mm")
    if volume.pixels.nbytes > request["slot_bytes"]:
        return {"count": 0, "need": volume.pixels.nbytes}
    limits = image.limits(window, 0, image.n_slices)
    with mmap.mmap(request["slot"], request["slot_bytes"]) as memory:
        # freed with the view that numpy makes of it, before the memory is let go
        np.frombuffer(memory, np.uint8, volume.pixels.nbytes)[:] = (
            np.ascontiguousarray(volume.pixels).view(np.uint8).ravel()
        )
    told = describe(image, volume, volume.pixels, image.n_slices, window, limits)
    return {"count": 1, "limits": limits.tolist(), **told}


def window_of(request: dict[str, Any]) -> Window:
    """The window of a request."""
    return Window(**{**request["window"], "numbers": tuple(map(tuple, request["window"]["numbers"]))})


def describe(
    image: OpenedImage,
    volume: Volume,
    pixels: np.ndarray[Any, Any],
    count: int,
    window: Window,
    limits: np.ndarray[Any, Any],
) -> dict[str, Any]:
    """All of a piece but its pixels, as JSON values."""
    c = volume.calibration
    shown = replace(c, slope=c.slope[:count], intercept=c.intercept[:count])
    return {
        "shape": pixels.shape,
        "dtype": pixels.dtype.str,
        "slope": c.slope[:count].tolist(),
        "intercept": c.intercept[:count].tolist(),
        "invert": c.invert,
        "padding": c.padding,
        "kind": volume.kind,
        "modality": volume.modality,
        "spacing": volume.spacing,
        "warnings": (*volume.warnings, *doubts(window, volume.kind, volume.modality, shown, pixels, limits)),
        "digest": image.digest,
        "size": image.state.size,
        "mtime_ns": image.state.mtime_ns,
    }


WORK: dict[str, Callable[[OpenedImage, dict[str, Any]], dict[str, Any]]] = {
    "read": read_piece,
    "volume": read_volume,
    "volume-in-mm": read_volume,
    "examine": examine,
    "measure": measure,
}
"""What is done with an image that is open, by the kind of request."""


if __name__ == "__main__":
    main()
