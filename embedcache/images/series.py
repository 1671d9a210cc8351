"""DICOM files → one image: frames in order along the slice normal, one calibration, one geometry."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import UID, SegmentationStorage

from embedcache.errors import ImageError
from embedcache.images.arrange import Arranged, Note, arrange
from embedcache.images.dicom import decode_frame, padding_range, pydicom_reading, read_dataset, read_header
from embedcache.images.elements import value_of
from embedcache.images.frames import Frame, floats, read_frames
from embedcache.images.mosaic import is_mosaic
from embedcache.images.options import ImageOptions
from embedcache.images.parsed import Parsed
from embedcache.types import Calibration

_Source = TypeVar("_Source", bytes, str)

_DEFAULTS = ImageOptions()

MASK_CLASSES = (SegmentationStorage, UID("1.2.840.10008.5.1.4.1.1.66.7"))
"""SOP classes of segmentations; the second, of label maps, is younger than pydicom's list."""


def parse_dicom(blobs: Iterable[bytes], options: ImageOptions = _DEFAULTS) -> Parsed:
    """One file, or all files of one series. Raises ImageError(stage="open") where they make no single image.

    Slices ascend along the normal, row x column direction of ImageOrientationPatient (feet to head for the usual
    axial series), by ImagePositionPatient; so do the frames of an Enhanced object and the tiles of a Siemens mosaic.
    Frames that do not say where they lie, or that are not parallel, come by InstanceNumber and frame, with a warning.
    Localisers among other images are left out, and so is every time point but `options.time`. A blob is let go as soon
    as it is understood: give a generator to hold no file twice.
    """
    datasets = list(_read_all(blobs, read_dataset))
    with pydicom_reading(_STRANGE, "open"):
        series = _understood(datasets, options)
        frames = series.arranged.frames
        first = datasets[frames[0].file]
        kept = {f.file: datasets[f.file] for f in frames}
        return Parsed(
            "dicom",
            len(frames),
            _calibration(frames, first),
            lambda start, stop: _decode(frames[start:stop], kept),
            modality=str(value_of(first, "Modality") or ""),
            spacing=series.arranged.spacing,
            affine=series.arranged.affine,
            leaning=series.arranged.leaning,
            grid=_grid(frames[0], first),
            time_point=options.time,
            warnings=series.warnings,
        )


def count_dicom(paths: Sequence[str], options: ImageOptions = _DEFAULTS) -> int:
    """Slices that `parse_dicom` finds in these files, from their headers. Raises ImageError(stage="open")."""
    datasets = list(_read_all(paths, read_header))
    with pydicom_reading(_STRANGE, "open"):
        return len(_understood(datasets, options).arranged.frames)


def series_frames(datasets: Sequence[Dataset], options: ImageOptions = _DEFAULTS) -> Arranged:
    """The slices of a series as `parse_dicom` orders them, for what is to be aligned with them."""
    with pydicom_reading(_STRANGE, "open"):
        return _understood(datasets, options).arranged


_STRANGE = "the DICOM header holds values that can not be read."


@dataclass(frozen=True)
class _Series:
    arranged: Arranged
    warnings: tuple[str, ...]


def _read_all(sources: Iterable[_Source], read: Callable[[_Source], Dataset]) -> Iterator[Dataset]:
    """`read` of every file; the error of a file among several says which it was."""
    sources = iter(sources)
    for i, source in enumerate(sources):
        try:
            yield read(source)
        except ImageError as error:
            if i == 0 and next(sources, None) is None:
                raise
            raise ImageError(f"file {i + 1} of the series, by name: {error.reason}", error.stage) from error


def _understood(datasets: Sequence[Dataset], options: ImageOptions) -> _Series:
    """Which frames make the image, in order. Raises ImageError; under `options.strict` for every fault too."""
    if any(value_of(d, "SOPClassUID") in MASK_CLASSES for d in datasets):
        raise ImageError("this is a DICOM segmentation: a mask, no image; a table names it in its mask column.", "open")
    found: list[Note] = []
    files = _without_localisers(datasets, found)
    chosen = [datasets[i] for i in files]
    _check_one_series(chosen)
    frames = [frame for i in files for frame in read_frames(datasets[i], i)]
    if any(is_mosaic(datasets[f.file]) and f.tile is None for f in frames):
        found.append(Note("a Siemens mosaic that does not say its tiles is read as one slice"))
    arranged = arrange(frames, options.time)
    found += arranged.notes
    if any(_is_at_detector(d) for d in chosen):
        # a fault only where it became a geometry: nothing of a plain radiograph hangs on it
        text = "ImagerPixelSpacing is at the detector: no true distance in the patient"
        found.append(Note(text, fault=arranged.affine is not None))
    faults = dict.fromkeys(note.text for note in found if note.fault)
    if options.strict and faults:
        raise ImageError(f"strict: {'; '.join(faults)}.", "open")
    return _Series(arranged, tuple(dict.fromkeys(note.text for note in found)))


def _without_localisers(datasets: Sequence[Dataset], found: list[Note]) -> list[int]:
    """The files that are no localiser (ImageType); all, if all are."""
    others = [i for i, d in enumerate(datasets) if "LOCALIZER" not in (value_of(d, "ImageType") or ())]
    n = len(datasets) - len(others)
    if not others or not n:
        return list(range(len(datasets)))
    found.append(Note(f"{n} localiser{' is' if n == 1 else 's are'} left out"))
    return others


def _is_at_detector(dataset: Dataset) -> bool:
    """Whether the file's spacing is measured at the detector (PS3.3 10.7.1.3): PixelSpacing is absent, or the same."""
    imager, corrected = floats(dataset, "ImagerPixelSpacing", 2), floats(dataset, "PixelSpacing", 2)
    return imager is not None and (corrected is None or imager == corrected)


def _check_one_series(datasets: Sequence[Dataset]) -> None:
    series = {str(value_of(d, "SeriesInstanceUID") or "") for d in datasets}
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
        if len({tuple(str(value_of(d, k)) for k in keywords) for d in datasets}) > 1:
            raise ImageError(f"the series holds slices of several {what} ({', '.join(keywords)}).", "open")


def _calibration(frames: list[Frame], first: Dataset) -> Calibration:
    voi = tuple(f.scale.voi for f in frames)
    return Calibration(
        slope=np.array([f.scale.slope for f in frames]),
        intercept=np.array([f.scale.intercept for f in frames]),
        invert=value_of(first, "PhotometricInterpretation") == "MONOCHROME1",
        voi=voi if any(v is not None for v in voi) else (),
        padding=padding_range(first),
    )


def _grid(frame: Frame, dataset: Dataset) -> tuple[int, int]:
    if frame.tile is not None:
        return frame.tile.height, frame.tile.width
    return int(value_of(dataset, "Rows")), int(value_of(dataset, "Columns"))


def _decode(frames: list[Frame], datasets: dict[int, Dataset]) -> npt.NDArray[Any]:
    """The frames' pixels in one array, filled frame by frame: no second copy of the volume is held."""
    volume: npt.NDArray[Any] | None = None
    stored: tuple[int, int] | None = None
    image: npt.NDArray[Any] = np.empty(0)
    for i, frame in enumerate(frames):
        if stored != (frame.file, frame.index):  # the tiles of a mosaic follow each other: it is decoded once
            image, stored = decode_frame(datasets[frame.file], frame.index), (frame.file, frame.index)
        pixels = image if frame.tile is None else frame.tile.cut(image)
        if len(frames) == 1 and pixels.flags.carray and pixels.dtype.isnative:
            return pixels[np.newaxis]  # decoded for this call: no view of the file's bytes, which nobody may write to
        if volume is None:
            volume = np.empty((len(frames), *pixels.shape), pixels.dtype.newbyteorder("="))
        if pixels.shape != volume.shape[1:] or pixels.dtype.newbyteorder("=") != volume.dtype:
            raise ImageError("its frames decode to several sizes or types.")
        volume[i] = pixels
    if volume is None:
        raise IndexError("no slice was asked for.")
    return volume
