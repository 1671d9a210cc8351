"""A result broken down by a column: sex, age band, scanner, view. Each group's figures with its own interval, and a test."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

from embedcache.evaluation.clustered import Clustered
from embedcache.evaluation.measure import measure
from embedcache.evaluation.metrics import Ranking
from embedcache.evaluation.statistics import Patients
from embedcache.evaluation.thresholds import BeforeRefit
from embedcache.probes.base import Groups, Matrix, ProbeKind
from embedcache.types import Metric

MISSING = "missing"
DECADE = 10.0
MOST_VALUES = 10
"""A numeric column with no more distinct values than this is a code, each value a group."""


@dataclass(frozen=True)
class Subgroup:
    """The rows that share a value of the column."""

    name: str
    """The value, a band (`60 to 70`: from 60 to below 70), or `missing`."""
    n: int
    patients: int
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class Difference:
    """Whether a label's AUROC differs between the groups."""

    label: str
    """A class, or `macro`."""
    groups: tuple[str, ...]
    """Those with two patients in each class at least; the others do not enter."""
    chi2: float
    p: float
    note: str = ""


def group_names(column: npt.ArrayLike, edges: tuple[float, ...] | None = None) -> npt.NDArray[np.str_]:
    """The group of each row: bands of a numeric column with more than ten values, else the values as text.

    Bands are of ten, or between `edges`, of which the outermost are open. None, NaN and the empty text are `missing`.
    """
    values = np.asarray(column)
    if values.dtype.kind not in "fiu":
        return np.array(
            [MISSING if v is None or v != v or str(v) == "" else str(v) for v in values.tolist()], dtype=str
        )
    numbers = values.astype(np.float64)
    known = ~np.isnan(numbers)
    names = np.full(len(numbers), MISSING, dtype=object)
    if edges is None and len(np.unique(numbers[known])) <= MOST_VALUES:
        names[known] = [f"{v:g}" for v in numbers[known]]
    elif edges is None:
        names[known] = [f"{low:g} to {low + DECADE:g}" for low in np.floor(numbers[known] / DECADE) * DECADE]
    else:
        cut = sorted(set(edges))
        inside = [f"{low:g} to {high:g}" for low, high in pairwise(cut)]
        bands = [f"below {cut[0]:g}", *inside, f"{cut[-1]:g} and more"]
        names[known] = [bands[i] for i in np.searchsorted(cut, numbers[known], side="right")]
    return names.astype(str)


def subgroups(
    truth: Matrix,
    scores: Matrix,
    groups: Groups,
    column: npt.ArrayLike,
    kind: ProbeKind,
    classes: tuple[str, ...],
    threshold: float,
    *,
    edges: tuple[float, ...] | None = None,
    score_name: str = "log-odds",
    before: BeforeRefit | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Subgroup, ...]:
    """The figures of `measure` in each group of `column` (n,), in order of the values, the missing last.

    A patient may have rows in several groups (views); each group's patients are its own. Other arguments: see `measure`.
    """
    names = group_names(column, edges)
    found = []
    for name in _ordered(column, names):
        inside = names == name
        part = before if before is None else (
            BeforeRefit(before.validation_truth, before.validation_scores, before.test_scores[inside])
        )  # fmt: skip
        metrics = measure(
            truth[inside], scores[inside], groups[inside], kind, classes, threshold,
            score_name=score_name, before=part, resamples=resamples, seed=seed,
        )  # fmt: skip
        found.append(Subgroup(name, int(inside.sum()), Patients.of(groups[inside]).count, metrics))
    return tuple(found)


def auroc_differences(
    truth: Matrix,
    scores: Matrix,
    groups: Groups,
    column: npt.ArrayLike,
    classes: tuple[str, ...],
    *,
    edges: tuple[float, ...] | None = None,
) -> tuple[Difference, ...]:
    """Wald's test that all groups have one AUROC, per label and for their mean, by the clustered covariance between groups.

    Missing values are no group. A label that fewer than two groups have is left out; the mean is over the labels that every
    group has. Groups that share patients covary, and the test knows it.
    """
    names = group_names(column, edges)
    patients = Patients.of(groups)
    asked = [name for name in _ordered(column, names) if name != MISSING]
    parts: dict[tuple[str, int], Clustered] = {}
    for name in asked:
        for j in range(len(classes)):
            ranking = Ranking.of(np.where(names == name, truth[:, j], np.nan), scores[:, j])
            if ranking.positives and ranking.negatives:
                part = Clustered.of(ranking, patients)
                if part.smaller >= 2:
                    parts[name, j] = part
    found = []
    for j, label in enumerate(classes):
        having = [name for name in asked if (name, j) in parts]
        if len(having) >= 2:
            each = [parts[name, j] for name in having]
            found.append(
                _wald(label, having, np.array([p.value for p in each]), np.stack([p.influence() for p in each]))
            )
    # The mean is over the same labels in every group, or it would differ by its labels.
    shared = [j for j in range(len(classes)) if all((name, j) in parts for name in asked)]
    if len(shared) > 1 and len(asked) >= 2:
        value = np.array([np.mean([parts[name, j].value for j in shared]) for name in asked])
        moved = np.stack([np.mean([parts[name, j].influence() for j in shared], axis=0) for name in asked])
        left = [label for j, label in enumerate(classes) if j not in shared]
        note = f"left out, not in every group: {', '.join(left)}" if left else ""
        found.insert(0, _wald("macro", asked, value, moved, note))
    return tuple(found)


def _wald(label: str, names: list[str], value: Matrix, influence: Matrix, note: str = "") -> Difference:
    """influence (groups, patients): its products are the covariance of the values."""
    apart, moved = value[1:] - value[0], influence[1:] - influence[0]
    chi2 = float(apart @ np.linalg.pinv(moved @ moved.T, hermitian=True) @ apart)
    return Difference(label, tuple(names), chi2, float(chdtrc(len(apart), chi2)), note)


def _ordered(column: npt.ArrayLike, names: npt.NDArray[np.str_]) -> list[str]:
    """Groups by their smallest value, the missing last."""
    values = np.asarray(column)
    numeric = values.dtype.kind in "fiu"
    present = [str(name) for name in np.unique(names) if name != MISSING]
    if numeric:
        present.sort(key=lambda name: float(np.min(values[names == name])))
    return present + ([MISSING] if (names == MISSING).any() else [])
