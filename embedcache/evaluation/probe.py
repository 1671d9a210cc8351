"""The job: fit a probe on a cache's features, let validation choose, read the test part once.

Open the cache, join the labels, split by patient; for each choice of features, fit the whole path of the
hyper-parameter on the training part and score it on validation; refit the choice on both; measure on test.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import embedcache
from embedcache.errors import InputError
from embedcache.evaluation.clock import Clock, Progress
from embedcache.evaluation.measure import measure
from embedcache.evaluation.metrics import accuracy, correct, macro, macro_auroc
from embedcache.evaluation.question import ProbeConfig, Question, ask, plain
from embedcache.evaluation.results import Predictions, find_result, results_folder, write_result
from embedcache.evaluation.splits import part_rows
from embedcache.evaluation.statistics import Patients
from embedcache.probes.base import FittedPath, Matrix, ProbeKind, Standardizer, label_matrix
from embedcache.store.features import Features
from embedcache.types import Result, StringArray, strings

__all__ = ["ProbeConfig", "Progress", "run_probe"]


@dataclass(frozen=True)
class _Rows:
    """Features of one part, or of several, with their labels."""

    X: npt.NDArray[np.float32]
    y: Matrix
    groups: StringArray
    sample_id: StringArray
    slice_index: npt.NDArray[np.int32]

    def take(self, mask: npt.NDArray[np.bool_]) -> "_Rows":
        return _Rows(self.X[mask], self.y[mask], self.groups[mask], self.sample_id[mask], self.slice_index[mask])


@dataclass(frozen=True)
class _Choice:
    """What validation chose, and the scores that it chose by."""

    features: str
    value: float
    selected_by: str
    score: float
    scores: Matrix
    """(n_validation, n_classes)."""
    warnings: tuple[str, ...]
    at_edge: bool
    """Whether the best value is the grid's first or last, and better than its neighbour."""


def run_probe(config: ProbeConfig, progress: Progress | None = None) -> Result:
    """Answer `config`, or return the answer that is there. Raises InputError, StoreError.

    Selection is by macro AUROC on validation over the labels that have both classes there, by accuracy if none has; a
    tie goes to the smaller C or the larger k, and to the fewer features. The chosen model is refitted on training and validation
    rows together. The test part is read by it alone, and only after the choice.
    """
    question = ask(config)
    folder = config.results if config.results is not None else results_folder(question.cache)
    if not config.force and (there := find_result(question.inputs, folder)) is not None:
        return there
    clock = Clock(progress)
    loaded: dict[str, Features] = clock.run("reading features", lambda: _load(question, config))
    parts, counts = _parts(question, loaded[question.choices[0]])
    blocks = {choice: _rows(question, features) for choice, features in loaded.items()}
    train, validation, test = (parts == part for part in ("train", "validation", "test"))

    choice: _Choice = clock.run(
        "choosing on validation",
        lambda: _choose(question, {c: (rows.take(train), rows.take(validation)) for c, rows in blocks.items()}),
    )
    rows = blocks[choice.features]
    fitted, scale = clock.run("refitting", lambda: _fit(question, rows.take(train | validation), (choice.value,)))
    tested = rows.take(test)
    scores: Matrix = fitted.scores(scale.apply(tested.X) if scale else tested.X)[0]
    # A label that only the validation rows complete was fitted now, but no hyper-parameter was chosen with it.
    scores[:, np.isnan(choice.scores).all(axis=0)] = np.nan
    truth = label_matrix(tested.y, question.kind, len(question.classes))
    metrics = clock.run(
        "measuring on test",
        lambda: measure(
            truth,
            scores,
            tested.groups,
            question.kind,
            question.classes,
            fitted.threshold,
            resamples=config.resamples,
            seed=config.seed,
        ),
    )
    result = Result(
        probe=config.probe,
        inputs=question.inputs,
        task=question.task,
        level="slice" if config.pool is None and question.cache.unit == "slice" else "sample",
        chosen=_chosen(question, choice, fitted),
        metrics=metrics,
        counts=counts,
        timings=clock.rounded(),
        software={"embedcache": embedcache.__version__, "numpy": np.__version__, **fitted.diagnostics.software},
        warnings=_warnings(question, choice, fitted, loaded[choice.features], config.strict_volumes),
    )
    predictions = _predictions(question, rows.take(validation), choice.scores, tested, scores)
    return write_result(result, predictions, folder, config.force)


# --- rows -----------------------------------------------------------------------------------------


def _load(question: Question, config: ProbeConfig) -> dict[str, Features]:
    return {
        choice: question.cache.features(
            choice,
            layers=question.layers or None,
            pool=config.pool,
            strict_volumes=config.strict_volumes,
            task=question.task.name,
            labels=question.labels,
            split=question.split.sample.tolist(),
        )
        for choice in question.choices
    }


def _rows(question: Question, features: Features) -> _Rows:
    y = features.y[:, question.columns] if question.kind == "multilabel" else features.y
    return _Rows(features.X, y, features.groups, features.sample_id, features.slice_index)


def _parts(question: Question, features: Features) -> tuple[npt.NDArray[np.str_], dict[str, int]]:
    """The part of each row, "" for those without any label; and the counts, what was left out included."""
    rows = _rows(question, features)
    parts = part_rows(question.split, rows.sample_id)
    unlabelled = np.isnan(rows.y).reshape(len(rows.y), -1).all(axis=1)
    parts[unlabelled] = ""
    samples = question.cache.samples()
    current = ~samples.superseded
    counts = {
        "left_out_superseded": int((~current).sum()),
        "left_out_quarantined": int((current & (samples.ok_slices == 0)).sum()),
        "left_out_not_in_split": len(set(samples.id[current].tolist()) - set(question.split.sample.tolist())),
        "left_out_no_label": len(np.unique(rows.sample_id[unlabelled])),
    }
    for part in ("train", "validation", "test"):
        inside = parts == part
        if not inside.any():
            raise InputError(
                f"the {part} part has no sample with features and a label of task {question.task.name!r}; "
                "give another split with --split FILE."
            )
        counts[f"{part}_samples"] = len(np.unique(rows.sample_id[inside]))
        counts[f"{part}_patients"] = Patients.of(rows.groups[inside]).count
        counts[f"{part}_rows"] = int(inside.sum())
    return parts, counts


# --- fit and choose -------------------------------------------------------------------------------


def _fit(question: Question, rows: _Rows, values: tuple[float, ...]) -> tuple[FittedPath, Standardizer | None]:
    scale = Standardizer.fit(rows.X) if question.standardize else None
    X = scale.apply(rows.X) if scale else rows.X
    return question.probe.fit_path(X, rows.y, question.kind, values, len(question.classes)), scale


def _choose(question: Question, blocks: Mapping[str, tuple[_Rows, _Rows]]) -> _Choice:
    """Fit every path on training rows, score it on validation rows; the first of the best wins (grids start smooth)."""
    best: _Choice | None = None
    warned: list[str] = []
    for features, (train, validation) in blocks.items():
        values = question.probe.grid(len(train.X))
        fitted, scale = _fit(question, train, values)
        warned += [f"{features}: {line}" for line in fitted.diagnostics.warnings]
        path = fitted.scores(scale.apply(validation.X) if scale else validation.X)
        truth = label_matrix(validation.y, question.kind, len(question.classes))
        if np.isnan(path).all():
            raise InputError(
                f"no class of task {question.task.name!r} has both a positive and a negative in the training part; "
                "give another split with --split FILE."
            )
        by, found = _selection_scores(question.kind, truth, path, fitted.threshold)
        i = int(np.argmax(found))
        if best is None or found[i] > best.score:
            at_edge = len(values) > 1 and i in (0, len(values) - 1) and found[i] > found[1 if i == 0 else i - 1]
            best = _Choice(features, values[i], by, float(found[i]), path[i], (), at_edge)
    assert best is not None  # there is always one choice of features
    return _Choice(best.features, best.value, best.selected_by, best.score, best.scores, tuple(warned), best.at_edge)


def _selection_scores(kind: ProbeKind, truth: Matrix, path: Matrix, threshold: float) -> tuple[str, Matrix]:
    """What is compared, and its value for each value of the hyper-parameter."""
    areas = np.array([macro_auroc(truth, scores) for scores in path])
    if not np.isnan(areas).any():
        return "macro auroc", areas
    right = [correct(truth, scores, kind, threshold) for scores in path]
    hits = [macro(np.array([accuracy(r[:, j]) for j in range(r.shape[1])], dtype=np.float64)) for r in right]
    return "accuracy", np.array(hits, dtype=np.float64)


# --- what is written ------------------------------------------------------------------------------


def _chosen(question: Question, choice: _Choice, fitted: FittedPath) -> dict[str, Any]:
    chosen = {
        question.probe.parameter: choice.value,
        "features": choice.features,
        "layers": question.layers,
        "selected_by": f"{choice.selected_by} on validation",
        "validation_score": choice.score,
        "scores_are": fitted.score_name,
        "split": question.split.name or ("drawn" if question.split.seed is not None else "given"),
        "split_seed": question.split.seed,
    }
    return plain(chosen)


def _warnings(
    question: Question, choice: _Choice, fitted: FittedPath, features: Features, strict_volumes: bool
) -> tuple[str, ...]:
    found = list(choice.warnings) + [f"refit: {line}" for line in fitted.diagnostics.warnings]
    name = question.probe.parameter
    if choice.at_edge:
        found.append(f"the chosen {name} = {choice.value:.4g} is at the end of its grid; a wider grid may do better.")
    if choice.selected_by == "accuracy":
        found.append(f"{name} was chosen by accuracy: no class has both a positive and a negative in validation.")
    if len(features.incomplete):
        done = "left out, since slices of them were" if strict_volumes else "pooled without the slices that were"
        found.append(f"{len(features.incomplete)} samples were {done} set aside.")
    return tuple(found)


def _predictions(
    question: Question, validation: _Rows, validation_scores: Matrix, tested: _Rows, scores: Matrix
) -> Predictions:
    y = np.concatenate([validation.y, tested.y])
    return Predictions(
        np.concatenate([validation.sample_id, tested.sample_id]),
        np.concatenate([validation.slice_index, tested.slice_index]),
        strings(["validation"] * len(validation.X) + ["test"] * len(tested.X)),
        question.classes,
        label_matrix(y, question.kind, len(question.classes)),
        np.concatenate([validation_scores, scores]),
    )
