"""The nouns of a scored test part: its labels, and each figure with its bootstrap distribution."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.evaluation.calibration import calibration_interval
from embedcache.evaluation.metrics import Ranking
from embedcache.evaluation.statistics import FEW_PATIENTS, Interval, Patients, bca_interval, widened
from embedcache.probes.base import Matrix

ALL = "all"
"""The label of a multiclass figure of all classes together, which is not their macro average."""
MACRO = "macro"


@dataclass(frozen=True)
class Label:
    """What is known of a label before anything is measured."""

    name: str
    ranking: Ranking
    patients: int
    positive_patients: int
    negative_patients: int
    undefined: str
    """Why it has no figure; "" if it has."""

    @classmethod
    def of(cls, name: str, truth: Matrix, score: Matrix, patients: Patients) -> "Label":
        """truth (n,) of 0, 1, NaN; score (n,), all NaN for a label that could not be fitted."""
        ranking = Ranking.of(truth, score)
        undefined = ""
        if np.isnan(score).all():
            undefined = "undefined: not both classes in the training part"
        elif not ranking.positives:
            undefined = "undefined: no positive in the test part"
        elif not ranking.negatives:
            undefined = "undefined: no negative in the test part"
        known, positive, negative = mask(~np.isnan(truth)), mask(truth == 1), mask(truth == 0)
        having = patients.having
        return cls(name, ranking, having(known), having(positive), having(negative), undefined)

    @property
    def smaller(self) -> int:
        """Patients in the smaller class."""
        return min(self.positive_patients, self.negative_patients)

    @property
    def few(self) -> str:
        """`few patients`, or nothing."""
        return "few patients" if self.smaller < FEW_PATIENTS else ""


@dataclass(frozen=True)
class Estimate:
    """One figure of one label, or of several together."""

    name: str
    label: str
    value: float
    drawn: Matrix
    """(resamples,)."""
    left_out: Matrix
    """(patients,)."""
    patients: float
    """Of the class, or of both, that the figure speaks of: the smaller number. Of a mean: how many it rests on."""
    note: str = ""
    off: Matrix | None = None
    """Of a calibration error, how far each bin is off: (bins,), and `off_drawn` (bins, resamples)."""
    off_drawn: Matrix | None = None

    def interval(self) -> Interval:
        """By resampling patients."""
        if self.off is not None and self.off_drawn is not None:
            return calibration_interval(self.off, self.off_drawn, self.patients)
        z = widened(self.left_out, self.patients)
        return bca_interval(self.value, self.drawn, self.left_out, self.patients, error=self.name == "brier", z=z)


@dataclass(frozen=True)
class Estimates:
    """All figures of a test part."""

    names: tuple[str, ...]
    """Of the figures, in order."""
    labels: tuple[Label, ...]
    found: dict[tuple[str, str], Estimate]
    """By name and label; a label without the figure is not there."""
    missing: dict[tuple[str, str], str]
    """Why it is not, where another reason than the label's own."""

    def per_label(self, name: str) -> bool:
        """Whether any single label has the figure."""
        return any((name, label.name) in self.found for label in self.labels)


def mask(rows: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """As an array of bool."""
    return np.asarray(rows, dtype=np.bool_)
