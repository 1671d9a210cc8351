"""What is asked of a decode process, and what comes back: pieces of samples."""

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embedcache.types import Calibration, ImageRecipe, Volume

PIECE_SLICES = 32
"""A volume is asked for in pieces, so that its first slices are computed while the next are decoded."""


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


def reading(image: ImageRecipe) -> Literal["read", "volume", "volume-in-mm"]:
    """The kind of requests that a recipe needs."""
    if image.volume is None:
        return "read"
    return "volume" if image.volume.spacing is None else "volume-in-mm"


def split(requests: Iterable[Request]) -> Iterator[Request]:
    """The same slices in pieces of at most PIECE_SLICES."""
    for r in requests:
        if r.stop - r.start <= PIECE_SLICES:
            yield r
            continue
        for start in range(r.start, r.stop, PIECE_SLICES):
            yield replace(r, start=start, stop=min(start + PIECE_SLICES, r.stop))


def answered(request: Request, answer: dict[str, Any], memory: mmap.mmap) -> Piece:
    """The piece that a decode process's answer tells of; its pixels are a view of `memory`."""
    sample, start, stop = request.sample, request.start, request.start + answer["count"]
    if "reason" in answer:
        return Piece(sample, start, stop, stage=answer["stage"], reason=answer["reason"], work=request.work)
    if request.kind in WITHOUT_PIXELS:
        found = {name: answer[name] for name in ("slices", "size", "mtime_ns", "digest", "slice_bytes")}
        return Piece(sample, start, stop, found=Found(**found), work=request.work)
    calibration = Calibration(
        np.asarray(answer["slope"]),
        np.asarray(answer["intercept"]),
        invert=answer["invert"],
        padding=tuple(answer["padding"]) if answer["padding"] else None,
    )
    volume = Volume(
        np.ndarray(answer["shape"], answer["dtype"], buffer=memory),
        calibration,
        answer["kind"],
        modality=answer["modality"],
        spacing=tuple(answer["spacing"]) if answer["spacing"] else None,
        warnings=tuple(answer["warnings"]),
    )
    seen = SourceSeen(answer["digest"], answer["size"], answer["mtime_ns"])
    return Piece(sample, start, stop, volume, np.asarray(answer["limits"]), seen, work=request.work)
