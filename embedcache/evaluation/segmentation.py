"""Dice and Jaccard per class at a mask's own resolution, per sample and pooled, with intervals over patients.

Counted from confusion matrices over every pixel that is not ignored, so a false positive costs in both. A class that
is neither in a sample's mask nor in its prediction is undefined there and left out; where only the prediction has it,
it scores 0. Which classes are measured is the masks' affair, so that heads and floors are averaged over the same ones: a
class that no mask holds is undefined, whatever was predicted, and its false positives are told in its note.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.evaluation.metrics import macro, ratio
from embedcache.evaluation.statistics import (
    BCA,
    FEW_PATIENTS,
    Interval,
    Patients,
    bca_interval,
    patients_together,
    resample,
    spread,
    widened,
)
from embedcache.probes.base import Matrix
from embedcache.types import Metric, StringArray

Counts = npt.NDArray[np.int64]
"""(…, n_classes, n_classes): pixels by true and by predicted class, 0 the background."""

FIGURES = ("dice", "jaccard", "dice_jaccard_mean", "dice_pooled", "jaccard_pooled")
"""Per sample (the mean over samples), the study's own figure, and over the pixels of all samples together."""
PER_SAMPLE = FIGURES[:3]
"""Those that the Dice of each sample decides."""

_PIXELS_AT_ONCE = 1 << 17
"""Of a slice: its 64-bit numbers then stay in the cache, where those of a whole radiograph would be fresh memory."""


def confusion(truth: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], n_classes: int) -> Counts:
    """(n_classes, n_classes) pixel counts; pixels whose truth is `n_classes` or more are ignored."""
    counts = np.zeros((n_classes + 1) * n_classes, dtype=np.int64)  # a last row for the ignored, faster than a mask
    flat, called = truth.ravel(), predicted.ravel()
    for start in range(0, len(flat), _PIXELS_AT_ONCE):
        part = slice(start, start + _PIXELS_AT_ONCE)
        pairs = np.minimum(flat[part], n_classes).astype(np.int64) * n_classes + called[part]
        counts += np.bincount(pairs, minlength=len(counts))
    return counts.reshape(n_classes + 1, n_classes)[:-1]


@dataclass(frozen=True)
class Overlaps:
    """Pixels per sample and foreground class, (…, n_classes - 1) each: in both, in the mask, in the prediction."""

    both: Matrix
    truth: Matrix
    predicted: Matrix

    @classmethod
    def of(cls, counts: Counts) -> "Overlaps":
        """From confusion matrices (…, n_classes, n_classes)."""
        whole = counts.astype(np.float64)
        diagonal = np.diagonal(whole, axis1=-2, axis2=-1)
        return cls(diagonal[..., 1:], whole.sum(axis=-1)[..., 1:], whole.sum(axis=-2)[..., 1:])

    def summed(self, weights: Matrix) -> "Overlaps":
        """Pooled over samples under weights (r, n): (r, n_classes - 1)."""
        return Overlaps(weights @ self.both, weights @ self.truth, weights @ self.predicted)

    def dice(self) -> Matrix:
        """2 · both / (mask + prediction); NaN where both are empty."""
        return ratio(2 * self.both, self.truth + self.predicted)

    def jaccard(self) -> Matrix:
        """both / (mask or prediction); NaN where both are empty."""
        return ratio(self.both, self.truth + self.predicted - self.both)


def mean_dice(counts: Counts) -> Matrix:
    """Macro Dice over the classes that the masks hold, each the mean over samples, of counts (…, n, n_classes, n_classes): (…,).

    Counts of several predictions of the same masks are averaged over the same classes; NaN where the masks are empty.
    """
    overlaps = Overlaps.of(counts)
    held = (overlaps.truth > 0).any(axis=-2, keepdims=True)
    each = np.where(held, overlaps.dice(), np.nan)
    return macro(macro(np.moveaxis(each, -2, -1)))


def measure_overlap(
    counts: Counts,
    groups: StringArray,
    classes: tuple[str, ...],
    *,
    prefix: str = "",
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Metric, ...]:
    """Every figure of FIGURES per class and as macro average over the classes that a mask holds.

    counts (n, n_classes + 1, n_classes + 1) per sample; groups: the patient of each; classes: names of the foreground.
    Names get `prefix`, for the floors that stand beside a probe.
    """
    patients = Patients.of(groups)
    overlaps = Overlaps.of(counts)
    there = overlaps.truth > 0
    held: npt.NDArray[np.bool_] = np.asarray(there.any(axis=0), dtype=np.bool_)
    dice, jaccard = (np.where(held, values, np.nan) for values in (overlaps.dice(), overlaps.jaccard()))
    defined: npt.NDArray[np.bool_] = np.asarray(~np.isnan(dice))

    def figures(weights: Matrix) -> Matrix:
        """(r, figure, class or macro), flat."""
        pooled = overlaps.summed(weights)
        found = np.stack([*means(weights, dice, jaccard), pooled.dice(), pooled.jaccard()], axis=1)
        found[..., ~held] = np.nan
        return after_macro(found)

    value = figures(np.ones((1, len(counts))))[0]
    drawn = resample(figures, patients, resamples, seed)
    undefined = [name for name, known in zip(classes, held.tolist(), strict=True) if not known]
    having = [patients.having(np.asarray(defined[:, j], dtype=np.bool_)) for j in range(len(classes))]
    supports = supports_of(drawn.jackknife, having, held)
    found = []
    for f, name in enumerate(FIGURES):
        for j, label in enumerate(("macro", *classes)):
            i = f * (len(classes) + 1) + j
            rows = np.asarray(defined.any(axis=1) if j == 0 else defined[:, j - 1], dtype=np.bool_)
            positives = int((there.any(axis=1) if j == 0 else there[:, j - 1]).sum())
            if np.isnan(value[i]):
                called = int((overlaps.predicted[:, j - 1] > 0).sum()) if j else 0
                said = f"no mask; falsely predicted in {called} samples" if called else "no mask and no prediction"
                figure, interval, note = None, Interval(None, None, BCA), f"undefined: in {said}"
            else:
                figure, left_out = float(value[i]), drawn.jackknife[:, i]
                support = supports[i]
                z = widened(left_out, support)
                interval = bca_interval(figure, drawn.bootstrap[:, i], left_out, support, error=True, z=z)
                note = _note(interval, support, int((~rows).sum()), undefined if j == 0 else [])
            found.append(
                Metric(
                    prefix + name, label, figure, interval.low, interval.high, interval.method,
                    n=int(rows.sum()), positives=positives, patients=patients.having(rows), note=note,
                )
            )  # fmt: skip
    return tuple(found)


def means(weights: Matrix, dice: Matrix, jaccard: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """The figures of PER_SAMPLE of each class under weights (r, n) of the samples: (r, n_classes) each.

    dice and jaccard (n, n_classes), NaN where a sample has neither mask nor prediction, and is left out.
    """
    defined = (~np.isnan(dice)).astype(np.float64)
    of_dice, of_jaccard = (ratio(weights @ np.nan_to_num(values), weights @ defined) for values in (dice, jaccard))
    return of_dice, of_jaccard, (of_dice + of_jaccard) / 2


def after_macro(figures: Matrix) -> Matrix:
    """(r, figures, n_classes) with the macro average of each figure before its classes, flat: (r, figures * (1 + n_classes))."""
    return np.concatenate([macro(figures)[..., None], figures], axis=2).reshape(len(figures), -1)


def supports_of(left_out: Matrix, having: list[int], held: npt.NDArray[np.bool_]) -> list[float]:
    """How many patients each figure of `after_macro` rests on; left_out (patients, figures): without each patient.

    having: patients of each class; held: which classes have a figure. A macro average rests on those of its classes together.
    """
    there = np.flatnonzero(held).tolist()
    found: list[float] = []
    for first in range(0, left_out.shape[1], len(having) + 1):
        own = np.array([spread(left_out[:, first + 1 + c]) for c in there])
        found += [patients_together(own, [having[c] for c in there]), *map(float, having)]
    return found


def _note(interval: Interval, patients: float, empty: int, undefined: list[str]) -> str:
    notes = [interval.note] if interval.note else []
    if undefined:
        notes.append(f"left out as undefined: {', '.join(undefined)}")
    if empty:
        notes.append(f"{empty} samples left out: neither mask nor prediction has it")
    if patients < FEW_PATIENTS:
        notes.append("few patients")
    return "; ".join(notes)
