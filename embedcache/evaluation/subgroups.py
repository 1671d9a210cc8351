"""A result broken down by a column: sex, age band, scanner, view. Each group's figures with its own interval, and a test."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import fdtrc

from embedcache.evaluation.clustered import Clustered
from embedcache.evaluation.measure import joined, measure
from embedcache.evaluation.metrics import Ranking
from embedcache.evaluation.statistics import FEW_PATIENTS, Patients, degrees_of_freedom, patients_together
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
    F: float | None = None
    """Wald's statistic over its degrees of freedom, shrunk for what few patients say of a variance; None: there is no test."""
    df: tuple[float, float] | None = None
    p: float | None = None
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
        part = before if before is None else replace(before, test_scores=before.test_scores[inside])
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

    Its reference is F, see `_test`. Missing values are no group. A group with fewer than two patients in a class of a label does
    not enter that label's test. The mean is over the labels that every group has, without groups that lack more than half of
    what any group has. Groups that share patients covary, and the test knows it. Fewer than two groups in all: ().
    """
    names = group_names(column, edges)
    patients = Patients.of(groups)
    asked = [name for name in _ordered(column, names) if name != MISSING]
    if len(asked) < 2:
        return ()
    parts: dict[tuple[str, int], Clustered] = {}
    for name in asked:
        for j in range(len(classes)):
            ranking = Ranking.of(np.where(names == name, truth[:, j], np.nan), scores[:, j])
            if ranking.positives and ranking.negatives:
                part = Clustered.of(ranking, patients)
                if part.smaller >= 2:
                    parts[name, j] = part
    found = [] if len(classes) == 1 else [_macro(parts, asked, classes)]
    for j, label in enumerate(classes):
        having = {name: [parts[name, j]] for name in asked if (name, j) in parts}
        found.append(_test(label, having, _left_out("too few patients", asked, having)))
    return tuple(found)


def _macro(parts: dict[tuple[str, int], Clustered], asked: list[str], classes: tuple[str, ...]) -> Difference:
    """Of the mean over the same labels in every group, or it would differ by its labels."""
    labels = {name: {j for j in range(len(classes)) if (name, j) in parts} for name in asked}
    any_group = set().union(*labels.values())
    # one small group would leave all others no label to be compared by
    kept = [name for name in asked if labels[name] and 2 * len(labels[name]) >= len(any_group)]
    shared = sorted(any_group.intersection(*(labels[name] for name in kept)))
    note = joined(
        _left_out("too few patients", asked, kept),
        _left_out("not in every group", list(classes), [classes[j] for j in shared]),
    )
    if len(shared) < 2 and len(kept) >= 2:
        return Difference(
            "macro", tuple(kept), note=joined("no test: the groups have fewer than two labels in common", note)
        )
    return _test("macro", {name: [parts[name, j] for j in shared] for name in kept}, note)


def _test(label: str, of_group: dict[str, list[Clustered]], note: str) -> Difference:
    """That the mean AUROC over each group's parts is one and the same.

    Welch's test as Johansen (1980) has it for estimates that covary. How well a group's variance is known: Satterthwaite's
    degrees of freedom, at most the patients of the smaller class less one; how well the covariance of groups that share patients
    is: the same from each patient's share of the statistic. The less well known of both counts. Chi-squared in its place rejected
    25 in 100 true nulls of eight groups with 4 and 20 patients, and 10 with 30 and 60; this rejects 0 and 6 (simulated).
    """
    names = tuple(of_group)
    if len(names) < 2:
        return Difference(
            label, names, note=joined("no test: fewer than two groups have two scored patients of each class", note)
        )
    value = np.array([np.mean([part.value for part in each]) for each in of_group.values()])
    influence = np.stack([np.mean([part.influence() for part in each], axis=0) for each in of_group.values()])
    covariance = influence @ influence.T
    few = [name for name, each in of_group.items() if min(part.smaller for part in each) < FEW_PATIENTS]
    note = joined(f"few patients in {', '.join(few)}" if few else "", note)
    still = [name for name, variance in zip(names, np.diagonal(covariance), strict=True) if variance < 1e-24]
    if still:
        return Difference(label, names, note=joined(f"no test: no spread in {', '.join(still)}", note))
    contrast = np.eye(len(names))[1:] - np.eye(len(names))[0]
    apart = contrast @ covariance @ contrast.T
    if np.linalg.matrix_rank(apart, hermitian=True) < len(apart):
        return Difference(label, names, note=joined("no test: fewer patients than groups move apart", note))
    weight = contrast.T @ np.linalg.inv(apart) @ contrast
    q = len(apart)
    own = np.diagonal(covariance) * np.diagonal(weight)
    known = np.array([_degrees(each, row) for each, row in zip(of_group.values(), influence, strict=True)])
    by_groups = float((own**2 / known).sum()) * (q / float(own.sum())) ** 2
    share = np.einsum("gi,gh,hi->i", influence, weight, influence)
    by_patients = (float((share**2).sum()) - q / np.count_nonzero(share)) / 2
    unsure = max(by_groups, by_patients)
    F = float(value @ weight @ value) / (q + 2 * unsure * (q - 1) / (q + 2))
    df = float(q), q * (q + 2) / (3 * unsure)
    return Difference(label, names, F, df, float(fdtrc(*df, F)), note)


def _degrees(parts: list[Clustered], influence: Matrix) -> float:
    together = patients_together(np.array([part.variance() for part in parts]), [part.smaller for part in parts])
    return degrees_of_freedom(influence[influence != 0], together)


def _left_out(why: str, names: list[str], kept: Collection[str]) -> str:
    out = [name for name in names if name not in kept]
    return f"left out, {why}: {', '.join(out)}" if out else ""


def _ordered(column: npt.ArrayLike, names: npt.NDArray[np.str_]) -> list[str]:
    """Groups by their smallest value, the missing last."""
    values = np.asarray(column)
    numeric = values.dtype.kind in "fiu"
    present = [str(name) for name in np.unique(names) if name != MISSING]
    if numeric:
        present.sort(key=lambda name: float(np.min(values[names == name])))
    return present + ([MISSING] if (names == MISSING).any() else [])
