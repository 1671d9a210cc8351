"""The header of a DICOM file → its frames: where each lies, when it was taken, and which part of a stored image it is.

A classic file says it once, an Enhanced object in functional groups (PS3.3 C.7.6.16: a frame's own before the shared),
a Siemens mosaic in private elements.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.tag import Tag

from embedcache.images.dicom import (
    FrameScale,
    find_group,
    first_item,
    first_number,
    frame_count,
    frame_groups,
    frame_scales,
)
from embedcache.images.elements import value_of
from embedcache.images.mosaic import Tile, find_mosaic, is_mosaic

_PLACE_POINTERS = {Tag("ImagePositionPatient"), Tag("InStackPositionNumber"), Tag("StackID")}
"""Dimensions that say where a frame lies; what is left says when, or how, it was taken."""

_LENGTH_TOLERANCE = 0.1
"""Direction cosines have length 1; further off they are no directions."""


@dataclass(frozen=True, eq=False)
class Pose:
    """Where a slice lies, in LPS mm (PS3.3 C.7.6.2.1.1)."""

    position: npt.NDArray[np.float64]
    """Centre of the first pixel, shape (3,)."""
    row: npt.NDArray[np.float64]
    """Unit vector along which columns increase."""
    column: npt.NDArray[np.float64]
    """Unit vector along which rows increase."""

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """row x column, the direction in which slices ascend."""
        return np.array(_cross(self.row.tolist(), self.column.tolist()))


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice as a file holds it."""

    file: int
    """Number of the file in the list of files."""
    index: int
    """Frame of the file, from 0."""
    tile: Tile | None
    """Its part of the stored image, None for all of it."""
    scale: FrameScale
    pose: Pose | None
    in_plane: tuple[float, float] | None
    """PixelSpacing: mm between rows, between columns."""
    thickness: float | None
    """mm to a next slice, if there were one: SpacingBetweenSlices, else SliceThickness."""
    order: tuple[int, int]
    """(InstanceNumber, frame): the order in which a series was made."""
    times: tuple[tuple[int, ...] | None, ...]
    """What may tell time points apart, the most telling first; None where the file does not say."""
    instance: str
    """SOPInstanceUID. It stays in this room."""


def read_frames(dataset: Dataset, file: int) -> list[Frame]:
    """All frames of `dataset` as stored; the tiles of a mosaic in the order of their numbers."""
    number = int(value_of(dataset, "InstanceNumber") or 0)
    instance = str(value_of(dataset, "SOPInstanceUID") or "")
    times = _classic_times(dataset)
    scales = frame_scales(dataset)
    tiles = _mosaic_frames(dataset)
    if tiles is not None:
        measures, spacing, thickness = tiles, _in_plane(dataset), _thickness(dataset)
        return [
            Frame(file, 0, tile, scales[0], pose, spacing, thickness, (number, i), times, instance)
            for i, (tile, pose) in enumerate(measures)
        ]
    pointers = [item.get("DimensionIndexPointer") for item in value_of(dataset, "DimensionIndexSequence") or []]
    frames = []
    several = frame_count(dataset) > 1
    for i in range(frame_count(dataset)):
        groups = frame_groups(dataset, i)
        sizes = find_group(groups, "PixelMeasuresSequence", dataset)
        place = find_group(groups, "PlanePositionSequence", dataset)
        content = first_item(groups[0], "FrameContentSequence") if groups else None
        frames.append(
            Frame(
                file,
                i,
                None,
                scales[i],
                # one position for a file of many frames (ultrasound, dose) is not the position of each
                _pose(place, find_group(groups, "PlaneOrientationSequence", dataset))
                if place is not dataset or not several
                else None,
                _in_plane(sizes),
                _thickness(sizes),
                (number, i),
                times if content is None else _enhanced_times(content, pointers),
                instance,
            )
        )
    return frames


# --- what a header says -----------------------------------------------------------------------------


def _mosaic_frames(dataset: Dataset) -> list[tuple[Tile, Pose]] | None:
    """Each tile of a Siemens mosaic with its pose. None for other files, and where the header does not say enough."""
    if not is_mosaic(dataset):
        return None
    pose, spacing, distance = _pose(dataset, dataset), _in_plane(dataset), _thickness(dataset)
    if pose is None or spacing is None or distance is None:
        return None
    mosaic = find_mosaic(dataset)
    if mosaic is None:
        return None
    # The position is that of a single image of the mosaic's size around the same centre.
    height, width = mosaic.shape
    first = (
        pose.position
        + pose.row * spacing[1] * (int(dataset.Columns) - width) / 2
        + pose.column * spacing[0] * (int(dataset.Rows) - height) / 2
    )
    step = pose.normal * distance
    if mosaic.normal is not None and float(np.dot(step, mosaic.normal)) < 0:
        step = -step
    return [(tile, Pose(first + i * step, pose.row, pose.column)) for i, tile in enumerate(mosaic.tiles)]


def _pose(place: Dataset, direction: Dataset) -> Pose | None:
    position = floats(place, "ImagePositionPatient", 3)
    cosines = floats(direction, "ImageOrientationPatient", 6)
    if position is None or cosines is None:
        return None
    row, column = cosines[:3], cosines[3:]
    lengths = [math.hypot(*vector) for vector in (row, column, _cross(row, column))]
    if max(abs(length - 1) for length in lengths) > _LENGTH_TOLERANCE:
        return None
    return Pose(np.array(position), np.array(row) / lengths[0], np.array(column) / lengths[1])


def _cross(a: list[float], b: list[float]) -> list[float]:
    """The cross product of two vectors: numpy's takes ten times as long for so few numbers."""
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def _in_plane(dataset: Dataset) -> tuple[float, float] | None:
    spacing = floats(dataset, "PixelSpacing", 2)
    return None if spacing is None or min(spacing) <= 0 else (spacing[0], spacing[1])


def _thickness(dataset: Dataset) -> float | None:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = first_number(dataset, keyword)
        if value is not None and value > 0:
            return value
    return None


def _classic_times(dataset: Dataset) -> tuple[tuple[int, ...] | None, ...]:
    numbers = (first_number(dataset, k) for k in ("TemporalPositionIdentifier", "AcquisitionNumber"))
    return tuple(None if n is None else (int(n),) for n in numbers)


def _enhanced_times(content: Dataset, pointers: list[Any]) -> tuple[tuple[int, ...] | None, ...]:
    """From the frame's content: its dimension indices but for place, then its temporal position index."""
    values = content.get("DimensionIndexValues")
    indices = [] if values is None else [int(v) for v in (values if hasattr(values, "__len__") else [values])]
    rest = None
    if indices and len(indices) == len(pointers):
        rest = tuple(v for v, pointer in zip(indices, pointers, strict=True) if pointer not in _PLACE_POINTERS) or None
    temporal = first_number(content, "TemporalPositionIndex")
    return rest, None if temporal is None else (int(temporal),)


def floats(dataset: Dataset, keyword: str, n: int) -> list[float] | None:
    """The element as n finite floats, None where it is not that."""
    value = value_of(dataset, keyword)
    if value is None or isinstance(value, str) or not hasattr(value, "__len__") or len(value) != n:
        return None
    try:
        numbers = [float(v) for v in value]
    except (TypeError, ValueError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
