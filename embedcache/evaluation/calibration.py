"""Probabilities, how far off they are, and the reliability curve.

Brier score: mean squared difference of probability and outcome; over the classes of a multiclass task it is their sum, as Brier
defined it (1950), from 0 to 2. Calibration error: the rows are cut by their probability into 15 bins of equal mass (rows
with equal probabilities stay together, so bins may be fewer and unequal); per bin the absolute difference of mean
probability and share of positives, averaged with the bins' sizes as weights. Bins are cut once, on the rows at hand.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from embedcache.evaluation.statistics import TAIL, Interval, Patients, wilson_interval
from embedcache.probes.base import Groups, Matrix

BINS = 15
INVERTED = "test inverted, patients resampled"
Bins = npt.NDArray[np.int64]


PROBABLE = ("log-odds", "log-probability", "probability", "vote share")
"""Scores that say a probability."""


def probabilities(scores: Matrix, score_name: str) -> Matrix:
    """Scores as probabilities, NaN kept: of log-odds by expit, of log-probabilities by exp; shares are ones already."""
    if score_name == "log-odds":
        return np.asarray(expit(scores))
    if score_name == "log-probability":
        return np.asarray(np.exp(scores))
    if score_name in ("probability", "vote share"):
        return scores
    raise ValueError(f"a score that is a {score_name} is no probability.")


def equal_mass_bins(probability: Matrix, bins: int = BINS) -> Bins:
    """Bin of each row, (n,): by the middle of its rank among the rows, so that equals go together. No NaN."""
    order = np.argsort(probability)
    ordered = probability[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    ends = np.append(starts[1:], len(ordered))
    of_group = np.minimum((starts + ends) * bins // (2 * max(1, len(ordered))), bins - 1)
    found = np.empty(len(order), dtype=np.int64)
    found[order] = np.repeat(of_group, ends - starts)
    return found


def calibration_sums(y: Matrix, probability: Matrix, patients: Patients, bins: int = BINS) -> Matrix:
    """Outcome less probability, summed per bin and patient: (bins, patients). Rows where either is NaN count as nothing.

    The error is the sum of the bins' absolute sums over all patients, divided by the number of rows.
    """
    known = ~(np.isnan(y) | np.isnan(probability))
    p = probability[known]
    cell = equal_mass_bins(p, bins) * patients.count + patients.code[known]
    summed = np.bincount(cell, y[known] - p, bins * patients.count).reshape(bins, patients.count)
    return summed.astype(np.float64, copy=False)


def calibration_error(y: Matrix, probability: Matrix, bins: int = BINS) -> float:
    """The error as defined above, of rows without NaN; NaN if there is no row."""
    known = ~(np.isnan(y) | np.isnan(probability))
    if not known.any():
        return float("nan")
    all_one = Patients.of(np.zeros(len(y)))
    return float(np.abs(calibration_sums(y, probability, all_one, bins)).sum() / known.sum())


def calibration_interval(off: Matrix, drawn: Matrix, few: float) -> Interval:
    """Interval of a calibration error, by inverting a test.

    off (bins,): how far each bin is off, as a share of all rows, signed; drawn (bins, resamples): the same on resamples of
    patients; `few`: patients. The error is never below what chance adds, so neither it nor its resamples lie about the truth.
    Here the truth is taken to be `off` shrunk or stretched by a factor; chance moves the bins as the resamples move about
    `off`; the interval holds the errors of all factors under which an error as small, or as large, as the one found is had
    at least once in forty.
    """
    drawn = drawn[:, ~np.isnan(drawn).any(axis=0)]
    if few < 2 or not drawn.size:
        return Interval(None, None, INVERTED, "no interval: one patient")
    value = float(np.abs(off).sum())
    moved = drawn - off[:, None]
    if value == 0 or not np.abs(moved).max() > 1e-12:
        return Interval(value, value, INVERTED, "no spread: all patients alike")

    def above(factor: float) -> tuple[float, float]:
        found = np.abs(factor * off[:, None] + moved).sum(axis=0)
        return float((found >= value).mean()), float((found <= value).mean())

    low = 0.0 if above(0.0)[0] >= TAIL else _root(lambda f: above(f)[0] - TAIL, 0.0, 1.0)
    top = 1.0
    while above(top)[1] >= TAIL:
        top *= 2
    high = _root(lambda f: TAIL - above(f)[1], 0.0, top) if above(0.0)[1] >= TAIL else 0.0
    return Interval(low * value, high * value, INVERTED)


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a step function turns positive, by halving."""
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


@dataclass(frozen=True)
class Reliability:
    """A reliability curve: one entry per bin that has rows, by ascending probability."""

    predicted: Matrix
    """Mean probability."""
    observed: Matrix
    """Share of positives."""
    low: Matrix
    """95% interval of the share, clustered by patient; NaN where all rows are of one patient."""
    high: Matrix
    rows: Bins
    patients: Bins


def reliability(y: Matrix, probability: Matrix, groups: Groups, bins: int = BINS) -> Reliability:
    """The reliability curve of one label. y (n,) of 0, 1, NaN; probability (n,); groups: the patient of each row."""
    known = ~(np.isnan(y) | np.isnan(probability))
    y, probability, groups = y[known], probability[known], np.asarray(groups)[known]
    of_row = equal_mass_bins(probability, bins)
    present = np.unique(of_row)
    found = np.empty((len(present), 4))
    counts = np.empty((len(present), 2), dtype=np.int64)
    for i, b in enumerate(present):
        inside = of_row == b
        patients = Patients.of(groups[inside])
        rows = np.bincount(patients.code, minlength=patients.count).astype(np.float64)
        interval = wilson_interval(patients.sums(y[inside]), rows)
        low, high = (np.nan if bound is None else bound for bound in (interval.low, interval.high))
        found[i] = probability[inside].mean(), y[inside].mean(), low, high
        counts[i] = inside.sum(), patients.count
    predicted, observed, lows, highs = found.T
    return Reliability(predicted, observed, lows, highs, counts[:, 0], counts[:, 1])
