"""Labels in a second table, joined to samples by their ids, their patients, or the UIDs of a DICOM archive."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedcache.datasets.base import DatasetOptions, Origin, first_pair
from embedcache.datasets.boxes import box_columns, box_labels
from embedcache.datasets.columns import Table, read_table
from embedcache.datasets.infer import ColumnFinding, answers, find_tasks
from embedcache.datasets.joining import OtherIds
from embedcache.datasets.labelling import labels_from, long_rows
from embedcache.errors import InputError
from embedcache.store.texts import locate
from embedcache.types import IntArray, Labels, Level, Samples, StringArray, strings

JOIN_COLUMNS = (
    "id", "sampleid", "imageid", "sample", "image", "imageindex", "path", "file", "filename", "patientid", "patient",
)  # fmt: skip
"""Where a second table's column of ids is looked for, when --join-on is not given."""
DICOM_COLUMNS = (
    "sopinstanceuid", "instanceuid", "uid", "seriesinstanceuid", "seriesuid", "studyinstanceuid", "studyuid", "accessionnumber",
    "accession",
)  # fmt: skip
"""Where it is looked for first, for a tree of DICOM files."""
_INSTANCE = "SOPInstanceUID"
_NO_OTHERS = OtherIds()


@dataclass(frozen=True)
class JoinedLabels:
    """A second table of labels, joined to samples."""

    table: Table
    findings: list[ColumnFinding]
    parts: list[Labels]
    notices: tuple[str, ...]

    @property
    def origins(self) -> dict[str, Origin]:
        """Where each task comes from."""
        found = {f.task.name: Origin(f.reason, f.switch) for f in self.findings if f.task}
        boxes = Origin(
            f"a box of {self.table.name} on a slice gives it the label, and every other slice of its sample none"
        )
        return found or {task.name: boxes for labels in self.parts for task in labels.tasks}


@dataclass(frozen=True)
class _Link:
    """How the rows of the table and the samples belong together."""

    by: str
    """`sample`, `patient`, or a DICOM keyword."""
    found: IntArray
    """(rows,): a sample of each row, -1 for none."""
    row: IntArray
    """(samples,): the row of each sample, -1 for none."""


def join_labels(
    samples: Samples, options: DatasetOptions, others: OtherIds | Callable[[], OtherIds] = _NO_OTHERS
) -> JoinedLabels:
    """The labels of `samples` in the table `options.label_table`, whose join column holds sample ids, patients or one of
    the `others`: whichever most of its rows match.

    `others` that have to be read first are asked for where ids and patients match no row. Raises InputError if no row
    matches, or two rows are of one sample.
    """
    if options.label_table is None:
        raise InputError("--join-on joins a second table of labels; name it with --labels FILE.")
    table = read_table(Path(options.label_table))
    name = table.find(options.join_on, _join_columns(others))
    if name is None:
        raise InputError(f"{table.name} has no column of ids; name the column to join on with --join-on.")
    key = table.column(name).text()
    others, link = _linked(key, samples, others)
    matched = np.flatnonzero(link.found >= 0)
    if not len(matched):
        others_named = f", nor {', '.join([*others.of_sample, _INSTANCE])}" if others.instance is not None else ""
        raise InputError(
            f"no row of {table.name} matches: its column {name!r} holds neither the ids nor the patients of "
            f"{samples.listing}{others_named}; name another column with --join-on."
        )
    level = options.level or _natural_level(link, others, matched)
    unused = len(table) - len(matched)
    notices = (f"{unused} of the {len(table)} rows of {table.name} match no sample",) if unused else ()
    if level != "slice":
        findings = find_tasks(table, [name], replace(options, level=level))
        _refuse_twice(table, strings(link.found.astype(str)) if link.by == _INSTANCE else key, matched)
        return JoinedLabels(table, findings, labels_from(table, findings, samples, link.row), notices)
    slices = table.find(options.slice_column, ("slice", "sliceindex"))
    boxes = box_columns(table)
    findings = [] if boxes else find_tasks(table, [name, *([slices] if slices else [])], replace(options, level=level))
    rows, place = _places(table, key, link, others, slices)
    owner = link.found[rows]
    if boxes:
        return JoinedLabels(table, [], [box_labels(table, boxes, samples, rows, owner, place, others)], notices)
    _refuse_same_slice(table, rows, owner, place)
    taken = samples.take(owner)
    parts = [
        long_rows(f.task, answers(f, table)[rows], taken.id, taken.patient_id, taken.split, place)
        for f in findings
        if f.task is not None
    ]
    return JoinedLabels(table, findings, parts, notices)


def _join_columns(others: OtherIds | Callable[[], OtherIds]) -> tuple[str, ...]:
    if callable(others):
        return (*JOIN_COLUMNS, *DICOM_COLUMNS)
    return JOIN_COLUMNS if others.instance is None else (*DICOM_COLUMNS, *JOIN_COLUMNS)


def _linked(key: StringArray, samples: Samples, others: OtherIds | Callable[[], OtherIds]) -> tuple[OtherIds, _Link]:
    if not callable(others):
        return others, _link(key, samples, others)
    link = _link(key, samples, _NO_OTHERS)
    if (link.found >= 0).any():
        return _NO_OTHERS, link
    read = others()
    return read, _link(key, samples, read)


def _link(key: StringArray, samples: Samples, others: OtherIds) -> _Link:
    links = [
        _Link(by, locate(key, values), locate(values, key))
        for by, values in {"sample": samples.id, "patient": samples.patient_id, **others.of_sample}.items()
    ]
    if others.instance is not None and others.sample is not None:
        file = locate(key, others.instance)
        found = np.where(file >= 0, others.sample[file], -1)
        row = np.full(len(samples), -1, dtype=np.int64)
        matched = np.flatnonzero(found >= 0)[::-1]
        row[found[matched]] = matched
        links.append(_Link(_INSTANCE, found, row))
    for link in links:
        link.found[key == ""] = -1  # an empty cell names nobody, though a file may say no accession either
        link.row[link.row >= 0] = np.where(key[link.row[link.row >= 0]] == "", -1, link.row[link.row >= 0])
    return max(links, key=lambda link: int((link.found >= 0).sum()))


def _natural_level(link: _Link, others: OtherIds, matched: IntArray) -> Level:
    """What the labels attach to, unless the user says otherwise."""
    if link.by in ("sample", "patient"):
        return "patient" if link.by == "patient" else "sample"
    if link.by != _INSTANCE or others.sample is None:
        return "sample" if link.by == "SeriesInstanceUID" else "study"
    files = np.bincount(others.sample)
    return "slice" if (files[link.found[matched]] > 1).any() else "sample"


def _refuse_twice(table: Table, key: StringArray, matched: IntArray) -> None:
    pair = first_pair(key[matched])
    if pair:
        i, j = (int(matched[p]) for p in pair)
        raise InputError(f"{table.where(i)} and {table.where(j)} are of the same sample or patient; keep one of them.")


# --- labels of slices ------------------------------------------------------------------------------


def _places(
    table: Table, key: StringArray, link: _Link, others: OtherIds, slices: str | None
) -> tuple[IntArray, np.ndarray[tuple[int], np.dtype[np.int32]]]:
    """The rows of the table that name a slice, and the number of each."""
    matched = np.flatnonzero(link.found >= 0)
    if link.by == _INSTANCE:
        return _places_of_files(key, link.found, matched, others)
    if link.by not in ("sample", "patient", "SeriesInstanceUID"):
        raise InputError(
            f"{table.name} names a study, which has several series; labels of slices are joined by {_INSTANCE}, or by the "
            "sample and the slice's number."
        )
    if slices is None:
        raise InputError(f"{table.name} has no column of slice numbers; name it with --slice-column.")
    column = table.column(slices)
    numbers = column.numbers()
    if numbers is None or (numbers != np.floor(numbers)).any() or (numbers < 0).any():
        raise InputError(f"column {slices!r} of {table.name} must hold slice numbers, counted from 0.")
    return matched, numbers[column.codes][matched].astype(np.int32)


def _places_of_files(
    key: StringArray, found: IntArray, matched: IntArray, others: OtherIds
) -> tuple[IntArray, np.ndarray[tuple[int], np.dtype[np.int32]]]:
    """Of rows that name files: a file is one slice, or the several of its frames; one of a localiser is none."""
    rows, places = [], []
    orders: dict[int, dict[str, list[int]]] = {}
    for i in matched.tolist():
        sample = int(found[i])
        if sample not in orders:
            assert others.slice_order is not None
            place: dict[str, list[int]] = {}
            for k, uid in enumerate(others.slice_order(sample)):
                place.setdefault(uid, []).append(k)
            orders[sample] = place
        for k in orders[sample].get(str(key[i]), ()):
            rows.append(i)
            places.append(k)
    return np.array(rows, dtype=np.int64), np.array(places, dtype=np.int32)


def _refuse_same_slice(
    table: Table, rows: IntArray, owner: IntArray, place: np.ndarray[tuple[int], np.dtype[np.int32]]
) -> None:
    order = np.lexsort((place, owner))
    twice = np.flatnonzero((np.diff(owner[order]) == 0) & (np.diff(place[order]) == 0))
    if len(twice):
        i, j = sorted(int(rows[order[twice[0] + step]]) for step in (0, 1))
        raise InputError(f"{table.where(i)} and {table.where(j)} are of the same slice; keep one of them.")
