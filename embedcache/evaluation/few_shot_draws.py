"""Which patients a few-shot draw takes: so many of each class, smaller draws inside larger ones.

A patient belongs to each class of which one of its rows is; of a multilabel task, and of a binary one, those without any
positive make a class of their own. For every class the patients, sorted by id, are shuffled once per seed: a draw of n takes the
first n of each class, so that it holds all smaller draws of that seed. Who is taken for two classes counts once and is counted
as an overlap. All rows of a patient come along.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError
from embedcache.probes.base import Groups, Matrix, ProbeKind

NONE = "no positive"
"""What a result calls the class of patients without any positive."""


@dataclass(frozen=True)
class PatientClasses:
    """The patients of the training part, and what they may be drawn for."""

    patients: npt.NDArray[np.str_]
    """Sorted: by number where all ids are numbers, else as text."""
    row: npt.NDArray[np.int64]
    """(n,): the patient of each training row."""
    names: tuple[str, ...]
    """Of the classes that are drawn."""
    members: tuple[npt.NDArray[np.int64], ...]
    """For each class its patients, ascending."""
    keys: tuple[int, ...]
    """For each class the number that its shuffles come from: its place among all classes of the task."""


@dataclass(frozen=True)
class Draw:
    """The patients of one draw."""

    shots: int
    seed: int | None
    """None: the first by sorted id."""
    patients: npt.NDArray[np.int64]
    """Ascending numbers, each once."""
    rows: npt.NDArray[np.int64]
    """(n,): which training rows they have, ascending."""
    overlaps: int
    """Patients that were taken for more than one class, counted as often as they came again."""


def patient_classes(
    truth: Matrix,
    groups: Groups,
    kind: ProbeKind,
    classes: tuple[str, ...],
    asked: npt.NDArray[np.int64],
    ill: Groups | None = None,
) -> PatientClasses:
    """Of the training rows: truth (n, all classes of the task) of 0, 1 and NaN; asked: which of the classes are drawn.

    ill: patients with a positive, also in a row that is not among these, since it has no label of an asked class; none of them
    is healthy.
    """
    names = np.unique(groups)
    if all(name.isdecimal() for name in names.tolist()):
        names = names[np.argsort([int(name) for name in names.tolist()], kind="stable")]
    order = np.argsort(names)
    row = order[np.searchsorted(names[order], groups)]
    positive = np.zeros((len(names), truth.shape[1]), dtype=np.bool_)
    known = np.zeros(len(names), dtype=np.bool_)
    np.logical_or.at(positive, row, truth == 1)
    np.logical_or.at(known, row, ~np.isnan(truth).all(axis=1))
    drawn = [classes[j] for j in asked.tolist()]
    members = [np.flatnonzero(positive[:, j]) for j in asked.tolist()]
    keys = asked.tolist()
    if kind != "multiclass":
        drawn.append(NONE)
        healthy = known & ~positive.any(axis=1)
        members.append(np.flatnonzero(healthy if ill is None else healthy & ~np.isin(names, ill)))
        keys.append(truth.shape[1])
    return PatientClasses(names, row, tuple(drawn), tuple(members), tuple(keys))


def draw_all(of: PatientClasses, shots: tuple[int, ...], seeds: int, base: int, sorted_ids: bool) -> list[Draw]:
    """Size by size, seed by seed; `sorted_ids`: one draw of each size, the first patients of each class."""
    if not any(len(members) for members in of.members):
        raise InputError("the training part has no patient with a label, so there is nobody to draw.")
    by_seed = [_shuffled(of, base, seed, sorted_ids) for seed in range(1 if sorted_ids else seeds)]
    drawn = []
    for n in shots:
        for seed, shuffled in enumerate(by_seed):
            taken = np.concatenate([members[:n] for members in shuffled])
            patients = np.unique(taken)
            chosen = np.zeros(len(of.patients), dtype=np.bool_)
            chosen[patients] = True
            rows = np.flatnonzero(chosen[of.row])
            drawn.append(Draw(n, None if sorted_ids else seed, patients, rows, len(taken) - len(patients)))
    return drawn


def _shuffled(of: PatientClasses, base: int, seed: int, sorted_ids: bool) -> list[npt.NDArray[np.int64]]:
    """The members of each class in the order in which they are taken."""
    if sorted_ids:
        return list(of.members)
    pairs = zip(of.keys, of.members, strict=True)
    return [np.random.default_rng([base, seed, key]).permutation(members) for key, members in pairs]


def too_few(of: PatientClasses, shots: int) -> dict[str, int]:
    """Classes with fewer patients than `shots`, and how many they have."""
    return {name: len(m) for name, m in zip(of.names, of.members, strict=True) if len(m) < shots}
