"""Decision thresholds, chosen on validation and applied on test, both with the scores of one and the same model.

That model is the chosen one before it was refitted on training and validation rows: a threshold that was chosen with its
scores belongs to no other (the refitted model has seen these rows, and its scores lie elsewhere).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedcache.evaluation.metrics import ratio
from embedcache.probes.base import Matrix

SPECIFICITIES = {"90": 0.90, "95": 0.95}
"""Specificities at which sensitivity is given, by the ending of the metric's name."""


@dataclass(frozen=True)
class BeforeRefit:
    """Scores that thresholds are chosen by, and those that they are applied to: of the chosen model before its refit.

    Where each row was scored without itself or its patient there is no such model: the former are by as many models as rows or
    patients, the latter by the refitted one.
    """

    validation_truth: Matrix
    """(n_validation, n_classes) of 0, 1 and NaN."""
    validation_scores: Matrix
    """(n_validation, n_classes), NaN for a label that could not be fitted."""
    test_scores: Matrix
    """(n, n_classes): of the rows that are measured."""
    without: Literal["", "row", "patient"] = ""
    """What each row of `validation_scores` was scored without; "" is a model that was fitted before validation."""

    @property
    def origin(self) -> str:
        """Where a threshold comes from and what model it is applied to, in words."""
        if not self.without:
            return "chosen on validation; model before the refit"
        return f"chosen on scores without each {self.without}; refitted model"


WITHOUT: Mapping[str, Literal["", "row", "patient"]] = {"leave-one-out": "row", "leave-patient-out": "patient"}
"""`without` by the way to choose; of validation it is ""."""


def f1_threshold(y: Matrix, score: Matrix) -> float | None:
    """The threshold above which positives are called with the best F1; of equals the highest. None without a positive.

    y (n,) of 0, 1, NaN; score (n,). It lies half way between two neighbouring scores, or is -inf: everything is called.
    """
    y, score = _known(y, score)
    if not (y == 1).any():
        return None
    order = np.argsort(-score, kind="stable")
    found, ordered = np.cumsum(y[order]), score[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    f1 = np.where(last, 2 * found / (np.arange(1, len(y) + 1) + found[-1]), -1.0)
    best = int(np.argmax(f1))
    if best + 1 == len(ordered):
        return float(-np.inf)
    return _between(float(ordered[best + 1]), float(ordered[best]))


def specificity_threshold(y: Matrix, score: Matrix, specificity: float) -> float | None:
    """The lowest threshold that leaves at least this share of the negatives at or below it. None without a negative."""
    y, score = _known(y, score)
    negative = score[y == 0]
    if not len(negative):
        return None
    # 0.9 x 10 is 9, whatever its last bit.
    place = max(0, int(np.ceil(specificity * len(negative) - 1e-9)) - 1)
    return float(np.partition(negative, place)[place])


def confusion(y: Matrix, called: npt.NDArray[np.bool_]) -> Matrix:
    """Which rows are true positives, false positives, false negatives, true negatives: (4, n); a NaN in y is in none."""
    positive, negative = y == 1, y == 0
    return np.stack([positive & called, negative & called, positive & ~called, negative & ~called]).astype(np.float64)


def sensitivity(counts: Matrix) -> Matrix:
    """Share of the positives that are called; counts (4, …) as `confusion` orders them."""
    return ratio(counts[0], counts[0] + counts[2])


def specificity(counts: Matrix) -> Matrix:
    """Share of the negatives that are not called."""
    return ratio(counts[3], counts[1] + counts[3])


def f1(counts: Matrix) -> Matrix:
    """2 TP / (2 TP + FP + FN); NaN where there is neither a positive nor a call."""
    return ratio(2 * counts[0], 2 * counts[0] + counts[1] + counts[2])


def right_share(counts: Matrix) -> Matrix:
    """Accuracy."""
    return ratio(counts[0] + counts[3], counts.sum(axis=0))


def balanced(counts: Matrix) -> Matrix:
    """Mean of sensitivity and specificity; NaN without both classes."""
    return (sensitivity(counts) + specificity(counts)) / 2


def _known(y: Matrix, score: Matrix) -> tuple[Matrix, Matrix]:
    known = ~(np.isnan(y) | np.isnan(score))
    return y[known], score[known]


def _between(low: float, high: float) -> float:
    """Half way, but never `high` itself, which must lie above."""
    if not np.isfinite(low) or not np.isfinite(high):
        return low
    middle = low + (high - low) / 2
    return middle if middle < high else low
