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

Kind = Literal["raster", "dicom", "nifti"]


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
    time_point: int = 0
    warnings: tuple[str, ...] = ()


def plain_calibration(n_slices: int) -> Calibration:
    """Stored values that are physical values already."""
    return Calibration(np.ones(n_slices), np.zeros(n_slices))


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
