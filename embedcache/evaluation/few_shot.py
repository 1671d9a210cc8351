"""The job: fit to a few patients, many times over, and measure on the test part.

Draw patients of the training part, size by size and seed by seed; fit every draw (`few_shot_fits`); score the test rows with all
heads of a size in one product; average over draws. The whole training part is the last point. No patient of the test part is
ever drawn, and those of validation are only looked at where validation is asked to choose C.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import embedcache
from embedcache.errors import InputError
from embedcache.evaluation.clock import Clock, Progress
from embedcache.evaluation.few_shot_config import SEEDS, FewShotConfig
from embedcache.evaluation.few_shot_draws import Draw, PatientClasses, draw_all, patient_classes, too_few
from embedcache.evaluation.few_shot_figures import Tested, curve_point
from embedcache.evaluation.few_shot_fits import UNJUDGED_C, Fitting, Heads
from embedcache.evaluation.few_shot_result import (
    NOT_FEW_SHOT,
    CurvePoint,
    DrawnSample,
    FewShotResult,
    find_curve,
    write_curve,
)
from embedcache.evaluation.label_files import find_labels
from embedcache.evaluation.parts import divide
from embedcache.evaluation.question import ProbeConfig, Question, ask, plain
from embedcache.evaluation.reading import incomplete_notes, pooled_by_patient, read_rows
from embedcache.evaluation.results import results_folder, source_of
from embedcache.evaluation.splits import part_rows
from embedcache.evaluation.store_inputs import patient_notes
from embedcache.evaluation.strata import lacking
from embedcache.evaluation.writable import check_folder
from embedcache.probes.base import label_matrix
from embedcache.store.features import Features
from embedcache.store.reader import FeatureCache
from embedcache.types import PARTS

__all__ = ["FewShotConfig", "few_shot"]

_OTHER_COMMAND = {"numeric": "ridge", "segmentation": "patch-linear"}
"""Which probe answers a task that has no curve."""


@dataclass(frozen=True)
class _Data:
    """Rows by part, and who may be drawn."""

    features: Features
    train: npt.NDArray[np.int64]
    classes: PatientClasses
    fitting: Fitting
    test: Tested
    counts: dict[str, int]
    uneven: tuple[str, ...]
    """What a draw of the parts has left them without."""


@dataclass(frozen=True)
class Settled:
    """A curve before any feature was read."""

    asked: ProbeConfig
    question: Question
    inputs: dict[str, Any]
    folder: Path
    """Of the results."""
    there: FewShotResult | None
    """The curve, if it is there and may stand."""


def few_shot(config: FewShotConfig, progress: Progress | None = None) -> FewShotResult:
    """The curve that `config` asks for, or the one that is there. Raises InputError, StoreError.

    Memory beside the features: the test rows once more, and of one size at a time the scores of all heads (of 20 draws of NIH's
    14 findings on its 25,596 test images 29 MB), and for each thread what a draw takes (see `probes.few_shot_path`).
    """
    settled = settle(config)
    if settled.there is not None:
        return settled.there
    question = settled.question
    clock = Clock(progress)
    data: _Data = clock.run("reading features", lambda: _read(question, config, settled.asked))
    draws = draw_all(data.classes, config.shots, config.draws, config.seed, config.preset == "paper")
    points = [_point(config, data, draws, n, clock) for n in config.shots]
    if config.whole:
        points.append(_whole(config, data, clock))
    result = FewShotResult(
        setting=_setting(config),
        inputs=settled.inputs,
        task=question.task,
        classes=question.classes,
        points=tuple(points),
        chosen=_chosen(question, config),
        counts=data.counts,
        warnings=(
            *((pooled_by_patient(question.task),) if question.pool_by else ()),
            *_warnings(config, points),
            *data.uneven,
            *patient_notes(question.cache),
            *incomplete_notes(data.features, question, config.strict_volumes),
        ),
        source=source_of(question.cache),
        timings=clock.rounded(),
        software={"embedcache": embedcache.__version__, "numpy": np.__version__},
    )
    return write_curve(result, _drawn_samples(data, draws), settled.folder, question.split, config.force)


def settle(config: FewShotConfig) -> Settled:
    """Ask, look for the answer, and hold that one can be written. No feature is read. Raises as `few_shot` does."""
    asked, question = _ask(config)
    inputs = _inputs(question, config)
    folder = config.results if config.results is not None else results_folder(question.cache)
    there = None if config.force else find_curve(inputs, folder)
    if there is None:
        check_folder(folder)
    return Settled(asked, question, inputs, folder, there)


def _ask(config: FewShotConfig) -> tuple[ProbeConfig, Question]:
    """The configuration and the question of a logistic probe with one choice of features: what `auto` finds first."""
    asked = ProbeConfig(
        probe="logistic",
        store=config.store,
        task=config.task,
        features=config.features,
        layers=config.layers,
        pool=config.pool,
        strict_volumes=config.strict_volumes,
        standardize=config.standardize,
        labels=config.labels,
        join_on=config.join_on,
        split=config.split,
        validation=config.validation,
        test=config.test,
        seed=config.seed,
        classes=config.classes,
        C=config.grid,
    )
    try:
        question = ask(asked)
    except InputError:
        _refuse_kind(asked)
        raise
    if len(question.choices) > 1:
        asked = replace(asked, features=next(iter(question.choices.values())).kind)
        question = ask(asked)
    return asked, question


def _refuse_kind(asked: ProbeConfig) -> None:
    """Raise InputError for a task without classes, in words of a curve: nobody named the probe that `ask` would speak of."""
    labels = find_labels(FeatureCache.open(asked.store), asked.labels, asked.join_on)
    for task in [t for t in labels.tasks if asked.task in (None, t.name)][:1]:
        if task.kind in _OTHER_COMMAND:
            raise InputError(
                f"task {task.name!r} is a {task.kind} task, and a few-shot curve draws patients of each class, so it takes "
                f"binary, multilabel and multiclass ones; `embedcache probe {_OTHER_COMMAND[task.kind]}` answers it."
            ) from None


def _inputs(question: Question, config: FewShotConfig) -> dict[str, Any]:
    asked = question.inputs["config"]
    kept = ("task", "classes", "features", "layers", "pool", "pool_by", "strict_volumes", "standardize")
    few = {
        "shots": config.shots,
        "draws": config.draws,
        "preset": config.preset,
        "select": config.select,
        "C": config.grid,
        "whole": config.whole,
        "seed": config.seed,
    }
    return plain({**question.inputs, "config": {name: asked[name] for name in kept if name in asked}, "few_shot": few})


def _read(question: Question, config: FewShotConfig, asked: ProbeConfig) -> _Data:
    features = read_rows(question, asked, question.cache, question.split.sample.tolist())
    parts, counts = divide(question, features, ("train", "test"))
    train, validation, test = (np.flatnonzero(parts == part) for part in PARTS)
    everything = question.task.classes or ("",)
    all_truth = label_matrix(features.y, question.kind, len(everything) if question.kind != "binary" else 1)
    truth = all_truth[:, question.columns] if question.kind == "multilabel" else all_truth
    columns = np.arange(len(question.classes)) if question.kind != "multilabel" else question.columns
    trains = part_rows(question.split, features.sample_id) == "train"
    ill = features.groups[trains & (all_truth == 1).any(axis=1)]
    drawn = patient_classes(all_truth[train], features.groups[train], question.kind, everything, columns, ill)
    if np.isin(drawn.patients, features.groups[test]).any():
        raise InputError(
            "a patient is both in the training and in the test part; give another split with --split FILE."
        )
    looks = config.select == "validation"
    if looks and not len(validation):
        raise InputError("the validation part has no sample that could choose C; leave --select at fixed.")
    fitting = Fitting(
        features.X,
        truth,
        features.groups,
        question.kind,
        config.grid,
        config.select,
        config.standardize,
        (features.X[validation], truth[validation]) if looks else None,
    )
    about = features.X[train].mean(axis=0, dtype=np.float64)
    tested = Tested.of(features.X, test, about, truth, features.groups, question.kind, question.classes)
    uneven = lacking(truth, features.groups, parts, question.classes, question.split.drawn, question.task.name)
    return _Data(features, train, drawn, fitting, tested, counts, uneven)


def _point(config: FewShotConfig, data: _Data, draws: list[Draw], shots: int, clock: Clock) -> CurvePoint:
    mine = [draw for draw in draws if draw.shots == shots]
    what = f"{shots} patient{'' if shots == 1 else 's'} per class"
    rows = [data.train[draw.rows] for draw in mine]
    heads: list[Heads] = clock.run(f"fitting to {what}", lambda: data.fitting.fit_all(rows, shots))
    point: CurvePoint = clock.run(
        f"measuring {what}",
        lambda: curve_point(
            data.test,
            heads,
            shots,
            [draw.seed for draw in mine],
            [len(draw.patients) for draw in mine],
            [len(draw.rows) for draw in mine],
            [draw.overlaps for draw in mine],
            too_few(data.classes, shots),
            _notes(config, heads, shots),
        ),
    )
    return point


def _whole(config: FewShotConfig, data: _Data, clock: Clock) -> CurvePoint:
    head: Heads = clock.run("fitting to all training patients", lambda: data.fitting.fit_whole(data.train))
    notes = _notes(config, [head], None)
    patients, rows = len(data.classes.patients), len(data.train)
    return clock.run(
        "measuring all training patients",
        lambda: curve_point(data.test, [head], None, [None], [patients], [rows], [0], {}, notes),
    )


def _notes(config: FewShotConfig, heads: Sequence[Heads], shots: int | None) -> tuple[str, ...]:
    notes = []
    unjudged = sum(not head.judged for head in heads)
    if config.select == "leave-patient-out" and shots is None:
        notes.append(f"C = {UNJUDGED_C:g}: with all training patients none is left out in turn")
    elif config.select == "leave-patient-out" and shots == 1:
        notes.append(f"C = {UNJUDGED_C:g}: with one patient of a class nobody can be left out")
    elif config.select != "fixed" and unjudged and len(config.grid) > 1:
        notes.append(
            f"C = {UNJUDGED_C:g} or next to it in {unjudged} of {len(heads)} draws, where nothing could judge it"
        )
    stopped = sum(not head.converged for head in heads)
    if stopped:
        notes.append(f"the solver stopped before its tolerance in {stopped} of {len(heads)} draws")
    return tuple(notes)


def _setting(config: FewShotConfig) -> str:
    if config.select == "validation":
        return f"{NOT_FEW_SHOT}: C was chosen on the whole validation part"
    return "few-shot"


def _chosen(question: Question, config: FewShotConfig) -> dict[str, Any]:
    choice = next(iter(question.choices.values()))
    return plain(
        {
            "features": choice.kind,
            "layers": choice.layers,
            "standardize": config.standardize,
            "C": {
                "fixed": f"fixed at {config.grid[0]:g}",
                "leave-patient-out": "by leaving out each patient of the draw",
                "validation": "by macro AUROC on the whole validation part",
            }[config.select],
            "grid": config.grid,
            "head": "logistic regression",
            "draws": "the first patients by sorted id" if config.preset == "paper" else f"{config.draws} seeds, nested",
            "preset": config.preset,
            "split": question.split.name or ("drawn" if question.split.seed is not None else "given"),
            "split_seed": question.split.seed,
        }
    )


def _warnings(config: FewShotConfig, points: list[CurvePoint]) -> tuple[str, ...]:
    found = []
    if config.select == "validation":
        found.append(f"{_setting(config)}.")
    if config.preset == "paper":
        found.append("preset paper: the study's draw, one for each size; the head is logistic regression, not its SGD.")
    elif config.draws < SEEDS:
        found.append(f"{config.draws} seeds are fewer than the {SEEDS} that the protocol asks for.")
    short = {name: count for point in points for name, count in point.too_few.items()}
    for name, count in short.items():
        sizes = [point.shots for point in points if name in point.too_few and point.shots is not None]
        if count == 0:
            found.append(f"{name}: the training part has no such patient, so none could be drawn.")
        else:
            taken = f"all {count} patients" if count > 1 else "the one patient"
            found.append(f"{name}: {taken} of the training part went into draws of {min(sizes)} shots and more.")
    return tuple(found)


def _drawn_samples(data: _Data, draws: list[Draw]) -> list[DrawnSample]:
    """Seed by seed and sample by sample, with the fewest shots that include it."""
    fewest: dict[tuple[int | None, str, str], int] = {}
    for draw in sorted(draws, key=lambda draw: -draw.shots):
        at = data.train[draw.rows]
        for sample, patient in zip(
            data.features.sample_id[at].tolist(), data.features.groups[at].tolist(), strict=True
        ):
            fewest[draw.seed, sample, patient] = draw.shots
    return sorted(
        ((sample, patient, shots, seed) for (seed, sample, patient), shots in fewest.items()),
        key=lambda row: (-1 if row[3] is None else row[3], row[2], row[0]),
    )
