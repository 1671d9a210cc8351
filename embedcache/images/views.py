"""Views: which part of a slice a view shows, drawn by what names the slice and by nothing else.

A draw is a hash of (seed, view, sample, slice), so it is the same whatever the batches, the order, the workers, the device
and the interruptions. View 0 is the whole slice, as evaluation sees it.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from types import MappingProxyType

from embedcache.errors import InputError, suggest
from embedcache.images.geometry import Look, Placement, place
from embedcache.types import Augmentation, ImageRecipe

PRESETS: Mapping[str, Augmentation] = MappingProxyType(
    {
        # half of the slice at least: a finding is mostly still in it; never mirrored: the heart is on one side
        "medical": Augmentation(scale=(0.5, 1.0), ratio=(0.9, 1.1), flip=0.0, seed=0),
        # what DINOv2's linear evaluation trains on (RandomResizedCrop's defaults and a flip), for natural images
        "dinov2": Augmentation(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5, seed=0),
    }
)
ATTEMPTS = 10
"""Draws of a crop until one fits; then the whole slice is shown."""


def parse_augmentation(text: str, seed: int = 0) -> Augmentation:
    """The augmentation that a user named: a preset, or `SCALE,SCALE,RATIO,RATIO,FLIP` as five numbers.

    Raises UnknownNameError for an unknown name, InputError for numbers that mean nothing.
    """
    if text in PRESETS:
        found = PRESETS[text]
        return Augmentation(found.scale, found.ratio, found.flip, seed)
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 5:
        raise suggest("preset of views", text, [*PRESETS, "SCALE,SCALE,RATIO,RATIO,FLIP"])
    low, high, narrow, wide, flip = numbers
    return Augmentation((low, high), (narrow, wide), flip, seed)


def augmentation_text(augmentation: Augmentation) -> str:
    """The words for which `parse_augmentation` gives this one, with its seed."""
    for name, preset in PRESETS.items():
        if (preset.scale, preset.ratio, preset.flip) == (augmentation.scale, augmentation.ratio, augmentation.flip):
            return name
    numbers = (*augmentation.scale, *augmentation.ratio, augmentation.flip)
    return ",".join(f"{number!r}" for number in numbers)


def placement_of(image: ImageRecipe, height: int, width: int, sample: str = "", slice_index: int = 0) -> Placement:
    """How a slice of (height, width) lands on the input of `image`, in its view.

    sample, slice_index: the store's id of the slice's sample and its position in it, which a view other than 0 depends on.
    """
    if image.augmentation is None:
        return place(height, width, image.size, image.fit, image.processor)
    if not sample:
        raise InputError(f"view {image.view} depends on the sample: its id must be given.")
    look = draw(image.augmentation, image.view, sample, slice_index, height, width)
    return place(height, width, image.size, image.fit, image.processor, look)


def draw(augmentation: Augmentation, view: int, sample: str, slice_index: int, height: int, width: int) -> Look:
    """The part of a slice of (height, width) that `view` shows.

    The rule of the usual RandomResizedCrop (ten draws of area and aspect until a crop fits), but for two things: the aspect
    is relative to the slice's own, so that a wide slice is not cut to a square; and what follows ten misfits is the whole slice.
    """
    low, high = augmentation.scale
    narrow, wide = (math.log(ratio) for ratio in augmentation.ratio)
    flipped = _uniform(augmentation.seed, view, sample, slice_index, ATTEMPTS)[0] < augmentation.flip
    for attempt in range(ATTEMPTS):
        area, aspect, down, right = _uniform(augmentation.seed, view, sample, slice_index, attempt)
        share, ratio = low + area * (high - low), math.exp(narrow + aspect * (wide - narrow))
        rows, columns = round(height * math.sqrt(share / ratio)), round(width * math.sqrt(share * ratio))
        if 1 <= rows <= height and 1 <= columns <= width:
            top, left = int(down * (height - rows + 1)), int(right * (width - columns + 1))
            return Look(top, left, rows, columns, flipped)
    return Look(0, 0, height, width, flipped)


def _uniform(seed: int, view: int, sample: str, slice_index: int, block: int) -> tuple[float, ...]:
    """Four numbers, even in [0, 1), of 53 bits each."""
    digest = hashlib.sha256(json.dumps([seed, view, sample, slice_index, block], ensure_ascii=False).encode()).digest()
    return tuple((int.from_bytes(digest[i : i + 8], "little") >> 11) * 2.0**-53 for i in range(0, 32, 8))
