"""A resize and a crop as numbers, forth and back; `backbones.preprocess` executes them in torch.

Coordinates are continuous: a pixel (i, j) covers [i, i + 1) x [j, j + 1), its centre is (i + 0.5, j + 0.5).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError
from embedcache.types import Fit

Coordinates = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """The part of a slice that a view shows, rows [top, top + height) and columns [left, left + width)."""

    top: int
    left: int
    height: int
    width: int
    flipped: bool
    """Left and right of the input are swapped."""


@dataclass(frozen=True)
class Placement:
    """How one slice lands on a backbone's input: the whole slice is resized, then a window of it is cut out.

    With a `look`, that part stands for the whole slice in all of this, and the input is flipped in the end.
    """

    source: tuple[int, int]
    """(height, width) of the slice."""
    size: tuple[int, int]
    """(height, width) of the input."""
    resized: tuple[int, int]
    """(height, width) to which the whole slice is resized."""
    crop: tuple[int, int]
    """(top, left) of the input in the resized slice; negative where zeros are padded before it."""
    look: Look | None = None
    """None for the whole slice."""

    def to_input(self, y: npt.ArrayLike, x: npt.ArrayLike) -> tuple[Coordinates, Coordinates]:
        """Where points of the slice lie on the input (outside [0, size) if they were cropped away)."""
        return self._forth(y, 0), self._forth(x, 1)

    def to_source(self, y: npt.ArrayLike, x: npt.ArrayLike) -> tuple[Coordinates, Coordinates]:
        """Where points of the input lie on the slice (outside [0, source) if they are padding)."""
        return self._back(y, 0), self._back(x, 1)

    def part(self, axis: int) -> tuple[int, int]:
        """First pixel and length of what is shown of the slice, along an axis."""
        if self.look is None:
            return 0, self.source[axis]
        return (self.look.top, self.look.height) if axis == 0 else (self.look.left, self.look.width)

    def flips(self, axis: int) -> bool:
        """Whether the input runs against the slice, along an axis."""
        return axis == 1 and self.look is not None and self.look.flipped

    def _forth(self, values: npt.ArrayLike, axis: int) -> Coordinates:
        start, length = self.part(axis)
        there = (np.asarray(values, np.float64) - start) * self.resized[axis] / length - self.crop[axis]
        return self.size[axis] - there if self.flips(axis) else there

    def _back(self, values: npt.ArrayLike, axis: int) -> Coordinates:
        start, length = self.part(axis)
        there = np.asarray(values, np.float64)
        there = self.size[axis] - there if self.flips(axis) else there
        return (there + self.crop[axis]) * length / self.resized[axis] + start


def place(
    height: int,
    width: int,
    size: tuple[int, int],
    fit: Fit,
    processor: Mapping[str, Any],
    look: Look | None = None,
) -> Placement:
    """The placement of a slice of (height, width), or of the part of it in `look`, on an input of `size`.

    `squash` stretches the whole slice to the input; `pad` keeps its aspect and centres it between zeros; `processor`
    does what Hugging Face's image processor of the backbone does, from its configuration: `size` with `shortest_edge`
    (and `longest_edge`) or `height` and `width`, then the centre crop `crop_size`. Raises InputError if the
    processor's own output is not of `size`.
    """
    if min(height, width, *size) < 1:
        raise InputError(f"a slice and an input must have at least one pixel. Got {height}x{width} to {size}.")
    if look is not None:
        return replace(place(look.height, look.width, size, fit, processor), source=(height, width), look=look)
    if fit == "squash":
        return Placement((height, width), size, size, (0, 0))
    if fit == "pad":
        scale = min(size[0] / height, size[1] / width)
        resized = (_fitted(height * scale, size[0]), _fitted(width * scale, size[1]))
        return Placement((height, width), size, resized, _centred(resized, size))
    return _as_processor(height, width, size, processor)


def _fitted(length: float, available: int) -> int:
    return min(max(round(length), 1), available)


def _centred(resized: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    # floor division: an odd pixel of padding goes before the image, as in the NumPy processors of transformers
    return (resized[0] - size[0]) // 2, (resized[1] - size[1]) // 2


def _as_processor(height: int, width: int, size: tuple[int, int], processor: Mapping[str, Any]) -> Placement:
    resized = (height, width)
    if processor.get("do_resize", True):
        resized = _processor_resize(height, width, processor.get("size"))
    output = resized
    if processor.get("do_center_crop", False):
        output = _two_edges(processor.get("crop_size"), "crop_size")
    if output != size:
        raise InputError(
            f"the processor makes {output[0]}x{output[1]} of a {height}x{width} image, and the input is "
            f"{size[0]}x{size[1]}; use another size, or fit=squash."
        )
    corner = _torchvision_corner if processor.get("crop_corner") == "half-to-even" else _centred
    return Placement((height, width), size, resized, corner(resized, size))


def _torchvision_corner(resized: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    # where torchvision's CenterCrop, and so timm, cuts: halves are rounded to even, an odd pixel of padding goes behind
    top, left = (round(a / 2) if a >= 0 else -(-a // 2) for a in (resized[0] - size[0], resized[1] - size[1]))
    return top, left


def _processor_resize(height: int, width: int, edges: Any) -> tuple[int, int]:
    """Of transformers' `get_resize_output_image_size` and `get_size_with_aspect_ratio`, whose `int` rounds down."""
    if isinstance(edges, Mapping) and edges.get("shortest_edge") is None:
        return _two_edges(edges, "size")
    shortest = edges["shortest_edge"] if isinstance(edges, Mapping) else edges
    longest = edges.get("longest_edge") if isinstance(edges, Mapping) else None
    if not isinstance(shortest, int) or shortest < 1:
        raise InputError(f"the processor's size must name shortest_edge, or height and width. Got {edges!r}.")
    short, long = min(height, width), max(height, width)
    new_short, new_long = shortest, int(shortest * long / short)
    if longest is not None and long / short * shortest > longest:
        exact = longest * short / long
        new_short, new_long = round(exact), int(exact * long / short)
    return (new_long, new_short) if width <= height else (new_short, new_long)


def _two_edges(edges: Any, name: str) -> tuple[int, int]:
    if isinstance(edges, int):
        return edges, edges
    if not isinstance(edges, Mapping) or "height" not in edges or "width" not in edges:
        raise InputError(f"the processor's {name} must have height and width. Got {edges!r}.")
    return int(edges["height"]), int(edges["width"])


# --- masks and scores on the patch grid -------------------------------------------------------------


def patch_shares(
    mask: npt.NDArray[Any], n_classes: int, placement: Placement, grid: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """(gy, gx, n_classes): the share of each class within each patch, by exact area; the shares of a patch sum to 1.

    `mask` (y, x) holds class numbers below `n_classes` on the slice's own grid, 0 the background. What a patch has of
    padding counts as background. Raises InputError if the mask is not of the slice's shape or holds another number.
    """
    if mask.shape != placement.source:
        raise InputError(f"the mask must have the shape of its slice, {placement.source}. Got {mask.shape}.")
    if mask.size and not 0 <= mask.min() <= mask.max() < n_classes:
        raise InputError(f"a mask of {n_classes} classes holds 0 to {n_classes - 1}. Got {mask.min()} to {mask.max()}.")
    rows, columns = _overlap(placement, 0, grid[0]), _overlap(placement, 1, grid[1])
    shares = np.zeros((*grid, n_classes))
    for k in range(1, n_classes):
        inside = mask == k
        if inside.any():
            shares[..., k] = rows @ inside @ columns.T
    shares[..., 0] = np.maximum(1 - shares[..., 1:].sum(axis=-1), 0)
    return shares.astype(np.float32)


def _overlap(placement: Placement, axis: int, patches: int) -> Coordinates:
    """(patches, source length): the part of each patch's extent that each source pixel covers."""
    edges = placement._back(np.arange(patches + 1) * (placement.size[axis] / patches), axis)
    low, high = (edges[1:], edges[:-1]) if placement.flips(axis) else (edges[:-1], edges[1:])
    start, length = placement.part(axis)
    pixels = np.arange(placement.source[axis])
    covered = np.minimum(high[:, np.newaxis], pixels + 1) - np.maximum(low[:, np.newaxis], pixels)
    covered[:, (pixels < start) | (pixels >= start + length)] = 0  # what is not shown lies under the border of a `pad`
    return np.asarray(np.clip(covered, 0, None) / (high - low)[:, np.newaxis])


def upsample_to_source(scores: npt.NDArray[Any], placement: Placement) -> npt.NDArray[np.float64]:
    """(height, width, C): scores (gy, gx, C) of patches, bilinear between patch centres, on the slice's own grid.

    Beyond the outermost centres (and where the slice was cropped away) the nearest edge's value goes on.
    """
    rows = _between(placement, 0, scores.shape[0])
    columns = _between(placement, 1, scores.shape[1])
    # one axis after the other: (height, gx, C), then (height, width, C)
    return np.asarray(np.einsum("xb,ybc->yxc", columns, np.einsum("ya,abc->ybc", rows, scores), optimize=True))


def _between(placement: Placement, axis: int, patches: int) -> Coordinates:
    """(source length, patches): the bilinear weights of patch centres at each source pixel's centre."""
    centres = placement._forth(np.arange(placement.source[axis]) + 0.5, axis)
    at = np.clip(centres * patches / placement.size[axis] - 0.5, 0, patches - 1)
    below = np.minimum(at.astype(np.int64), max(patches - 2, 0))
    above = np.minimum(below + 1, patches - 1)
    weights = np.zeros((placement.source[axis], patches))
    index = np.arange(placement.source[axis])
    np.add.at(weights, (index, below), 1 - (at - below))
    np.add.at(weights, (index, above), at - below)
    return weights
