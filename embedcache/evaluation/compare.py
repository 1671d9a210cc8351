"""`compare A B`: results on the same test rows against each other, by paired tests that know that patients repeat.

With more than two results every pair is tested; within one column (a metric of a class) Holm's method corrects for all pairs,
and the best is a set: those that are not shown to be worse than any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, suggest
from embedcache.evaluation.estimates import Estimates
from embedcache.evaluation.estimating import estimate, in_common
from embedcache.evaluation.holm import best_set, holm
from embedcache.evaluation.measured import Measured, Tested, read_tested, titles_of
from embedcache.evaluation.metrics import HIGHER_IS_BETTER
from embedcache.evaluation.paired import NEVER_TESTED, RESAMPLES, Comparison, compare_estimates, compare_scores
from embedcache.evaluation.paired_overlap import Overlap, compare_overlaps
from embedcache.evaluation.result_table import dataset_of, datasets_of
from embedcache.evaluation.results import read_result
from embedcache.evaluation.statistics import Patients
from embedcache.types import Result

ALPHA = 0.05


@dataclass(frozen=True)
class Column:
    """One metric of one class over all results."""

    metric: str
    label: str
    values: tuple[float, ...]
    """By result."""
    pairs: tuple[Comparison, ...]
    """Every pair of results, in order: (0, 1), (0, 2) … (1, 2) …; p as it comes."""
    adjusted: tuple[float | None, ...]
    """p of the pairs after Holm's correction over all pairs of this column; None where there is no test."""
    best: tuple[str, ...]
    """Names of the results that are not shown to be worse than another one, at 5% after the correction; () of a figure that is
    never tested, a calibration error."""


@dataclass(frozen=True)
class ComparedResults:
    """Results against each other on the same test rows."""

    names: tuple[str, ...]
    """What tells them apart."""
    files: tuple[str, ...]
    task: str
    level: str
    rows: int
    patients: int
    columns: tuple[Column, ...]

    def column(self, metric: str, label: str = "macro") -> Column:
        """The column of `metric` for `label`."""
        for column in self.columns:
            if (column.metric, column.label) == (metric, label):
                return column
        raise InputError(f"the results have no {metric} for {label!r} in common.")


def compare_results(
    results: Sequence[str | Path],
    *,
    label: str | None = None,
    metrics: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    task: str | None = None,
    dataset: str | None = None,
) -> ComparedResults:
    """Test every pair of two or more results (their JSONs) that were measured on the same test rows with the same labels.

    label: only this class (`macro` is one); metrics: only these; task: only results that answer it; dataset: only those that were
    tested on it. AUROC of a class by Obuchowski's clustered covariance, all else by a paired bootstrap over patients, but a macro
    average over one class as that class; of segmentations Dice and Jaccard, from the Dice of each sample. Raises InputError
    where results can not be compared, saying what differs, and UnknownNameError for a class, metric, task or dataset that they
    have not.
    """
    chosen = _choose([read_result(Path(path)) for path in results], task, dataset)
    read = [read_tested(result) for result in chosen]
    return compare_measured(
        read, titles_of([one.result for one in read]), label=label, metrics=metrics, resamples=resamples, seed=seed
    )


def compare_measured(
    read: Sequence[Tested],
    names: tuple[str, ...],
    *,
    label: str | None = None,
    metrics: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ComparedResults:
    """The same for results that were read, two or more, by these names, no two alike."""
    datasets = sorted({_tested_on(one.result) for one in read})
    for other in read[1:]:
        _check_alike(read[0], other, datasets)
    pairs = list(combinations(range(len(read)), 2))
    measured = [one for one in read if isinstance(one, Measured)]
    estimates = _Estimates(measured, resamples, seed) if measured else _Overlaps(read, resamples, seed)
    found = [{(c.metric, c.label): c for c in estimates.compare(a, b)} for a, b in pairs]
    shared = [key for key in found[0] if all(key in pair for pair in found)]
    for what, asked, known in (
        ("class in both results", [label] if label else [], {key[1] for key in shared}),
        ("metric in both results", metrics or [], {key[0] for key in shared}),
    ):
        for name in asked:
            if name not in known:
                raise suggest(what, name, known)
    kept = [k for k in shared if (label is None or k[1] == label) and (metrics is None or k[0] in metrics)]
    first = read[0]
    return ComparedResults(
        names,
        tuple(one.file for one in read),
        first.result.task.name,
        first.result.level,
        len(first.test.sample),
        len(set(first.test.patient.tolist())),
        tuple(_column(key, names, pairs, tuple(pair[key] for pair in found)) for key in kept),
    )


def _choose(results: list[Result], task: str | None, dataset: str | None) -> list[Result]:
    """Two results or more of one task: those of `task` and `dataset`, told by their JSONs alone."""
    for what, asked, of in (("task", task, _task_of), ("dataset", dataset, _tested_on)):
        if asked is not None:
            there = {of(result) for result in results}
            if asked not in there:
                raise suggest(f"{what} of these results", asked, there)
            results = [result for result in results if of(result) == asked]
    if len(results) < 2:
        of_task = "" if task is None else f" of task {task!r}"
        of_dataset = "" if dataset is None else f" of dataset {dataset}"
        raise InputError(f"a comparison takes two results or more. Got {len(results)}{of_task}{of_dataset}.")
    tasks, datasets = (sorted({of(result) for result in results}) for of in (_task_of, _tested_on))
    if len(tasks) > 1:
        also = f", and are of datasets {_listed(datasets)}" if len(datasets) > 1 else ""
        raise InputError(
            f"{len(results)} results can not be compared: they answer tasks {_listed([repr(name) for name in tasks])}{also}; "
            f"choose one with --task NAME{' and --dataset NAME' if also else ''}."
        )
    return results


def _listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _task_of(result: Result) -> str:
    return result.task.name


def _tested_on(result: Result) -> str:
    return datasets_of(result)[-1]


def _called(one: Tested) -> str:
    """`06d4….json (logistic on dinov2-base, nih-cxr14)`: a file's name alone says nothing of what it holds."""
    result = one.result
    return f"{one.file} ({result.probe} on {result.source.get('backbone', '')}, {dataset_of(result)})"


class _Estimates:
    """The figures of each result with their resamples, made once for all pairs: that is where the time goes.

    A row that any result leaves without a score is left out of all, and a macro average is over the labels of which all have the
    figure. So every pair speaks of the same rows and labels, and a result has one value in all of its pairs.
    """

    def __init__(self, read: Sequence[Measured], resamples: int, seed: int) -> None:
        self.read = read
        self.resamples = resamples
        self.seed = seed
        self.patients = Patients.of(read[0].test.patient)
        self.made: tuple[Estimates, ...] = ()
        if read[0].kind != "numeric":
            unscored = np.any([np.isnan(one.test.score) for one in read], axis=0)
            self.made = in_common([self._of(one, unscored) for one in read])

    def compare(self, i: int, j: int) -> tuple[Comparison, ...]:
        """Result i against result j."""
        a, b = self.read[i], self.read[j]
        if not self.made:
            return compare_scores(
                a.test.label, a.test.score, b.test.score, a.test.patient, a.kind, a.test.classes,
                resamples=self.resamples, seed=self.seed,
            )  # fmt: skip
        return compare_estimates(self.made[i], self.made[j], a.test.label, self.patients)

    def _of(self, one: Measured, unscored: npt.NDArray[np.bool_]) -> Estimates:
        scores = np.where(unscored, np.nan, one.test.score)
        return estimate(
            one.test.label, scores, self.patients, one.kind, one.test.classes, one.threshold, one.score_name, one.before,
            self.resamples, self.seed,
        )  # fmt: skip


class _Overlaps:
    """The same of segmentations, from the Dice of each sample."""

    def __init__(self, read: Sequence[Tested], resamples: int, seed: int) -> None:
        self.classes = read[0].test.classes
        self.patients = Patients.of(read[0].test.patient)
        self.held = np.asarray((read[0].test.label == 1).any(axis=0))
        self.made = [Overlap.of(one.test.score, self.held, self.patients, resamples, seed) for one in read]

    def compare(self, i: int, j: int) -> tuple[Comparison, ...]:
        """Result i against result j."""
        return compare_overlaps(self.made[i], self.made[j], self.classes, self.held, self.patients)


def _column(
    key: tuple[str, str], names: tuple[str, ...], pairs: list[tuple[int, int]], compared: tuple[Comparison, ...]
) -> Column:
    metric, label = key
    values = np.full(len(names), np.nan)
    p = np.full((len(names), len(names)), np.nan)
    for (i, j), c in zip(pairs, compared, strict=True):
        values[i], values[j] = c.a, c.b
        p[i, j] = np.nan if c.p is None else c.p
    adjusted = holm([p[pair] for pair in pairs])
    tested = metric not in NEVER_TESTED
    best = best_set(names, values, p, ALPHA, higher_is_better=HIGHER_IS_BETTER[metric]) if tested else ()
    told = tuple(None if np.isnan(value) else float(value) for value in adjusted)
    return Column(metric, label, tuple(values.tolist()), compared, told, best)


def _check_alike(a: Tested, b: Tested, datasets: Sequence[str]) -> None:
    """Raise InputError unless both tested the same rows of the same labels; datasets: those that all results are of."""

    def refuse(what: str) -> None:
        raise InputError(f"{_called(a)} and {_called(b)} can not be compared: {what}.")

    if a.result.task.kind != b.result.task.kind:
        refuse(f"task {a.result.task.name!r} is {a.result.task.kind} in one and {b.result.task.kind} in the other")
    if a.test.classes != b.test.classes:
        alike = "; --mask-values names them alike" if a.result.task.kind == "segmentation" else ""
        refuse(f"their classes are {', '.join(a.test.classes)} and {', '.join(b.test.classes)}{alike}")
    if a.result.level != b.result.level:
        refuse(f"one scores a {a.result.level}, the other a {b.result.level}; give both the same --pool")
    ours, theirs = (set(zip(t.sample.tolist(), t.slice.tolist(), strict=True)) for t in (a.test, b.test))
    if ours != theirs:
        if _tested_on(a.result) != _tested_on(b.result):
            refuse(f"they are of datasets {_listed(datasets)}; choose one with --dataset NAME")
        refuse(
            f"they tested other rows ({len(ours)} and {len(theirs)}, {len(ours & theirs)} of them in both); "
            "give both the same --split"
        )
    if a.test.patient.tolist() != b.test.patient.tolist():
        refuse("they name other patients for the same samples")
    if not np.array_equal(a.test.label, b.test.label, equal_nan=True):
        refuse("the labels of the same rows are not the same; run the older one again")
    # the digest is of the masks of all parts, so that of another split says nothing
    if a.result.inputs["split"] == b.result.inputs["split"] and a.result.inputs.get("masks") != b.result.inputs.get(
        "masks"
    ):
        refuse("the masks of the same rows are not the same; run the older one again")
