"""One DICOM file: its data set, the numbers that calibrate each frame, and the decoding of a frame.

Reasons are our own words: pydicom's texts may carry a file name or a header's value.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from embedcache.errors import ImageError
from embedcache.images.parsed import reading

_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_END_MARKED = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes)
_END_OF_IMAGE = b"\xff\xd9"
_FIRST_VRS = (b"UI", b"CS", b"OB", b"UL")
"""Value representations of the elements that begin groups 0002 and 0008."""


@dataclass(frozen=True)
class FrameScale:
    """How one frame's stored values become physical ones, and the file's own window (centre, width) for it."""

    slope: float
    intercept: float
    voi: tuple[float, float] | None


@contextmanager
def pydicom_reading(reason: str, stage: str) -> Iterator[list[Any]]:
    """`reading`, with pydicom's logger silent: it repeats each warning with values of the header in it."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with reading(reason, stage) as caught:
            yield caught
    finally:
        logger.disabled = before


def count_frames(path: str) -> int:
    """Frames of the file at `path`, from its header. Raises ImageError(stage="open")."""
    with pydicom_reading("the DICOM header can not be read: the file is cut short or damaged.", "open"):
        wanted: list[Any] = ["NumberOfFrames", "Rows", "Columns"]
        dataset = dcmread(path, stop_before_pixels=True, specific_tags=wanted, force=True)
        if not dataset.get("Rows") or not dataset.get("Columns"):
            raise _no_image()
        return frame_count(dataset)


def read_dataset(data: bytes) -> Dataset:
    """The data set in `data`, with as many pixel bytes as its header says. Raises ImageError(stage="open")."""
    with pydicom_reading("the DICOM header can not be read: the file is cut short or damaged.", "open"):
        dataset = dcmread(BytesIO(data), force=True)
        if not any(k in dataset for k in _PIXEL_KEYWORDS) or not dataset.get("Rows") or not dataset.get("Columns"):
            raise _no_image()
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = _guessed_syntax(data)
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            _check_codestreams(dataset)
        else:
            _check_length(dataset)
        return dataset


def frame_count(dataset: Dataset) -> int:
    """NumberOfFrames, at least 1."""
    return max(int(dataset.get("NumberOfFrames") or 1), 1)


def decode_frame(dataset: Dataset, index: int) -> npt.NDArray[Any]:
    """(y, x) in the stored dtype, or (y, x, 3) uint8 for RGB, YBR and palette colour. Raises ImageError."""
    _check_decoder(dataset.file_meta.TransferSyntaxUID)
    with pydicom_reading("its pixel data can not be decoded: cut short or damaged.", "decode"):
        pixels = pixel_array(dataset, index=index)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            return _eight_bits(apply_color_lut(pixels, dataset))
        if pixels.ndim == 3:
            return _eight_bits(pixels, int(dataset.BitsStored))
        if "ModalityLUTSequence" in dataset:
            # a table is no slope: applied here, so that the calibration's 1 and 0 are true of what is handed over
            pixels = np.asarray(apply_modality_lut(pixels, dataset))
        return pixels


def frame_scales(dataset: Dataset) -> list[FrameScale]:
    """Rescale and VOI window of each frame, from the functional groups of an Enhanced object where it has them."""
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    colour = int(dataset.get("SamplesPerPixel") or 1) > 1 or "ModalityLUTSequence" in dataset
    scales = []
    for i in range(frame_count(dataset)):
        groups = [g for g in (per_frame[i] if i < len(per_frame) else None, shared) if g is not None]
        rescale = _group(groups, "PixelValueTransformationSequence", dataset)
        slope, intercept = _number(rescale, "RescaleSlope"), _number(rescale, "RescaleIntercept")
        if colour or not slope:  # a slope of 0 would make any image constant: a broken header
            slope, intercept = 1.0, 0.0
        scales.append(FrameScale(slope, intercept or 0.0, _voi(_group(groups, "FrameVOILUTSequence", dataset))))
    return scales


def padding_range(dataset: Dataset) -> tuple[float, float] | None:
    """Stored values from PixelPaddingValue to PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2), None where not given."""
    value = _number(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = _number(dataset, "PixelPaddingRangeLimit")
    ends = [_stored_sign(v, dataset) for v in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def notes(dataset: Dataset) -> list[str]:
    """What a reader should know of this file's display, as short phrases."""
    found = []
    if "VOILUTSequence" in dataset and "WindowWidth" not in dataset:
        found.append("the file's VOI lookup table is not applied")
    if str(dataset.get("VOILUTFunction") or "LINEAR") == "SIGMOID":
        found.append("the file's sigmoid VOI function is taken as linear")
    if "MOSAIC" in (dataset.get("ImageType") or ()):
        found.append("a Siemens mosaic is read as one slice")
    return found


def _no_image() -> ImageError:
    return ImageError("the DICOM file holds no pixel data: it is cut short, or it is no image object.", "open")


def _guessed_syntax(data: bytes) -> UID:
    """For a file without meta information: explicit VR if the first element names one, else DICOM's default."""
    return ExplicitVRLittleEndian if data[4:6] in _FIRST_VRS else ImplicitVRLittleEndian


def _check_decoder(syntax: UID) -> None:
    with pydicom_reading(f"its compression ({syntax.name}) is not read here.", "decode"):
        if not get_decoder(syntax).is_available:
            raise ImageError(
                f"no decoder for its compression ({syntax.name}) is installed: pip install 'embedcache[dicom]'."
            )


def _check_length(dataset: Dataset) -> None:
    """Raises ImageError if there is less native pixel data than Rows, Columns, bits and frames say."""
    keyword = next(k for k in _PIXEL_KEYWORDS if k in dataset)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    bits = int(dataset.BitsAllocated) * samples * int(dataset.Rows) * int(dataset.Columns) * frame_count(dataset)
    if dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
        bits = bits * 2 // 3  # two luminance samples share one pair of colour samples
    expected, present = (bits + 7) // 8, len(dataset[keyword].value or b"")
    if present < expected:
        raise ImageError(
            f"its pixel data is cut short: {present:,} of the {expected:,} bytes that its header says.", "open"
        )


def _check_codestreams(dataset: Dataset) -> None:
    """Raises ImageError if compressed frames are missing, or one of the JPEG families lacks its end marker.

    libjpeg and JPEG-LS decoders fill the rest of a cut stream with grey and say nothing.
    """
    n = frame_count(dataset)
    streams = list(generate_frames(dataset.PixelData, number_of_frames=n))
    whole = sum(stream.rstrip(b"\0\xff").endswith(_END_OF_IMAGE) for stream in streams)
    if dataset.file_meta.TransferSyntaxUID not in _END_MARKED:  # RLE; its decoder counts the bytes itself
        whole = len(streams)
    if whole < n:
        raise ImageError(f"its pixel data is cut short: {whole} of {n} compressed frames are whole.", "open")


def _first(dataset: Dataset, keyword: str) -> Dataset | None:
    items = dataset.get(keyword)
    return items[0] if items else None


def _group(groups: list[Dataset], keyword: str, dataset: Dataset) -> Dataset:
    """The functional group `keyword` of a frame, its own before the shared; else the data set."""
    for group in groups:
        found = _first(group, keyword)
        if found is not None:
            return found
    return dataset


def _number(dataset: Dataset, keyword: str) -> float | None:
    """The element's first value as a finite number, None where it is absent, empty or no number."""
    value = dataset.get(keyword)
    if value is not None and not isinstance(value, str | bytes) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _voi(dataset: Dataset) -> tuple[float, float] | None:
    centre, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    return (centre, width) if centre is not None and width is not None and width > 0 else None


def _stored_sign(value: float, dataset: Dataset) -> float:
    """`value` as the pixels' own type: writers store a negative padding value as unsigned, or the other way round."""
    bits = int(dataset.BitsAllocated)
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    if signed and value >= 1 << (bits - 1):
        return value - (1 << bits)
    return value + (1 << bits) if not signed and value < 0 else value


def _eight_bits(pixels: npt.NDArray[Any], bits: int = 0) -> npt.NDArray[np.uint8]:
    """Colour samples of `bits` (or of their whole dtype) as their eight highest bits."""
    shift = (bits or 8 * pixels.dtype.itemsize) - 8
    return (pixels >> max(shift, 0)).astype(np.uint8)
