"""How a user wants images to be read, where a file alone does not decide it."""

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


def parse_plane(text: str) -> Plane:
    """The plane called `text`. Raises UnknownNameError."""
    for plane in PLANES:
        if plane == text:
            return plane
    raise suggest("plane", text, PLANES)
