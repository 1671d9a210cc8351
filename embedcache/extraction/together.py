"""Pieces that are made into inputs together: on a GPU sixteen small images take little longer than one. Imports torch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from embedcache.backbones.preprocess import preprocess
from embedcache.extraction.pieces import Piece
from embedcache.extraction.share import Target
from embedcache.types import ImageRecipe

TOGETHER_BYTES = 2**23
"""Stored pixels that are held until they are made into inputs at once; what is larger than half of it goes alone."""
TOGETHER = 64
"""Pieces that are held at most: nobody waits for more than a batch of small ones."""


@dataclass(frozen=True)
class Group:
    """Pieces whose slices are alike in all that preprocessing looks at, but for their numbers."""

    pieces: list[Piece]
    """Of pieces that were held, the memory of their own pixels has been handed out again."""
    whole: Piece
    """All of their slices, one after another, as if the first piece had them."""


class Gathered:
    """Pieces in their order, in groups.

    What is held until its group is whole is copied, since a piece's memory is handed out again with the next one; on a GPU into
    pinned memory, from where a transfer is fastest. A group's pixels are good until the next group is asked for.
    """

    def __init__(self, device: torch.device, images: Iterable[ImageRecipe], beside: bool) -> None:
        """beside: whether the device works beside this process; else each piece is a group, and nothing is copied."""
        # whole volumes are large, and what a view other than 0 shows of a slice hangs on its sample
        self.alone = not beside or any(i.volume is not None or i.augmentation is not None for i in images)
        pinned = device.type == "cuda"
        self.memory: npt.NDArray[np.uint8] = (
            np.empty(0, dtype=np.uint8)
            if self.alone
            else torch.empty(TOGETHER_BYTES, dtype=torch.uint8, pin_memory=pinned).numpy()
        )

    def groups(self, pieces: Iterable[Piece]) -> Iterator[Group]:
        """All pieces, in their order."""
        held: list[Piece] = []
        of_held: tuple[object, ...] = ()
        used = 0
        for piece in pieces:
            size = piece.volume.pixels.nbytes if piece.volume is not None else 0
            traits = _traits(piece) or of_held
            alike = not of_held or traits == of_held
            if held and (self.alone or used + size > TOGETHER_BYTES or len(held) == TOGETHER or not alike):
                yield self._joined(held)
                held, of_held, used = [], (), 0
            if self.alone or size > TOGETHER_BYTES // 2:
                if held:
                    yield self._joined(held)
                    held, of_held, used = [], (), 0
                yield Group([piece], piece)
                continue
            if piece.volume is not None:
                pixels = piece.volume.pixels
                np.copyto(np.ndarray(pixels.shape, pixels.dtype, self.memory, used), pixels)
            held.append(piece)
            of_held, used = traits, used + size
        if held:
            yield self._joined(held)

    def _joined(self, held: list[Piece]) -> Group:
        shown = [piece for piece in held if piece.volume is not None]
        if not shown:
            return Group(held, held[0])
        volumes = [piece.volume for piece in shown if piece.volume is not None]
        first, calibrations = volumes[0], [volume.calibration for volume in volumes]
        count = sum(len(volume.pixels) for volume in volumes)
        pixels = np.ndarray((count, *first.pixels.shape[1:]), first.pixels.dtype, self.memory)
        slope, intercept = (np.concatenate([getattr(c, name) for c in calibrations]) for name in ("slope", "intercept"))
        calibration = replace(first.calibration, slope=slope, intercept=intercept)
        limits = np.concatenate([piece.limits for piece in shown if piece.limits is not None])
        return Group(
            held, replace(shown[0], volume=replace(first, pixels=pixels, calibration=calibration), limits=limits)
        )


def _traits(piece: Piece) -> tuple[object, ...]:
    """What slices must share to be preprocessed together; of a piece without pixels nothing."""
    if piece.volume is None or piece.limits is None:
        return ()
    pixels, calibration = piece.volume.pixels, piece.volume.calibration
    return (pixels.shape[1:], pixels.dtype, piece.limits.shape[1], calibration.invert, calibration.padding)


class Inputs:
    """Makes pieces into inputs: on a GPU in a stream of their own, beside the forward pass that is under way."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = _stream(device) if device.type == "cuda" else None

    def of(self, piece: Piece, image: ImageRecipe, sample: str) -> torch.Tensor:
        """The slices of a piece as a backbone sees them. The piece's memory is free when this returns."""
        assert piece.volume is not None
        assert piece.limits is not None
        make = partial(preprocess, piece.volume, piece.limits, image, self.device, sample, piece.start)
        if self.stream is None:
            return make()
        with torch.cuda.stream(self.stream):
            made = make()
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.stream)
        made.record_stream(computing)  # else its memory could go to the next input before it is read
        return made


def _stream(device: torch.device) -> torch.cuda.Stream:
    """One whose small pieces of work come before those of a forward pass."""
    return torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]


@dataclass
class Shown:
    """A group, and the inputs that were made of it."""

    group: Group
    sample: str
    """The id in the store of its first piece."""
    inputs: Inputs
    made: dict[str, torch.Tensor] = field(default_factory=dict)

    def input_of(self, target: Target) -> torch.Tensor:
        """All its slices as the target's backbone sees them, made once for all targets of one image recipe."""
        if target.input_name not in self.made:
            self.made[target.input_name] = self.inputs.of(self.group.whole, target.image, self.sample)
        return self.made[target.input_name]
