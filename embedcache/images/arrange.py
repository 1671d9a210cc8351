"""Frames of one series → the slices of one time point in anatomical order, their geometry, and what is odd about them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.errors import ImageError
from embedcache.images.frames import Frame, Pose

ORIENTATION_TOLERANCE = 1e-3
"""Two slices are parallel if their direction cosines differ by no more: writers round them to three or more places."""
EVEN_TOLERANCE = 0.05
"""Positions may be off an even line by this part of the slice distance: rounding, not a gap."""
SPACING_TOLERANCE = 1e-3
"""Pixel spacings that differ by no more than this part are one: over 512 pixels, half a pixel."""
SAME_PLACE = 0.01
"""mm along the normal within which two images lie at one position: writers round positions to two or more places."""


@dataclass(frozen=True)
class Note:
    """What a reader of the image should know, without an identifier in it."""

    text: str
    fault: bool = True
    """Whether the volume may not be what it seems; `strict` refuses it then."""


@dataclass(frozen=True)
class Arranged:
    """One time point of a series."""

    frames: list[Frame]
    spacing: tuple[float, float, float] | None
    affine: npt.NDArray[np.float64] | None
    notes: list[Note]
    leaning: npt.NDArray[np.float64] | None = None
    """As the affine, of slices that lie unevenly: right in which way the axes point, and in nothing else."""


@dataclass(frozen=True)
class _Geometry:
    spacing: tuple[float, float, float] | None = None
    affine: npt.NDArray[np.float64] | None = None
    notes: tuple[Note, ...] = ()
    leaning: npt.NDArray[np.float64] | None = None


def arrange(frames: Sequence[Frame], time: int) -> Arranged:
    """Time point `time` of `frames` (at least one), ascending along the normal, row x column direction.

    Frames without a position, or that are not parallel, come in the order in which they were made. Several frames at
    one position are time points. Raises ImageError(stage="open") if there is no such time point.
    """
    if len(frames) == 1:
        _check_time(time, 1)
        return _single(frames[0])
    notes: list[Note] = []
    made = _without_copies(sorted(frames, key=lambda f: f.order), notes)
    poses = [f.pose for f in made if f.pose is not None]
    orientations = _orientations(poses)
    if len(poses) < len(made) or orientations > 1:
        if orientations > 1:
            notes.append(Note(f"slices are not parallel ({orientations} orientations): ordered by InstanceNumber"))
        elif len({f.file for f in made}) > 1:
            notes.append(Note("slices do not say their positions: ordered by InstanceNumber"))
        _check_time(time, 1)
        return Arranged(made, None, None, notes)
    places = _places(made, poses)
    chosen = _time_point(places, time, notes)
    apart = max(_spread(place) for place in places)
    if apart > max(SAME_PLACE, min(chosen[0].in_plane or (0.0,)) / 2):
        notes.append(Note(f"images at one height lie side by side, up to {apart:g} mm apart"))
    geometry = _geometry(chosen, [f.pose for f in chosen if f.pose is not None])
    return Arranged(chosen, geometry.spacing, geometry.affine, [*notes, *geometry.notes], geometry.leaning)


def _single(frame: Frame) -> Arranged:
    """One frame: nothing to sort, no gap; its distance is its thickness."""
    pose, in_plane, distance = frame.pose, frame.in_plane, frame.thickness
    if pose is None or in_plane is None or distance is None:
        return Arranged([frame], None, None, [])
    normal = pose.normal
    step = normal * distance
    return Arranged([frame], (float(step @ normal), *in_plane), _affine(pose, step, in_plane), [])


# --- which frames, in which order -------------------------------------------------------------------


def _without_copies(frames: list[Frame], notes: list[Note]) -> list[Frame]:
    """One frame of each identity: a file that was sent twice has the same SOPInstanceUID and the same number.

    Writers that give all files one UID are not taken for copies: their numbers or positions differ.
    """
    seen = set()
    kept = []
    for frame in frames:
        place = () if frame.pose is None else tuple(frame.pose.position.tolist())
        identity = (frame.instance, frame.order, place)
        if frame.instance and identity in seen:
            continue
        seen.add(identity)
        kept.append(frame)
    if len(kept) < len(frames):
        notes.append(Note(f"{_slices(len(frames) - len(kept))} there twice: the copies are left out"))
    return kept


def _orientations(poses: list[Pose]) -> int:
    """How many different orientations there are."""
    rest = np.array([[*pose.row, *pose.column] for pose in poses])
    found = 0
    while len(rest):
        rest = rest[np.abs(rest - rest[0]).max(axis=1) > ORIENTATION_TOLERANCE]
        found += 1
    return found


def _places(frames: list[Frame], poses: list[Pose]) -> list[list[Frame]]:
    """The frames at each position along the normal, ascending; at one position in the order they were made."""
    normal = poses[0].normal
    heights = np.array([pose.position @ normal for pose in poses])
    order = np.argsort(heights, kind="stable")
    new = np.diff(heights[order], prepend=-np.inf) > SAME_PLACE
    places: list[list[int]] = []
    for i, begins in zip(order.tolist(), new.tolist(), strict=True):
        if begins:
            places.append([])
        places[-1].append(i)
    return [[frames[i] for i in sorted(place)] for place in places]


def _spread(place: list[Frame]) -> float:
    """mm by which the positions of images at one height differ."""
    positions = np.array([frame.pose.position for frame in place if frame.pose is not None])
    return float(np.ptp(positions, axis=0).max())


def _time_point(places: list[list[Frame]], time: int, notes: list[Note]) -> list[Frame]:
    """The frames of one time point, one per position."""
    told = _told_times(places)
    n_times = len(told[0]) if told else min(len(place) for place in places)
    _check_time(time, n_times)
    if n_times > 1:
        notes.append(Note(f"{n_times} time points (images at one position): number {time} is read", fault=False))
    if told:
        return [place[time] for place in told]
    extra = sum(len(place) - n_times for place in places)
    if extra and n_times > 1:
        notes.append(Note(f"positions hold {n_times} to {max(map(len, places))} images: time points may be mixed up"))
    elif extra:
        n = sum(len(place) > 1 for place in places)
        notes.append(Note(f"duplicate slices: {n} positions hold several images, and the first made is read"))
    return [place[time] for place in places]


def _told_times(places: list[list[Frame]]) -> list[list[Frame]] | None:
    """The frames at each position by time, where a header element names every time once at every position."""
    n_candidates = min(len(frame.times) for place in places for frame in place)
    for k in range(n_candidates):
        values = [Counter(frame.times[k] for frame in place) for place in places]
        if None not in values[0] and max(values[0].values()) == 1 and all(v == values[0] for v in values):
            # a Counter of None-free tuples: they sort
            return [sorted(place, key=lambda frame: frame.times[k] or ()) for place in places]
    return None


def _check_time(time: int, n_times: int) -> None:
    if time >= n_times:
        raise ImageError(
            f"time point {time} was asked for, and the series has {n_times} (counted from 0); use another --time.",
            "open",
        )


# --- geometry ---------------------------------------------------------------------------------------


def _geometry(frames: list[Frame], poses: list[Pose]) -> _Geometry:
    """Of at least two slices that are in order already, all with a pose."""
    in_plane = frames[0].in_plane
    if in_plane is None:
        return _Geometry()
    if any(f.in_plane is None or not np.allclose(f.in_plane, in_plane, rtol=SPACING_TOLERANCE) for f in frames):
        return _Geometry(notes=(Note("slices have several pixel spacings (PixelSpacing)"),))
    first, n = poses[0], len(frames)
    normal = first.normal
    positions = np.array([pose.position for pose in poses])
    gaps = np.diff(positions @ normal)
    # the lower median: a distance that occurs, with up to half of the slices missing
    distance, step = float(np.sort(gaps)[(n - 2) // 2]), (positions[-1] - positions[0]) / (n - 1)
    even = positions[0] + np.arange(n)[:, np.newaxis] * step
    if np.abs(positions - even).max() > EVEN_TOLERANCE * distance:
        leaning = _affine(first, distance * normal, in_plane)
        return _Geometry((distance, *in_plane), None, (_uneven(gaps, distance),), leaning)
    affine = _affine(first, step, in_plane)
    # the mean distance: positions are rounded, and their rounding adds up in a single gap
    return _Geometry((float(step @ normal), *in_plane), affine, _tilt(step, normal, n, min(in_plane)))


def _affine(first: Pose, step: npt.NDArray[np.float64], in_plane: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Voxel (slice, y, x) to RAS mm, from the first slice's pose and the way to the next."""
    affine = np.empty((4, 4))
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = step, first.column * in_plane[0], first.row * in_plane[1]
    affine[:3, 3], affine[3] = first.position, (0, 0, 0, 1)
    affine[:2] = 0.0 - affine[:2]  # LPS to RAS; no -0
    return affine


def _uneven(gaps: npt.NDArray[np.float64], distance: float) -> Note:
    """What is wrong with slices that do not lie on an even line."""
    steps = np.rint(gaps / distance)
    if np.abs(gaps - steps * distance).max() <= EVEN_TOLERANCE * distance and steps.min() >= 1:
        missing = int((steps - 1).sum())
        if missing:
            return Note(f"{_slices(missing)} missing: gaps of up to {gaps.max():g} mm, else {distance:g} mm")
        return Note("slices do not lie on one line: their positions move sideways")
    return Note(f"the distance between slices varies: {gaps.min():g} to {gaps.max():g} mm")


def _tilt(step: npt.NDArray[np.float64], normal: npt.NDArray[np.float64], n: int, pixel: float) -> tuple[Note, ...]:
    """A note where the stack leans: its last slice is moved sideways by more than half a pixel."""
    along = float(step @ normal)
    sideways = float(np.linalg.norm(step - along * normal))
    if sideways * (n - 1) <= pixel / 2:
        return ()
    degrees = np.degrees(np.arctan2(sideways, along))
    return (Note(f"gantry tilt: slices are moved sideways by {degrees:.1f} degrees, which the affine says"),)


def _slices(n: int) -> str:
    return "1 slice is" if n == 1 else f"{n} slices are"
