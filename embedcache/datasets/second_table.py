"""Labels in a second table, joined to samples by their ids, their patients, or the UIDs of a DICOM archive."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedcache.datasets.base import DatasetOptions, Origin, first_pair
from embedcache.datasets.boxes import box_columns, box_labels, box_origin
from embedcache.datasets.columns import Table, read_table
from embedcache.datasets.infer import ColumnFinding, answers, find_tasks, said_of_columns
from embedcache.datasets.joining import OtherIds
from embedcache.datasets.keys import PATIENT_KEYS, SAMPLE_KEYS, Link, link_by, link_samples
from embedcache.datasets.labelling import labels_from, long_rows
from embedcache.datasets.slice_places import INSTANCE, Joined, refuse_same_slice
from embedcache.errors import InputError
from embedcache.types import IntArray, Labels, Level, Samples, StringArray, strings

JOIN_COLUMNS = (*SAMPLE_KEYS, *PATIENT_KEYS)
"""Where a second table's column of ids is looked for, when --join-on is not given."""
DICOM_COLUMNS = (
    "sopinstanceuid", "instanceuid", "uid", "seriesinstanceuid", "seriesuid", "studyinstanceuid", "studyuid", "accessionnumber",
    "accession",
)  # fmt: skip
"""Where it is looked for first, for a tree of DICOM files."""
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
        return found or {
            task.name: box_origin(self.table.name, task.level) for labels in self.parts for task in labels.tasks
        }


def join_labels(
    samples: Samples, options: DatasetOptions, others: OtherIds | Callable[[], OtherIds] = _NO_OTHERS
) -> JoinedLabels:
    """The labels of `samples` in the table `options.label_table`, whose join column holds sample ids, patients or one of
    the `others`: whichever most of its rows match (between ids and patients, see `link_samples`).

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
    others, link = _linked(table, name, samples, others)
    matched = np.flatnonzero(link.found >= 0)
    if not len(matched):
        others_named = f", nor {', '.join([*others.of_sample, INSTANCE])}" if others.instance is not None else ""
        raise InputError(
            f"no row of {table.name} matches: its column {name!r} holds neither the ids nor the patients of "
            f"{samples.listing}{others_named}; name another column with --join-on."
        )
    unused = len(table) - len(matched)
    notices = (f"{unused} of the {len(table)} rows of {table.name} match no sample",) if unused else ()
    slices = table.find(options.slice_column, ("slice", "sliceindex"))
    joined = Joined(table, key, link, others, samples, slices, options.slice_order)
    boxes = None if options.tasks else box_columns(table)
    if boxes:
        labels, said = box_labels(joined, boxes, matched, options.level)
        return JoinedLabels(table, [], [labels], (*notices, *said))
    level = options.level or _natural_level(link, others, matched)
    if level != "slice":
        findings = find_tasks(table, [name], replace(options, level=level))
        _refuse_twice(table, strings(link.found.astype(str)) if link.by == INSTANCE else key, matched)
        parts = labels_from(table, findings, samples, link.row)
        return JoinedLabels(table, findings, parts, (*notices, *said_of_columns(findings, table, options)))
    findings = find_tasks(table, [name, *([slices] if slices else [])], replace(options, level=level))
    rows, place, said = joined.places(matched)
    owner = link.found[rows]
    refuse_same_slice(table, rows, owner, place)
    taken = samples.take(owner)
    parts = [
        long_rows(f.task, answers(f, table)[rows], taken.id, taken.patient_id, taken.split, place)
        for f in findings
        if f.task is not None
    ]
    return JoinedLabels(table, findings, parts, (*notices, *said, *said_of_columns(findings, table, options)))


def _join_columns(others: OtherIds | Callable[[], OtherIds]) -> tuple[str, ...]:
    if callable(others):
        return (*JOIN_COLUMNS, *DICOM_COLUMNS)
    return JOIN_COLUMNS if others.instance is None else (*DICOM_COLUMNS, *JOIN_COLUMNS)


def _linked(
    table: Table, name: str, samples: Samples, others: OtherIds | Callable[[], OtherIds]
) -> tuple[OtherIds, Link]:
    own = link_samples(table, name, samples.id, samples.patient_id)
    if callable(others):
        if own.matched:
            return _NO_OTHERS, own
        others = others()
    return others, max((own, *_links(table.column(name).text(), others, len(samples))), key=lambda link: link.matched)


def _links(key: StringArray, others: OtherIds, n_samples: int) -> Iterator[Link]:
    for keyword, values in others.of_sample.items():
        yield link_by(keyword, key, values)
    if others.instance is not None and others.sample is not None:
        file = link_by(INSTANCE, key, others.instance).found
        found = np.where(file >= 0, others.sample[file], -1)
        row = np.full(n_samples, -1, dtype=np.int64)
        matched = np.flatnonzero(found >= 0)[::-1]
        row[found[matched]] = matched
        yield Link(INSTANCE, found, row)


def _natural_level(link: Link, others: OtherIds, matched: IntArray) -> Level:
    """What the labels attach to, unless the user says otherwise."""
    if link.by in ("sample", "patient", "PatientID"):
        return "sample" if link.by == "sample" else "patient"
    if link.by != INSTANCE or others.sample is None:
        return "sample" if link.by == "SeriesInstanceUID" else "study"
    files = np.bincount(others.sample)
    return "slice" if (files[link.found[matched]] > 1).any() else "sample"


def _refuse_twice(table: Table, key: StringArray, matched: IntArray) -> None:
    pair = first_pair(key[matched])
    if pair:
        i, j = (int(matched[p]) for p in pair)
        raise InputError(f"{table.where(i)} and {table.where(j)} are of the same sample or patient; keep one of them.")
