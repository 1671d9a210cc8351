"""What the adapters of published datasets have in common: size, missing pieces, labels of a second table beside their own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedcache.datasets.base import Columns, Dataset, DatasetOptions, ListedDataset, Published, check_samples, named
from embedcache.datasets.labelling import all_rows, long_rows
from embedcache.datasets.second_table import join_labels
from embedcache.errors import InputError
from embedcache.types import DatasetInfo, Labels, Samples, StringArray, Task, strings

COMMON_OPTIONS = ("name", "label_table", "join_on", "slice_column", "slice_order", "tasks", "positive", "sep", "level")
"""What every published dataset takes: its name in the cache, and a second table of labels."""


@dataclass(frozen=True)
class OwnTask:
    """A task that the dataset itself comes with."""

    task: Task
    values: npt.NDArray[np.float64]
    """(samples, classes) for multilabel, else (samples, 1); the class's number for multiclass. At the level of patients
    all samples of one agree."""

    def rows(self, samples: Samples) -> Labels:
        """As long rows: one per patient at the level of patients, else one per sample, of each class."""
        if self.task.level != "patient":
            return long_rows(self.task, self.values, samples.id, samples.patient_id, samples.split)
        _, first = np.unique(samples.patient_id, return_index=True)
        first = np.sort(first)
        nobody = strings([""] * len(first))
        return long_rows(self.task, self.values[first], nobody, samples.patient_id[first], samples.split[first])


@dataclass(frozen=True)
class Masks:
    """The masks of a dataset."""

    paths: StringArray
    """One per sample, "" where it has none."""
    names: Mapping[int, str]
    """What the values mean, beside 0, the background."""


def published_dataset(
    info: DatasetInfo,
    published: Published | None,
    options: DatasetOptions,
    samples: Samples,
    tasks: Sequence[OwnTask],
    columns: Columns,
    *,
    masks: Masks | None = None,
    missing: Iterable[str] = (),
    notices: Iterable[str] = (),
) -> Dataset:
    """A dataset of these samples with its own tasks, and those of `--labels`. Raises InputError as `check_samples` does."""
    check_samples(samples)
    joined = join_labels(samples, options) if options.label_table or options.join_on else None
    lacking = tuple(missing)

    def labels() -> Labels:
        return all_rows([*(own.rows(samples) for own in tasks), *(joined.parts if joined else [])], samples)

    said = (*subset(published, len(samples)), *lacking, *notices, *(joined.notices if joined else ()))
    found = named(info, options, info.name)
    return ListedDataset(
        found,
        said,
        samples,
        labels,
        columns,
        lacking,
        masks.paths if masks else None,
        masks.names if masks else {},
        joined.origins if joined else {},
    )


def subset(published: Published | None, found: int) -> tuple[str, ...]:
    """A notice if other than the published number of samples is here."""
    if published is None or found == published.samples:
        return ()
    if found > published.samples:
        return (f"{found:,} {published.what} are here, and {published.samples:,} were published",)
    return (f"{found:,} of the {published.samples:,} published {published.what} are here: a subset",)


def absent(names: Sequence[str], what: str) -> tuple[str, ...]:
    """A line for pieces that are not there: `what` says how many of which and why they should be; none if none lacks."""
    if not names:
        return ()
    return (f"{names[0]} {what}" + (f", and {len(names) - 1:,} more like it" if len(names) > 1 else ""),)


def find_root(root: Path, marks: Sequence[str], inside: Sequence[str], hint: str) -> Path:
    """`root`, or the folder below it (of the names in `inside`) in which the dataset's archive unpacks: the first that
    holds one of `marks`. Raises InputError.
    """
    for folder in (root, *(root / name for name in inside)):
        if any((folder / mark).exists() for mark in marks):
            return folder
    if not root.is_dir():
        raise InputError(f"there is no folder {root.name}; {hint}")
    raise InputError(f"{root.name} has no {' or '.join(marks)}; {hint}")


def file_names(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """The files of a folder with one of these endings, sorted; hidden ones (`._` copies of a Mac) are none. No folder: none."""
    if not folder.is_dir():
        return []
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.name.lower().endswith(suffixes) and not entry.name.startswith(".")
    )
