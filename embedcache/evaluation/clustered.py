"""AUROC's variance and covariance where the rows of one patient belong together.

Obuchowski (Biometrics 1997): the structural components of DeLong (1988), summed per patient. With one row per patient it is
DeLong's own. Macro AUROC: the same components summed per patient over the labels. A difference of two scores on the same
rows has the difference of their components. Intervals are on the logit scale, with Student's quantile (see `quantile`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from embedcache.evaluation.metrics import Ranking
from embedcache.evaluation.statistics import LOGIT, Interval, Patients, degenerate_interval, patients_together, quantile
from embedcache.probes.base import Matrix


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

    @classmethod
    def mean(cls, parts: Sequence["Clustered"]) -> "Clustered":
        """Of the mean AUROC of several scores of the same label on the same rows."""
        first = parts[0]
        return cls(
            float(np.mean([part.value for part in parts])),
            np.mean([part.positive for part in parts], axis=0),
            np.mean([part.negative for part in parts], axis=0),
            first.positive_patients,
            first.negative_patients,
        )

    @property
    def smaller(self) -> int:
        """Patients in the smaller class."""
        return min(self.positive_patients, self.negative_patients)


def auroc_interval(ranking: Ranking, patients: Patients) -> Interval:
    """Interval of one label's AUROC. The ranking must have both classes."""
    return mean_auroc_interval([Clustered.of(ranking, patients)])


def macro_auroc_interval(rankings: Sequence[Ranking], patients: Patients) -> Interval:
    """Interval of the mean AUROC over `rankings`, all of them with both classes; labels covary through patients."""
    return mean_auroc_interval([Clustered.of(ranking, patients) for ranking in rankings])


def mean_auroc_interval(parts: Sequence[Clustered]) -> Interval:
    """Interval of the mean AUROC over labels on the same patients; of one label, its own."""
    if len(parts) == 1:
        one = parts[0]
        if one.smaller < 2:
            return Interval(None, None, LOGIT, "no interval: one patient in a class")
        return _logit_interval(one.value, one.variance(), one.influence(), one.smaller)
    summed = np.sum([part.influence() for part in parts], axis=0) / len(parts)
    together = patients_together(np.array([part.variance() for part in parts]), [part.smaller for part in parts])
    if together < 2:
        return Interval(None, None, LOGIT, "no interval: one patient in a class")
    interval = _logit_interval(float(np.mean([part.value for part in parts])), float(summed @ summed), summed, together)
    if min(part.smaller for part in parts) < 2:
        return Interval(interval.low, interval.high, interval.method, "too narrow: one patient in a class of a label")
    return interval


def _factor(clusters: int) -> float:
    """k / (k - 1); a lone cluster has no deviation to scale."""
    return clusters / (clusters - 1) if clusters > 1 else 1.0


def _logit_interval(value: float, variance: float, influence: Matrix, smaller: float) -> Interval:
    # The rounding of a mean of placements leaves a variance of 1e-32 where it is 0.
    if variance < 1e-24:
        return degenerate_interval(value, smaller, LOGIT)
    half = quantile(influence, smaller) * np.sqrt(variance) / (value * (1 - value))
    centre = logit(value)
    return Interval(float(expit(centre - half)), float(expit(centre + half)), LOGIT)
