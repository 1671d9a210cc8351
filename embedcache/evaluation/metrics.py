"""Figures of merit, computed from scores that are sorted once and can then be weighted again and again.

A bootstrap resample is a vector of integer weights per row, so every metric takes weights of shape (..., n) and returns
shape (...). NaN means undefined: without both classes there is no AUROC.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.probes.base import Matrix, ProbeKind

HIGHER_IS_BETTER: Mapping[str, bool] = {
    "auroc": True,
    "average_precision": True,
    "accuracy": True,
    "balanced_accuracy": True,
    "f1": True,
    "sensitivity_at_90_specificity": True,
    "specificity_at_90_specificity": True,
    "sensitivity_at_95_specificity": True,
    "specificity_at_95_specificity": True,
    "brier": False,
    "calibration_error": False,
    "r2": True,
    "mae": False,
    "pearson": True,
    "spearman": True,
    "dice": True,
    "jaccard": True,
    "dice_jaccard_mean": True,
}
"""Of every figure that results are compared by, whether more of it is better."""
OF_NUMBERS = ("r2", "mae", "pearson", "spearman")
"""Those of a numeric task; it has none of the others."""


@dataclass(frozen=True)
class Ranking:
    """One label's scores in ascending order; rows whose label or score is missing are left out."""

    index: npt.NDArray[np.int64]
    """(m,): the rows kept, by ascending score."""
    positive: Matrix
    """(m,) 0 or 1, in that order."""
    starts: npt.NDArray[np.int64]
    """Where each group of tied scores starts in that order."""
    n: int
    """How many rows there were before any was left out: the length of a weight vector."""

    @classmethod
    def of(cls, y: Matrix, score: Matrix) -> "Ranking":
        """Sort once. y (n,) of 0, 1, NaN; score (n,), NaN where there is none."""
        kept = np.flatnonzero(~(np.isnan(y) | np.isnan(score)))
        index = kept[np.argsort(score[kept])]
        ordered = score[index]
        new = np.ones(len(index), dtype=bool)
        new[1:] = ordered[1:] != ordered[:-1]
        return cls(index, np.asarray(y[index], dtype=np.float64), np.flatnonzero(new), len(y))

    @property
    def positives(self) -> int:
        """How many rows are positive."""
        return int(self.positive.sum())

    @property
    def negatives(self) -> int:
        """How many rows are negative."""
        return len(self.positive) - self.positives

    def auroc(self, weights: npt.ArrayLike | None = None) -> Matrix:
        """Probability that a positive scores above a negative, ties counting one half; NaN without both."""
        positive, negative = self._groups(weights)
        below = np.cumsum(negative, axis=-1) - negative
        pairs = positive.sum(axis=-1) * negative.sum(axis=-1)
        return ratio((positive * (below + negative / 2)).sum(axis=-1), pairs)

    def average_precision(self, weights: npt.ArrayLike | None = None) -> Matrix:
        """Sum over thresholds of (recall's step) x precision, as scikit-learn defines it; NaN without a positive."""
        positive, negative = (group[..., ::-1] for group in self._groups(weights))
        found = np.cumsum(positive, axis=-1)
        called = found + np.cumsum(negative, axis=-1)
        precision = np.divide(found, called, out=np.zeros_like(called), where=called > 0)
        return ratio((positive * precision).sum(axis=-1), positive.sum(axis=-1))

    def placements(self) -> Matrix:
        """Obuchowski's (DeLong's) structural components, shape (n,), NaN for rows left out.

        For a positive: the share of negatives that it beats. For a negative: the share of positives that beat it.
        """
        positive, negative = self._groups(None)
        group = np.repeat(np.arange(len(self.starts)), np.diff(np.append(self.starts, len(self.index))))
        beats = (np.cumsum(negative) - negative + negative / 2) / self.negatives
        beaten = (positive.sum() - np.cumsum(positive) + positive / 2) / self.positives
        result = np.full(self.n, np.nan)
        result[self.index] = np.where(self.positive == 1, beats[group], beaten[group])
        return result

    def _groups(self, weights: npt.ArrayLike | None) -> tuple[Matrix, Matrix]:
        """Weight of positives and of negatives in each group of ties, shapes (..., n_groups)."""
        if weights is None:
            positive, negative = self.positive, 1 - self.positive
        else:
            w = np.asarray(weights)[..., self.index]
            positive, negative = w * self.positive, w * (1 - self.positive)
        if len(self.starts) < len(self.index):
            positive = np.add.reduceat(positive, self.starts, axis=-1)
            negative = np.add.reduceat(negative, self.starts, axis=-1)
        return positive, negative


def correct(truth: Matrix, scores: Matrix, kind: ProbeKind, threshold: float) -> Matrix:
    """1 where the decision is right, 0 where it is wrong, NaN where the label is missing.

    truth and scores (n, n_classes), truth of 0, 1, NaN. Shape (n, n_classes), or (n, 1) for multiclass, where the
    highest score decides.
    """
    if kind == "multiclass":
        known = ~np.isnan(truth).any(axis=1)
        chosen = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
        right = (np.where(np.isnan(truth), 0.0, truth).argmax(axis=1) == chosen).astype(np.float64)
        return np.where(known, right, np.nan)[:, None]
    right = ((scores > threshold) == (truth == 1)).astype(np.float64)
    return np.where(np.isnan(truth) | np.isnan(scores), np.nan, right)


def accuracy(right: Matrix, weights: npt.ArrayLike | None = None) -> Matrix:
    """Share of right decisions among the known ones; right (n,) of 0, 1, NaN; weights (..., n)."""
    known = ~np.isnan(right)
    w = np.ones(len(right)) if weights is None else np.asarray(weights, dtype=np.float64)
    w = w[..., known]
    return ratio(w @ right[known], w.sum(axis=-1))


def macro(values: Matrix) -> Matrix:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))


def macro_auroc(truth: Matrix, scores: Matrix) -> float:
    """Macro AUROC over the labels (or, one-vs-rest, the classes) that are defined; NaN if none is."""
    each = [Ranking.of(truth[:, j], scores[:, j]).auroc() for j in range(truth.shape[1])]
    return float(macro(np.array(each, dtype=np.float64)))


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Matrix:
    """numerator / denominator in float64; NaN where the latter is not above 0."""
    above, below = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    quotient: Matrix = np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below > 0)
    return quotient
