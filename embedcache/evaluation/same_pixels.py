"""Whether two images are one picture: the same, encoded anew, brightened, cropped by a few percent, or turned left to right.

Each image (of a volume its middle slice) is shrunk to 96x96 without what varies slowly over it, since that is alike in any two
chest radiographs. Then every crop of one, of up to 6% at a grid of places, is held against the other and its mirror image.
"""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from embedcache.errors import ImageError
from embedcache.images import open_image
from embedcache.images.windows import WINDOWS, physical

Picture = npt.NDArray[np.float32]

SIDE = 96
"""Pixels of the shrunk picture."""
SLOW = 6.0
"""Sigma in pixels of the shrunk picture: what is smoother than this is taken away."""
COMPARED = 60
"""Side in pixels at which crops are held against each other: 96 px shrunk to 64, without a margin of 2."""
SAME = 0.90
"""The least correlation of one picture. Radiographs of `nih_128`: copies that were cropped by 3% reach .94 and more, two
different ones of the pairs most alike by their vectors .87 at most."""
_ZOOMS = ((1.0, 1), (0.985, 3), (0.97, 3), (0.955, 5), (0.94, 5))
"""(side of the crop, places of it along each axis)."""
_KEPT = 2048
"""Pictures kept in memory: 70 MiB."""
_BANKS = 32
"""Banks of crops kept in memory: 30 MiB."""


class Pictures:
    """The pictures behind positions 0, 1, …, read when they are asked for; the newest are kept."""

    def __init__(self, path: Callable[[int], str], slices: Callable[[int], int]) -> None:
        self._path = path
        self._slices = slices
        self._pictures: OrderedDict[int, Picture | None] = OrderedDict()
        self._banks: OrderedDict[int, Picture] = OrderedDict()

    def same(self, a: int, b: int) -> bool | None:
        """Whether a and b show one picture; None where one of them can not be read, or is all of one value."""
        pictures = self._picture(a), self._picture(b)
        if pictures[0] is None or pictures[1] is None:
            return None
        if _alike(_vector(pictures[0])[None], pictures[1]) >= SAME:
            return True
        return any(
            _alike(self._bank(i, picture), other) >= SAME
            for i, picture, other in ((a, pictures[0], pictures[1]), (b, pictures[1], pictures[0]))
        )

    def _picture(self, i: int) -> Picture | None:
        if i not in self._pictures:
            self._pictures[i] = read_picture(self._path(i), self._slices(i))
            if len(self._pictures) > _KEPT:
                self._pictures.popitem(last=False)
        self._pictures.move_to_end(i)
        return self._pictures[i]

    def _bank(self, i: int, picture: Picture) -> Picture:
        if i not in self._banks:
            self._banks[i] = crops(picture)
            if len(self._banks) > _BANKS:
                self._banks.popitem(last=False)
        return self._banks[i]


def read_picture(path: str, slices: int) -> Picture | None:
    """The middle slice of the image at `path`, shrunk; None if it can not be read or is all of one value."""
    try:
        image = open_image(path)
        middle = min(slices, image.n_slices) // 2
        volume = image.read(middle, middle + 1)
        low, high = image.limits(WINDOWS["percentile"], middle, middle + 1)[0, 0]
    except ImageError:
        return None
    values = np.nan_to_num(physical(volume.pixels, volume.calibration)[0], nan=low, posinf=high, neginf=low)
    return shrink(np.clip(values.mean(axis=-1) if values.ndim == 3 else values, low, high))


def shrink(values: npt.NDArray[np.floating]) -> Picture | None:
    """(y, x) of any size as the (SIDE, SIDE) picture that is compared; None where all values are one."""
    if values.max() <= values.min():
        return None
    scaled = ((values - values.min()) / (values.max() - values.min())).astype(np.float32)
    small = np.asarray(Image.fromarray(scaled).resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    picture: Picture = small - gaussian_filter(small, SLOW)
    return picture if picture.std() > 0 else None


def crops(picture: Picture) -> Picture:
    """(69, COMPARED**2): the picture and its crops, each centred and of length 1."""
    found = []
    for zoom, places in _ZOOMS:
        offsets = np.linspace(0, 1 - zoom, places) * SIDE
        found += [_vector(picture, (x, y, x + zoom * SIDE, y + zoom * SIDE)) for y in offsets for x in offsets]
    return np.stack(found)


def _vector(picture: Picture, box: tuple[float, float, float, float] = (0, 0, SIDE, SIDE)) -> Picture:
    side = COMPARED + 4
    small = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC, box=box))
    flat = small[2:-2, 2:-2].ravel()  # at its edges a crop was smoothed without what lay beyond
    flat = flat - flat.mean()
    vector: Picture = flat / max(float(np.linalg.norm(flat)), 1e-12)
    return vector


def _alike(bank: Picture, other: Picture) -> float:
    """The best correlation of any row of the bank with a picture or its mirror image."""
    both = np.stack([_vector(other), _vector(np.ascontiguousarray(other[:, ::-1]))])
    return float((bank @ both.T).max())
