"""From a table's columns to the long rows of Labels, for a table's own samples or through a second table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedcache.datasets.base import DatasetOptions, first_pair
from embedcache.datasets.columns import Table, read_table
from embedcache.datasets.infer import ColumnFinding, answers, find_tasks
from embedcache.errors import InputError
from embedcache.store.texts import locate
from embedcache.types import IntArray, Labels, Samples, StringArray, Task, strings

JOIN_COLUMNS = (
    "id", "sampleid", "imageid", "sample", "image", "imageindex", "path", "file", "filename", "patientid", "patient",
)  # fmt: skip
"""Where a second table's column of ids is looked for, when --join-on is not given."""


def long_rows(
    task: Task,
    values: npt.NDArray[np.float64],
    sample: StringArray,
    patient: StringArray,
    split: StringArray,
    slices: npt.NDArray[np.int32] | None = None,
) -> Labels:
    """The rows of one task. `values` has shape (n, classes) for multilabel, else (n, 1): for multiclass the class's
    number. A missing multiclass label is one row of class "" without a value.
    """
    k = values.shape[1]
    if task.kind == "multiclass":
        number = np.where(np.isnan(values[:, 0]), len(task.classes), values[:, 0]).astype(np.int64)
        klass = strings([*task.classes, ""])[number]
        value = np.where(np.isnan(values[:, 0]), np.nan, 1.0)
    else:
        klass = np.tile(strings(task.classes or ("",)), len(values))
        value = values.reshape(-1)
    place = np.full(len(values), -1, dtype=np.int32) if slices is None else slices
    return Labels(
        tasks=(task,),
        task=np.full(len(value), task.name, dtype=sample.dtype),
        sample=np.repeat(sample, k),
        patient=np.repeat(patient, k),
        slice=np.repeat(place, k),
        klass=klass,
        value=value,
        split=np.repeat(split, k),
    )


def all_rows(parts: Sequence[Labels], samples: Samples) -> Labels:
    """The rows of several tasks, and for each sample that is in none of them one row without a task."""
    unlabelled = np.arange(len(samples))
    for part in parts:
        if len(unlabelled):  # after the first task there are few, or none
            unlabelled = unlabelled[locate(samples.id[unlabelled], part.sample) < 0]
    bare = samples.take(unlabelled)
    none = strings([""] * len(bare))
    parts = [
        *parts,
        Labels(
            (), none, bare.id, bare.patient_id, np.full(len(bare), -1, dtype=np.int32), none,
            np.full(len(bare), np.nan), bare.split,
        ),
    ]  # fmt: skip
    return Labels(
        tasks=tuple(task for part in parts for task in part.tasks),
        task=np.concatenate([part.task for part in parts]),
        sample=np.concatenate([part.sample for part in parts]),
        patient=np.concatenate([part.patient for part in parts]),
        slice=np.concatenate([part.slice for part in parts]),
        klass=np.concatenate([part.klass for part in parts]),
        value=np.concatenate([part.value for part in parts]),
        split=np.concatenate([part.split for part in parts]),
    )


def labels_from(table: Table, findings: Sequence[ColumnFinding], samples: Samples, row: IntArray) -> list[Labels]:
    """The labels that `table` holds of `samples`, of which sample i is at row[i] (-1: not there, all missing).

    Raises InputError if a patient-level label differs between the rows of one patient, which the message names.
    """
    parts = []
    for finding in findings:
        if finding.task is None:
            continue
        found = answers(finding, table)
        values = np.where(row[:, None] >= 0, found[row], np.nan)
        if finding.task.level == "patient":
            parts.append(_per_patient(finding.task, values, samples, table, row))
        else:
            parts.append(long_rows(finding.task, values, samples.id, samples.patient_id, samples.split))
    return parts


def _per_patient(task: Task, values: npt.NDArray[np.float64], samples: Samples, table: Table, row: IntArray) -> Labels:
    patients, first, patient = np.unique(samples.patient_id, return_index=True, return_inverse=True)
    merged = np.full((len(patients), values.shape[1]), np.nan)
    for k, column in enumerate(values.T):
        known = np.flatnonzero(~np.isnan(column))
        told = np.full(len(patients), -1, dtype=np.int64)
        told[patient[known[::-1]]] = known[::-1]  # the first row that says something wins, and all others must agree
        torn = known[column[told[patient[known]]] != column[known]]
        if len(torn):
            i, j = int(told[patient[torn[0]]]), int(torn[0])
            raise InputError(
                f"task {task.name!r} is at the level of patients, but {table.where(int(row[i]))} and "
                f"{table.where(int(row[j]))} are one patient with different labels; use --level sample, or make them agree."
            )
        merged[told >= 0, k] = column[told[told >= 0]]
    split = np.full(len(patients), "", dtype=samples.split.dtype)
    spoken = np.flatnonzero(samples.split != "")
    split[patient[spoken]] = samples.split[spoken]
    none = strings([""] * len(patients))
    return long_rows(task, merged, none, samples.patient_id[first], split)


# --- a second table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class JoinedLabels:
    """A second table of labels, joined to samples."""

    table: Table
    findings: list[ColumnFinding]
    parts: list[Labels]
    notices: tuple[str, ...]


def join_labels(samples: Samples, options: DatasetOptions) -> JoinedLabels:
    """The labels of `samples` in the table `options.label_table`, whose join column holds sample ids or patients.

    Whichever of the two more of its rows match. Raises InputError if no row matches, or two rows are of one sample.
    """
    if options.label_table is None:
        raise InputError("--join-on joins a second table of labels; name it with --labels FILE.")
    table = read_table(Path(options.label_table))
    name = table.find(options.join_on, JOIN_COLUMNS)
    if name is None:
        raise InputError(f"{table.name} has no column of ids; name the column to join on with --join-on.")
    key = table.column(name).text()
    to_sample, to_patient = locate(key, samples.id), locate(key, samples.patient_id)
    by_patient = int((to_patient >= 0).sum()) > int((to_sample >= 0).sum())
    found = to_patient if by_patient else to_sample
    matched = np.flatnonzero(found >= 0)
    if not len(matched):
        raise InputError(
            f"no row of {table.name} matches: its column {name!r} holds neither the ids nor the patients of "
            f"{samples.listing}; name another column with --join-on."
        )
    level = options.level or ("patient" if by_patient else "sample")
    slices = table.find(options.slice_column, ("slice", "sliceindex")) if level == "slice" else None
    findings = find_tasks(table, [name, *([slices] if slices else [])], replace(options, level=level))
    if level == "slice":
        parts = _slice_rows(table, findings, samples, found, slices)
    else:
        _refuse_twice(table, key, matched)
        row = locate(samples.patient_id if by_patient else samples.id, key)
        parts = labels_from(table, findings, samples, row)
    unused = len(table) - len(matched)
    notices = (f"{unused} of the {len(table)} rows of {table.name} match no sample",) if unused else ()
    return JoinedLabels(table, findings, parts, notices)


def _refuse_twice(table: Table, key: StringArray, matched: IntArray) -> None:
    pair = first_pair(key[matched])
    if pair:
        i, j = (int(matched[p]) for p in pair)
        raise InputError(f"{table.where(i)} and {table.where(j)} are of the same sample or patient; keep one of them.")


def _slice_rows(
    table: Table, findings: Sequence[ColumnFinding], samples: Samples, found: IntArray, slices: str | None
) -> list[Labels]:
    if slices is None:
        raise InputError(f"{table.name} has no column of slice numbers; name it with --slice-column.")
    column = table.column(slices)
    numbers = column.numbers()
    if numbers is None or (numbers != np.floor(numbers)).any() or (numbers < 0).any():
        raise InputError(f"column {slices!r} of {table.name} must hold slice numbers, counted from 0.")
    rows = np.flatnonzero(found >= 0)
    place = numbers[column.codes][rows].astype(np.int32)
    owner = found[rows]
    order = np.lexsort((place, owner))
    twice = np.flatnonzero((np.diff(owner[order]) == 0) & (np.diff(place[order]) == 0))
    if len(twice):
        i, j = sorted(int(rows[order[twice[0] + step]]) for step in (0, 1))
        raise InputError(f"{table.where(i)} and {table.where(j)} are of the same slice; keep one of them.")
    taken = samples.take(owner)
    return [
        long_rows(f.task, answers(f, table)[rows], taken.id, taken.patient_id, taken.split, place)
        for f in findings
        if f.task is not None
    ]
