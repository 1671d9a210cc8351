"""What every format's parser hands over, and the boundary at which a foreign decoder's failure becomes ours."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embedcache.errors import ImageError
from embedcache.types import Calibration

Kind = Literal["raster", "dicom", "nifti", "volume", "array"]
"""What a window has to know of an image. `volume`: NRRD, MetaImage, an array of slices; `array`: one that is a single picture."""


DEFLATE_RATIO = 1032
"""Deflate packs at most so many bytes into one: a header that says more lies, and is not given the memory."""


@dataclass(frozen=True)
class Parsed:
    """A file whose headers were understood; its pixels are decoded by `decode`."""

    kind: Kind
    n_slices: int
    calibration: Calibration
    """Of all slices."""
    decode: Callable[[int, int], npt.NDArray[Any]]
    """(start, stop) → (stop - start, y, x) or (stop - start, y, x, 3): stored dtype, native
    byte order, C order, writable."""
    modality: str = ""
    spacing: tuple[float, float, float] | None = None
    affine: npt.NDArray[np.float64] | None = None
    """4x4, voxel (slice, y, x) of the whole image to RAS mm."""
    leaning: npt.NDArray[np.float64] | None = None
    """As the affine where that is None, of slices that lie unevenly: right in which way the axes point, and in nothing else."""
    grid: tuple[int, int] | None = None
    """(rows, columns) of a slice, where the header says them: a plane is then counted without decoding anything."""
    time_point: int = 0
    warnings: tuple[str, ...] = ()


def plain_calibration(n_slices: int) -> Calibration:
    """Stored values that are physical values already."""
    return Calibration(np.ones(n_slices), np.zeros(n_slices))


def over_black(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Colour times alpha, rounded; the last channel of `pixels` is alpha."""
    colour, alpha = pixels[..., :-1].astype(np.uint32), pixels[..., -1:].astype(np.uint32)
    return ((colour * alpha + 127) // 255).astype(np.uint8)


@contextmanager
def reading(reason: str, stage: str) -> Iterator[list[warnings.WarningMessage]]:
    """Whatever a decoding library raises in here becomes ImageError(reason, stage); its warnings are collected.

    A damaged file makes these libraries raise nearly anything (struct.error, SyntaxError, IndexError…), and their
    texts may carry a path or a header's values, so the reason is always our own and the cause is only chained.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield caught
        except (ImageError, MemoryError):  # MemoryError says nothing about the file
            raise
        except Exception as error:
            raise ImageError(reason, stage) from error
