"""The job: fit a probe on a cache's features, let validation choose, read the test part once.

Open the cache, join the labels, split by patient; for each choice of features, fit the whole path of the
hyper-parameter on the training part and score it on validation; refit the choice on both; measure on test.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

import embedcache
from embedcache.evaluation.ahead import Ahead
from embedcache.evaluation.clock import Clock, Progress
from embedcache.evaluation.elsewhere_rows import read_elsewhere, source_elsewhere
from embedcache.evaluation.feature_choices import untried
from embedcache.evaluation.measure import measure
from embedcache.evaluation.parts import asked_labels, divide
from embedcache.evaluation.planes import read_planes
from embedcache.evaluation.predictions import Predictions, encode_predictions
from embedcache.evaluation.question import ProbeConfig, Question, ask, asked_layers, plain
from embedcache.evaluation.reading import incomplete_notes, pooled_by_patient, read_rows, unit_numbers
from embedcache.evaluation.results import find_result, results_folder, source_of, write_result
from embedcache.evaluation.selection import Choice, Model, Rows, choose, refit
from embedcache.evaluation.store_inputs import patient_notes
from embedcache.evaluation.strata import lacking
from embedcache.evaluation.thresholds import WITHOUT, BeforeRefit
from embedcache.evaluation.views import with_views
from embedcache.evaluation.writable import check_folder
from embedcache.probes.base import Matrix, label_matrix
from embedcache.probes.scratch import Scratch
from embedcache.store.ahead import ReadAhead
from embedcache.store.features import Features
from embedcache.types import PARTS, Level, Result

__all__ = ["Answer", "ProbeConfig", "Progress", "answer", "run_probe"]


@dataclass(frozen=True)
class Answer:
    """A result that is not written yet, and its scores."""

    result: Result
    predictions: Predictions
    encoded: bytes
    """The predictions as their file has them."""


def run_probe(config: ProbeConfig, progress: Progress | None = None) -> Result:
    """Answer `config`, or return the answer that is there. Raises InputError, StoreError.

    Selection is by macro AUROC on validation over the labels that have both classes there, by accuracy if none has, by R2
    for numbers; a tie goes to the better probabilities (Brier score), then to the smaller C or the larger k, and to the fewer
    features. The chosen model is refitted on training and validation rows together. The test part is read by it, and by itself
    before refitting, to which thresholds belong; only after the choice. What `auto` would have tried and the store does not hold
    is said of the result that is returned and is not in its file, which also answers who asked for just these vectors.
    """
    with Ahead() as ahead:
        question = ask(config, ahead)
        folder = config.results if config.results is not None else results_folder(question.cache)
        there = None if config.force else find_result(question.inputs, folder)
        if there is None:
            check_folder(folder)
            found = answer(question, config, progress, partial(read_features, ahead=ahead.reading), ahead.scratch)
            there = write_result(found.result, found.encoded, folder, config.force, question.split)
    line = untried(config.features, asked_layers(config.layers, question.probe), question.choices)
    return there if line is None or line in there.warnings else replace(there, warnings=(*there.warnings, line))


def answer(
    question: Question,
    config: ProbeConfig,
    progress: Progress | None = None,
    read: "Read | None" = None,
    scratch: Scratch | None = None,
) -> Answer:
    """Choose, refit and measure, whatever results there are; `read` stands for `read_features`; rows are scaled in `scratch`."""
    clock = Clock(progress)
    features: Features = clock.run("reading features", lambda: (read or read_features)(question, config))
    needed = PARTS if question.elsewhere is None else tuple(part for part in PARTS if part != "test")
    parts, counts = divide(question, features, needed)
    rows = _rows(question, features, scratch or Scratch())
    columns = {name: choice.columns(features.columns) for name, choice in question.choices.items()}
    shows = np.arange(len(rows))
    if question.views:
        rows, shows = clock.run("reading features", lambda: with_views(rows, question, config))
    counts["views"] = 1 + len(question.views)
    whole = np.arange(len(rows)) < len(parts)
    train, validation, test = (parts[shows] == part for part in ("train", "validation", "test"))
    # rows that choose: those of validation, or all that are not for testing, each scored without itself or its patient
    own = question.select == "validation"
    fits, judges = (rows.take(mask) for mask in ((train, validation & whole) if own else (train | validation,) * 2))

    choice: Choice = clock.run("choosing on validation", lambda: choose(question, columns, fits, judges))
    fitted = train | validation
    both, tested, more = rows.take(fitted), rows.take(test & whole), validation[fitted]
    model: Model = clock.run("refitting", lambda: refit(question, both, more, choice, columns[choice.features]))
    away = None
    if (there := question.elsewhere) is not None:  # no row of that store is read until here
        away = clock.run("reading features", lambda: read_elsewhere(question, there, config))
        tested, counts = away.rows, away.counted(counts)
    scores: Matrix = model.scores(tested)[0]
    before: Matrix = choice.model.scores(tested)[0] if choice.model else scores.copy()
    # A label that only the validation rows complete was fitted now, but no hyper-parameter was chosen with it.
    unchosen = np.isnan(choice.scores).all(axis=0)
    scores[:, unchosen] = before[:, unchosen] = np.nan
    truth, truth_before = (label_matrix(part.y, question.kind, len(question.classes)) for part in (tested, judges))
    predictions = Predictions(
        np.concatenate([judges.sample_id, tested.sample_id]),
        np.concatenate([judges.slice_index, tested.slice_index]),
        np.array(["validation"] * len(judges) + ["test"] * len(tested)),
        question.classes,
        np.concatenate([truth_before, truth]),
        np.concatenate([choice.scores, scores]),
        np.concatenate([judges.groups, tested.groups]),
        np.concatenate([np.full_like(choice.scores, np.nan), before]),
    )
    with ThreadPoolExecutor(1, thread_name_prefix="embedcache-encode") as beside:
        encoding = beside.submit(encode_predictions, predictions)
        metrics = clock.run(
            "measuring on test",
            lambda: measure(
                truth,
                scores,
                tested.groups,
                question.kind,
                question.classes,
                model.fitted.threshold,
                score_name=model.fitted.score_name,
                before=BeforeRefit(truth_before, choice.scores, before, WITHOUT.get(question.select, "")),
                resamples=config.resamples,
                seed=config.seed,
            ),
        )
    uneven = lacking(
        label_matrix(asked_labels(question, features), question.kind, len(question.classes)),
        features.groups,
        parts,
        question.classes,
        question.split.drawn if there is None else [part for part in question.split.drawn if part != "test"],
        question.task.name,
    )
    result = Result(
        probe=config.probe,
        inputs=question.inputs,
        task=question.task,
        level=_level(question),
        chosen=_chosen(question, choice, model),
        metrics=metrics,
        counts=counts,
        timings=clock.rounded(),
        software={"embedcache": embedcache.__version__, "numpy": np.__version__, **model.fitted.diagnostics.software},
        warnings=_warnings(question, choice, model, features, config) + uneven + (away.notes if away else ()),
        source=source_of(question.cache) | (source_elsewhere(there) if there is not None else {}),
        selection=plain({**choice.record, "refit": {"solver": dict(model.fitted.diagnostics.path)}}),
    )
    return Answer(result, predictions, encoding.result())


# --- rows -----------------------------------------------------------------------------------------


Read: TypeAlias = Callable[[Question, ProbeConfig], Features]


def read_features(question: Question, config: ProbeConfig, ahead: ReadAhead | None = None) -> Features:
    """All rows of the split that have features, with the columns of every choice of features."""
    if not question.planes:
        return read_rows(question, config, question.cache, question.split.sample, as_stored=True, ahead=ahead)
    caches = (question.cache, *question.planes)
    units = unit_numbers(question.cache, question.labels, question.pool_by, config.labels, config.join_on)
    return read_planes(
        caches,
        question.split.sample.tolist(),
        lambda cache, kept: read_rows(question, config, cache, kept, as_stored=True),
        units,
        config.strict_volumes,
    )


def _rows(question: Question, features: Features, scratch: Scratch) -> Rows:
    at, y = np.arange(len(features.X)), asked_labels(question, features)
    return Rows(features.X, at, y, features.groups, features.sample_id, features.slice_index, features.sizes, scratch)


# --- what is written ------------------------------------------------------------------------------


def _level(question: Question) -> Level:
    if question.pool is None and question.cache.unit == "slice":
        return "slice"
    return "patient" if question.pool_by == "patient" else "study" if question.pool_by == "study" else "sample"


def _chosen(question: Question, choice: Choice, model: Model) -> dict[str, Any]:
    vector = question.choices[choice.features]
    chosen = {
        "parameter": question.probe.parameter,
        question.probe.parameter: choice.value,
        "vector": choice.features,
        "features": vector.kind,
        "layers": vector.layers,
        "standardize": vector.standardize,
        "selected_by": choice.selected_by,
        "validation_score": choice.score,
        "scores_are": model.fitted.score_name,
        "threshold": model.fitted.threshold,
        "split": question.split.name or ("drawn" if question.split.seed is not None else "given"),
        "split_seed": question.split.seed,
    }
    return plain(chosen)


def _warnings(
    question: Question, choice: Choice, model: Model, features: Features, config: ProbeConfig
) -> tuple[str, ...]:
    found = list(choice.warnings)
    found += [
        f"refit: {line}" for line in model.fitted.diagnostics.warnings if not any(w.endswith(line) for w in found)
    ]
    name = question.probe.parameter
    if config.pool_by is None and question.pool_by is not None:
        found.append(pooled_by_patient(question.task))
    if choice.at_edge:
        found.append(f"the chosen {name} = {choice.value:.4g} is at the end of its grid; a wider grid may do better.")
    if choice.selected_by.startswith("accuracy"):
        found.append(f"{name} was chosen by accuracy: no class has both a positive and a negative in validation.")
    return (
        *found,
        *patient_notes(question.cache),
        *incomplete_notes(features, question, config.strict_volumes),
    )
