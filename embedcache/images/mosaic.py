"""A Siemens mosaic: the slices of one time point as square tiles of one image, from the top left, row by row.

How many there are, and to which side they go, stands in private elements: (0019,xx0A) and the CSA image header
(0029,xx10), whose layout nibabel reads.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from embedcache.images.elements import value_of


@dataclass(frozen=True)
class Tile:
    """A rectangle of a stored image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The tile of (y, x[, 3])."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True, eq=False)
class Mosaic:
    """How a mosaic is laid out."""

    tiles: tuple[Tile, ...]
    """In the order of the slices."""
    normal: npt.NDArray[np.float64] | None
    """SliceNormalVector, LPS: the direction from each tile's slice to the next; None where the file does not say."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of a tile."""
        return self.tiles[0].height, self.tiles[0].width


def is_mosaic(dataset: Dataset) -> bool:
    """Whether ImageType says so."""
    return "MOSAIC" in (value_of(dataset, "ImageType") or ())


def find_mosaic(dataset: Dataset) -> Mosaic | None:
    """The layout of a mosaic, None where the file does not say how many slices it holds, or says too many."""
    header = _csa_header(dataset)
    n = _number_of_images(dataset, header)
    if n is None or n < 1:
        return None
    per_side = math.isqrt(n - 1) + 1
    height, width = int(dataset.Rows) // per_side, int(dataset.Columns) // per_side
    if not height or not width or int(dataset.Rows) % per_side or int(dataset.Columns) % per_side:
        return None
    tiles = tuple(Tile(i // per_side * height, i % per_side * width, height, width) for i in range(n))
    normal = _items(header, "SliceNormalVector")
    return Mosaic(tiles, np.array(normal, np.float64) if len(normal) == 3 else None)


def _number_of_images(dataset: Dataset, header: dict[str, Any]) -> int | None:
    value = _private(dataset, 0x0019, "SIEMENS MR HEADER", 0x0A)
    if value is None:
        value = next(iter(_items(header, "NumberOfImagesInMosaic")), None)
    return None if value is None else int(value)


def _csa_header(dataset: Dataset) -> dict[str, Any]:
    content = _private(dataset, 0x0029, "SIEMENS CSA HEADER", 0x10)
    if not isinstance(content, bytes):
        return {}
    # here: nibabel takes 0.3 s to import, and few files are mosaics
    from nibabel.nicom.csareader import CSAError, read

    try:
        header: dict[str, Any] = read(content)
    except (CSAError, ValueError, struct.error):  # not a CSA header after all: what it would say stays unknown
        return {}
    return header


def _items(header: dict[str, Any], name: str) -> list[Any]:
    return list(header.get("tags", {}).get(name, {}).get("items", []))


def _private(dataset: Dataset, group: int, creator: str, offset: int) -> Any:
    try:
        return dataset.private_block(group, creator)[offset].value
    except KeyError:
        return None
