"""95% intervals that know that the samples of one patient belong together.

AUROC: by its clustered variance, see `clustered`. The rest: BCa bootstrap (Efron 1987) over patients.

Where a variance says nothing (every decision right, or every pair in order), the bound is the exact binomial one of as
many successes as the smaller class has patients: low = 0.025^(1/n). With one patient in a class there is no interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit

from embedcache.probes.base import Matrix

CONFIDENCE = 0.95
FEW_PATIENTS = 30
"""Fewer patients than this in a class, and an interval's coverage is not claimed."""
LOGIT = "logit, clustered by patient"
BCA = "BCa over patients"
FISHER = "Fisher's z, patients resampled"
WILSON = "Wilson, clustered by patient"
EXACT = "exact binomial bound over patients"
BOUNDED = "whichever patients are drawn, so the interval is bounded by their number alone"
CUT_OFF = "cut off at the extreme resample"

Z = float(ndtri(0.5 + CONFIDENCE / 2))
TAIL = (1 - CONFIDENCE) / 2
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
        return int(np.count_nonzero(np.bincount(self.code[rows], minlength=self.count)))


def degenerate_interval(value: float, patients: float, method: str) -> Interval:
    """The interval of a figure without any spread: exact at 0 and 1, the value itself where all scores tie.

    The note is of figures of every kind, and is no praise: a figure of 1 on three patients has a low bound.
    """
    if value > 1 - 1e-12:
        return Interval(float(TAIL ** (1 / patients)), 1.0, EXACT, f"no spread: 1 {BOUNDED}")
    if value < 1e-12:
        return Interval(0.0, float(1 - TAIL ** (1 / patients)), EXACT, f"no spread: 0 {BOUNDED}")
    return Interval(value, value, method, "no spread: the same whichever patients are drawn")


def fisher_interval(value: float, bootstrap: Matrix, patients: int) -> Interval:
    """Student's interval of a correlation on the scale of atanh; bootstrap (resamples,), NaN where undefined."""
    drawn = bootstrap[~np.isnan(bootstrap)]
    if patients < 2 or not len(drawn):
        return Interval(None, None, FISHER, "no interval: one patient")
    if 1 - abs(value) < 1e-12:
        return Interval(value, value, FISHER, "no spread: on a line")
    t = float(stdtrit(patients - 1, 0.5 + CONFIDENCE / 2)) * np.sqrt(patients / (patients - 1))
    z = np.arctanh(np.clip(drawn, -1 + 1e-12, 1 - 1e-12))
    half = t * float(z.std(ddof=1)) if len(z) > 1 else 0.0
    undefined = len(bootstrap) - len(drawn)
    note = f"{undefined} of {len(bootstrap)} resamples undefined" if undefined else ""
    low, high = np.tanh(np.arctanh(value) + np.array([-half, half]))
    return Interval(float(low), float(high), FISHER, note)


def wilson_interval(hits: Matrix, rows: Matrix) -> Interval:
    """Interval of a share of rows, from its hits and rows per patient, (patients,) both.

    Wilson's, of as many independent rows as would give the share the variance that it has between patients.
    """
    having = rows > 0
    k = int(having.sum())
    if k < 2:
        return Interval(None, None, WILSON, "no interval: one patient")
    hits, rows = hits[having], rows[having]
    n = rows.sum()
    share = float(hits.sum() / n)
    variance = float(((hits - share * rows) ** 2).sum()) / n**2 * k / (k - 1)
    if variance < 1e-24:
        return degenerate_interval(share, k, WILSON)
    effective = min(share * (1 - share) / variance, n)
    centre = (share + Z**2 / (2 * effective)) / (1 + Z**2 / effective)
    half = Z / (1 + Z**2 / effective) * np.sqrt(share * (1 - share) / effective + (Z / (2 * effective)) ** 2)
    return Interval(float(max(0.0, centre - half)), float(min(1.0, centre + half)), WILSON)


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


def degrees_of_freedom(influence: Matrix, smaller: float) -> float:
    """How well a variance over patients is known: Satterthwaite's, from the fourth powers of the patients' influence.

    influence (patients,): deviations whose squares sum to the variance, or any multiple of them; NaN is left out. Where a few
    patients have most of the sum it is a poor estimate; never more than `smaller`, the patients of the smaller class, less one.
    With the normal quantile AUROC's intervals held .92 at 30 patients and an AUROC of .95, with Student's .94.
    """
    known = influence[~np.isnan(influence)]
    squared = known * known  # a power of 3 or 4 takes numpy thirty times as long
    squares = float(squared.sum())
    excess = float((squared * squared).sum()) / squares**2 - 1 / len(known) if squares > 0 else 0.0
    return max(1.0, min(smaller - 1.0, 2 / excess if excess > 0 else np.inf))


def spread(left_out: Matrix) -> float:
    """Variance of a figure without each patient, (patients,), NaN left out: for the weights of `patients_together`."""
    known = left_out[~np.isnan(left_out)]
    return float(known.var()) if len(known) else 0.0


def patients_together(variances: Matrix, patients: Sequence[float]) -> float:
    """How many patients the mean of several labels' figures rests on: one more than the mean of their degrees of freedom.

    The harmonic mean, weighted by the figures' variances (labels,): a rare label counts as far as the mean's error comes from it.
    patients: of each label's smaller class; a label with one has no variance of its own and counts for nothing.
    """
    usable = [(v, count - 1) for v, count in zip(variances, patients, strict=True) if count > 1]
    below = sum(v / df for v, df in usable)
    if below > 0:
        return float(1 + sum(v for v, _ in usable) / below)
    return float(1 + min((df for _, df in usable), default=0))


def quantile(influence: Matrix, smaller: float) -> float:
    """Student's 97.5% quantile with these degrees of freedom: in place of 1.96."""
    return float(stdtrit(degrees_of_freedom(influence, smaller), 0.5 + CONFIDENCE / 2))


def widened(left_out: Matrix, smaller: float) -> float:
    """The same for the percentiles of a bootstrap over k patients, whose variance is too small by (k - 1) / k.

    left_out (patients,): the figure without each patient (Hesterberg 2015 for a plain mean).
    """
    known = left_out[~np.isnan(left_out)]
    if len(known) < 2:
        return Z
    return quantile(known - known.mean(), smaller) * float(np.sqrt(len(known) / (len(known) - 1)))


def bca_interval(
    value: float, bootstrap: Matrix, jackknife: Matrix, smaller: float, *, error: bool = False, z: float = Z
) -> Interval:
    """Bias-corrected and accelerated interval of one figure.

    bootstrap (resamples,) and jackknife (patients,); NaN in either is a resample in which the figure is undefined, and is
    left out. `smaller`: patients in the smaller class, for a figure without spread; an `error` (0 is best) or another figure that
    is no share of successes (Dice) has no exact bound then, and the value itself is its interval. `z` is the quantile whose level
    is read off. The interval holds the value; where an end lies past all resamples it stops at the last, and the note says so.
    """
    drawn, left_out = bootstrap[~np.isnan(bootstrap)], jackknife[~np.isnan(jackknife)]
    if smaller < 2 or not len(drawn):
        return Interval(None, None, BCA, "no interval: one patient in a class")
    if np.ptp(drawn) < 1e-12 * max(1.0, abs(value)):
        if error:
            return Interval(value, value, BCA, "no spread: all patients alike")
        return degenerate_interval(value, smaller, BCA)
    share = ((drawn < value).mean() + (drawn <= value).mean()) / 2
    # All resamples on one side leave no finite bias: count half a resample on the other.
    bias = ndtri(np.clip(share, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    deviation = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    squared = deviation * deviation
    scale = float(squared.sum()) ** 1.5
    acceleration = float((squared * deviation).sum()) / (6 * scale) if scale > 0 else 0.0
    ends = np.array([-z, z])
    shift = 1 - acceleration * (bias + ends)
    # Past 0 the formula jumps to the other end; its limit there is the extreme on the end's own side.
    levels = np.where(shift > 0, ndtr(bias + (bias + ends) / np.where(shift > 0, shift, 1.0)), ends > 0)
    low, high = np.quantile(drawn, levels)
    undefined = len(bootstrap) - len(drawn)
    note = f"{undefined} of {len(bootstrap)} resamples undefined" if undefined else ""
    if min(levels.min(), 1 - levels.max()) < 1 / (len(drawn) + 1):
        note = f"{note}; {CUT_OFF}" if note else CUT_OFF
    return Interval(min(float(low), value), max(float(high), value), BCA, note)
