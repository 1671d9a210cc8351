"""A bright square, or cube, that moves must be followed by its patch, in every layer: see `check_backbone`. Imports torch."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from embedcache.testing.backbone_subject import Subject

AXES = "zyx"
PLACES = 4
"""So many places along each axis at most, from end to end, each with each of the other axes."""
Place = tuple[int, ...]


def of_places(subject: Subject) -> Iterator[str]:
    """Of a square, or cube, of the coarsest patches' size, put on dark ground at many places.

    For each layer: what changes in each patch is measured against what changes in it on average over the places.
    """
    size = subject.grid_size
    arrays = [spec for spec in subject.arrays(size) if spec.kind == "patch_tokens"]
    if not arrays:
        return
    grid = tuple(n // step for n, step in zip(size, subject.steps, strict=True))
    places = places_on(grid)
    dark = subject.constant(0.0, size)
    before = subject.tokens(dark, arrays)
    change: dict[str, list[torch.Tensor]] = {spec.path: [] for spec in arrays}
    for place in places:
        bright = dark.clone()
        at = tuple(slice(n * step, (n + 1) * step) for n, step in zip(place, subject.steps, strict=True))
        bright[0, 0][at] = 2
        bright[0, 1:] = bright[0, 0]
        for path, values in subject.tokens(bright, arrays).items():
            change[path].append(_per_cell((values - before[path])[0], grid, places))
    for path, rows in change.items():
        yield from _not_followed(path, places, torch.stack(rows))


def places_on(grid: tuple[int, ...]) -> list[Place]:
    """Every one of a small grid, else PLACES along each axis: an axis is told from another only where each has its own course."""
    along = [np.linspace(0, n - 1, min(PLACES, n)).round().astype(int).tolist() for n in grid]
    return list(itertools.product(*along))


def _not_followed(path: str, places: Sequence[Place], change: torch.Tensor) -> Iterator[str]:
    """change: (place of the square, patch).

    A convolution spreads it to the patches around, to each as much as to its own, and the deepest layers of a CNN see all of
    so small an image: a square may show one patch off, though most do not show off the same way, and a few of them anywhere.
    """
    axes, what = AXES[-len(places[0]) :], "squares" if len(places[0]) == 2 else "cubes"
    at = np.array(places)
    shown = at[(change / change.mean(dim=0)).argmax(dim=1).numpy()]
    off = shown - at
    lost = np.flatnonzero(np.abs(off).max(axis=1) > 1).tolist()
    if len(lost) > len(places) / 4:
        yield (
            f"{path}: of {len(places)} {what} {len(lost)} do not show where they are, that at ({', '.join(axes)}) = "
            f"{places[lost[0]]} at {tuple(shown[lost[0]].tolist())}"
        )
    middle = np.median(off, axis=0)  # of a map that is one off, the squares that fall off its edge show anywhere
    if np.abs(middle).max() > 0.5:
        told = ", ".join(f"{patches:+.1f} patches along {axis}" for axis, patches in zip(axes, middle, strict=True))
        yield f"{path}: {what} show {told} from where they are"
    for axis, course in zip(axes, _courses(at, shown), strict=True):
        if course < 0.5:
            yield f"{path}: {what} that move by one patch along {axis} show {course:+.1f} patches further along {axis}"


def _courses(at: npt.NDArray[np.int64], shown: npt.NDArray[np.int64]) -> list[float]:
    """Along each axis: how far what shows moves where a square moves by one patch (a line's slope); 1 where it can not move."""
    own = at - at.mean(axis=0)
    moved, spread = (own * shown).sum(axis=0), (own * own).sum(axis=0)
    return [float(m / s) if s > 0 else 1.0 for m, s in zip(moved, spread, strict=True)]


def _per_cell(difference: torch.Tensor, grid: tuple[int, ...], places: Sequence[Place]) -> torch.Tensor:
    """(places,): how much the tokens (…, E) under each patch of the coarsest grid have changed, at `places`."""
    energy = difference.double().square().sum(dim=-1).cpu()
    split = [part for n, cells in zip(energy.shape, grid, strict=True) for part in (cells, n // cells)]
    cells = energy.reshape(split).sum(dim=tuple(range(1, len(split), 2)))
    return torch.stack([cells[place] for place in places])
