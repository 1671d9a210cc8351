"""A DICOM segmentation (PS3.3 A.51) → a Mask on the grid of the image that it was drawn on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from embedcache.errors import ImageError
from embedcache.images.arrange import EVEN_TOLERANCE, ORIENTATION_TOLERANCE, SAME_PLACE, SPACING_TOLERANCE
from embedcache.images.dicom import (
    decode_frame,
    find_group,
    first_item,
    first_number,
    frame_count,
    frame_groups,
    pydicom_reading,
    read_dataset,
    read_header,
)
from embedcache.images.files import form_of, is_series, open_file, series_files, split_path
from embedcache.images.frames import Frame, read_frames
from embedcache.images.options import ImageOptions
from embedcache.images.parsed import Parsed, plain_calibration
from embedcache.images.planes import in_plane
from embedcache.images.series import MASK_CLASSES, series_frames
from embedcache.types import Mask

_DEFAULTS = ImageOptions()
_STRANGE = "the DICOM header holds values that can not be read."

HALF = 0.5
"""A fractional segment covers a pixel from this fraction on."""


@dataclass(frozen=True)
class _Grid:
    """The slices of the image, and how to find one."""

    slices: list[Frame]
    shape: tuple[int, int]
    by_instance: dict[tuple[str, int], int]
    """(SOPInstanceUID, frame from 0) → slice, for slices that are a whole frame."""
    affine: npt.NDArray[np.float64] | None
    poses: npt.NDArray[np.float64]
    """(slice, 11): position, row, column, PixelSpacing; NaN where a slice does not say."""


def read_segmentation(
    path: str, image: str, segments: Sequence[int] | None = None, options: ImageOptions = _DEFAULTS
) -> Mask:
    """The segmentation at `path` on the slices that `open_image(image, options)` gives: (slice, y, x), uint8 or uint16.

    Binary, fractional (a pixel belongs to the segment that covers most of it, from a half on) and label maps. A frame
    goes to the slice at its position, else to the one whose SOPInstanceUID it names; a slice without a frame is
    background. Classes are all segments by their numbers, or those of `segments` in that order, named by SegmentLabel.
    Raises ImageError: stage "open" where the file is no segmentation, or does not lie on the image's grid; "decode"
    where its pixels can not be read, or two segments of a binary one share a pixel.
    """
    with open_file(path) as file:
        mask = read_dataset(file.read())
    if not is_series(image) and form_of(split_path(image)[0]) != "dicom":
        raise ImageError(
            "it is a DICOM segmentation of an image that is no DICOM file: nothing says where it lies.", "open"
        )
    files = series_files(image) if is_series(image) else [image]
    return align_segmentation(mask, [read_header(f) for f in files], segments, options)


def segment_labels(path: str) -> dict[int, str] | None:
    """The name of each segment of the DICOM segmentation at `path`, by its number; None where that is another file.

    Reads its header only. Raises ImageError(stage="open").
    """
    if is_series(path) or form_of(split_path(path)[0]) != "dicom":
        return None
    header = read_header(path)
    with pydicom_reading(_STRANGE, "open"):
        return _labels(header) if header.get("SOPClassUID") in MASK_CLASSES else None


def align_segmentation(
    mask: Dataset, image: Sequence[Dataset], segments: Sequence[int] | None = None, options: ImageOptions = _DEFAULTS
) -> Mask:
    """As `read_segmentation`, of data sets that were read already (the image's need no pixels)."""
    with pydicom_reading(_STRANGE, "open"):
        if mask.get("SOPClassUID") not in MASK_CLASSES:
            raise ImageError("this DICOM file is no segmentation (SOPClassUID).", "open")
        labels = _labels(mask)
        chosen = tuple(sorted(labels)) if segments is None else tuple(segments)
        unknown = [n for n in chosen if n not in labels]
        if unknown:
            raise ImageError(f"the segmentation has no segment {unknown[0]}; it has {sorted(labels)}.", "open")
        grid = _grid(image, options)
        if (int(mask.Rows), int(mask.Columns)) != grid.shape:
            raise ImageError(
                f"the segmentation has {int(mask.Rows)}x{int(mask.Columns)} pixels, and its image "
                f"{grid.shape[0]}x{grid.shape[1]}: it lies on another grid.",
                "open",
            )
        places = [_slice_of(frame, mask, grid) for frame in read_frames(mask, 0)]
    numbers = {n: i + 1 for i, n in enumerate(chosen)}
    values = _painted(mask, places, numbers, (len(grid.slices), *grid.shape))
    return Mask(_turned(values, grid.affine, options), tuple(labels[n] for n in chosen))


def _labels(mask: Dataset) -> dict[int, str]:
    """The segments by their numbers; 0 is a label map's background."""
    numbers = {int(item.SegmentNumber): str(item.get("SegmentLabel") or "").strip() for item in mask.SegmentSequence}
    return {n: label or f"segment {n}" for n, label in sorted(numbers.items()) if n > 0}


def _turned(
    values: npt.NDArray[np.integer[Any]], affine: npt.NDArray[np.float64] | None, options: ImageOptions
) -> npt.NDArray[np.integer[Any]]:
    """Stored slices as the slices of the plane that was asked for."""
    n = len(values)
    stored = Parsed("dicom", n, plain_calibration(n), lambda start, stop: values[start:stop], affine=affine)
    turned = in_plane(stored, options.plane)
    return turned.decode(0, turned.n_slices)


# --- where a frame goes -----------------------------------------------------------------------------


def _grid(image: Sequence[Dataset], options: ImageOptions) -> _Grid:
    arranged = series_frames(image, options)
    slices = arranged.frames
    tile, first = slices[0].tile, image[slices[0].file]
    shape = (int(first.Rows), int(first.Columns)) if tile is None else (tile.height, tile.width)
    by_instance = {(s.instance, s.index): i for i, s in enumerate(slices) if s.tile is None}
    return _Grid(slices, shape, by_instance, arranged.affine, np.array([_numbers(s) for s in slices]))


def _numbers(frame: Frame) -> list[float]:
    pose = frame.pose
    where = [np.nan] * 9 if pose is None else [*pose.position, *pose.row, *pose.column]
    return [*where, *(frame.in_plane or (np.nan, np.nan))]


def _slice_of(frame: Frame, mask: Dataset, grid: _Grid) -> int:
    """The slice on which a frame of the segmentation lies. Raises ImageError if there is none, or two."""
    named = _named_slice(frame, mask, grid)
    placed = _placed_slice(frame, grid)
    if named is not None and placed is not None and named != placed:
        raise ImageError("a frame of the segmentation names another slice than the one at its position.", "open")
    found = named if placed is None else placed
    if found is None:
        raise ImageError(
            f"frame {frame.index + 1} of the segmentation lies on no slice of the image: another series, another "
            "grid, or a slice that is missing.",
            "open",
        )
    return found


def _named_slice(frame: Frame, mask: Dataset, grid: _Grid) -> int | None:
    """By the source image that the frame was derived from, where it names exactly one of the slices."""
    derivation = first_item(
        find_group(frame_groups(mask, frame.index), "DerivationImageSequence", mask), "SourceImageSequence"
    )
    if derivation is None:
        return None
    number = first_number(derivation, "ReferencedFrameNumber")
    key = str(derivation.get("ReferencedSOPInstanceUID") or ""), 0 if number is None else int(number) - 1
    return grid.by_instance.get(key)


def _placed_slice(frame: Frame, grid: _Grid) -> int | None:
    """By position, with the same orientation and pixel spacing."""
    own = np.array(_numbers(frame))
    off = np.abs(grid.poses - own)
    near = off[:, :3].max(axis=1) <= np.fmax(SAME_PLACE, EVEN_TOLERANCE * grid.poses[:, 9:].min(axis=1))
    parallel = off[:, 3:9].max(axis=1) <= ORIENTATION_TOLERANCE
    same_size = ~(off[:, 9:] > SPACING_TOLERANCE * own[9:]).any(
        axis=1
    )  # where either does not say, it is taken as the same
    found = np.flatnonzero(near & parallel & same_size)
    return int(found[0]) if len(found) else None


# --- what it covers ---------------------------------------------------------------------------------


def _painted(
    mask: Dataset, places: list[int], numbers: dict[int, int], shape: tuple[int, int, int]
) -> npt.NDArray[np.integer[Any]]:
    """Class numbers (slice, y, x): `numbers` says which class a segment is, `places` to which slice a frame goes."""
    kind = str(mask.get("SegmentationType") or "BINARY")
    values = np.zeros(shape, np.uint8 if len(numbers) < 256 else np.uint16)
    strength = np.zeros(shape, np.uint8)
    needed = (
        max(1, int(np.ceil(HALF * (first_number(mask, "MaximumFractionalValue") or 255))))
        if kind == "FRACTIONAL"
        else 1
    )
    for index, place in enumerate(places):
        pixels = decode_frame(mask, index)
        if pixels.ndim != 2:
            raise ImageError("the segmentation is stored in colour, which names no segment.")
        if kind == "LABELMAP":
            for number, value in numbers.items():
                values[place][pixels == number] = value
            continue
        own = numbers.get(_segment_number(mask, index))
        if own is None:
            continue
        covered = pixels >= needed
        if kind == "BINARY" and np.any(covered & (values[place] != 0)):
            raise ImageError(
                "two segments of the segmentation share a pixel: choose which are read (segments; --mask-values)."
            )
        covered &= pixels > strength[place]
        values[place][covered] = own
        strength[place][covered] = pixels[covered]
    return values


def _segment_number(mask: Dataset, index: int) -> int:
    group = find_group(frame_groups(mask, index), "SegmentIdentificationSequence", mask)
    number = first_number(group, "ReferencedSegmentNumber")
    if number is None:
        raise ImageError(f"frame {index + 1} of {frame_count(mask)} of the segmentation names no segment.", "open")
    return int(number)
