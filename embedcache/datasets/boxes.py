"""Boxes drawn on slices, as labels of slices or samples: one has a class where a box of that class lies on it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.datasets.base import Origin
from embedcache.datasets.columns import Table, is_missing, plain_name
from embedcache.datasets.joining import OtherIds
from embedcache.datasets.labelling import long_rows
from embedcache.datasets.slice_places import INSTANCE, Joined
from embedcache.errors import ImageError, InputError
from embedcache.images import count_slices
from embedcache.types import IntArray, Labels, Level, Samples, Task, TaskKind

TASK = "box"
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x", "y", "width", "height"), ("x", "y", "w", "h"))
_CLASS_COLUMNS = ("label", "class", "classname", "category", "finding", "name")


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


def box_origin(table: str, level: Level) -> Origin:
    """Where labels of boxes come from."""
    if level == "slice":
        return Origin(
            f"a box of {table} on a slice gives it the label, and every other slice of its sample none",
            "--level sample",
        )
    return Origin(f"a box of {table} gives its sample the label; a row without a box says that there is none")


def box_labels(
    joined: Joined, columns: BoxColumns, rows: IntArray, level: str | None
) -> tuple[Labels, tuple[str, ...]]:
    """Labels of every sample that these rows name, and what is to be said of them: 1 where a box of the class lies, else 0.

    Of all slices; of samples where each has one slice, or `level` says so. A row whose corners are all empty says: looked
    at, and no box. A sample without any row has no label. Raises InputError for a row with corners that are no numbers, no
    class, or no slice.
    """
    table, found = joined.table, joined.link.found
    joined.refuse_several()
    bare = _bare(table, columns)[rows]
    boxed = rows[~bare]
    if not len(boxed):
        raise InputError(f"no row of {table.name} that matches a sample has a box.")
    named = np.unique(found[rows])
    counts = np.array([_slices(joined.samples, int(i), joined.others) for i in named])
    chosen = level or ("sample" if (counts == 1).all() else "slice")
    if chosen not in ("sample", "slice"):
        raise InputError(f"boxes are labels of slices or of samples. Got --level {chosen}.")
    said: tuple[str, ...] = ()
    if chosen == "sample":
        counts, place = np.ones_like(counts), np.zeros(len(boxed), dtype=np.int32)
    elif joined.slices is None and joined.link.by != INSTANCE and (counts == 1).all():
        place = np.zeros(len(boxed), dtype=np.int32)
    else:
        boxed, place, said = joined.places(boxed)
    words = _classes(table, columns, boxed)
    classes = tuple(sorted(set(words)))
    at = np.searchsorted(named, found[boxed])
    beyond = np.flatnonzero(place >= counts[at])
    if len(beyond):
        k = int(beyond[0])
        raise InputError(
            f"{table.where(int(boxed[k]))} has a box on slice {place[k]}, and its sample has {counts[at[k]]}, counted from 0."
        )
    first = np.cumsum([0, *counts[:-1].tolist()])
    values = np.zeros((int(counts.sum()), len(classes)))
    values[first[at] + place, np.searchsorted(classes, words)] = 1
    taken = joined.samples.take(np.repeat(named, counts))
    column = columns.klass or ", ".join(columns.corners)
    kind: TaskKind = "binary" if len(classes) == 1 else "multilabel"
    positive = classes[0] if kind == "binary" else None
    task = Task(TASK, kind, classes, level="slice" if chosen == "slice" else "sample", positive=positive, column=column)
    numbers = np.concatenate([np.arange(n, dtype=np.int32) for n in counts]) if chosen == "slice" else None
    return long_rows(task, values, taken.id, taken.patient_id, taken.split, numbers), said


def _bare(table: Table, columns: BoxColumns) -> npt.NDArray[np.bool_]:
    """(rows,): whether every corner is empty."""
    bare = np.ones(len(table), dtype=np.bool_)
    for name in columns.corners:
        column = table.column(name)
        bare &= np.array([is_missing(word) for word in column.words])[column.codes]
    return bare


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
