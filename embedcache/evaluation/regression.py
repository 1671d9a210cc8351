"""Figures of a numeric target: R^2, mean absolute error, and the correlations of Pearson and Spearman.

R^2 and the error have BCa intervals over patients. A correlation has Student's interval of Fisher's z = atanh(r), with the
standard deviation of z over the same resamples of patients.
"""

from dataclasses import dataclass

import numpy as np

from embedcache.evaluation.bootstrap import Draws, Resampled, Sums, bootstrap
from embedcache.evaluation.statistics import (
    BCA,
    FEW_PATIENTS,
    FISHER,
    Interval,
    Patients,
    bca_interval,
    fisher_interval,
    widened,
)
from embedcache.probes.base import Matrix
from embedcache.types import Metric

VALUES = ("r2", "mae", "pearson", "spearman")
_AT_A_TIME = 32
"""Resamples whose weights per row are held: 6 MB for 25,000 rows."""


@dataclass(frozen=True)
class Spearman:
    """Spearman's correlation of resamples: Pearson's of the mean ranks that the repeated rows have."""

    y: Matrix
    prediction: Matrix
    patients: Patients

    def figures(self, draws: Draws) -> Matrix:
        """(1, resamples)."""
        parts = range(0, draws.count.shape[1], _AT_A_TIME)
        return np.concatenate([self._of(draws.as_float[self.patients.code, i : i + _AT_A_TIME]) for i in parts])[None]

    def _of(self, weights: Matrix) -> Matrix:
        a, b = mean_ranks(self.y, weights), mean_ranks(self.prediction, weights)
        n = weights.sum(axis=0)
        a -= (weights * a).sum(axis=0) / n
        b -= (weights * b).sum(axis=0) / n
        # Ranks are halves of whole numbers: a smaller sum of squares is the rounding of none.
        squares = [np.where(s < 1e-3, 0.0, s) for s in ((weights * x**2).sum(axis=0) for x in (a, b))]
        return _correlation((weights * a * b).sum(axis=0), *squares)

    def left_out(self) -> Matrix:
        """Not made: Fisher's interval needs none."""
        return np.full((1, self.patients.count), np.nan)


def mean_ranks(values: Matrix, weights: Matrix) -> Matrix:
    """Rank of each of `values` (n,) where row i is there weights[i] times, equals sharing the mean; weights and result (n, m)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    of_group = np.add.reduceat(weights[order], starts, axis=0)
    middle = np.cumsum(of_group, axis=0) - (of_group - 1) / 2
    ranks = np.empty_like(weights)
    ranks[order] = np.repeat(middle, np.diff(np.append(starts, len(values))), axis=0)
    return ranks


def value_figures(y: Matrix, prediction: Matrix, patients: Patients) -> tuple[Sums, Spearman]:
    """R^2, error and Pearson's correlation from sums, and Spearman's; no NaN."""
    # About the means nothing is lost to rounding, and no figure changes.
    t, p = y - y.mean(), prediction - prediction.mean()
    error = prediction - y
    rows = [np.ones(len(y)), t, p, t**2, p**2, t * p, error**2, np.abs(error)]
    sums = np.stack([patients.sums(row) for row in rows])

    def of(s: Matrix) -> Matrix:
        n = np.where(s[0] > 0, s[0], np.nan)
        tt, pp, tp = s[3] - s[1] ** 2 / n, s[4] - s[2] ** 2 / n, s[5] - s[1] * s[2] / n
        spread = tt > 1e-12 * s[3]
        r2 = 1 - np.divide(s[6], tt, out=np.full(len(tt), np.nan), where=spread)
        return np.stack(
            [r2, s[7] / n, _correlation(tp, np.where(spread, tt, 0.0), np.where(pp > 1e-12 * s[4], pp, 0.0))]
        )

    return Sums(sums, of), Spearman(y, prediction, patients)


def resampled_values(y: Matrix, prediction: Matrix, patients: Patients, resamples: int, seed: int) -> Resampled:
    """All of VALUES, in order."""
    first, second = bootstrap(value_figures(y, prediction, patients), patients, resamples, seed)
    return Resampled(
        np.concatenate([first.value, second.value]),
        np.concatenate([first.bootstrap, second.bootstrap]),
        np.concatenate([first.left_out, second.left_out]),
    )


def measure_values(
    truth: Matrix, prediction: Matrix, patients: Patients, name: str, resamples: int, seed: int
) -> tuple[Metric, ...]:
    """The figures of one numeric target as metrics; truth and prediction (n,), NaN where there is none.

    `positives` of such a metric is 0. A constant target has no R^2 and no correlation.
    """
    known = ~(np.isnan(truth) | np.isnan(prediction))
    inside = Patients.of(patients.code[known])
    counts = {"n": int(known.sum()), "positives": 0, "patients": inside.count}
    few = "few patients" if inside.count < FEW_PATIENTS else ""
    if not known.any():
        return tuple(
            Metric(
                figure, name, None, None, None, _method(figure), **counts, note="undefined: no value in the test part"
            )
            for figure in VALUES
        )
    resampled = resampled_values(truth[known], prediction[known], inside, resamples, seed)
    found = []
    for i, figure in enumerate(VALUES):
        value = float(resampled.value[i])
        if np.isnan(value):
            constant = "the target" if np.ptp(truth[known]) == 0 else "the prediction"
            found.append(
                Metric(
                    figure, name, None, None, None, _method(figure), **counts, note=f"undefined: {constant} is constant"
                )
            )
            continue
        interval = _interval(figure, value, resampled.bootstrap[i], resampled.left_out[i], inside.count)
        note = "; ".join(part for part in (interval.note, few) if part)
        found.append(Metric(figure, name, value, interval.low, interval.high, interval.method, **counts, note=note))
    return tuple(found)


def _interval(figure: str, value: float, drawn: Matrix, left_out: Matrix, patients: int) -> Interval:
    if figure in ("pearson", "spearman"):
        return fisher_interval(value, drawn, patients)
    return bca_interval(value, drawn, left_out, patients, error=True, z=widened(left_out, patients))


def _method(figure: str) -> str:
    return FISHER if figure in ("pearson", "spearman") else BCA


def _correlation(together: Matrix, one: Matrix, other: Matrix) -> Matrix:
    product = np.sqrt(one * other)
    r = np.divide(together, product, out=np.full(len(product), np.nan), where=product > 0)
    return np.asarray(np.clip(r, -1.0, 1.0))
