"""From a table's columns to the long rows of Labels."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedcache.datasets.columns import Table
from embedcache.datasets.infer import ColumnFinding, answers
from embedcache.errors import InputError
from embedcache.store.texts import locate
from embedcache.types import IntArray, Labels, Samples, StringArray, Task, strings


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
