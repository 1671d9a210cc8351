"""A file's own display where it is no straight line: a lookup table or a sigmoid, executed here, in float64.

What is a window is left to `backbones.preprocess`, which executes numbers; of a curve it gets what the curve makes.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from embedcache.images.parsed import Kind
from embedcache.images.windows import is_padding, physical
from embedcache.types import Calibration, VoiSigmoid, VoiTable, Volume, Window

_FEW_VALUES = 2
"""Bytes of a stored value up to which a curve is worked out once for each value there can be, not for each pixel."""


def shows_curve(window: Window, kind: Kind, calibration: Calibration) -> bool:
    """Whether a window shows any of an image's slices along a curve of the file's own."""
    own = window.name == "voi" or (window.name == "auto" and kind == "dicom")
    return own and any(isinstance(voi, VoiTable | VoiSigmoid) for voi in calibration.voi)


def presented(volume: Volume) -> Volume:
    """`volume` as float32: brightness from 0 to 1 (before the inversion of MONOCHROME1) of the slices that have a curve,
    physical values of the others, NaN for padding: the values that the limits of `voi` and `auto` speak of.
    """
    n, calibration = len(volume.pixels), volume.calibration
    values = np.empty(volume.pixels.shape, dtype=np.float32)
    for i in range(n):
        part = slice(i, i + 1)
        own = replace(
            calibration, slope=calibration.slope[part], intercept=calibration.intercept[part], voi=calibration.voi[part]
        )
        pixels = volume.pixels[i]
        if pixels.dtype.kind in "iu" and pixels.dtype.itemsize <= _FEW_VALUES:
            unsigned = np.dtype(f"u{pixels.dtype.itemsize}")
            every = np.arange(256**unsigned.itemsize, dtype=unsigned).view(pixels.dtype)
            values[i] = _values(every, own)[pixels.view(unsigned)]
        else:
            values[i] = _values(pixels, own)
    return replace(
        volume, pixels=values, calibration=Calibration(np.ones(n), np.zeros(n), calibration.invert, calibration.voi)
    )


def _values(stored: npt.NDArray[np.generic], calibration: Calibration) -> npt.NDArray[np.float32]:
    """Of the calibration's one slice."""
    value = physical(stored[np.newaxis], calibration)[0]
    voi = calibration.voi[0]
    if isinstance(voi, VoiTable):
        value = _looked_up(value, voi)
    elif isinstance(voi, VoiSigmoid):
        with np.errstate(over="ignore"):  # e^x of what is far below the centre is infinite, and its brightness 0
            value = 1 / (1 + np.exp(-4 * (value - voi.centre) / voi.width))
    value[is_padding(stored, calibration)] = np.nan
    return np.asarray(value, dtype=np.float32)


def _looked_up(value: npt.NDArray[np.float64], table: VoiTable) -> npt.NDArray[np.float64]:
    entries = np.frombuffer(table.entries, dtype=np.uint16)
    known = np.isfinite(value)
    place = np.floor(np.where(known, value, table.first)) - table.first
    bright = entries[np.clip(place, 0, len(entries) - 1).astype(np.int64)] / table.white
    return np.where(known, bright, np.nan)
