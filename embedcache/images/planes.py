"""Anatomical planes of a volume, by its affine: axes are permuted and flipped, nothing is resampled.

The plane's axes are those of the stored ones that lie nearest to them (`nibabel.orientations.io_orientation`). Slices run
along the positive axes of RAS, and each is shown as a radiologist sees it:

| plane | slices | top row | left column |
|---|---|---|---|
| axial | feet to head | anterior | the patient's right |
| coronal | posterior to anterior | head | the patient's right |
| sagittal | the patient's left to right | head | anterior |
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import ImageError
from embedcache.images.options import Plane
from embedcache.images.parsed import Parsed
from embedcache.images.windows import is_padding, physical
from embedcache.types import Calibration

OBLIQUE_DEGREES = 15.0
"""A slice that is tilted further from its plane is worth a warning; a patient's head lies as crookedly as this."""

_AXES: Mapping[Plane, str] = MappingProxyType({"axial": "SPL", "coronal": "AIL", "sagittal": "RIP"})
"""Where slice, y and x point to: Superior, Posterior, Left…"""

Orientation = npt.NDArray[np.float64]
"""nibabel's (3, 2) table: for each axis of an array the axis that it becomes, and -1 where it is turned round."""


@cache
def orientations() -> ModuleType:
    """`nibabel.orientations`, imported where a volume is turned: with nibabel comes pydicom, half a second that decode processes
    of radiographs, and probes, do without.
    """
    from nibabel import orientations as module

    found: ModuleType = module
    return found


def in_plane(parsed: Parsed, plane: Plane, note_obliqueness: bool = True, uneven: bool = False) -> Parsed:
    """The volume cut along `plane`; as it is for `stored`. uneven: also across slices that do not lie on an even line, as if
    they did.

    Where slices have to be cut across the stored ones, the whole volume is decoded at the first of them and kept, and
    slices of several slopes become float32 in physical units. Raises ImageError(stage="open") for an image whose file does
    not say how it lies.
    """
    if plane == "stored":
        return parsed
    pose = parsed.affine if parsed.affine is not None else parsed.leaning
    if pose is None:
        raise ImageError(
            f"its file does not say how the image lies in space, so there is no {plane} plane; use plane stored.",
            "open",
        )
    turn = _turn(pose, plane)
    across = turn[0, 0] != 0
    if across and parsed.affine is None and not uneven:
        raise ImageError(
            f"its slices do not lie on an even line, so no {plane} slice can be cut across them; use plane stored.",
            "open",
        )
    if across and parsed.n_slices == 1:
        raise ImageError(f"it is a single slice of another plane than {plane}; use plane stored.", "open")
    rows, columns = parsed.grid or parsed.decode(0, 1).shape[1:3]
    shape = (parsed.n_slices, rows, columns)
    source = [int(np.flatnonzero(turn[:, 0] == axis)[0]) for axis in range(3)]
    spacing = parsed.spacing
    moved = orientations().inv_ornt_aff(turn, shape)
    return replace(
        parsed,
        n_slices=shape[source[0]],
        calibration=_across(parsed, shape[source[0]]) if across else _along(parsed.calibration, turned=turn[0, 1] < 0),
        decode=_cut_across(parsed, turn) if across else _cut_along(parsed, turn),
        spacing=None if spacing is None else (spacing[source[0]], spacing[source[1]], spacing[source[2]]),
        affine=None if parsed.affine is None else parsed.affine @ moved,
        leaning=None if parsed.leaning is None else parsed.leaning @ moved,
        grid=(shape[source[1]], shape[source[2]]),
        warnings=(*parsed.warnings, *(_obliqueness(pose, plane) if note_obliqueness else ())),
    )


def _turn(affine: npt.NDArray[np.float64], plane: Plane) -> Orientation:
    known = orientations()
    orientation = known.io_orientation(affine) if np.all(np.isfinite(affine)) else np.full((3, 2), np.nan)
    if np.any(np.isnan(orientation)):
        raise ImageError("the affine in its header is no geometry: axes are missing in it.", "open")
    turn: Orientation = known.ornt_transform(orientation, known.axcodes2ornt(tuple(_AXES[plane])))
    return turn


def _obliqueness(affine: npt.NDArray[np.float64], plane: Plane) -> tuple[str, ...]:
    directions = np.abs(affine[:3, :3]) / np.linalg.norm(affine[:3, :3], axis=0)
    degrees = float(np.degrees(np.arccos(np.clip(directions.max(axis=0).min(), -1, 1))))
    if degrees <= OBLIQUE_DEGREES:
        return ()
    return (f"the volume is oblique: its {plane} slices are up to {degrees:.0f} degrees off the plane",)


# --- the stored slices are those of the plane -----------------------------------------------------


def _cut_along(parsed: Parsed, turn: Orientation) -> Callable[[int, int], npt.NDArray[Any]]:
    def decode(start: int, stop: int) -> npt.NDArray[Any]:
        if turn[0, 1] < 0:
            start, stop = parsed.n_slices - stop, parsed.n_slices - start
        return np.ascontiguousarray(orientations().apply_orientation(parsed.decode(start, stop), turn))

    return decode


def _along(calibration: Calibration, turned: bool) -> Calibration:
    if not turned:
        return calibration
    return replace(
        calibration, slope=calibration.slope[::-1], intercept=calibration.intercept[::-1], voi=calibration.voi[::-1]
    )


# --- the plane's slices lie across the stored ones ------------------------------------------------


def _is_uniform(calibration: Calibration) -> bool:
    return bool(np.ptp(calibration.slope) == 0 and np.ptp(calibration.intercept) == 0)


def _cut_across(parsed: Parsed, turn: Orientation) -> Callable[[int, int], npt.NDArray[Any]]:
    @cache
    def whole() -> npt.NDArray[Any]:
        pixels = parsed.decode(0, parsed.n_slices)
        if not _is_uniform(parsed.calibration):
            values = physical(pixels, parsed.calibration).astype(np.float32)
            values[is_padding(pixels, parsed.calibration)] = np.nan
            pixels = values
        return np.asarray(orientations().apply_orientation(pixels, turn))

    return lambda start, stop: whole()[start:stop].copy(order="C")


def _across(parsed: Parsed, n_slices: int) -> Calibration:
    """Of slices that each hold a row of every stored slice."""
    stored = parsed.calibration
    voi = (stored.voi[0],) * n_slices if stored.voi and len(set(stored.voi)) == 1 else ()
    if _is_uniform(stored):
        slope, intercept = np.full(n_slices, stored.slope[0]), np.full(n_slices, stored.intercept[0])
        return replace(stored, slope=slope, intercept=intercept, voi=voi)
    return replace(stored, slope=np.ones(n_slices), intercept=np.zeros(n_slices), voi=voi, padding=None)
