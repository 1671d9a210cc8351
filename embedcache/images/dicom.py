"""One DICOM file: its data set, the numbers that calibrate each frame, and the decoding of a frame.

Reasons are our own words: pydicom's texts may carry a file name or a header's value.
"""

import logging
import math
import os
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
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from embedcache.errors import ImageError
from embedcache.images import codecs
from embedcache.images.deflated import check_inflated
from embedcache.images.elements import is_absent, syntax_of, value_of
from embedcache.images.files import open_file
from embedcache.images.parsed import DEFLATE_RATIO, reading
from embedcache.images.pixels import grey_pixels, sole_stream
from embedcache.images.scanning import scan
from embedcache.types import Voi, VoiSigmoid, VoiTable

_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_END_MARKED = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes)
_FRAGMENT_BYTES = 8
"""Tag and length of a compressed frame's one fragment at least."""
_NO_HEADER = "the DICOM header can not be read: the file is cut short or damaged."
_FIRST_VRS = (b"UI", b"CS", b"OB", b"UL")
"""Value representations of the elements that begin groups 0002 and 0008."""


@dataclass(frozen=True)
class FrameScale:
    """How one frame's stored values become physical ones, and the file's own window for it."""

    slope: float
    intercept: float
    voi: Voi | None


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


def read_header(path: str) -> Dataset:
    """The data set of the file at `path` up to its pixels. Raises ImageError(stage="open")."""
    with pydicom_reading(_NO_HEADER, "open"), open_file(path) as file:
        check_inflated(file)
        dataset = dcmread(file, stop_before_pixels=True, force=True)
        if not dataset.get("Rows") or not dataset.get("Columns"):
            raise _no_image()
        _check_claim(dataset, os.path.getsize(path))
        return dataset


def read_dataset(data: bytes) -> Dataset:
    """The data set in `data`, with as many pixel bytes as its header says. Raises ImageError(stage="open")."""
    with pydicom_reading(_NO_HEADER, "open"):
        dataset = scan(data) or _read_by_pydicom(data)
        if all(is_absent(dataset, k) for k in _PIXEL_KEYWORDS):
            raise _no_image()
        if not value_of(dataset, "Rows") or not value_of(dataset, "Columns"):
            raise _no_image()
        if syntax_of(dataset).is_encapsulated:
            _check_codestreams(dataset)
        else:
            _check_length(dataset)
        return dataset


def _read_by_pydicom(data: bytes) -> Dataset:
    # closed at the end: the data set keeps the buffer, and would hold the file's bytes beside its own copy of the pixels
    with BytesIO(data) as buffer:
        check_inflated(buffer)
        dataset = dcmread(buffer, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _guessed_syntax(data)
    return dataset


def frame_count(dataset: Dataset) -> int:
    """NumberOfFrames, at least 1."""
    return max(int(value_of(dataset, "NumberOfFrames") or 1), 1)


def decode_frame(dataset: Dataset, index: int) -> npt.NDArray[Any]:
    """(y, x) in the stored dtype, or (y, x, 3) uint8 for RGB, YBR and palette colour: not to be written to. Raises ImageError."""
    with pydicom_reading("its pixel data can not be decoded: cut short or damaged.", "decode"):
        grey = grey_pixels(dataset, index, frame_count(dataset))
        if grey is None:
            _check_decoder(syntax_of(dataset))
        pixels = pixel_array(dataset, index=index) if grey is None else grey
        if value_of(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
            return _eight_bits(_palette_colours(pixels, dataset))
        if pixels.ndim == 3:
            return _eight_bits(pixels, int(dataset.BitsStored))
        if not is_absent(dataset, "ModalityLUTSequence"):
            return _through_modality_table(pixels, dataset)
        return pixels


def _through_modality_table(pixels: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[Any]:
    """A table is no slope: applied here, so that the calibration's 1 and 0 are true of what is handed over.

    Padding is told in stored values, which are gone then: it becomes NaN, and `padding_range` is None.
    """
    values = np.asarray(apply_modality_lut(pixels, dataset))
    padding = _stored_padding(dataset)
    if padding is None:
        return values
    found: npt.NDArray[Any] = values.astype(np.float32)  # exact: entries have 16 bits at most
    found[(pixels >= padding[0]) & (pixels <= padding[1])] = np.nan
    return found


def _palette_colours(pixels: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[Any]:
    colours: npt.NDArray[Any] = apply_color_lut(pixels, dataset)
    plain = "RedPaletteColorLookupTableData" in dataset  # else segmented
    if plain and dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian and colours.dtype.itemsize == 2:
        return colours.byteswap()  # pydicom 3.0 reads a plain table as little-endian whatever the file is
    return colours


def frame_scales(dataset: Dataset) -> list[FrameScale]:
    """Rescale and VOI window of each frame, from the functional groups of an Enhanced object where it has them."""
    model = value_of(dataset, "PhotometricInterpretation")
    colour = int(value_of(dataset, "SamplesPerPixel") or 1) > 1 or model == "PALETTE COLOR"
    scaled = not colour and is_absent(dataset, "ModalityLUTSequence")
    displays: dict[int, Voi | None] = {}  # a table that frames share is read once
    scales = []
    for i in range(frame_count(dataset)):
        groups = frame_groups(dataset, i)
        rescale = find_group(groups, "PixelValueTransformationSequence", dataset)
        slope, intercept = first_number(rescale, "RescaleSlope"), first_number(rescale, "RescaleIntercept")
        if not scaled or not slope:  # a slope of 0 would make any image constant: a broken header
            slope, intercept = 1.0, 0.0
        display = find_group(groups, "FrameVOILUTSequence", dataset)
        if id(display) not in displays:
            displays[id(display)] = None if colour else _voi(display)
        scales.append(FrameScale(slope, intercept or 0.0, displays[id(display)]))
    return scales


def frame_groups(dataset: Dataset, index: int) -> list[Dataset]:
    """The functional groups of frame `index`: its own, then the shared. Empty where the file has none."""
    per_frame = value_of(dataset, "PerFrameFunctionalGroupsSequence") or []
    own = per_frame[index] if index < len(per_frame) else None
    return [g for g in (own, first_item(dataset, "SharedFunctionalGroupsSequence")) if g is not None]


def find_group(groups: list[Dataset], keyword: str, dataset: Dataset) -> Dataset:
    """The functional group `keyword` of a frame, its own before the shared; else the data set."""
    for group in groups:
        found = first_item(group, keyword)
        if found is not None:
            return found
    return dataset


def first_item(dataset: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence, None where it is absent or empty."""
    items = value_of(dataset, keyword)
    return items[0] if items else None


def first_number(dataset: Dataset, keyword: str) -> float | None:
    """The element's first value as a finite number, None where it is absent, empty or no number."""
    value = value_of(dataset, keyword)
    if value is not None and not isinstance(value, str | bytes) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def padding_range(dataset: Dataset) -> tuple[float, float] | None:
    """Which of the values that `decode_frame` gives are padding, from one to another; None where the file names none, and
    where a modality table was applied, which leaves NaN for them.
    """
    return _stored_padding(dataset) if is_absent(dataset, "ModalityLUTSequence") else None


def _stored_padding(dataset: Dataset) -> tuple[float, float] | None:
    """Stored values from PixelPaddingValue to PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2), None where not given."""
    value = first_number(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = first_number(dataset, "PixelPaddingRangeLimit")
    ends = [_stored_sign(v, dataset) for v in (value, value if limit is None else limit)]
    return min(ends), max(ends)


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


def _check_claim(dataset: Dataset, size: int) -> None:
    """Raises ImageError for more frames than a file of `size` bytes can hold: a header decides how many are listed."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        size *= DEFLATE_RATIO
    if syntax is None or not syntax.is_encapsulated:
        possible = size * 8 // max(_bits(dataset) // frame_count(dataset), 1)
    else:
        possible = size // _FRAGMENT_BYTES
    if frame_count(dataset) > max(possible, 1):
        raise ImageError(f"its header says {frame_count(dataset):,} frames, more than the file can hold.", "open")


def _bits(dataset: Dataset) -> int:
    """Of native pixel data, as the header says."""
    samples, frames = int(value_of(dataset, "SamplesPerPixel") or 1), frame_count(dataset)
    allocated, rows, columns = (int(value_of(dataset, keyword)) for keyword in ("BitsAllocated", "Rows", "Columns"))
    bits = allocated * samples * rows * columns * frames
    if value_of(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
        bits = bits * 2 // 3  # two luminance samples share one pair of colour samples
    return bits


def _check_length(dataset: Dataset) -> None:
    """Raises ImageError if there is less native pixel data than Rows, Columns, bits and frames say."""
    keyword = next(k for k in _PIXEL_KEYWORDS if not is_absent(dataset, k))
    bits = _bits(dataset)
    stored: Any = dataset.get_item(keyword)
    expected, present = (bits + 7) // 8, len(stored.value or b"")
    if present < expected:
        raise ImageError(
            f"its pixel data is cut short: {present:,} of the {expected:,} bytes that its header says.", "open"
        )


def _check_codestreams(dataset: Dataset) -> None:
    """Raises ImageError if compressed frames are missing, or one of the JPEG families lacks its end marker.

    libjpeg and JPEG-LS decoders fill the rest of a cut stream with grey and say nothing.
    """
    n = frame_count(dataset)
    value: Any = dataset.get_item("PixelData")
    sole = sole_stream(value.value) if n == 1 and is_absent(dataset, "ExtendedOffsetTable") else None
    streams = list(generate_frames(value.value, number_of_frames=n)) if sole is None else [sole]
    whole = sum(codecs.has_end(stream) for stream in streams)
    if syntax_of(dataset) not in _END_MARKED:  # RLE; its decoder counts the bytes itself
        whole = len(streams)
    if whole < n:
        raise ImageError(f"its pixel data is cut short: {whole} of {n} compressed frames are whole.", "open")


def _voi(dataset: Dataset) -> Voi | None:
    """The first lookup table, else the first window, its centre -+ width / 2 being what displays as black and white.

    The function LINEAR (PS3.3 C.11.2.1.2.1) reaches white at centre + width / 2 - 1: it counts whole numbers.
    """
    table = _voi_table(dataset)
    if table is not None:
        return table
    centre, width = first_number(dataset, "WindowCenter"), first_number(dataset, "WindowWidth")
    if centre is None or width is None or width <= 0:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID":
        return VoiSigmoid(centre, width)
    if function == "LINEAR" and width == 1:  # a step: black up to centre - 0.5
        return VoiTable(math.floor(centre - 0.5), np.array([0, 1], np.uint16).tobytes(), 1)
    return (centre - 0.5, width - 1) if function == "LINEAR" and width > 1 else (centre, width)


def _voi_table(dataset: Dataset) -> VoiTable | None:
    """PS3.3 C.11.2.1.1. None where there is no table, or one that is broken."""
    item = first_item(dataset, "VOILUTSequence")
    if item is None or item.get("LUTData") is None:
        return None
    descriptor, data = item.get("LUTDescriptor"), item.LUTData
    if descriptor is None or not hasattr(descriptor, "__len__") or len(descriptor) != 3:
        return None
    n, first, bits = map(int, descriptor)
    n = n & 0xFFFF or 1 << 16  # 0 says 2**16; what a writer gave a sign has none
    if not isinstance(data, bytes):
        data = np.array(data, ndmin=1).astype(np.uint16).tobytes()
    elif dataset.original_encoding[1] is False:
        data = np.frombuffer(data, ">u2").astype(np.uint16).tobytes()
    if len(data) >= 2 * n:
        entries = np.frombuffer(data, np.uint16, n)
    elif bits == 8 and len(data) >= n:  # two entries in a word
        entries = np.frombuffer(data, np.uint8, n).astype(np.uint16)
    else:
        return None
    white = max((1 << min(max(bits, 0), 16)) - 1, int(entries.max()))
    return VoiTable(first, entries.tobytes(), white) if entries.min() < entries.max() else None


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
