"""How a user wants images to be read, where a file alone does not decide it."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from embedcache.errors import InputError, suggest

Plane = Literal["stored", "axial", "coronal", "sagittal"]

PLANES: tuple[Plane, ...] = get_args(Plane)


@dataclass(frozen=True)
class ImageOptions:
    """What `open_image` and `count_slices` are asked for beside the path."""

    plane: Plane = "stored"
    """`stored`: a DICOM series along its own normal, a NIfTI, NRRD or MetaImage volume from feet to head, a bare array along its
    first axis. The others are anatomical planes, by the file's affine: see `planes`."""
    time: int = 0
    """Which time point of a series of volumes, from 0."""
    strict: bool = False
    """Whatever would be a warning is an ImageError. It changes no pixel, so it is no part of a recipe."""

    def __post_init__(self) -> None:
        parse_plane(self.plane)
        if self.time < 0:
            raise InputError(f"a time point is counted from 0. Got {self.time}.")

    @property
    def moves_slices(self) -> bool:
        """Whether these options may give another number of slices than the defaults do."""
        return self.plane != "stored" or self.time != 0


@dataclass(frozen=True)
class VolumeOptions:
    """How encoders of whole volumes see one, where that is not left to the model."""

    spacing: tuple[float, float, float] | Literal["own", "none"] = "own"
    """mm between voxels of the input along (z, y, x); `own` is the model's, `none` stretches each volume to the input."""
    size: tuple[int, int, int] | None = None
    """Voxels of the input along (z, y, x); None is the model's own."""
    overlap: float | None = None
    """Slide the model's own window over the input, sharing so much with the next; None shows it the whole input at once."""

    def __post_init__(self) -> None:
        if self.overlap is not None and not 0 <= self.overlap < 1:
            raise InputError(f"sliding windows overlap by 0 to less than 1, as in 0.5. Got {self.overlap}.")
        if self.size is not None and min(self.size) < 1:
            raise InputError(f"the size of a volume's input must be at least 1 voxel. Got {self.size}.")
        if not isinstance(self.spacing, str) and not all(0 < mm < math.inf for mm in self.spacing):
            raise InputError(f"a spacing must be above 0 mm. Got {self.spacing}.")


def parse_spacing(text: str) -> tuple[float, float, float] | Literal["own", "none"]:
    """`own`, `none`, mm for all axes, or three numbers with commas along z, y, x. Raises InputError."""
    if text == "own":
        return "own"
    if text == "none":
        return "none"
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3):
        raise InputError(f"a spacing is own, none, or mm as in 1.5 or 3,1,1 (along z, y, x). Got {text!r}.")
    z, y, x = values * 3 if len(values) == 1 else values
    return z, y, x


def parse_voxels(text: str) -> tuple[int, int, int]:
    """Voxels for all axes, or three numbers with commas along z, y, x. Raises InputError."""
    words = text.split(",")
    if len(words) not in (1, 3) or not all(word.strip().isdigit() for word in words):
        raise InputError(f"the size of a volume's input is voxels as in 96 or 64,96,96 (along z, y, x). Got {text!r}.")
    z, y, x = (int(word) for word in (words * 3 if len(words) == 1 else words))
    return z, y, x


def parse_plane(text: str) -> Plane:
    """The plane called `text`. Raises UnknownNameError."""
    for plane in PLANES:
        if plane == text:
            return plane
    raise suggest("plane", text, PLANES)
