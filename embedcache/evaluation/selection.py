"""What validation chooses: the vector and the hyper-parameter, by models that never saw the rows that they are judged on."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError
from embedcache.evaluation.calibration import PROBABLE, probabilities
from embedcache.evaluation.metrics import accuracy, correct, macro
from embedcache.evaluation.question import Question
from embedcache.evaluation.statistics import Patients
from embedcache.half import widened
from embedcache.probes.base import (
    Columns,
    Features,
    FitsBags,
    FitsFrom,
    FitsTogether,
    FittedBags,
    FittedPath,
    LeavesOut,
    Matrix,
    ProbeKind,
    Sizes,
    label_matrix,
    take_columns,
)
from embedcache.probes.scratch import Scratch
from embedcache.probes.standardizer import Moments, Standardizer
from embedcache.types import StringArray

_THREADS = 2
"""That sort scores; each holds a column of them."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a matrix that all parts and all choices of features share, with their labels."""

    matrix: Features
    """(all rows, all columns), float16 or float32."""
    at: npt.NDArray[np.int64]
    """(n,): which of its rows these are; below, n each. Of bags: the rows of each after those of the one before it."""
    y: Matrix
    groups: StringArray
    sample_id: StringArray
    slice_index: npt.NDArray[np.int32]
    sizes: Sizes | None = None
    """For a probe that pools by itself (bags,): how many rows of the matrix each bag has, all else being a bag's. None: one
    row each."""
    scratch: Scratch = field(default_factory=Scratch, repr=False, compare=False)
    """Where rows are scaled; those of all parts have one."""

    def __len__(self) -> int:
        return len(self.y)

    def take(self, mask: npt.NDArray[np.bool_]) -> "Rows":
        """The rows, or bags, of `mask`; no feature is copied."""
        groups, samples, slices = self.groups[mask], self.sample_id[mask], self.slice_index[mask]
        of_rows = mask if self.sizes is None else np.repeat(mask, self.sizes)
        sizes = None if self.sizes is None else self.sizes[mask]
        return Rows(self.matrix, self.at[of_rows], self.y[mask], groups, samples, slices, sizes, self.scratch)

    def features(self, columns: Columns, scale: Standardizer | None) -> Features:
        """(n, d): these rows' columns in float32, scaled."""
        matrix = take_columns(self.matrix, columns)
        if scale is None:
            return widened(matrix[self.at])
        return scale.apply(matrix, self.at, self.scratch.empty((len(self.at), matrix.shape[1]), self.matrix.size))


@dataclass(frozen=True)
class Model:
    """A fitted path, with the columns that it reads and the scale that they had."""

    fitted: FittedPath
    columns: Columns
    scale: Standardizer | None

    def scores(self, rows: Rows) -> Matrix:
        """(n_values, n, n_classes)."""
        X = rows.features(self.columns, self.scale)
        if rows.sizes is None:
            return self.fitted.scores(X)
        return cast(FittedBags, self.fitted).bag_scores(X, rows.sizes)  # as `fit` made it of bags

    def only(self, value: float) -> "Model":
        """The model of one value of the hyper-parameter."""
        return replace(self, fitted=self.fitted.only(value))


@dataclass(frozen=True)
class Choice:
    """What was chosen, by what, and the scores that it was chosen by."""

    features: str
    """A name among the question's choices."""
    value: float
    selected_by: str
    """`macro auroc on validation`, `accuracy, leaving out each row's patient`…"""
    score: float
    scores: Matrix
    """(n, n_classes) of the rows that chose, by the model before refitting."""
    model: Model | None
    """The chosen model before refitting; None where each row was scored by a model without it."""
    at_edge: bool
    """Whether the best value is the grid's first or last, and better than its neighbour."""
    warnings: tuple[str, ...]
    record: Mapping[str, Any]
    """Per choice of features: the values, the score of each (None where there is none), and what the solver tells."""


@dataclass(frozen=True)
class _Path:
    """One choice of features: what each value of the hyper-parameter scores."""

    features: str
    model: Model
    scores: Matrix
    """(n_values, n, n_classes)."""
    by: str
    found: Matrix
    """(n_values,): the figure that chooses, NaN where the solver did not converge."""


def fit(
    question: Question, rows: Rows, choices: Mapping[str, Columns], values: tuple[float, ...] | None = None
) -> dict[str, Model]:
    """The probe on these rows, for each of `choices` among the question's; values: None is the probe's own grid."""
    values = question.probe.grid(len(rows)) if values is None else values
    fitted: dict[str, Model] = {}
    for scaled in dict.fromkeys(question.choices[name].standardize for name in choices):
        own = {name: columns for name, columns in choices.items() if question.choices[name].standardize == scaled}
        fitted |= _fit_alike(question, rows, own, values, scaled)
    return {name: fitted[name] for name in choices}


def _fit_alike(
    question: Question, rows: Rows, choices: Mapping[str, Columns], values: tuple[float, ...], scaled: bool
) -> dict[str, Model]:
    """Of choices that are all standardised, or none is."""
    probe, asked = question.probe, (values, len(question.classes), rows.groups)
    whole: Columns = (slice(0, rows.matrix.shape[1]),)
    scale = Standardizer.fit(rows.matrix, rows.at) if scaled else None
    of_choice = {name: scale.of(columns) if scale else None for name, columns in choices.items()}
    paths: Mapping[str, FittedPath]
    if rows.sizes is not None and isinstance(probe, FitsBags):
        paths = {
            name: probe.fit_bags(rows.features(columns, of_choice[name]), rows.sizes, rows.y, question.kind, *asked)
            for name, columns in choices.items()
        }
    elif isinstance(probe, FitsTogether) and len(choices) > 1:
        X = rows.features(whole, scale)
        paths = probe.fit_choices(X, rows.y, question.kind, choices, *asked)
    else:
        paths = {
            name: probe.fit_path(rows.features(columns, of_choice[name]), rows.y, question.kind, *asked)
            for name, columns in choices.items()
        }
    return {name: Model(paths[name], columns, of_choice[name]) for name, columns in choices.items()}


def choose(question: Question, choices: Mapping[str, Columns], train: Rows, validation: Rows) -> Choice:
    """Fit every path on training rows and score it on validation rows; the best wins.

    Of values that rank these rows alike it is the one with the best probabilities (Brier score), and of those the first: grids
    start smooth. choices: of features, with their columns; of equals the first. Under `leave-one-out` and `leave-patient-out`
    both parts are the same rows, each scored without itself or its patient. A value whose solver did not converge is not chosen.
    """
    models = fit(question, train, choices)
    paths = [_path(question, name, model, validation) for name, model in models.items()]
    # the first of equals; where one is judged by AUROC, accuracy is no match for it
    best = max(paths, key=lambda path: (path.by != "accuracy", np.nanmax(path.found)))
    tied = np.flatnonzero(best.found == np.nanmax(best.found))
    probable = best.model.fitted.score_name in PROBABLE
    i = int(tied[0])
    if len(tied) > 1 and probable:
        truth = label_matrix(validation.y, question.kind, len(question.classes))
        i = int(tied[np.argmin([_brier(truth, best.scores[t], best.model.fitted.score_name) for t in tied])])
    value = best.model.fitted.values[i]
    record = {path.features: _record(path) for path in paths}
    warnings = _said_by(paths)
    if 2 * len(tied) > len(best.found) > 2:
        judged = Patients.of(validation.groups).count
        taken = "the one with the best probabilities there" if probable else "the smoothest"
        warnings.append(
            f"{len(tied)} of {len(best.found)} values of {question.probe.parameter} score the same on the {judged} patients that "
            f"choose, who can not tell them apart: {taken} is taken."
        )
    own = question.select == "validation"
    then = ", ties by Brier score" if len(tied) > 1 and probable else ""
    return Choice(
        best.features,
        value,
        f"{best.by} {_BY_WHAT[question.select]}{'' if own or best.by != 'macro auroc' else _ACROSS}{then}",
        float(best.found[i]),
        best.scores[i],
        best.model.only(value) if own else None,
        _at_edge(best.found, i),
        tuple(warnings),
        record,
    )


def refit(question: Question, rows: Rows, more: npt.NDArray[np.bool_], choice: Choice, columns: Columns) -> Model:
    """The chosen model on these rows: those that it was fitted to, and `more` (n,)."""
    probe, before = question.probe, choice.model
    if before is None or rows.sizes is not None or not isinstance(probe, FitsFrom):
        return fit(question, rows, {choice.features: columns}, (choice.value,))[choice.features]
    scale = None
    if before.scale is not None:
        added = Moments.of(take_columns(rows.matrix, columns), rows.at[more])
        scale = Standardizer.by(before.scale.moments.with_those(added))
    X = rows.features(columns, scale)
    as_before = scale.seen_by(before.scale) if scale and before.scale else (np.ones(X.shape[1]), np.zeros(X.shape[1]))
    classes = len(question.classes)
    return Model(
        probe.fit_from(X, rows.y, question.kind, before.fitted, as_before, classes, rows.groups), columns, scale
    )


def _brier(truth: Matrix, scores: Matrix, score_name: str) -> float:
    """Mean squared difference of label and probability, averaged over the labels that have any; both (n, n_classes)."""
    squared = (probabilities(scores, score_name) - truth) ** 2
    known = ~np.isnan(squared)
    counted = known.sum(axis=0)
    of_label = np.where(known, squared, 0.0).sum(axis=0) / np.maximum(counted, 1)
    return float(of_label[counted > 0].mean()) if counted.any() else np.inf


def _said_by(paths: Sequence[_Path]) -> list[str]:
    """What the fits say of themselves, by their features; what several all say, once."""
    lines = [path.model.fitted.diagnostics.warnings for path in paths]
    shared = [line for line in lines[0] if len(lines) > 1 and all(line in others for others in lines)]
    return shared + [
        f"{path.features}: {line}" for path, own in zip(paths, lines, strict=True) for line in own if line not in shared
    ]


_BY_WHAT = {
    "validation": "on validation",
    "leave-one-out": "on train+validation, each row scored without itself",
    "leave-patient-out": "on train+validation, each row scored without its patient",
}

_ACROSS = ", ranked across these models"
"""Said of AUROC: a row's rank among the others is by scores of models that differ by what each was fitted without."""


def _path(question: Question, features: str, model: Model, validation: Rows) -> _Path:
    if question.select == "validation":
        scores = model.scores(validation)
    elif isinstance(model.fitted, LeavesOut):
        scores = model.fitted.left_out_scores("row" if question.select == "leave-one-out" else "patient")
    else:
        raise InputError(
            f"probe {question.inputs['config']['probe']!r} is fitted anew for each row that is left out, so it can not choose by "
            f"{question.select}; leave --select at validation."
        )
    truth = label_matrix(validation.y, question.kind, len(question.classes))
    stopped = np.isin(model.fitted.values, model.fitted.diagnostics.not_converged)
    if np.isnan(scores).all() and not stopped.all():
        raise InputError(
            f"no class of task {question.task.name!r} has both a positive and a negative in the training part; "
            "give another split with --split FILE."
        )
    by, found = selection_scores(question.kind, truth, scores, model.fitted.threshold)
    found = np.where(stopped, np.nan, found)
    if np.isnan(found).all():
        raise InputError(
            f"no {question.probe.parameter} of the grid can be judged on {features} features of task {question.task.name!r}: "
            "none converged, or validation holds one class alone; give another grid or split."
        )
    return _Path(features, model, scores, by, found)


def selection_scores(kind: ProbeKind, truth: Matrix, path: Matrix, threshold: float) -> tuple[str, Matrix]:
    """What is compared, and its value for each value of the hyper-parameter: truth (n, n_classes), path (n_values, …)."""
    if kind == "numeric":
        return "r2", _r2(truth[:, 0], path[:, :, 0])
    areas = macro(_aurocs(truth, path))
    if not np.isnan(areas).all():  # a value without scores, whose heads diverged, is not chosen
        return "macro auroc", areas
    right = [correct(truth, scores, kind, threshold) for scores in path]
    hits = [macro(np.array([accuracy(r[:, j]) for j in range(r.shape[1])], dtype=np.float64)) for r in right]
    return "accuracy", np.array(hits, dtype=np.float64)


def _aurocs(truth: Matrix, path: Matrix) -> Matrix:
    """(n_values, n_classes), NaN where undefined. Positives and negatives are sorted apart, labels side by side."""
    found = np.full((len(path), path.shape[2]), np.nan)

    def of_label(j: int) -> None:
        positive, negative = (np.flatnonzero(truth[:, j] == known) for known in (1, 0))
        for i, scores in enumerate(path[:, :, j]):
            above, below = scores[positive], scores[negative]
            above.sort()
            below.sort()
            above, below = _numbers(above), _numbers(below)
            if len(above) and len(below):
                beaten = np.searchsorted(below, above)
                tied = above[below[np.minimum(beaten, len(below) - 1)] == above]  # nearly never any
                ties = (np.searchsorted(below, tied, "right") - np.searchsorted(below, tied)).sum()
                found[i, j] = (2 * beaten.sum() + ties) / (2 * len(above) * len(below))

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="embedcache-rank") as pool:
        list(pool.map(of_label, range(path.shape[2])))
    return found


def _numbers(ascending: Matrix) -> Matrix:
    """Without NaN, which is sorted to the end."""
    there_is = len(ascending) > 0 and bool(np.isnan(ascending[-1]))
    return ascending[: len(ascending) - int(np.isnan(ascending).sum())] if there_is else ascending


def _r2(truth: Matrix, predicted: Matrix) -> Matrix:
    """1 - (squares of the errors) / (squares around the mean), over the known rows; predicted (n_values, n)."""
    known = ~np.isnan(truth)
    y = truth[known]
    around = float(((y - y.mean()) ** 2).sum()) if len(y) else 0.0
    if around == 0:
        return np.full(len(predicted), np.nan)
    errors: Matrix = ((predicted[:, known] - y) ** 2).sum(axis=1)
    return 1 - errors / around


def _at_edge(found: Matrix, i: int) -> bool:
    """Whether i is the first or last that converged, and better than the next."""
    there = np.flatnonzero(~np.isnan(found))
    if len(there) < 2 or i not in (there[0], there[-1]):
        return False
    neighbour = there[1] if i == there[0] else there[-2]
    return bool(found[i] > found[neighbour])


def _record(path: _Path) -> dict[str, Any]:
    return {
        "values": list(path.model.fitted.values),
        "by": path.by,
        "scores": [None if np.isnan(v) else float(v) for v in path.found],
        "solver": dict(path.model.fitted.diagnostics.path),
    }
