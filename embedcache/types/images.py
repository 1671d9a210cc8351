"""What is read of a sample: pixels in their stored dtype, and how they become brightness."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError
from embedcache.types.columns import FloatArray

Scope = Literal["slice", "volume"]


@dataclass(frozen=True)
class Window:
    """A named intensity mapping to [0, 1], in the file's physical units (HU for CT) after rescale.

    `auto` decides per file: its own display (VOI) if a DICOM file has one, else min-max of the slice; a raster's whole
    dtype range; percentile(0.5, 99.5) of a volume in any other format.
    """

    name: str
    """`auto`, `voi`, `min-max`, `percentile`, `range` (the dtype's own), or a width window such as `ct-lung`."""
    scope: Scope = "slice"
    numbers: tuple[tuple[float, float], ...] = ()
    """(centre, width) per channel for a width window; ((low, high),) in percent for `percentile`."""


@dataclass(frozen=True)
class VoiTable:
    """A VOI lookup table (DICOM PS3.3 C.11.2.1.1): the brightness of whole physical values; those before and after it
    are as bright as its first and last."""

    first: int
    """The physical value that its first entry is for."""
    entries: bytes
    """Native uint16."""
    white: int
    """The entry that displays as white; 0 is black."""


@dataclass(frozen=True)
class VoiSigmoid:
    """The VOI function SIGMOID (DICOM PS3.3 C.11.2.1.3.1): 1 / (1 + exp(-4 (value - centre) / width)) of white."""

    centre: float
    width: float


Voi: TypeAlias = tuple[float, float] | VoiTable | VoiSigmoid
"""How a file wants a slice displayed: a window (centre, width), centre -+ width / 2 being black and white; or a curve."""


@dataclass(frozen=True)
class Calibration:
    """How stored values become physical ones and then display ones, a number per slice (shape (n_slices,))."""

    slope: FloatArray
    intercept: FloatArray
    invert: bool = False
    """MONOCHROME1: low values are bright, so the windowed image is turned over."""
    voi: tuple[Voi | None, ...] = ()
    """The file's own display of each slice. None where it has none; () if no slice has one."""
    padding: tuple[float, float] | None = None
    """Stored values in this closed range are padding (PixelPaddingValue, PixelPaddingRangeLimit), kept out of statistics."""


@dataclass(frozen=True)
class Volume:
    """One sample's pixels: array (slice, y, x) or (slice, y, x, 3) in the stored dtype, slices in anatomical order."""

    pixels: npt.NDArray[Any]
    calibration: Calibration
    kind: Literal["raster", "dicom", "nifti", "volume", "array"]
    modality: str = ""
    """DICOM Modality (`CT`, `MR`, `DX`, …), "" where the file does not say."""
    spacing: tuple[float, float, float] | None = None
    """(between slices, row, column) in mm; None where the file does not say or it is no true distance."""
    affine: npt.NDArray[np.float64] | None = None
    """4x4, voxel (slice, y, x) to RAS mm; None where unknown."""
    time_point: int = 0
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.ndim not in (3, 4) or (self.pixels.ndim == 4 and self.pixels.shape[3] != 3):
            raise InputError(f"a volume must have shape (slice, y, x) or (slice, y, x, 3). Got {self.pixels.shape}.")


@dataclass(frozen=True)
class Mask:
    """A segmentation: array (slice, y, x) of class numbers on its image's own grid; 0 is background."""

    values: npt.NDArray[np.integer[Any]]
    classes: tuple[str, ...]
    """Names of classes 1, 2, …"""
