"""The column that a result's test rows are grouped by: a label, or any column of the user's table or of the dataset.

A column may name a hospital or a scanner, which is no label: it is compared here, and goes into no store.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedcache.datasets.base import DatasetOptions
from embedcache.datasets.columns import TableColumns, read_table
from embedcache.datasets.dicom_tree import years
from embedcache.errors import InputError, suggest
from embedcache.evaluation.label_files import find_labels, table_rows
from embedcache.evaluation.listing import dataset_at, list_again
from embedcache.store.features import join
from embedcache.store.labels import is_label_table
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import locate
from embedcache.types import Labels

Values = npt.NDArray[Any]
"""(n,): text, "" where missing, or numbers, NaN where missing."""


class Named(Protocol):
    """Rows (n,) by their sample, patient and slice, -1 of a whole sample."""

    @property
    def sample(self) -> npt.NDArray[Any]:
        """Sample ids."""

    @property
    def patient(self) -> npt.NDArray[Any]:
        """Patients."""

    @property
    def slice(self) -> npt.NDArray[np.int32]:
        """Positions in the source volume."""


@dataclass(frozen=True)
class ColumnSource:
    """Where the column is looked for."""

    labels: Path | None = None
    """A table of the user's, or a copied `labels.parquet`; None for the labels beside the store."""
    join_on: str | None = None
    dataset: str | None = None
    """How what is at `root` is read; None is as `dataset_at` finds."""
    root: str | None = None
    """The dataset that was extracted, for a column of its own that is no label."""
    options: DatasetOptions = field(default_factory=DatasetOptions)


def group_column(cache: FeatureCache, by: str, source: ColumnSource, rows: Named) -> Values:
    """The value of column `by` for each test row. Raises InputError where there is no such column, or no row has a value."""
    if source.root is None and source.dataset is not None:
        raise InputError("--dataset names what is at --root; give that too, or leave it out.")
    if source.root is not None and (source.labels is not None or source.join_on is not None):
        raise InputError("the column is in --labels or at --root; give one of them.")
    if source.root is not None:
        values = _of_dataset(cache, by, source, rows)
    elif source.labels is not None and is_own_table(source.labels):
        values = _of_table(cache, by, source.labels, source.join_on, rows)
    else:
        values = _of_labels(find_labels(cache, source.labels, source.join_on), by, rows)
    values = _ages(values)
    if is_missing_value(values).all():
        raise InputError(
            f"no row of the test part has a value of {by!r}; give a table that has one with --labels FILE."
        )
    return values


def is_own_table(labels: Path) -> bool:
    """Whether it is a table of the user's, in which any column may group rows."""
    return not labels.is_dir() and not is_label_table(labels)


def check_column(by: str, labels: Path | str | None, tasks: Collection[str]) -> None:
    """Hold, before there are rows, that the user's table `labels` has the column `by`, or without one that it is in `tasks`."""
    if labels is not None and is_own_table(file := Path(labels)):
        names = read_table(file).names
        if by not in names:
            raise suggest(f"column of {file.name}", by, names)
    elif by not in tasks:
        raise suggest("column of the labels", by, tasks)


def is_missing_value(values: Values) -> npt.NDArray[np.bool_]:
    """(n,): which rows have no value."""
    return np.asarray(np.isnan(values) if values.dtype.kind == "f" else values == "")


def _of_dataset(cache: FeatureCache, by: str, source: ColumnSource, rows: Named) -> Values:
    assert source.root is not None
    listing = list_again(cache, source.dataset or dataset_at(cache, source.root), source.root, source.options)
    columns = listing.opened.columns()
    if by not in columns:
        raise suggest(f"column of {listing.opened.info.name}", by, tuple(columns))
    return _at(columns[by][listing.natural], locate(rows.sample, listing.samples.id))


def _of_table(cache: FeatureCache, by: str, file: Path, join_on: str | None, rows: Named) -> Values:
    table, row = table_rows(cache, file, join_on, by)
    samples = cache.samples()
    current = np.flatnonzero(~samples.superseded)
    place = locate(rows.sample, samples.id[current])
    of_row = np.where(place >= 0, row[current[place]], -1)
    return _at(TableColumns(table, np.arange(len(table)))[by], of_row)


def group_tasks(labels: Labels) -> list[str]:
    """By which rows may stand apart: the tasks with one value for each."""
    return [task.name for task in labels.tasks if task.kind in ("binary", "multiclass", "numeric")]


def _of_labels(labels: Labels, by: str, rows: Named) -> Values:
    usable = group_tasks(labels)
    if by not in usable:
        error = suggest("column of the labels", by, usable)
        raise type(error)(f"{error} Other columns: --labels FILE, or --root of the dataset.")
    task = labels.get(by)
    y = join(labels, task, rows.sample, rows.patient, rows.slice)
    if task.kind == "numeric":
        return y
    return np.array([task.values[int(v)] if v == v else "" for v in y.tolist()])


def _at(values: Values, place: npt.NDArray[np.int64]) -> Values:
    """`values` at these places, missing at -1."""
    if values.dtype.kind not in "fiu":
        return np.array([str(values[i]) if i >= 0 else "" for i in place.tolist()])
    return np.where(place >= 0, values[place].astype(np.float64), np.nan)


def _ages(values: Values) -> Values:
    """Years, where all texts are ages as DICOM writes them (`045Y`)."""
    if values.dtype.kind == "f":
        return values
    ages = np.array([years(text) for text in values.tolist()], dtype=np.float64)
    known = values != ""
    return values if not known.any() or np.isnan(ages[known]).any() else ages
