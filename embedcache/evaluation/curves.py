"""What plots are drawn from: the ROC curve with a band."""

from dataclasses import dataclass

import numpy as np

from embedcache.evaluation.bootstrap import BLOCK, Draws
from embedcache.evaluation.ranks import Ranks
from embedcache.evaluation.statistics import TAIL, Patients
from embedcache.probes.base import Groups, Matrix

GRID = 201


@dataclass(frozen=True)
class RocBand:
    """A ROC curve on a grid of false positive rates, with a pointwise 95% band over patients."""

    false_positive_rate: Matrix
    true_positive_rate: Matrix
    low: Matrix
    high: Matrix


def roc_band(y: Matrix, score: Matrix, groups: Groups, resamples: int = 1000, seed: int = 0) -> RocBand | None:
    """The ROC curve of one label; None without both classes. y (n,) of 0, 1, NaN; score (n,); groups: each row's patient.

    Between two distinct scores the curve is a straight line, as ties are half won. At a false positive rate at which it rises
    straight up, the upper end is taken. Resamples without both classes are left out.
    """
    patients = Patients.of(groups)
    ranks = Ranks.of(y, score, patients)
    if not ranks.defined:
        return None
    grid = np.linspace(0, 1, GRID)
    curves = [
        curve
        for start in range(0, resamples, BLOCK)
        for curve in _curves(
            ranks, Draws.of_block(patients.count, min(BLOCK, resamples - start), seed, start // BLOCK), grid
        )
    ]
    low, high = np.quantile(np.array(curves), (TAIL, 1 - TAIL), axis=0)
    (value,) = _curves(ranks, Draws.once(patients.count), grid)
    return RocBand(grid, value, low, high)


def _curves(ranks: Ranks, draws: Draws, grid: Matrix) -> list[Matrix]:
    """The curve of every resample that has both classes, on the grid."""
    positive, below, tied, negatives = ranks.places_of(draws)
    found = []
    for r in np.flatnonzero((positive.sum(axis=0) > 0) & (negatives > 0)):
        p, n = positive[::-1, r], negatives[r]
        true = np.cumsum(p) / p.sum()
        # A place is left at its lower end, all its rows called, and entered where none of them is.
        leaves = 1 - below[::-1, r] / n
        enters = leaves - tied[::-1, r] / n
        x = np.append(np.ravel(np.stack([enters, leaves], axis=1)), 1.0)
        rates = np.append(np.ravel(np.stack([true - p / p.sum(), true], axis=1)), 1.0)
        found.append(np.interp(grid, np.append(0.0, x), np.append(0.0, rates)))
    return found
