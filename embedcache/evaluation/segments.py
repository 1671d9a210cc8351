"""DICOM segmentations as the masks of a store: one value per name of a segment, whatever number it has in a file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.datasets.base import MASK_SEPARATOR
from embedcache.errors import ImageError, InputError
from embedcache.images import ImageOptions, read_segmentation
from embedcache.images.files import form_of, is_series, split_path
from embedcache.types import StringArray


@dataclass(frozen=True)
class SegmentValues:
    """Which value stands for which segment of each file."""

    names: Mapping[int, str]
    """The segments' name of each value."""
    values: tuple[Mapping[int, int], ...]
    """Per mask: the number of a segment in its file → its value."""
    wanted: frozenset[int] | None = None
    """The values that are read; None for all."""

    def only(self, wanted: Iterable[int]) -> "SegmentValues":
        """These, of which only some values are read. Raises InputError for one that no file has."""
        chosen = frozenset(wanted)
        if chosen - set(self.names):
            raise InputError(
                f"the segmentations have no value {min(chosen - set(self.names))}; they have "
                f"{', '.join(f'{value}={name}' for value, name in sorted(self.names.items()))}."
            )
        return replace(self, wanted=chosen)

    def read(self, i: int, path: str, image: str, options: ImageOptions) -> npt.NDArray[Any]:
        """Values (slice, y, x) of the i-th mask on the slices of its image. Raises ImageError.

        A fractional segment counts where it covers half a pixel or more.
        """
        chosen = {n: v for n, v in self.values[i].items() if self.wanted is None or v in self.wanted}
        classes = read_segmentation(path, image, tuple(chosen), options).values
        values: npt.NDArray[np.int64] = np.array([0, *chosen.values()])[classes]
        return values


def read_segments(paths: StringArray, where: list[str]) -> SegmentValues | None:
    """What the masks at `paths` call their segments; None if they are no DICOM segmentations.

    A value is the segment's own number where a number has one name in all files, else names are numbered in order: writers
    number the same structures differently. Raises InputError for a file that can not be read, or among others.
    """
    labels = [_labels(path, place) for path, place in zip(paths.tolist(), where, strict=True)]
    found = [names for names in labels if names is not None]
    if not found:
        return None
    if len(found) < len(labels):
        other = where[labels.index(None)]
        raise InputError(
            f"{len(found)} of {len(labels)} masks are DICOM segmentations, and that of {other} is not; give masks of one form."
        )
    pairs = sorted({pair for names in found for pair in names.items()})
    names = dict(pairs)
    if len(names) == len(pairs):
        return SegmentValues(names, tuple({n: n for n in own} for own in found))
    value_of = {name: value for value, name in enumerate(_in_order(pairs), start=1)}
    values = tuple({n: value_of[name] for n, name in own.items()} for own in found)
    return SegmentValues({value: name for name, value in value_of.items()}, values)


def _in_order(pairs: list[tuple[int, str]]) -> Iterable[str]:
    """Names by the lowest number that any file gives them."""
    return dict.fromkeys(name for _, name in pairs)


def _labels(path: str, where: str) -> dict[int, str] | None:
    try:
        if MASK_SEPARATOR in path or is_series(path) or form_of(split_path(path)[0]) != "dicom":
            return None
        from embedcache.images.segmentation import segment_labels  # pydicom takes 0.4 s

        return segment_labels(path)
    except ImageError as error:
        raise InputError(f"the mask of {where} can not be read: {error.reason}") from error
