"""Stored pixels to a backbone's input: the numbers that `images` found, executed in torch, the same for every device.

A slice's result depends on that slice alone, never on the others of its volume; a whole volume is one input (volume_input.py).
"""

from functools import lru_cache

import torch

from embedcache.backbones.paper import RESIZE as PAPER_RESIZE
from embedcache.backbones.volume_input import volume_input
from embedcache.backbones.windowed import groups, windowed
from embedcache.errors import InputError
from embedcache.images.geometry import Placement
from embedcache.images.views import placement_of
from embedcache.types import FloatArray, ImageRecipe, Volume

CONSTANT = 2.0**-20
"""A range of values in [0, 1] that is rounding alone: a step of 16 bits is 16 times as much."""


def preprocess(
    volume: Volume,
    limits: FloatArray,
    image: ImageRecipe,
    device: torch.device | str,
    sample: str = "",
    first: int = 0,
) -> torch.Tensor:
    """The backbone's input for each slice of `volume`: (n, 3, H, W) float32 on `device`.

    `limits` (n, channels, 2): low and high of the window per slice and channel, in physical units; 1 channel is shown
    on all three, 3 channels are three windows of a grey slice, or the channels of a colour one. Values are
    rescaled, windowed to [0, 1], turned over for MONOCHROME1; padding pixels, values that are not finite and
    constant slices (low = high) are black. Then bicubic with antialias, clamp, crop or black border, mean and std; under
    the resize of preset `paper` bicubic alone, crop or border, and each slice from its lowest to its highest value.
    `sample` (the store's id) and `first` (the position of the first slice in it) decide what a view other than 0 shows.
    Under a recipe of whole volumes there is one input for all slices: see `volume_input`.
    """
    if image.volume is not None:
        return volume_input(volume, limits, image, device)
    pixels = volume.pixels
    if limits.shape != (len(pixels), limits.shape[1], 2) or limits.shape[1] not in (1, 3):
        raise InputError(f"window limits must have shape ({len(pixels)}, 1 or 3, 2). Got {limits.shape}.")
    device = torch.device(device)
    mean, std = _column(image.mean, device), _column(image.std, device)
    out = torch.empty((len(pixels), 3, *image.size), dtype=torch.float32, device=device)
    for rows in groups(pixels):
        shown = windowed(volume, limits, rows, device)
        out[rows] = (
            _resized(shown, image, sample, first + rows.start) - mean
        ) / std  # a single channel is spread over all three here
    return out


def _resized(shown: torch.Tensor, image: ImageRecipe, sample: str, first: int) -> torch.Tensor:
    """(n, c, H, W) of the recipe's size; in a view other than 0 each slice is cut in its own way."""
    height, width = shown.shape[-2:]
    as_in_paper = image.resize == PAPER_RESIZE
    if image.augmentation is None:
        placed = _placed(shown, placement_of(image, height, width), as_in_paper)
    else:
        looks = [placement_of(image, height, width, sample, first + i) for i in range(len(shown))]
        placed = torch.cat([_placed(shown[i : i + 1], look, as_in_paper) for i, look in enumerate(looks)])
    return _stretched(placed) if as_in_paper else placed


def _stretched(shown: torch.Tensor) -> torch.Tensor:
    """Each slice from 0, its lowest value over all channels, to 1, its highest; a constant one is black, whose bicubic weights
    sum to 1 but for rounding.
    """
    low, high = shown.amin(dim=(1, 2, 3), keepdim=True), shown.amax(dim=(1, 2, 3), keepdim=True)
    span = high - low
    return (shown - low) / torch.where(span > CONSTANT, span, torch.inf)


def _placed(shown: torch.Tensor, placement: Placement, as_in_paper: bool) -> torch.Tensor:
    """Resized as a whole, with antialias and clamp or, as in the paper, neither; then cropped or bordered with black. Of a
    view, the part that it shows, flipped in the end.
    """
    look = placement.look
    if look is not None:
        shown = shown[..., look.top : look.top + look.height, look.left : look.left + look.width].contiguous()
    if placement.resized != shown.shape[-2:]:
        shown = torch.nn.functional.interpolate(
            shown, size=placement.resized, mode="bicubic", antialias=not as_in_paper, align_corners=False
        )
        shown = shown if as_in_paper else shown.clamp_(0, 1)  # bicubic overshoots at edges
    (top, left), (resized_height, resized_width) = placement.crop, placement.resized
    below, right = placement.size[0] + top - resized_height, placement.size[1] + left - resized_width
    border = (-left, right, -top, below)  # a negative one is a crop
    cut = torch.nn.functional.pad(shown, border) if any(border) else shown
    return cut.flip(-1) if look is not None and look.flipped else cut


@lru_cache(maxsize=64)  # a GPU is waited for wherever numbers are brought to it
def _column(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
