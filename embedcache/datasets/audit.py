"""`embedcache datasets check`: hold a folder against what its dataset should be, before a long extraction does."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from embedcache.datasets import open_dataset
from embedcache.datasets.base import DEFAULT_OPTIONS, MASK_SEPARATOR, Dataset, DatasetOptions
from embedcache.errors import ImageError, InputError
from embedcache.images import OpenedImage, count_slices, open_image, stat_source
from embedcache.images.files import form_of, is_series, split_path
from embedcache.images.grids import Grid, lay, read_grid
from embedcache.types import PARTS, Samples, StringArray

FILES = 200
"""Samples whose files are opened, unless asked for otherwise: evenly spread over the list."""
WHOLE_BYTES = 2**30
"""Of those, images are read to their last slice, as an extraction reads them, as long as their files are no larger than this
in all, else every k-th of them; of the others a header has to do, which is what makes a folder of CT series cheap to check."""
PIECE = 32
"""Slices that are decoded at a time."""


@runtime_checkable
class _Masked(Protocol):
    def masks(self) -> StringArray | None: ...


@runtime_checkable
class _NamedMasks(Protocol):
    def mask_values(self) -> Mapping[int, str]: ...


@dataclass(frozen=True)
class Audit:
    """What was found."""

    dataset: str
    samples: int
    patients: int
    parts: dict[str, int]
    """Samples of each part that the dataset names; those without one are not counted."""
    tasks: tuple[str, ...]
    opened: int
    """Samples whose files were opened; of all others it is known that their files are there and not empty."""
    read: int
    """Of the opened ones, those whose image was read whole, or as far as it could be: damage below headers is found in these."""
    problems: tuple[str, ...]
    """A line each: a piece that is missing, a file that can not be read, a mask that does not fit."""
    notices: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 where there is a problem, else 0."""
        return 1 if self.problems else 0


def audit_dataset(name: str, root: str, options: DatasetOptions = DEFAULT_OPTIONS, files: int = FILES) -> Audit:
    """Open the dataset `name` at `root`, read its labels, see that the files of all samples are there and not empty, and open
    the image and mask of `files` samples: the whole image where all of these are no larger than `WHOLE_BYTES`, or a mask is
    to lie on it, else of some the whole image and of the others its headers.

    Fewer samples than were published are a notice. Raises InputError for whatever keeps the dataset from being opened: a
    missing table, a label that is unknown, a patient in two parts.
    """
    if files < 1:
        raise InputError(f"--files must be at least 1. Got {files}.")
    dataset = open_dataset(name, root, options)
    samples = dataset.samples()
    missing = tuple(getattr(dataset, "missing", ()))
    sizes, absent = _sizes(dataset, samples)
    there = np.flatnonzero(sizes)
    spread = np.linspace(0, len(there) - 1, min(files, len(there))).astype(np.int64)
    chosen = there[np.unique(spread)].tolist()
    parts = Counter(samples.split.tolist())
    seen = _Seen()
    problems = (*missing, *absent, *_problems(dataset, samples, chosen, _whole(chosen, sizes), seen))
    notices = [notice for notice in dataset.notices if notice not in missing]
    if seen.by_index:
        notices.append(
            f"{len(seen.by_index)} of the masks that were opened are laid on their images by voxel index: one of the two headers "
            "does not say how it lies"
        )
    told = sorted(seen.remarks.items(), key=lambda item: -len(item[1]))
    notices += [
        f"{len(rows)} of the {seen.images} images that were read whole: {text} ({samples.where_all(rows)})"
        for text, rows in told
    ]
    return Audit(
        dataset=dataset.info.name,
        samples=len(samples),
        patients=len(np.unique(samples.patient_id)),
        parts={part: parts[part] for part in PARTS if part in parts},
        tasks=tuple(task.name for task in dataset.labels().tasks),
        opened=len(chosen),
        read=seen.images,
        problems=problems,
        notices=tuple(notices),
    )


@dataclass
class _Seen:
    """What is no problem, and yet to be told."""

    images: int = 0
    """That were read whole, or as far as they could be."""
    remarks: dict[str, list[int]] = field(default_factory=dict)
    """What their reader says of them, and of which samples; no path and no identifier."""
    by_index: set[int] = field(default_factory=set)
    """Samples whose mask is laid on its image by voxel index."""

    def read(self, i: int, path: str) -> OpenedImage:
        """Read an image to its last slice, and hear what is said of it."""
        self.images += 1
        opened = open_image(path)
        for start in range(0, opened.n_slices, PIECE):
            opened.read(start, min(start + PIECE, opened.n_slices))
        for text in dict.fromkeys(opened.warnings):
            self.remarks.setdefault(text, []).append(i)
        return opened


def _where(dataset: Dataset, samples: Samples, i: int) -> str:
    """A published id is no secret, and tells more than a row; a user's own file is named by its row."""
    return f"{samples.id[i]}" if dataset.info.public_ids else samples.where(i)


def _sizes(dataset: Dataset, samples: Samples) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Bytes of each sample's files, 0 where they are missing or empty; and a line for each of those."""
    sizes = np.zeros(len(samples), np.int64)
    problems = []
    for i, path in enumerate(samples.path.tolist()):
        try:
            sizes[i] = stat_source(path).size
            reason = "" if sizes[i] else "the file is empty (0 bytes)."
        except ImageError as error:
            reason = error.reason
        if reason:
            problems.append(f"{_where(dataset, samples, i)} can not be read: {reason}")
    return sizes, problems


def _whole(chosen: list[int], sizes: npt.NDArray[np.int64]) -> set[int]:
    """Those of the chosen samples whose image is read whole: every k-th, for the smallest k that keeps to `WHOLE_BYTES`; one
    at the least, however large."""
    steps = range(1, len(chosen) + 1)
    step = next((k for k in steps if sizes[chosen[::k]].sum() <= WHOLE_BYTES), max(1, len(chosen)))
    return set(chosen[::step])


def _problems(dataset: Dataset, samples: Samples, chosen: list[int], whole: set[int], seen: _Seen) -> Iterator[str]:
    """A line each."""
    masks = dataset.masks() if isinstance(dataset, _Masked) else None
    names = dataset.mask_values() if isinstance(dataset, _NamedMasks) else {}
    for i in chosen:
        where = _where(dataset, samples, i)
        try:
            if masks is None or not masks[i]:
                if i in whole:
                    seen.read(i, str(samples.path[i]))
                else:
                    count_slices(str(samples.path[i]))
                continue
            image = _headed(i, str(samples.path[i]), seen)
        except ImageError as error:
            yield f"{where} can not be read: {error.reason}"
            continue
        for path in str(masks[i]).split(MASK_SEPARATOR):
            # one of several files marks one class with whatever value
            known = {} if MASK_SEPARATOR in masks[i] else names
            problem, told = _mask_problem(path, image, known, where)
            if told:
                seen.by_index.add(i)
            if problem:
                yield problem


@dataclass(frozen=True)
class _Image:
    """What a mask has to fit."""

    path: str
    shape: tuple[int, ...]
    """(slices, rows, columns)."""
    grid: Grid | None


def _headed(i: int, path: str, seen: _Seen) -> _Image:
    opened = seen.read(i, path)
    return _Image(path, (opened.n_slices, *opened.read(0, 1).pixels.shape[1:3]), read_grid(path))


def _mask_problem(path: str, image: _Image, names: Mapping[int, str], where: str) -> tuple[str, bool]:
    """What is wrong with a mask, "" if nothing; and whether it is laid on its image by index."""
    try:
        values, by_index = _mask_values(path, image)
    except ImageError as error:
        return f"the mask of {where} can not be used: {error.reason}", False
    if values.shape[:3] != image.shape:
        problem = (
            f"the mask of {where} is {_size(values.shape[:3])} and its image {_size(image.shape)} (slices x rows x columns); a "
            "mask lies on its image's own grid"
        )
        return problem, by_index
    unknown = [value for value in np.unique(values).tolist() if value and value not in names]
    if names and unknown:
        known = ", ".join(f"{value} {name}" for value, name in names.items())
        return f"the mask of {where} holds value {unknown[0]:g}, which is none of the dataset's: {known}", by_index
    return "", by_index


def _mask_values(path: str, image: _Image) -> tuple[npt.NDArray[Any], bool]:
    """On the voxels of the image, and whether they are laid there by index. Raises ImageError."""
    if not is_series(path) and form_of(split_path(path)[0]) == "dicom":
        from embedcache.images.segmentation import read_segmentation, segment_labels  # pydicom takes 0.4 s

        if segment_labels(path) is not None:
            return read_segmentation(path, image.path).values, False
    opened = open_image(path)
    return lay(opened.read(0, opened.n_slices).pixels, read_grid(path), image.grid)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
