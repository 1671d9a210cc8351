"""PNG, JPEG, TIFF and BMP through Pillow: grey stays in its stored dtype, colour becomes 8-bit RGB. A PNG of 8 bits, or of 16 in
grey, is decoded by imagecodecs where that is installed: the same pixels, faster.

Alpha is laid over black, EXIF orientation is applied, a palette becomes its colours. A damaged or cut file fails as
a whole: Pillow raises for it as long as nobody sets ImageFile.LOAD_TRUNCATED_IMAGES, which is checked.
"""

from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps

from embedcache.errors import ImageError
from embedcache.images import codecs
from embedcache.images.parsed import Parsed, over_black, plain_calibration, reading
from embedcache.images.tiff import pages

_PHOTOMETRIC_INTERPRETATION = 262
"""TIFF 6.0: 0 is WhiteIsZero, 1 BlackIsZero."""
_ORIENTATION = 0x0112
"""Number of the EXIF tag."""
_GREY_DTYPES = {"I;16": np.uint16, "I;16B": np.uint16, "I;16L": np.uint16, "I": np.int32, "F": np.float32}


def parse_raster(data: bytes) -> Parsed:
    """One slice, or those that a TIFF has as pages. Raises ImageError(stage="open") where Pillow knows no header in `data`."""
    head = codecs.png_head(data)
    if head is None or not _is_plain(head):
        return _parse_by_pillow(data)
    return Parsed("raster", 1, plain_calibration(1), lambda start, stop: _decode_png(data, head))


def _is_plain(head: codecs.PngHead) -> bool:
    """Whether imagecodecs gives what Pillow does, of a size that Pillow has no warning for."""
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and head.rows * head.columns > most:
        return False
    return head.depth == 8 or (head.depth == 16 and head.colour == 0 and not head.transparent)


def _decode_png(data: bytes, head: codecs.PngHead) -> npt.NDArray[Any]:
    _check_truncation()
    pixels = codecs.png(data, head)
    if pixels is None:
        return _parse_by_pillow(data).decode(0, 1)
    if head.transparent:
        pixels = over_black(pixels)[..., 0] if pixels.shape[2] == 2 else over_black(pixels)
    return np.ascontiguousarray(pixels)[np.newaxis]


def _parse_by_pillow(data: bytes) -> Parsed:
    notes = []
    with reading("the image file is damaged: its header can not be read.", "open"):
        try:
            image = Image.open(BytesIO(data), formats=("PNG", "JPEG", "TIFF", "BMP"))
        except Image.DecompressionBombError as error:
            raise ImageError(
                f"the image's header claims more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, which Pillow's "
                "guard against decompression bombs refuses.",
                "open",
            ) from error
        numbers = pages(image) if image.format == "TIFF" else [0]
        if image.format != "TIFF" and getattr(image, "n_frames", 1) > 1:
            notes.append(f"only the first of {image.n_frames} frames is read")  # type: ignore[attr-defined]
        if image.mode not in _GREY_DTYPES and any(";16" in str(tile) for tile in image.tile):
            notes.append("16-bit colour or alpha is read in 8 bits, all that Pillow gives")
        calibration = replace(plain_calibration(len(numbers)), invert=_white_is_zero(image))
    if len(numbers) == 1:
        return Parsed("raster", 1, calibration, lambda start, stop: _decode(image), warnings=tuple(notes))

    def decode(start: int, stop: int) -> npt.NDArray[Any]:
        return np.concatenate([_decode(image, number) for number in numbers[start:stop]])

    return Parsed("raster", len(numbers), calibration, decode, warnings=tuple(notes))


def _white_is_zero(image: Image.Image) -> bool:
    """Whether low values of a wide grey TIFF are bright: Pillow turns those of 8 bits over, and leaves these as they are."""
    tags = getattr(image, "tag_v2", {})
    return image.mode in _GREY_DTYPES and tags.get(_PHOTOMETRIC_INTERPRETATION) == 0


def _check_truncation() -> None:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageError("this process allows Pillow to read cut files (LOAD_TRUNCATED_IMAGES); switch that off.")


def _decode(image: Image.Image, frame: int | None = None) -> npt.NDArray[Any]:
    _check_truncation()
    with reading("the image file is cut short or damaged: its pixels can not be decoded.", "decode"):
        if frame is not None:
            image.seek(frame)
        image.load()
        # without an orientation, exif_transpose would copy the image
        upright = image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
        return np.array(_stored(upright))[np.newaxis]


def _stored(image: Image.Image) -> npt.NDArray[Any]:
    """(y, x) in the stored dtype, or (y, x, 3) uint8."""
    mode = image.mode
    if mode in _GREY_DTYPES:
        pixels = np.asarray(image)
        return pixels.astype(_GREY_DTYPES[mode], copy=False)
    if mode == "1":
        return np.asarray(image.convert("L"))
    if image.has_transparency_data:
        if mode in ("L", "LA"):
            return over_black(np.asarray(image.convert("LA")))[..., 0]
        return over_black(np.asarray(image.convert("RGBA")))
    return np.asarray(image if mode in ("L", "RGB") else image.convert("RGB"))
