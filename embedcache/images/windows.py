"""Named intensity mappings to [0, 1], and the numbers that they come to for given pixels.

A window maps physical values (HU for CT) `low` → 0 and `high` → 1, clamped; `backbones.preprocess` executes it. Where
low equals high (a constant image) the executor renders black, never NaN; so it does with NaN and infinite pixels, which
are left out of every statistic, as padding pixels are.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from embedcache.errors import ImageError, InputError, suggest
from embedcache.images.parsed import Kind
from embedcache.types import Calibration, Scope, Voi, Window

_LUNG, _SOFT_TISSUE, _BONE = (-600.0, 1500.0), (40.0, 400.0), (300.0, 1500.0)
_VOLUME_PERCENTS = (0.5, 99.5)
_VOLUMES: tuple[Kind, ...] = ("nifti", "volume")

WINDOWS: Mapping[str, Window] = MappingProxyType(
    {
        window.name: window
        for window in (
            Window("auto"),
            Window("ct-bone", numbers=(_BONE,)),
            Window("ct-lung", numbers=(_LUNG,)),
            Window("ct-soft-tissue", numbers=(_SOFT_TISSUE,)),
            Window("ct-three", numbers=(_LUNG, _SOFT_TISSUE, _BONE)),
            Window("min-max"),
            Window("percentile", numbers=(_VOLUME_PERCENTS,)),
            Window("range"),
            Window("voi"),
        )
    }
)
"""Every named window. `ct-three` is lung, soft tissue and bone as three channels."""

_PICTURES: Mapping[Kind, int] = MappingProxyType({"raster": 2, "array": 1})
"""Kinds of which `auto` takes the dtype's whole range, up to so many bytes a value: 16 bits are a picture's own in a PNG, while
in an array they are what a program had at hand."""

_SCOPED = ("auto", "min-max", "percentile")
"""Windows whose numbers are statistics of a slice or of a volume."""


# --- parsing --------------------------------------------------------------------------------------


def parse_window(text: str, scope: Scope | None = None) -> Window:
    """The window that a user named.

    `ct-lung`, `auto`…; `40/400` is centre/width in physical units; `percentile:1,99` its two percents; a suffix
    `@slice` or `@volume` says over what statistics are taken, and wins over `scope`. Raises UnknownNameError for
    an unknown name, InputError for numbers that make no window.
    """
    name, at, given = text.strip().partition("@")
    if at:
        if given not in get_args(Scope):
            raise InputError(f"window {text!r}: the scope must be @slice or @volume. Got {'@' + given!r}.")
        scope = "volume" if given == "volume" else "slice"
    window = _named(name)
    if scope in (None, "slice"):
        return window
    if window.name not in _SCOPED:
        raise InputError(
            f"window {name!r} takes no statistics, so the scope 'volume' means nothing to it; leave the scope out "
            f"(it is for {', '.join(_SCOPED)})."
        )
    return replace(window, scope="volume")


def window_text(window: Window) -> str:
    """The words for which `parse_window` gives this window."""
    if window.name in WINDOWS and replace(window, scope="slice") == WINDOWS[window.name]:
        text = window.name
    elif window.name == "percentile":
        text = "percentile:" + ",".join(f"{number!r}" for number in window.numbers[0])
    else:
        text = "/".join(f"{number!r}" for number in window.numbers[0])
    return text if window.scope == "slice" else f"{text}@{window.scope}"


def over_volume(window: Window) -> Window:
    """The window with its statistics over all slices, where it takes any."""
    return replace(window, scope="volume") if window.name in _SCOPED else window


def _named(name: str) -> Window:
    if name in WINDOWS:
        return WINDOWS[name]
    head, separator, rest = name.partition(":")
    if head == "percentile" and separator:
        low, high = _two_numbers(name, rest, ",")
        if not 0 <= low < high <= 100:
            raise InputError(f"window {name!r}: percents must be 0 <= low < high <= 100, as in percentile:1,99.")
        return Window("percentile", numbers=((low, high),))
    if "/" in name:
        centre, width = _two_numbers(name, name, "/")
        if width <= 0:
            raise InputError(f"window {name!r}: the width must be above 0, as in 40/400 (centre/width).")
        return Window(f"{centre:g}/{width:g}", numbers=((centre, width),))
    raise suggest("window", name, [*WINDOWS, "percentile:LOW,HIGH", "CENTRE/WIDTH"])


def _two_numbers(name: str, text: str, separator: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in text.split(separator))
    except ValueError as error:
        raise InputError(f"window {name!r}: wants two numbers, as in 40/400 or percentile:1,99.") from error
    if not (math.isfinite(first) and math.isfinite(second)):
        raise InputError(f"window {name!r}: its numbers must be finite.")
    return first, second


# --- numbers --------------------------------------------------------------------------------------


def physical(pixels: npt.NDArray[Any], calibration: Calibration) -> npt.NDArray[np.float64]:
    """Stored values (slice, y, x[, 3]) in physical units, float64: value · slope + intercept, slice by slice."""
    per_slice = (-1,) + (1,) * (pixels.ndim - 1)
    slope = np.asarray(calibration.slope, np.float64).reshape(per_slice)
    return pixels * slope + np.asarray(calibration.intercept, np.float64).reshape(per_slice)


def is_padding(pixels: npt.NDArray[Any], calibration: Calibration) -> npt.NDArray[np.bool_]:
    """Shape of `pixels`: which stored values are padding."""
    if calibration.padding is None:
        return np.zeros(pixels.shape, dtype=np.bool_)
    low, high = calibration.padding
    return (pixels >= low) & (pixels <= high)


def is_width(window: Window) -> bool:
    """Whether the window's numbers are (centre, width), which no pixel can change."""
    return bool(window.numbers) and window.name != "percentile"


def whole_volume(window: Window, kind: Kind) -> bool:
    """Whether the window's statistics are over all slices of the image."""
    if window.name == "auto" and kind in _VOLUMES:
        return True
    return window.scope == "volume" and window.name in _SCOPED


def needs_pixels(window: Window, kind: Kind, calibration: Calibration) -> bool:
    """Whether `resolve_limits` has to see pixels; the rest is told by numbers and headers."""
    if is_width(window) or window.name == "voi":
        return False
    return not (window.name == "auto" and kind == "dicom" and calibration.voi and None not in calibration.voi)


def resolve_limits(
    window: Window, kind: Kind, calibration: Calibration, pixels: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.float64]:
    """(n, channels, 2): physical low and high of each slice, before the inversion of MONOCHROME1.

    `pixels` (n, y, x[, 3]) are the slices that `calibration` speaks of: all of the image where
    `whole_volume(window, kind)`, and not needed where `needs_pixels` says so. `auto` is: in a DICOM file a slice's own
    VOI window, else its min-max; in a raster the dtype's whole range, in an array of 8 bits too; percentile(0.5, 99.5) of a
    volume (NIfTI, NRRD, MetaImage, an array of slices); and the dtype's range for any colour image. A raster of floats or
    32-bit integers and an array of more than 8 bits, whose range says nothing, take min-max. Colour channels share one pair.
    A slice whose own display is a curve has 0 and 1: they speak of the brightness that `voi.presented` makes of it.
    Raises ImageError for `voi` where the file has none.
    """
    n = len(calibration.slope)
    if is_width(window):
        return np.tile([[c - w / 2, c + w / 2] for c, w in window.numbers], (n, 1, 1)).reshape(n, -1, 2)
    if window.name == "voi" or (window.name == "auto" and kind == "dicom" and pixels is None):
        return _voi_limits(calibration, n)
    if pixels is None:
        raise InputError(f"window {window.name!r} is a statistic: it needs pixels.")
    if window.name == "range" or (window.name == "auto" and (kind in _PICTURES or pixels.ndim == 4)):
        widest = _PICTURES.get(kind, 2) if window.name == "auto" else 8
        if pixels.dtype.kind not in "iub" or pixels.dtype.itemsize > widest:
            return _per_slice(pixels, calibration, (0, 100))[:, np.newaxis]
        return _range_limits(pixels.dtype, calibration)[:, np.newaxis]
    percents = window.numbers[0] if window.name == "percentile" else (0.0, 100.0)
    if window.name == "auto" and kind in _VOLUMES:
        percents = _VOLUME_PERCENTS
    if whole_volume(window, kind):
        limits = np.tile(_limits(pixels, calibration, percents), (n, 1))
    else:
        limits = _per_slice(pixels, calibration, percents)
    if window.name == "auto" and kind == "dicom":
        for i, voi in enumerate(calibration.voi):
            if voi is not None:
                limits[i] = _ends(voi)
    return limits[:, np.newaxis]


def doubts(
    window: Window, kind: Kind, modality: str, calibration: Calibration, pixels: npt.NDArray[Any], limits: npt.ArrayLike
) -> tuple[str, ...]:
    """What speaks against showing `pixels` (n, y, x[, 3]) through the window's `limits` (n, channels, 2), in words."""
    if window.name.startswith("ct-") and (kind == "raster" or modality not in ("", "CT", "PT")):
        return (f"window {window.name} is of Hounsfield units, and this is no CT",)
    if window.name in ("auto", "range") and pixels.dtype.kind in "iu" and pixels.dtype.itemsize == 2 and pixels.size:
        low, high = np.asarray(limits, dtype=np.float64)[:, 0].T
        shown = (
            np.outer(calibration.slope, (pixels.min(), pixels.max())) + np.asarray(calibration.intercept)[:, np.newaxis]
        )
        if (np.ptp(shown, axis=1) < _LITTLE * (high - low)).all():
            return ("16-bit values use less than a tenth of their range: shown dark; --window min-max or percentile",)
    return ()


_LITTLE = 0.1


def _voi_limits(calibration: Calibration, n: int) -> npt.NDArray[np.float64]:
    windows = [voi for voi in calibration.voi if voi is not None]
    if len(windows) < n:
        raise ImageError(
            "the file has no window of its own (WindowCenter, WindowWidth, VOILUTSequence); use another window than 'voi'.",
            "preprocess",
        )
    return np.array([[_ends(voi)] for voi in windows])


def _ends(voi: Voi) -> tuple[float, float]:
    """Black and white of a window in physical units, of a curve in what it gives."""
    return (voi[0] - voi[1] / 2, voi[0] + voi[1] / 2) if isinstance(voi, tuple) else (0.0, 1.0)


def _range_limits(dtype: np.dtype[Any], calibration: Calibration) -> npt.NDArray[np.float64]:
    stored = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    ends = np.outer(calibration.slope, stored) + np.asarray(calibration.intercept)[:, np.newaxis]
    return np.sort(ends.astype(np.float64), axis=1)


def _per_slice(
    pixels: npt.NDArray[Any], calibration: Calibration, percents: tuple[float, float]
) -> npt.NDArray[np.float64]:
    rows = [_limits(pixels[i : i + 1], _one(calibration, i), percents) for i in range(len(pixels))]
    return np.array(rows, dtype=np.float64)


def _one(calibration: Calibration, i: int) -> Calibration:
    return replace(calibration, slope=calibration.slope[i : i + 1], intercept=calibration.intercept[i : i + 1], voi=())


def _limits(pixels: npt.NDArray[Any], calibration: Calibration, percents: tuple[float, float]) -> tuple[float, float]:
    """Two percentiles (linear between order statistics) of all valid pixels, in physical units; (0, 0) if none is."""
    valid = _valid(pixels, calibration)
    slope, intercept = calibration.slope, calibration.intercept
    if np.all(slope == slope[0]) and np.all(intercept == intercept[0]):
        # one line for all: the order of stored values decides, and they are several times smaller than float64
        values = pixels.ravel() if valid is None else pixels[valid]
        low, high = (v * float(slope[0]) + float(intercept[0]) for v in _percentiles(values, percents, slope[0] < 0))
        return min(low, high), max(low, high)
    values = physical(pixels, calibration)
    low, high = _percentiles(values.ravel() if valid is None else values[valid], percents)
    return low, high


def _valid(pixels: npt.NDArray[Any], calibration: Calibration) -> npt.NDArray[np.bool_] | None:
    """The pixels that statistics count: finite, and outside the padding range. None means all."""
    valid = np.isfinite(pixels) if pixels.dtype.kind == "f" else None
    if calibration.padding is not None:
        inside = is_padding(pixels, calibration)
        valid = ~inside if valid is None else valid & ~inside
    return valid


def _percentiles(values: npt.NDArray[Any], percents: tuple[float, float], falling: bool = False) -> tuple[float, float]:
    """As np.percentile (linear), interpolated in float64: numpy's own subtracts in the stored dtype, and wraps."""
    if not values.size:
        return 0.0, 0.0
    wanted = sorted(100 - p for p in percents) if falling else list(percents)
    if wanted == [0, 100]:
        return float(values.min()), float(values.max())
    position = np.asarray(wanted) / 100 * (values.size - 1)
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, values.size - 1)
    ordered = np.partition(values, np.unique(np.concatenate([below, above])))
    low = ordered[below].astype(np.float64)
    result = low + (ordered[above].astype(np.float64) - low) * (position - below)
    return float(result[0]), float(result[1])
