"""Boxes drawn on slices, as labels of slices: a slice has a class where a box of that class lies on it."""

from dataclasses import dataclass

import numpy as np

from embedcache.datasets.columns import Table, is_missing, plain_name
from embedcache.datasets.joining import OtherIds
from embedcache.datasets.labelling import long_rows
from embedcache.errors import ImageError, InputError
from embedcache.images import count_slices
from embedcache.types import IntArray, Labels, Samples, Task

TASK = "box"
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x", "y", "width", "height"), ("x", "y", "w", "h"))
_CLASS_COLUMNS = ("label", "class", "category", "finding", "name")


@dataclass(frozen=True)
class BoxColumns:
    """Where a table of boxes says what."""

    corners: tuple[str, ...]
    klass: str | None
    """What the box is around; None where all boxes are of one kind."""


def box_columns(table: Table) -> BoxColumns | None:
    """The columns of a table of boxes (xmin, ymin, xmax, ymax, or x, y, width, height); None if it is no such table."""
    plain = {plain_name(name): name for name in table.names}
    for corners in _CORNERS:
        if all(corner in plain for corner in corners):
            return BoxColumns(tuple(plain[c] for c in corners), table.find(None, _CLASS_COLUMNS))
    return None


def box_labels(
    table: Table,
    columns: BoxColumns,
    samples: Samples,
    rows: IntArray,
    owner: IntArray,
    place: np.ndarray[tuple[int], np.dtype[np.int32]],
    others: OtherIds,
) -> Labels:
    """Labels of all slices of every sample that has a box: 1 where a box of the class lies, 0 on its other slices.

    `rows`, `owner` and `place` (all (n,)): row of the table, its sample, its slice. A sample without any box has no
    label: nobody says that it was looked at. Raises InputError for a row with corners that are no numbers or no class.
    """
    words = _classes(table, columns, rows)
    classes = tuple(sorted(set(words)))
    boxed = np.unique(owner)
    counts = [_slices(samples, int(i), others) for i in boxed]
    first = dict(zip(boxed.tolist(), np.cumsum([0, *counts[:-1]]).tolist(), strict=True))
    values = np.zeros((sum(counts), len(classes)))
    for word, sample, k in zip(words, owner.tolist(), place.tolist(), strict=True):
        values[first[sample] + k, classes.index(word)] = 1
    taken = samples.take(np.repeat(boxed, counts))
    numbers = np.concatenate([np.arange(n, dtype=np.int32) for n in counts])
    column = columns.klass or ", ".join(columns.corners)
    if len(classes) == 1:
        task = Task(TASK, "binary", classes, level="slice", positive=classes[0], column=column)
    else:
        task = Task(TASK, "multilabel", classes, level="slice", column=column)
    return long_rows(task, values, taken.id, taken.patient_id, taken.split, numbers)


def _classes(table: Table, columns: BoxColumns, rows: IntArray) -> list[str]:
    """The class of the box of each row."""
    for name in columns.corners:
        column = table.column(name)
        values = column.numbers()
        bad = rows if values is None else rows[np.isnan(values[column.codes[rows]])]
        if len(bad):
            raise InputError(
                f"{table.where(int(bad[0]))} has no number in column {name!r}, a side of its box; mend it."
            )
    if columns.klass is None:
        return [TASK] * len(rows)
    words = table.column(columns.klass)
    for i in rows.tolist():
        if is_missing(words.words[words.codes[i]]):
            raise InputError(
                f"{table.where(i)} says no class in column {columns.klass!r}; fill it, or leave the row out."
            )
    return [words.words[code] for code in words.codes[rows].tolist()]


def _slices(samples: Samples, i: int, others: OtherIds) -> int:
    if others.slice_order is not None:
        return len(others.slice_order(i))
    try:
        return count_slices(str(samples.path[i]))
    except ImageError as error:
        raise InputError(f"{samples.where(i)} has boxes, and its slices can not be counted: {error.reason}") from error
