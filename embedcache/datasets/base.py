"""What a dataset is to everything else, and the checks that every dataset passes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError
from embedcache.fields import hold_fields
from embedcache.store.texts import factorise
from embedcache.types import DatasetInfo, Labels, Part, Samples, StringArray

Columns: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""Per column one value per sample: float64 with NaN for missing, or strings with "" for missing."""


class Dataset(Protocol):
    """A list of samples with what is known of them, by the dataset's own (natural) ids."""

    @property
    def info(self) -> DatasetInfo:
        """Its name and where it comes from."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should be told: a subset, files that were skipped, patients that are not known."""

    def samples(self) -> Samples:
        """All samples in the dataset's order, with absolute paths."""

    def labels(self) -> Labels:
        """All labels, for the ids of `samples`."""

    def columns(self) -> Columns:
        """The columns that `--where` may name, aligned with `samples`."""


@dataclass(frozen=True)
class DatasetOptions:
    """How the user wants a dataset to be read; the name of each switch is given where it is not the field's own."""

    name: str | None = None
    """Instead of the dataset's own name (`--name`): the folder of its stores."""
    root_dir: str | None = None
    """What the relative paths of a table start from; the table's own folder unless given."""
    path_column: str | None = None
    id_column: str | None = None
    patient_column: str | None = None
    split_column: str | None = None
    mask_column: str | None = None
    tasks: tuple[str, ...] = ()
    """`--task NAME=KIND[:COLUMN[,COLUMN...]]`, see `embedcache.datasets.tasks`."""
    positive: tuple[str, ...] = ()
    """`--positive TASK=VALUE`."""
    sep: str | None = None
    """What separates the labels in a cell."""
    level: str | None = None
    """What the labels attach to: patient, study, sample or slice."""
    label_table: str | None = None
    """`--labels FILE`: a second table that holds the labels."""
    join_on: str | None = None
    """Its column of sample ids or of patients."""
    slice_column: str | None = None
    """Its column of slice numbers, for labels at the level of slices."""
    slice_order: str | None = None
    """How these count: `anatomy` (from feet to head, along the slices' normal; so unless said) or `file` (as stored)."""
    uncertain: str | None = None
    """What -1, "uncertain", counts as in CheXpert, or in a table's columns of yes and no: `zeros`, `ones` or `ignore`."""
    channel: str | None = None
    """Which channel of a dataset with several (nnU-Net): its name or number."""

    def __post_init__(self) -> None:
        hold_fields(self)

    def only(self, dataset: str, *taken: str) -> None:
        """Raise InputError if an option is set that `dataset` does not take, rather than ignore it in silence.

        A second table of labels takes `uncertain`, whatever the dataset.
        """
        of_labels = ("uncertain",) if "label_table" in taken and self.label_table is not None else ()
        for given in fields(self):
            if given.name not in (*taken, *of_labels) and getattr(self, given.name) not in (None, ()):
                switch = {"tasks": "task", "label_table": "labels"}.get(given.name, given.name.replace("_", "-"))
                raise InputError(f"dataset {dataset} does not take --{switch}: it knows its own columns; leave it out.")


DEFAULT_OPTIONS = DatasetOptions()


@dataclass(frozen=True)
class Published:
    """The size with which a dataset was published, and how it is divided. No store carries it."""

    samples: int
    """That the adapter lists when all is there."""
    what: str
    """What they are: `images`, `CT volumes`."""
    patients: int | None = None
    """None where the dataset does not say."""
    split: str = ""
    """Where its parts come from."""


@dataclass(frozen=True)
class Adapter:
    """A registered dataset: what it says of itself before any data is there, and how to open it."""

    info: DatasetInfo
    open: Callable[[Path, DatasetOptions], Dataset]
    published: Published | None = None
    """None for a layout rather than one dataset."""

    def __call__(self, root: str, options: DatasetOptions) -> Dataset:
        """Open it at `root`."""
        return self.open(Path(root).absolute(), options)


def adapter(
    info: DatasetInfo, published: Published | None = None
) -> Callable[[Callable[[Path, DatasetOptions], Dataset]], Adapter]:
    """Make an Adapter of a function that opens a dataset."""
    return lambda function: Adapter(info, function, published)


@dataclass(frozen=True)
class Origin:
    """Where a task comes from, for `labels show`."""

    reason: str
    """What was seen."""
    switch: str = ""
    """What to write on the command line to have it otherwise."""


@dataclass(frozen=True)
class ListedDataset:
    """A dataset whose samples were listed; labels are made when they are asked for."""

    info: DatasetInfo
    notices: tuple[str, ...]
    listed: Samples
    make_labels: Callable[[], Labels]
    table: Columns
    missing: tuple[str, ...] = ()
    """Those of the notices that name a piece which the dataset's own lists have and which is not there."""
    mask_paths: StringArray | None = None
    mask_names: Mapping[int, str] = field(default_factory=dict)
    """What the values in its masks mean, beside 0, the background."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Of the tasks that are not its own: where each comes from."""

    def samples(self) -> Samples:
        """All samples in the dataset's order."""
        return self.listed

    def labels(self) -> Labels:
        """All labels, by natural ids."""
        return self.make_labels()

    def columns(self) -> Columns:
        """The columns that `--where` may name."""
        return self.table

    def masks(self) -> StringArray | None:
        """The path of each sample's mask, "" where it has none; None if the dataset has none at all.

        Several files joined by MASK_SEPARATOR are one mask: what the k-th of them marks has value k.
        """
        return self.mask_paths

    def mask_values(self) -> Mapping[int, str]:
        """The name of each value in the masks but 0."""
        return self.mask_names


MASK_SEPARATOR = "\n"
"""Between the files that make up one mask."""


def named(info: DatasetInfo, options: DatasetOptions, natural_name: str) -> DatasetInfo:
    """`info` under the name that the user gave, or else `natural_name` with what a folder's name can not hold as `-`.

    Raises InputError if the given name is no folder name.
    """
    if options.name is not None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", options.name):
            raise InputError(
                f"a dataset's name is letters, digits, `.`, `_` and `-`, and no more than 100. Got --name {options.name!r}."
            )
        return replace(info, name=options.name)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", natural_name).strip("-._")[:100]
    if not name:
        raise InputError("the dataset has no name that could be a folder's; give one with --name.")
    return replace(info, name=name)


SPLIT_WORDS: Mapping[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""How tables and folders call the parts, in lower case."""


def check_samples(samples: Samples, id_switch: str = "--id-column") -> None:
    """Raise InputError if two samples have one id, or a patient is in two parts; both named by their rows."""
    pair = first_pair(samples.id)
    if pair:
        raise InputError(
            f"{samples.where(pair[0])} and {samples.where(pair[1])} have the same id; make ids unique, or name another "
            f"column with {id_switch}."
        )
    parts, part = factorise(samples.split)
    _, patient = factorise(samples.patient_id)
    known = np.flatnonzero(samples.split != "")
    if not len(known):
        return
    # the first known part of each patient, against the part of each of its samples
    first = np.full(int(patient.max()) + 1, -1, dtype=np.int64)
    first[patient[known[::-1]]] = known[::-1]
    torn = known[part[known] != part[first[patient[known]]]]
    if len(torn):
        j = int(torn[0])
        i = int(first[patient[j]])
        raise InputError(
            f"one patient is in two splits: {samples.where(i)} is in {parts[part[i]]}, {samples.where(j)} in "
            f"{parts[part[j]]}; put all rows of a patient into one split."
        )


def first_pair(values: StringArray) -> tuple[int, int] | None:
    """The positions of the first value that is there twice (the earliest repetition), or None."""
    words, codes = factorise(values)
    if len(words) == len(values):
        return None
    _, first = np.unique(codes, return_index=True)
    repeated = np.flatnonzero(first[codes] != np.arange(len(values)))
    return int(first[codes[repeated[0]]]), int(repeated[0])
