"""The job: segment with a linear head on cached patch tokens, let validation choose, read the test masks once.

Fit the whole path of C on patches of the training slices, for each layer; score each head on the validation masks by
mean Dice; refit the choice on both; segment the test slices at their masks' own resolution. Beside it stand two floors
that see no image: the mean mask of the same slices, and the same head on the patches' positions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

import embedcache
from embedcache.errors import InputError
from embedcache.evaluation.clock import Clock, Progress
from embedcache.evaluation.patch_question import (
    PROBE,
    PatchProbeConfig,
    PatchQuestion,
    Slices,
    ask_patches,
    patients_of,
)
from embedcache.evaluation.patch_sources import LayerSource, PatchSource, PositionSource, gather
from embedcache.evaluation.predictions import Predictions
from embedcache.evaluation.question import plain
from embedcache.evaluation.results import find_result, results_folder, source_of, write_result
from embedcache.evaluation.segmentation import Counts, Overlaps, confusion, mean_dice, measure_overlap
from embedcache.evaluation.store_inputs import patient_notes
from embedcache.evaluation.writable import check_folder
from embedcache.images.geometry import Placement, upsample_to_source
from embedcache.probes.base import Features
from embedcache.probes.patch_linear import FittedPatchLinear
from embedcache.types import IntArray, Metric, Result, Task, strings

MEAN_MASK, POSITION = "mean_mask_", "position_"
"""Prefixes of the floors' metrics."""

__all__ = ["MEAN_MASK", "POSITION", "PatchProbeConfig", "run_patch_probe"]


@dataclass(frozen=True)
class _Choice:
    """What validation chose."""

    source: PatchSource
    value: float
    score: float
    counts: Counts
    """Confusion matrices of the validation samples, by the head before refitting."""
    at_edge: bool
    """Whether the best value is the grid's first or last, and better than its neighbour."""
    not_converged: tuple[float, ...]


def run_patch_probe(config: PatchProbeConfig, progress: Progress | None = None) -> Result:
    """Answer `config`, or return the answer that is there. Raises InputError, StoreError.

    Selection is by mean Dice of the foreground classes over the validation samples; a tie goes to the smaller C and the
    earlier layer. Each head (the position's own, too) is then refitted on the patches of training and validation slices.
    """
    clock = Clock(progress)
    question = clock.run("reading masks", lambda: ask_patches(config))
    folder = config.results if config.results is not None else results_folder(question.cache)
    if not config.force and (there := find_result(question.inputs, folder)) is not None:
        return there
    check_folder(folder)
    layers = [LayerSource(tokens) for tokens in question.tokens.values()]
    position = PositionSource(question.grid, _depth(question))
    choice = clock.run("choosing on validation", lambda: choose(question, layers))
    floor = clock.run("choosing on validation", lambda: choose(question, [position]))
    head = clock.run("refitting", lambda: _fit(question, choice.source, (choice.value,), True))
    floor_head = clock.run("refitting", lambda: _fit(question, position, (floor.value,), True))
    test = question.slices.of("test")
    mean = ((row, question.targets.mean.reshape(1, -1, question.classes.count)) for row in test.row.tolist())
    counts, mean_counts, floor_counts = clock.run(
        "segmenting test slices",
        lambda: [
            count(question, test, stream, 1)[0]
            for stream in (segment(head, choice.source, test), mean, segment(floor_head, position, test))
        ],
    )
    metrics = clock.run(
        "measuring",
        lambda: (
            *_measure(question, test, counts, config, ""),
            *_measure(question, test, mean_counts, config, MEAN_MASK),
            *_measure(question, test, floor_counts, config, POSITION),
        ),
    )
    result = Result(
        probe=PROBE,
        inputs=question.inputs,
        task=Task("masks", "segmentation", question.classes.names),
        level="sample",
        chosen=_chosen(question, choice, floor),
        metrics=metrics,
        counts=question.counts,
        timings=clock.rounded(),
        software={
            "embedcache": embedcache.__version__,
            "numpy": np.__version__,
            "solver": f"scipy {scipy.__version__} L-BFGS-B",
        },
        warnings=(*_warnings(question, choice, head), *_beside_floors(question, metrics, counts, mean_counts)),
        source=source_of(question.cache),
    )
    predictions = _predictions(question, choice.counts, counts)
    return write_result(result, predictions, folder, config.force, question.split)


# --- fit and choose -------------------------------------------------------------------------------


def choose(question: PatchQuestion, sources: "list[LayerSource] | list[PositionSource]") -> _Choice:
    """Fit every C on training patches of every source, and score each head on the validation masks."""
    validation = question.slices.of("validation")
    values = question.probe.grid()
    best: _Choice | None = None
    for source in sources:
        fitted = _fit(question, source, values)
        counts = count(question, validation, segment(fitted, source, validation), len(values))
        scores = mean_dice(counts)
        if not counts[..., 1:, :].any():
            raise InputError(
                "no validation mask holds any class, so nothing can be chosen there; give another split with --split FILE."
            )
        i = int(np.argmax(scores))
        if best is None or scores[i] > best.score:
            at_edge = len(values) > 1 and i in (0, len(values) - 1) and scores[i] > scores[1 if i == 0 else i - 1]
            best = _Choice(source, values[i], float(scores[i]), counts[i], at_edge, fitted.not_converged)
    assert best is not None  # there is always a layer
    return best


def _fit(
    question: PatchQuestion, source: PatchSource, values: tuple[float, ...], with_validation: bool = False
) -> FittedPatchLinear:
    targets = question.targets
    used = targets.trains | with_validation
    X = gather(source, targets.row[used], targets.patch[used])
    return question.probe.fit_path(X, targets.shares[used], values)


# --- segment --------------------------------------------------------------------------------------

Stream = Iterator[tuple[int, Features]]
"""(row, probabilities (n_values, patches, n_classes))."""


def segment(head: FittedPatchLinear, source: PatchSource, slices: Slices) -> Stream:
    """Probabilities of every patch of `slices`, by each of the head's values."""
    for row, features in source.slices(slices.row):
        yield row, head.probabilities(features)


def count(question: PatchQuestion, slices: Slices, stream: Stream, n_values: int) -> Counts:
    """(n_values, samples, n_classes, n_classes): pixels by true and predicted class, of each sample of `slices`."""
    k = question.classes.count
    masks, sample = np.unique(slices.mask, return_inverse=True)
    counts = np.zeros((n_values, len(masks), k, k), dtype=np.int64)
    at = {row: i for i, row in enumerate(slices.row.tolist())}
    for row, probabilities in stream:
        i = at[row]
        truth = question.truth(int(slices.mask[i]), int(slices.index[i]))
        where = question.placement(truth.shape, row)
        for v in range(n_values):
            predicted = label_pixels(probabilities[v].reshape(*question.grid, k), where)
            counts[v, sample[i]] += confusion(truth, predicted, k)
    return counts


def label_pixels(probabilities: Features, where: Placement) -> npt.NDArray[np.uint8]:
    """(height, width): the likeliest class of each pixel of the slice, by bilinear interpolation between patches.

    probabilities (gy, gx, n_classes); a tie goes to the lower class.
    """
    foreground = upsample_to_source(probabilities[..., 1:], where)
    if foreground.shape[-1] == 1:
        return np.asarray(foreground[..., 0] > 0.5, dtype=np.uint8)
    background = 1 - foreground.sum(axis=-1)  # interpolation keeps the sum
    likeliest = foreground.argmax(axis=-1)
    beats = np.take_along_axis(foreground, likeliest[..., None], axis=-1)[..., 0] > background
    return np.where(beats, likeliest + 1, 0).astype(np.uint8)


def _depth(question: PatchQuestion) -> dict[int, float]:
    """Row → place of its slice in the volume, 0 to 1; radiographs lie in the middle."""
    slices = question.slices
    last = question.masks.slices[slices.mask] - 1
    place = np.where(last > 0, slices.index / np.maximum(last, 1), 0.5)
    return dict(zip(slices.row.tolist(), place.tolist(), strict=True))


# --- what is written ------------------------------------------------------------------------------


def _measure(
    question: PatchQuestion, slices: Slices, counts: Counts, config: PatchProbeConfig, prefix: str
) -> tuple[Metric, ...]:
    groups = patients_of(question, np.unique(slices.mask))
    return measure_overlap(
        counts, groups, question.classes.names, prefix=prefix, resamples=config.resamples, seed=config.seed
    )


def _chosen(question: PatchQuestion, choice: _Choice, floor: _Choice) -> dict[str, Any]:
    assert isinstance(choice.source, LayerSource)
    return plain(
        {
            "parameter": "C",
            "C": choice.value,
            "features": "patch",
            "layers": [choice.source.tokens.spec.layer],
            "selected_by": "mean dice on validation",
            "validation_score": choice.score,
            "position_C": floor.value,
            "position_validation_score": floor.score,
            "split": question.split.name or ("drawn" if question.split.seed is not None else "given"),
            "split_seed": question.split.seed,
        }
    )


def _warnings(question: PatchQuestion, choice: _Choice, head: FittedPatchLinear) -> tuple[str, ...]:
    found = []
    if question.masks.by_index:
        found.append(
            f"{len(question.masks.by_index)} masks were laid on their images by voxel index: one of the two headers does not say "
            "how it lies; look at a few."
        )
    stopped = sorted({*choice.not_converged, *head.not_converged})
    if stopped:
        found.append(f"{len(stopped)} values of C did not converge ({min(stopped):.3g} to {max(stopped):.3g}).")
    if choice.at_edge:
        found.append(f"the chosen C = {choice.value:.4g} is at the end of its grid; a wider grid may do better.")
    never = [
        name for name, b in zip(question.classes.names, head.intercept[0, 1:].tolist(), strict=True) if b == -np.inf
    ]
    if never:
        found.append(f"never predicted, since no training mask holds it: {', '.join(never)}.")
    there = np.bincount(question.slices.mask, minlength=len(question.masks.slices))
    partial = int(((there > 0) & (there < question.masks.slices)).sum())
    if partial:
        found.append(f"{partial} volumes are measured without their quarantined slices.")
    return (*found, *patient_notes(question.cache))


def _beside_floors(question: PatchQuestion, metrics: tuple[Metric, ...], counts: Counts, mean: Counts) -> Iterator[str]:
    """What a Dice of 0, or one below that of the positions, means; counts of the test samples by the head and the mean mask."""
    names = question.classes.names
    dice = {(m.name, m.label): m.value for m in metrics if m.value is not None}
    defined = [name for name in names if ("dice", name) in dice]
    absent, blank = (
        [name for j, name in enumerate(names) if name in defined and not Overlaps.of(c).predicted[:, j].any()]
        for c in (counts, mean)
    )
    # of a class that no training mask holds, more is said elsewhere
    silent = [name for j, name in enumerate(names, 1) if name in absent and question.targets.mean[..., j].any()]
    if silent:
        yield f"the head predicted no {', no '.join(silent)} anywhere in the test part, so its Dice there is 0."
    if blank:
        what = "background everywhere" if len(blank) == len(defined) else f"without {', '.join(blank)}"
        yield f"the mean mask is {what}, since no place lies inside most masks; its Dice of 0 is no floor."
    below = [name for name in defined if dice["dice", name] < dice[f"{POSITION}dice", name]]
    if below:
        yield (
            f"Dice of {', '.join(below)} lies below the position floor: the tokens add nothing over where things usually lie."
        )


def _predictions(question: PatchQuestion, validation: Counts, test: Counts) -> Predictions:
    """Per sample and class: whether the mask holds it, and its Dice (NaN where neither mask nor prediction does)."""
    samples, patients, parts = [], [], []
    for part in ("validation", "test"):
        masks: IntArray = np.unique(question.slices.of(part).mask)
        samples.append(question.cache.index.plan.sample_id[question.masks.sample[masks]])
        patients.append(patients_of(question, masks))
        parts += [part] * len(masks)
    overlaps = Overlaps.of(np.concatenate([validation, test]))
    return Predictions(
        np.concatenate(samples),
        np.full(len(parts), -1, dtype=np.int32),
        strings(parts),
        question.classes.names,
        (overlaps.truth > 0).astype(np.float64),
        overlaps.dice(),
        np.concatenate(patients),
        np.full((len(parts), len(question.classes.names)), np.nan),
    )
