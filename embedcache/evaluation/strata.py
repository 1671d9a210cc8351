"""Strata of patients by their labels, for a draw in which every part has its share of a rare class; and parts that lack one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError
from embedcache.evaluation.statistics import Patients
from embedcache.probes.base import Groups, Matrix
from embedcache.store.texts import factorise, locate
from embedcache.types import PARTS, IntArray, Labels, StringArray, Task, strings

FEWEST = 2
"""Patients of a class that a part needs: of one there is no spread."""
_MOST_SAID = 3


@dataclass(frozen=True)
class Strata:
    """Where a draw looks for the patient of each of n samples."""

    stratum: IntArray
    """(n,): the one stratum that the patient is in."""
    having: npt.NDArray[np.bool_]
    """(n, classes + 2): which classes the patient has, whether it is known to have none, and whether nothing is known of it."""


def strata_of(samples: StringArray, patients: StringArray, labels: Labels, task: Task) -> Strata:
    """The stratum of each sample's patient, and all classes that the patient has.

    A patient has the classes that any of its samples has, and is in the stratum of the one that the fewest patients have (of two
    that are as rare, the first in the task's order): in a multilabel task of its rarest finding. Then come those who are known
    to have none, and last those of whom nothing is known. Raises InputError for a task without classes.
    """
    if task.kind not in ("binary", "multilabel", "multiclass"):
        raise InputError(
            f"task {task.name!r} is a {task.kind} task, and strata are of classes; name another with --stratify, or leave it out."
        )
    _, patient = factorise(patients)
    count = int(patient.max(initial=-1)) + 1
    mine = (labels.task == task.name) & ~np.isnan(labels.value)
    # the rows of a patient-level task name no sample; else the store says whose sample it is
    by_patient, by_sample = mine & (labels.sample == ""), mine & (labels.sample != "")
    rows = np.concatenate([np.flatnonzero(by_patient), np.flatnonzero(by_sample)])
    places = [locate(strings(labels.patient[by_patient]), patients), locate(strings(labels.sample[by_sample]), samples)]
    at = np.concatenate(places)
    rows, at = rows[at >= 0], at[at >= 0]
    owner = patient[at]
    has = np.zeros((count, len(task.classes)), dtype=np.bool_)
    positive = labels.value[rows] == 1
    klass = labels.klass[rows[positive]]
    for j, name in enumerate(task.classes):
        has[owner[positive][klass == name], j] = True
    known = np.zeros(count, dtype=np.bool_)
    known[owner] = True
    having = np.column_stack([has, known & ~has.any(axis=1), ~known])
    stratum = np.argmax(having[:, -2:], axis=1) + len(task.classes)
    # the most frequent first, so that the rarest has the last word
    for j in sorted(range(len(task.classes)), key=lambda j: (-int(has[:, j].sum()), -j)):
        stratum[has[:, j]] = j
    return Strata(stratum[patient], having[patient])


def lacking(
    truth: Matrix, groups: Groups, parts: npt.NDArray[np.str_], classes: Sequence[str], drawn: Sequence[str], task: str
) -> tuple[str, ...]:
    """A note where a part of a draw has fewer than FEWEST patients with or without a class, though another draw could have them.

    truth (rows, classes) is 1, 0 or NaN; `parts` (rows,) holds "" for rows of none.
    """
    patients = Patients.of(groups)
    rows_of = {part: parts == part for part in PARTS}
    rows_of = {part: rows for part, rows in rows_of.items() if rows.any()}
    cell = patients.code.copy()  # of each patient and part one
    for number, rows in enumerate(rows_of.values()):
        cell[rows] += number * patients.count
    inside = parts != ""

    def who(rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(parts, patients): who of each part has one of `rows`."""
        shape = len(rows_of), patients.count
        return np.bincount(cell[rows], minlength=shape[0] * shape[1]).reshape(shape) > 0

    counted = {
        (name, which): who(inside & (truth[:, j] == value))
        for j, name in enumerate(classes)
        for value, which in ((1, "with"), (0, "without"))
    }
    said = []
    for number, part in enumerate(rows_of):
        for (name, which), there in counted.items() if part in drawn else ():
            here = int(there[number].sum())
            if here < FEWEST and int(there.any(axis=0).sum()) >= FEWEST * len(rows_of):
                said.append(f"{part} has {'one patient' if here else 'no patient'} {which} {name}")
    if not said:
        return ()
    more = f", and {len(said) - _MOST_SAID} more" if len(said) > _MOST_SAID else ""
    return (
        f"of this draw {', '.join(said[:_MOST_SAID])}{more}; draw with another --seed, or within the labels "
        f"(`embedcache splits make STORE --stratify {task}`, then --split split.csv).",
    )
