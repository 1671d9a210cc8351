"""Bare arrays: `.npy`, and what every container of arrays (`.npz`, `.mat`) has in common.

(y, x) is a picture, (slice, y, x) a volume; (y, x, 1), (y, x, 3) and (y, x, 4) of uint8 are pictures in grey, RGB and RGBA
(laid over black), and (slice, y, x, 3) of uint8 is a volume in colour. Bits become 0 and 255, as in a raster.
"""

import math
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from embedcache.errors import ImageError
from embedcache.images.parsed import Parsed, over_black, plain_calibration, reading


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of a `.npy` file says."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int
    """Bytes of the header itself."""

    @property
    def stop(self) -> int:
        """Bytes of the header and the values."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def array_header(file: BinaryIO) -> ArrayHeader:
    """The header at the beginning of `file`, which need not be longer. Raises ImageError(stage="open").

    Never unpickles: an array of Python objects is refused by its dtype.
    """
    with reading("the header of the array can not be read: the file is cut short or damaged.", "open"):
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ImageError(f"it is an array of format {version[0]}.{version[1]}; only 1.0 and 2.0 are read.", "open")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
        header = ArrayHeader(shape, dtype, fortran, file.tell())
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ImageError(f"its values are of type {dtype.kind!r}; only real numbers of up to 64 bits are read.", "open")
    return header


def count_slices(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Slices of an array. Raises ImageError(stage="open") for one that is no image."""
    if not shape or min(shape) < 1:
        raise ImageError(f"it is an array of shape {shape}, which holds no pixel.", "open")
    if len(shape) == 2 or _is_picture(shape, dtype):
        return 1
    if len(shape) == 3 or (len(shape) == 4 and shape[3] == 3 and dtype == np.uint8):
        return shape[0]
    raise ImageError(
        f"it is an array of shape {shape} and type {dtype}, which is no image: (y, x), (slice, y, x), or colours as uint8.",
        "open",
    )


def parse_npy(data: bytes) -> Parsed:
    """The image in a `.npy` file. Raises ImageError(stage="open")."""
    header = array_header(BytesIO(data))
    if len(data) < header.stop:
        raise ImageError(
            f"its values are cut short: {max(len(data) - header.offset, 0):,} of the {header.stop - header.offset:,} bytes "
            "that its header says.",
            "open",
        )
    values = np.frombuffer(data, header.dtype, math.prod(header.shape), header.offset)
    return array_image(values.reshape(header.shape, order="F" if header.fortran else "C"))


def array_image(values: npt.NDArray[Any]) -> Parsed:
    """The image that an array is. Raises ImageError(stage="open") if it is none."""
    n = count_slices(values.shape, values.dtype)
    if n == 1 and (values.ndim == 2 or _is_picture(values.shape, values.dtype)):
        return Parsed("array", 1, plain_calibration(1), lambda start, stop: _pixels(_picture(values)[np.newaxis]))
    return Parsed("volume", n, plain_calibration(n), lambda start, stop: _pixels(values[start:stop]))


def _is_picture(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    return len(shape) == 3 and (shape[2] == 1 or (shape[2] in (3, 4) and dtype == np.uint8))


def _picture(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(y, x) or (y, x, 3)."""
    if values.ndim == 2 or values.shape[2] == 3:
        return values
    return values[..., 0] if values.shape[2] == 1 else over_black(values)


def _pixels(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    dtype = np.dtype(np.float32) if values.dtype == np.float16 else values.dtype.newbyteorder("=")
    return values.astype(dtype, order="C", copy=True)
