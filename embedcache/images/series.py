"""DICOM files → one image: frames in order along the slice normal, one calibration, one geometry."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from embedcache.errors import ImageError
from embedcache.images.dicom import (
    FrameScale,
    decode_frame,
    frame_count,
    frame_scales,
    notes,
    padding_range,
    pydicom_reading,
    read_dataset,
)
from embedcache.images.parsed import Parsed
from embedcache.types import Calibration

ORIENTATION_TOLERANCE = 1e-3
"""Two slices are parallel if their direction cosines differ by no more: writers round them to three or more places."""
EVEN_TOLERANCE = 0.05
"""Positions may be off an even line by this part of the slice distance: rounding, not a gap."""

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class _Frame:
    dataset: Dataset
    index: int
    scale: FrameScale


@dataclass(frozen=True)
class _Geometry:
    spacing: tuple[float, float, float] | None
    affine: npt.NDArray[np.float64] | None
    notes: tuple[str, ...]


def parse_dicom(blobs: Sequence[bytes]) -> Parsed:
    """One file, or all files of one series. Raises ImageError(stage="open") where they make no single image.

    Slices ascend along the normal, row x column direction of ImageOrientationPatient (feet to head for the usual
    axial series), by ImagePositionPatient. Files that do not say it, or that are not parallel, come by InstanceNumber,
    with a warning. The frames of a multi-frame file stay as they are stored.
    """
    datasets = [_numbered(blob, i, len(blobs)) for i, blob in enumerate(blobs)]
    with pydicom_reading("the DICOM header holds values that can not be read.", "open"):
        _check_one_series(datasets)
        datasets, order_note = _ordered(datasets)
        geometry = _geometry(datasets)
        frames = [_Frame(d, i, s) for d in datasets for i, s in enumerate(frame_scales(d))]
        first = datasets[0]
        said = [note for d in datasets for note in notes(d)]
        return Parsed(
            "dicom",
            len(frames),
            _calibration(frames, first),
            lambda start, stop: _decode(frames[start:stop]),
            modality=str(first.get("Modality") or ""),
            spacing=geometry.spacing,
            affine=geometry.affine,
            warnings=tuple(dict.fromkeys([*order_note, *geometry.notes, *said])),
        )


def _numbered(blob: bytes, i: int, n: int) -> Dataset:
    try:
        return read_dataset(blob)
    except ImageError as error:
        if n == 1:
            raise
        raise ImageError(f"file {i + 1} of {n} of the series, by name: {error.reason}", error.stage) from error


def _check_one_series(datasets: list[Dataset]) -> None:
    series = {str(d.get("SeriesInstanceUID") or "") for d in datasets}
    if len(series) > 1:
        raise ImageError(
            f"the folder holds {len(series)} DICOM series (SeriesInstanceUID); give each a folder.",
            "open",
        )
    for keywords, what in (
        (("Rows", "Columns"), "sizes"),
        (("SamplesPerPixel", "PhotometricInterpretation"), "colour models"),
        (("BitsAllocated", "PixelRepresentation"), "pixel types"),
    ):
        if len({tuple(str(d.get(k)) for k in keywords) for d in datasets}) > 1:
            raise ImageError(f"the series holds slices of several {what} ({', '.join(keywords)}).", "open")


def _calibration(frames: list[_Frame], first: Dataset) -> Calibration:
    voi = tuple(f.scale.voi for f in frames)
    return Calibration(
        slope=np.array([f.scale.slope for f in frames]),
        intercept=np.array([f.scale.intercept for f in frames]),
        invert=first.get("PhotometricInterpretation") == "MONOCHROME1",
        voi=voi if any(v is not None for v in voi) else (),
        padding=padding_range(first),
    )


def _decode(frames: list[_Frame]) -> npt.NDArray[Any]:
    pixels = [decode_frame(f.dataset, f.index) for f in frames]
    if len({(p.shape, p.dtype) for p in pixels}) > 1:
        raise ImageError("its frames decode to several sizes or types.")
    return np.stack(pixels)


# --- order and geometry ---------------------------------------------------------------------------


def _floats(dataset: Dataset, keyword: str, n: int) -> npt.NDArray[np.float64] | None:
    """The element as n finite floats, None where it is not that."""
    value = dataset.get(keyword)
    if value is None or isinstance(value, str) or not hasattr(value, "__len__") or len(value) != n:
        return None
    try:
        numbers = np.array([float(v) for v in value])
    except (TypeError, ValueError):
        return None
    return numbers if np.all(np.isfinite(numbers)) else None


@dataclass(frozen=True)
class _Poses:
    """Where parallel slices lie, in LPS mm."""

    row: npt.NDArray[np.float64]
    """Direction in which columns increase, shape (3,)."""
    column: npt.NDArray[np.float64]
    """Direction in which rows increase."""
    positions: npt.NDArray[np.float64]
    """Centre of each slice's first pixel, shape (n, 3)."""

    @property
    def heights(self) -> npt.NDArray[np.float64]:
        """mm along the slices' normal, shape (n,)."""
        return np.asarray(self.positions @ np.cross(self.row, self.column))


def _poses(datasets: list[Dataset]) -> _Poses | str:
    """The poses, or a phrase that says why there are none."""
    orientations, positions = [], []
    for dataset in datasets:
        orientation = _floats(dataset, "ImageOrientationPatient", 6)
        position = _floats(dataset, "ImagePositionPatient", 3)
        if orientation is None or position is None:
            return "slices do not say their positions"
        orientations.append(orientation)
        positions.append(position)
    first = orientations[0]
    if np.abs(np.array(orientations) - first).max() > ORIENTATION_TOLERANCE:
        return "slices are not parallel"
    return _Poses(first[:3], first[3:], np.array(positions))


def _ordered(datasets: list[Dataset]) -> tuple[list[Dataset], list[str]]:
    """The files in anatomical order, and a note where InstanceNumber had to decide."""
    if len(datasets) == 1:
        return datasets, []
    by_number = sorted(datasets, key=lambda d: int(d.get("InstanceNumber") or 0))
    poses = _poses(by_number)
    if isinstance(poses, str):
        return by_number, [f"{poses}: ordered by InstanceNumber"]
    # stable: where several lie at one position, InstanceNumber decides
    return [by_number[i] for i in np.argsort(poses.heights, kind="stable")], []


def _geometry(datasets: list[Dataset]) -> _Geometry:
    """Of slices that are in order already."""
    in_plane = _floats(datasets[0], "PixelSpacing", 2)
    poses = _poses(datasets)
    if in_plane is None or np.any(in_plane <= 0) or isinstance(poses, str):
        return _Geometry(None, None, ())
    if any(frame_count(d) > 1 for d in datasets):  # its frames' positions lie in functional groups
        return _Geometry(None, None, ())
    n, positions = len(datasets), poses.positions
    if n == 1:
        distance = _thickness(datasets[0])
        if distance is None:
            return _Geometry(None, None, ())
        step = np.cross(poses.row, poses.column) * distance
    else:
        gaps = np.diff(poses.heights)
        if np.any(gaps <= 0):
            return _Geometry(None, None, ("several images lie at one position: no distance between slices",))
        distance = float(np.median(gaps))
        step = (positions[-1] - positions[0]) / (n - 1)
    spacing = (distance, float(in_plane[0]), float(in_plane[1]))
    even = positions[0] + np.arange(n)[:, np.newaxis] * step
    if np.abs(positions - even).max() > EVEN_TOLERANCE * distance:
        return _Geometry(spacing, None, ("slices are unevenly spaced: one is missing, or the distance changes",))
    affine = np.eye(4)
    affine[:3] = _LPS_TO_RAS @ np.column_stack(
        [step, poses.column * in_plane[0], poses.row * in_plane[1], positions[0]]
    )
    return _Geometry(spacing, affine, ())


def _thickness(dataset: Dataset) -> float | None:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = dataset.get(keyword)
        if value is not None and str(value) and float(value) > 0:
            return float(value)
    return None
