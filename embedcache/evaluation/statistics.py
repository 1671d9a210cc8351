"""95% intervals that know that the samples of one patient belong together.

AUROC: the patient-clustered variance of Obuchowski (Biometrics 1997; DeLong's, 1988, when every patient has one
sample), on the logit scale. Macro AUROC: the same components summed per patient over the labels. Accuracy and average
precision: BCa bootstrap (Efron 1987) over patients.

Where a variance says nothing (every decision right, or every pair in order), the bound is the exact binomial one of as
many successes as the smaller class has patients: low = 0.025^(1/n). With one patient in a class there is no interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, ndtr, ndtri

from embedcache.evaluation.metrics import Ranking
from embedcache.probes.base import Matrix

CONFIDENCE = 0.95
FEW_PATIENTS = 30
"""Fewer patients than this in a class, and an interval's coverage is not claimed."""
LOGIT = "logit, clustered by patient"
BCA = "BCa over patients"
EXACT = "exact binomial bound over patients"

_Z = float(ndtri(0.5 + CONFIDENCE / 2))
_TAIL = (1 - CONFIDENCE) / 2
_CHUNK_VALUES = 4_000_000
"""Weights gathered at a time: 32 MB, about a core's share of the last-level cache and some."""


@dataclass(frozen=True)
class Interval:
    """A 95% interval, how it was made, and what is to be said of it. None bounds: there is no interval."""

    low: float | None
    high: float | None
    method: str
    note: str = ""


@dataclass(frozen=True)
class Patients:
    """Which patient each row belongs to, patients in sorted order so that the order of rows decides nothing."""

    code: npt.NDArray[np.int64]
    """(n,): number of the row's patient."""
    count: int

    @classmethod
    def of(cls, groups: npt.ArrayLike) -> "Patients":
        """From one patient string per row."""
        names, code = np.unique(np.asarray(groups), return_inverse=True)
        return cls(code.astype(np.int64), len(names))

    def sums(self, values: Matrix) -> Matrix:
        """Sum of `values` (n,) per patient, shape (count,); NaN counts as nothing."""
        known = np.where(np.isnan(values), 0.0, values)
        return np.bincount(self.code, weights=known, minlength=self.count).astype(np.float64)

    def having(self, rows: npt.NDArray[np.bool_]) -> int:
        """How many patients have one of `rows` (a mask)."""
        return len(np.unique(self.code[rows]))


@dataclass(frozen=True)
class Clustered:
    """One label's AUROC with its components per patient."""

    value: float
    positive: Matrix
    """(patients,): each patient's share of the deviation that comes from its positives; their sum is 0."""
    negative: Matrix
    positive_patients: int
    negative_patients: int

    @classmethod
    def of(cls, ranking: Ranking, patients: Patients) -> "Clustered":
        """Components of a label that has both classes."""
        theta = float(ranking.auroc())
        place = ranking.placements()
        is_positive = np.zeros(ranking.n, dtype=bool)
        is_positive[ranking.index[ranking.positive == 1]] = True
        is_negative = np.zeros(ranking.n, dtype=bool)
        is_negative[ranking.index[ranking.positive == 0]] = True
        return cls(
            theta,
            patients.sums(np.where(is_positive, place - theta, 0.0)) / ranking.positives,
            patients.sums(np.where(is_negative, place - theta, 0.0)) / ranking.negatives,
            patients.having(is_positive),
            patients.having(is_negative),
        )

    def variance(self) -> float:
        """Obuchowski's variance, with her small-sample factors; needs two patients in each class."""
        k = len(self.positive)
        within = _factor(self.positive_patients) * self.positive @ self.positive
        within += _factor(self.negative_patients) * self.negative @ self.negative
        return float(within + 2 * _factor(k) * self.positive @ self.negative)

    def influence(self) -> Matrix:
        """(patients,): whose squares sum to the variance but for the cross term's factor, which is nearly 1."""
        scale = np.sqrt(_factor(self.positive_patients)), np.sqrt(_factor(self.negative_patients))
        summed: Matrix = scale[0] * self.positive + scale[1] * self.negative
        return summed

    @property
    def smaller(self) -> int:
        """Patients in the smaller class."""
        return min(self.positive_patients, self.negative_patients)


def auroc_interval(ranking: Ranking, patients: Patients) -> Interval:
    """Interval of one label's AUROC. The ranking must have both classes."""
    parts = Clustered.of(ranking, patients)
    if parts.smaller < 2:
        return Interval(None, None, LOGIT, "no interval: one patient in a class")
    return _logit_interval(parts.value, parts.variance(), parts.smaller)


def macro_auroc_interval(rankings: Sequence[Ranking], patients: Patients) -> Interval:
    """Interval of the mean AUROC over `rankings`, all of them with both classes; labels covary through patients."""
    parts = [Clustered.of(ranking, patients) for ranking in rankings]
    if len(parts) == 1:
        return auroc_interval(rankings[0], patients)
    summed = np.sum([part.influence() for part in parts], axis=0) / len(parts)
    smaller = min(part.smaller for part in parts)
    interval = _logit_interval(float(np.mean([part.value for part in parts])), float(summed @ summed), smaller)
    if smaller < 2:
        return Interval(interval.low, interval.high, interval.method, "too narrow: one patient in a class of a label")
    return interval


def _factor(clusters: int) -> float:
    """k / (k - 1); a lone cluster has no deviation to scale."""
    return clusters / (clusters - 1) if clusters > 1 else 1.0


def _logit_interval(value: float, variance: float, smaller: int) -> Interval:
    # The rounding of a mean of placements leaves a variance of 1e-32 where it is 0.
    if variance < 1e-24:
        return degenerate_interval(value, smaller, LOGIT)
    half = _Z * np.sqrt(variance) / (value * (1 - value))
    centre = logit(value)
    return Interval(float(expit(centre - half)), float(expit(centre + half)), LOGIT)


def degenerate_interval(value: float, patients: int, method: str) -> Interval:
    """The interval of a figure without any spread: exact at 0 and 1, the value itself where all scores tie."""
    if value > 1 - 1e-12:
        return Interval(float(_TAIL ** (1 / patients)), 1.0, EXACT, "no spread: everything is in order")
    if value < 1e-12:
        return Interval(0.0, float(1 - _TAIL ** (1 / patients)), EXACT, "no spread: nothing is in order")
    return Interval(value, value, method, "no spread: scores tie")


# --- bootstrap ------------------------------------------------------------------------------------

Statistic = Callable[[Matrix], Matrix]
"""From weights (r, n) per row to figures (r, n_figures)."""


@dataclass(frozen=True)
class Resampled:
    """Figures on bootstrap resamples of the patients, and with each patient left out."""

    bootstrap: Matrix
    """(resamples, n_figures)."""
    jackknife: Matrix
    """(patients, n_figures)."""


def resample(statistic: Statistic, patients: Patients, resamples: int, seed: int) -> Resampled:
    """Draw patients with replacement once, for all figures; the same seed and rows give the same draws."""
    k = patients.count
    draws = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=resamples)
    step = max(1, _CHUNK_VALUES // max(1, len(patients.code)))
    bootstrap = [statistic(draws[i : i + step, patients.code].astype(np.float64)) for i in range(0, resamples, step)]
    left_out = [
        statistic((np.arange(i, min(i + step, k))[:, None] != patients.code).astype(np.float64))
        for i in range(0, k, step)
    ]
    return Resampled(np.concatenate(bootstrap), np.concatenate(left_out))


def bca_interval(value: float, bootstrap: Matrix, jackknife: Matrix, smaller: int) -> Interval:
    """Bias-corrected and accelerated interval of one figure.

    bootstrap (resamples,) and jackknife (patients,); NaN in either is a resample in which the figure is undefined, and is
    left out. `smaller`: patients in the smaller class, for a figure without spread.
    """
    drawn, left_out = bootstrap[~np.isnan(bootstrap)], jackknife[~np.isnan(jackknife)]
    if smaller < 2 or not len(drawn):
        return Interval(None, None, BCA, "no interval: one patient in a class")
    if np.ptp(drawn) < 1e-12:
        return degenerate_interval(value, smaller, BCA)
    share = ((drawn < value).mean() + (drawn <= value).mean()) / 2
    # All resamples on one side leave no finite bias: count half a resample on the other.
    bias = ndtri(np.clip(share, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    deviation = left_out.mean() - left_out
    spread = float((deviation**2).sum()) ** 1.5
    acceleration = float((deviation**3).sum()) / (6 * spread) if spread > 0 else 0.0
    z = np.array([-_Z, _Z])
    levels = ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))
    low, high = np.quantile(drawn, levels)
    undefined = len(bootstrap) - len(drawn)
    note = f"{undefined} of {len(bootstrap)} resamples undefined" if undefined else ""
    return Interval(float(low), float(high), BCA, note)
