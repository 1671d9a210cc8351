"""A whole volume on the grid of an encoder's input, as numbers: one matrix of weights along each axis, no torch.

The input's axes run as the volume's do, nothing is turned, so resampling is separable; `backbones.volume_input` executes it.
"""

import numpy as np
import numpy.typing as npt

from embedcache.errors import ImageError, InputError
from embedcache.images.planes import in_plane
from embedcache.images.source import OpenedImage
from embedcache.types import ImageRecipe, Volume, Window

Weights = npt.NDArray[np.float64]


def in_axial(image: OpenedImage) -> OpenedImage:
    """The image as an encoder of volumes takes it: slices from feet to head, rows from anterior to posterior, columns from the
    patient's right to the left, by its affine. A file that says nothing of it is taken as it lies; slices that lie unevenly are
    taken as if they did not, which is a warning.

    Raises ImageError(stage="open") for a single image: there is no volume in it.
    """
    if image.kind == "raster" or image.n_slices == 1:
        raise ImageError("it is a single 2-D image, and this backbone takes whole volumes.", "open")
    if image.affine is None and image.parsed.leaning is None:
        return image
    return OpenedImage(image.state, image.digest, in_plane(image.parsed, "axial", uneven=True))


def read_whole(image: OpenedImage, window: Window, spaced: bool) -> Volume:
    """All slices, as the limits of `window` speak of them.

    spaced: they will be resampled to mm, so the file must say how far apart its voxels are.

    Raises ImageError for a volume in colour, and for one without a spacing where that is needed.
    """
    if spaced and image.spacing is None:
        raise ImageError(
            "its file does not say how far apart its voxels are, so it can not be resampled; --spacing none stretches volumes.",
            "open",
        )
    volume = image.read(0, image.n_slices, window)
    if volume.pixels.ndim == 4:
        raise ImageError("it is a volume in colour, and this backbone takes one channel.", "decode")
    return volume


def input_weights(volume: Volume, image: ImageRecipe) -> tuple[Weights, Weights, Weights]:
    """The weights along z, y and x (see `axis_weights`) that bring `volume` onto the input of `image`.

    Raises InputError for a volume without the spacing that is needed; `read_whole` lets none pass.
    """
    wanted = image.volume
    spacing = wanted.spacing if wanted is not None else None
    if spacing is not None and volume.spacing is None:
        raise InputError("a volume without a spacing can not be resampled to mm.")
    shape = volume.pixels.shape[:3]
    steps = [
        n / size if spacing is None or volume.spacing is None else spacing[axis] / volume.spacing[axis]
        for axis, (n, size) in enumerate(zip(shape, image.shape, strict=True))
    ]
    z, y, x = (axis_weights(n, size, step) for n, size, step in zip(shape, image.shape, steps, strict=True))
    return z, y, x


def axis_weights(n: int, size: int, step: float) -> Weights:
    """(size, n): what each of `n` voxels gives to each of `size` of the input, along one axis.

    The `n` voxels become round(n / step) with the same centre, `step` voxels apart. Of these the middle is cut out, or a black
    border surrounds them: rows of zeros, an odd one first. Each other row sums to 1: linear between voxel centres, the
    outermost voxel going on to its edge; where `step` is above 1 a triangle as wide as two steps, so that no voxel is
    passed over (antialias).
    """
    resampled = max(1, round(n / step))
    j = np.arange(size) + (resampled - size) // 2
    centre = (n - 1) / 2 + (j - (resampled - 1) / 2) * step
    weights = np.clip(1 - np.abs(centre[:, np.newaxis] - np.arange(n)) / max(step, 1.0), 0, None)
    weights[(j < 0) | (j >= resampled)] = 0
    total = weights.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(weights, total, out=np.zeros_like(weights), where=total > 0))
