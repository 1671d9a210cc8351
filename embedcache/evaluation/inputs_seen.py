"""What a backbone saw of slices of a store: images read again in the recipe's window, resized and cropped as it says."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedcache.datasets.index import PrivateIndex
from embedcache.errors import ImageError
from embedcache.images import open_image
from embedcache.images.options import ImageOptions, parse_plane
from embedcache.images.views import placement_of
from embedcache.images.windows import physical
from embedcache.store.reader import FeatureCache
from embedcache.types import ImageRecipe, strings

Pixels = npt.NDArray[np.uint8]


def inputs_seen(cache: FeatureCache, places: Sequence[tuple[str, int]]) -> list[Pixels | None]:
    """For each (sample id, position of the slice in it) the input as grey values or RGB, of the size of the backbone's input.

    None where the private index of this machine does not know the source, or it can not be read or has other slices now.
    """
    if cache.dataset_folder is None:
        return [None] * len(places)
    ids = strings([name for name, _ in places])
    known = PrivateIndex.open(cache.dataset_folder).lookup(ids, ("path", "slices"))
    return [
        _seen(str(known["path"][i]), int(known["slices"][i]), name, at, cache.recipe.image)
        if known["found"][i]
        else None
        for i, (name, at) in enumerate(places)
    ]


def _seen(path: str, slices: int, sample: str, at: int, recipe: ImageRecipe) -> Pixels | None:
    try:
        image = open_image(path, ImageOptions(parse_plane(recipe.plane), recipe.time))
        if image.n_slices != slices:
            return None
        volume = image.read(at, at + 1, recipe.window)
        low, high = np.moveaxis(image.limits(recipe.window, at, at + 1)[0], -1, 0)
    except (ImageError, MemoryError):
        return None
    values = (physical(volume.pixels, volume.calibration)[0] - low) / np.maximum(high - low, 1e-9)
    values = np.clip(np.nan_to_num(1 - values if volume.calibration.invert else values), 0, 1)
    shade = np.round(values * 255).astype(np.uint8)
    height, width = shade.shape[:2]
    placement = placement_of(recipe, height, width, sample, at)
    y, x = placement.to_source(np.arange(recipe.size[0]) + 0.5, np.arange(recipe.size[1]) + 0.5)
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None, :]
    taken = shade[np.clip(y, 0, height - 1).astype(int)][:, np.clip(x, 0, width - 1).astype(int)]
    return np.where(inside if taken.ndim == 2 else inside[..., None], taken, 0).astype(np.uint8)
