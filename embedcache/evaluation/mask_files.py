"""Masks of a store's samples, read from the dataset again: a cache holds none.

A mask is an image file on its image's own grid whose stored values are classes; 0 is the background. Where its header
and the image's say how they lie, it is turned onto the image by that, else it is laid by index. Which value is what is
said as `255=lung,127=ignore`; unsaid, every value but 0 is a class named by its number. Or it is a DICOM segmentation,
which lies on its image by position and names its segments itself: see `segments`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from embedcache.datasets.base import MASK_SEPARATOR, DatasetOptions
from embedcache.errors import ImageError, InputError
from embedcache.evaluation.listing import list_again
from embedcache.evaluation.segments import SegmentValues, read_segments
from embedcache.images import ImageOptions, open_image
from embedcache.images.grids import Grid, lay, read_grid
from embedcache.images.options import parse_plane
from embedcache.images.windows import physical
from embedcache.store.labels import rows_of
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import locate
from embedcache.types import IntArray, Labels, StringArray

BACKGROUND, IGNORE = "background", "ignore"
"""Names that a value may be given instead of a class's: nothing, and pixels that count neither way."""
MOST_CLASSES = 253
"""Class numbers are kept in a byte, with one for the ignored and one for what is not known."""
_UNKNOWN = 255

ClassNumbers = npt.NDArray[np.uint8]
"""(slice, y, x): 0 the background, 1, 2, … the classes, and `MaskClasses.ignored`."""


@runtime_checkable
class MaskedDataset(Protocol):
    """A dataset that knows masks."""

    def masks(self) -> StringArray | None:
        """The path of each sample's mask, "" where it has none; None if the dataset has none at all.

        Several files joined by MASK_SEPARATOR are one mask: what the k-th of them marks has value k.
        """


@runtime_checkable
class NamedMasks(Protocol):
    """A dataset that knows what the values of its masks mean."""

    def mask_values(self) -> Mapping[int, str]:
        """The name of each value but 0; empty where it does not know."""


@dataclass(frozen=True)
class MaskClasses:
    """What the values in mask files mean."""

    names: tuple[str, ...]
    """Of classes 1, 2, …"""
    numbers: tuple[tuple[int, int], ...]
    """(stored value, class number) of each value that is known."""

    @property
    def count(self) -> int:
        """Classes with the background."""
        return len(self.names) + 1

    @property
    def ignored(self) -> int:
        """The number of pixels that count neither way."""
        return self.count

    @classmethod
    def parse(cls, text: str) -> "MaskClasses":
        """From `255=lung,127=ignore`. Several values may share a name. Raises InputError."""
        found: dict[int, str] = {}
        for part in text.split(","):
            value, equals, name = (word.strip() for word in part.partition("="))
            if not equals or not name or not value.removeprefix("-").isdecimal():
                raise InputError(
                    f"mask values are VALUE=NAME with commas, as in 255=lung,127={IGNORE}. Got {part.strip()!r}."
                )
            if found.setdefault(int(value), name) != name:
                raise InputError(f"mask value {value} has two names, {found[int(value)]} and {name}; give it one.")
        names = tuple(name for name in dict.fromkeys(found.values()) if name not in (BACKGROUND, IGNORE))
        return cls._of(names, {0: BACKGROUND, **found})

    @classmethod
    def named(cls, names: Mapping[int, str]) -> "MaskClasses":
        """As the dataset names its values."""
        classes = (name for name in dict.fromkeys(names.values()) if name not in (BACKGROUND, IGNORE))
        return cls._of(tuple(classes), {0: BACKGROUND, **names})

    @classmethod
    def of_values(cls, values: list[int]) -> "MaskClasses":
        """Every value but 0 is a class, named by its number."""
        found = {value: str(value) for value in sorted(values) if value != 0}
        return cls._of(tuple(found.values()), {0: BACKGROUND, **found})

    @classmethod
    def _of(cls, names: tuple[str, ...], found: dict[int, str]) -> "MaskClasses":
        if not names:
            raise InputError(
                f"the masks have no class: name one value as something else than {BACKGROUND} or {IGNORE}."
            )
        if len(names) > MOST_CLASSES:
            raise InputError(
                f"the masks hold {len(names)} values, more than {MOST_CLASSES} classes: are these images? "
                "Name the values that count with --mask-values."
            )
        place = {BACKGROUND: 0, IGNORE: len(names) + 1, **{name: i for i, name in enumerate(names, start=1)}}
        return cls(names, tuple(sorted((value, place[name]) for value, name in found.items())))

    def apply(self, values: npt.NDArray[Any], where: str) -> ClassNumbers:
        """Class numbers of stored values. Raises InputError for a value that is not known."""
        numbers = np.full(values.shape, _UNKNOWN, dtype=np.uint8)
        for value, number in self.numbers:  # for a handful of values faster than a table, which makes 64-bit indices
            np.putmask(numbers, values == value, number)
        unknown = numbers == _UNKNOWN
        if not unknown.any():
            return numbers
        odd = np.unique(values[unknown])
        raise InputError(
            f"the mask of {where} holds value {odd[0]}, which --mask-values does not name; "
            f"name it, or call it {BACKGROUND} or {IGNORE}."
        )


@dataclass
class StoreMasks:
    """The masks of those samples of a store that have one. The last mask read is kept."""

    listed: Labels
    """The samples of the dataset that are in the store, with the parts it names; no labels."""
    sample: IntArray
    """(n,): samples of the store that have a mask, ascending."""
    path: StringArray
    """(n,). Private."""
    image: StringArray
    """(n,): the path of its image. Private."""
    where: list[str]
    """(n,): how a message names each."""
    slices: IntArray
    """(n,): that the store has of each."""
    names: Mapping[int, str] = field(default_factory=dict)
    """What the dataset says that the values mean; empty where it says nothing."""
    segments: SegmentValues | None = None
    """None where the masks are no DICOM segmentations."""
    image_options: ImageOptions = field(default_factory=ImageOptions)
    """Those of the store's images, on whose slices a mask is laid."""
    by_index: set[int] = field(default_factory=set)
    """Of the masks read so far, those laid by index though a header says how its image lies, or how it does."""
    _last: tuple[int, npt.NDArray[Any]] | None = None

    def values(self, i: int) -> npt.NDArray[Any]:
        """Integers (slice, y, x) as the i-th mask stores them. Raises InputError for a file that is no mask of it."""
        if self._last is None or self._last[0] != i:
            self._last = i, self._read(i)
        return self._last[1]

    def distinct(self) -> list[int]:
        """All values that occur in any mask."""
        found: set[int] = set()
        for i in range(len(self.sample)):
            found.update(np.unique(self.values(i)).tolist())
        return sorted(found)

    def _read(self, i: int) -> npt.NDArray[Any]:
        if self.segments is not None:
            return self._checked(self._read_segmentation(self.segments, i), i)
        image = self._image_grid(i)
        parts = [self._read_file(path, image, i) for path in str(self.path[i]).split(MASK_SEPARATOR)]
        if len(parts) == 1:
            return parts[0]
        if len({part.shape for part in parts}) > 1:
            raise InputError(
                f"the mask of {self.where[i]} is files of several sizes; they lie on its image's own grid."
            )
        values = np.zeros(parts[0].shape, dtype=np.uint8)
        for number, part in enumerate(parts, start=1):
            values[part != 0] = number
        return values

    def _read_segmentation(self, segments: SegmentValues, i: int) -> npt.NDArray[Any]:
        try:
            return segments.read(i, str(self.path[i]), str(self.image[i]), self.image_options)
        except ImageError as error:
            raise InputError(f"the mask of {self.where[i]} can not be used: {error.reason}") from error

    def _image_grid(self, i: int) -> Grid | ImageError | None:
        """How its image lies, or why that can not be read."""
        try:
            return read_grid(str(self.image[i]), self.image_options)
        except ImageError as error:
            return error

    def _laid(
        self, values: npt.NDArray[Any], grid: Grid | None, image: Grid | ImageError | None, i: int
    ) -> npt.NDArray[Any]:
        if isinstance(image, ImageError):
            if grid is None:  # a picture says nothing of how it lies
                return values
            raise InputError(
                f"how the mask of {self.where[i]} lies on its image is not known, as that can not be read: {image.reason}"
            ) from image
        try:
            laid, by_index = lay(values, grid, image)
        except ImageError as error:
            raise InputError(f"the mask of {self.where[i]} can not be used: {error.reason}") from error
        if by_index:
            self.by_index.add(i)
        return laid

    def _checked(self, values: npt.NDArray[Any], i: int) -> npt.NDArray[Any]:
        if len(values) != self.slices[i]:
            raise InputError(
                f"the mask of {self.where[i]} has {len(values)} slices, and its image {self.slices[i]}; "
                "a mask lies on its image's own grid."
            )
        return values

    def _read_file(self, path: str, on: Grid | ImageError | None, i: int) -> npt.NDArray[Any]:
        try:
            image = open_image(path)
            volume = image.read(0, image.n_slices)
            grid = read_grid(path)
        except ImageError as error:
            raise InputError(f"the mask of {self.where[i]} can not be read: {error.reason}") from error
        values = self._checked(self._laid(volume.pixels, grid, on, i), i)
        if values.ndim == 4:
            if (values != values[..., :1]).any():
                raise InputError(f"the mask of {self.where[i]} is a colour image; save it in grey, a value per class.")
            values = values[..., 0]
        calibration = volume.calibration
        if (np.asarray(calibration.slope) != 1).any() or (np.asarray(calibration.intercept) != 0).any():
            values = physical(values, calibration)
        if values.dtype.kind == "f":
            if (values != np.rint(values)).any():
                raise InputError(f"the mask of {self.where[i]} holds fractions; a mask holds whole numbers.")
            values = values.astype(np.int64)
        return values


def open_masks(cache: FeatureCache, dataset: str, root: str, options: DatasetOptions) -> StoreMasks:
    """Find the store's samples in the dataset at `root`, and the mask of each.

    The dataset is the one that was extracted, or a table of its ids (or paths) and masks. Raises InputError if it has no
    masks, if the key of the store's pseudonyms is not here, or if none of its samples is in the store.
    """
    listing = list_again(cache, dataset, root, options)
    opened, samples, labels = listing.opened, listing.samples, listing.labels
    paths = opened.masks() if isinstance(opened, MaskedDataset) else None
    if paths is None:
        raise InputError(f"{opened.info.name} has no masks: name the column of mask files with --mask-column.")
    paths = paths[listing.natural]
    stored = cache.samples()
    current = np.flatnonzero(~stored.superseded)  # a sample whose image changed has a row of each image
    place = locate(samples.id, stored.id[current])
    at = np.where(place >= 0, current[place], -1)
    usable = (at >= 0) & (paths != "")
    if not usable.any():
        raise InputError(
            f"none of the {len(samples)} samples of {opened.info.name} is in {cache.path.name} and has a mask: is this the "
            "same --id-column, and the same dataset?"
        )
    order = np.argsort(at[usable])
    index = np.flatnonzero(usable)[order]
    where = [samples.where(int(i)) for i in index]
    segments = read_segments(paths[index], where)
    names = opened.mask_values() if isinstance(opened, NamedMasks) else {}
    plane, time = parse_plane(cache.recipe.image.plane), cache.recipe.image.time
    return StoreMasks(
        rows_of(labels, np.flatnonzero(locate(labels.sample, stored.id) >= 0)),
        at[index],
        paths[index],
        opened.samples().path[listing.natural][index],
        where,
        stored.slices[at[index]],
        names if segments is None else segments.names,
        segments,
        ImageOptions(plane, time),
    )


def mask_classes(masks: StoreMasks, asked: str | None) -> MaskClasses:
    """What the values mean: as asked, else as the dataset or the segmentations say, else every value but 0 is a class.

    Of segmentations, only what was asked for is read then: segments may overlap, and two that do are no one mask.
    """
    if asked:
        classes = MaskClasses.parse(asked)
        if masks.segments is not None:
            masks.segments = masks.segments.only(value for value, number in classes.numbers if number)
        return classes
    return MaskClasses.named(masks.names) if masks.names else MaskClasses.of_values(masks.distinct())
