"""Two segmentations of the same samples: how far apart in Dice and Jaccard, and whether by more than chance.

From the Dice of each sample, which a result keeps; figures over the pixels of all samples together are not in it, and not
compared. Patients are resampled once for all results. A sample whose mask lacks a class counts for that class where it was
predicted, as in each result's own figure: so with a false alarm of one result it is in its mean and not in the other's, which
is noted.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.evaluation.estimates import MACRO
from embedcache.evaluation.measure import joined
from embedcache.evaluation.paired import Comparison, compare_resampled
from embedcache.evaluation.segmentation import PER_SAMPLE, after_macro, means, supports_of
from embedcache.evaluation.statistics import FEW_PATIENTS, Patients, Resampled, resample
from embedcache.probes.base import Matrix

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Overlap:
    """The figures of one segmentation, with their resamples: macro and by class, flat as `after_macro` has them."""

    value: Matrix
    """(n_figures,); NaN where undefined."""
    resampled: Resampled
    support: list[float]
    """Patients that each figure rests on."""
    defined: BoolArray
    """(n, n_classes): samples that enter a class."""

    @classmethod
    def of(cls, dice: Matrix, held: BoolArray, patients: Patients, resamples: int, seed: int) -> "Overlap":
        """Of the Dice (n, n_classes) of each sample, NaN where undefined; held (n_classes,): whether any mask holds the class."""
        dice = np.where(held, dice, np.nan)
        jaccard = dice / (2 - dice)

        def figures(weights: Matrix) -> Matrix:
            return after_macro(np.stack(means(weights, dice, jaccard), axis=1))

        drawn = resample(figures, patients, resamples, seed)
        defined = ~np.isnan(dice)
        having = [patients.having(column) for column in defined.T]
        return cls(
            figures(np.ones((1, len(dice))))[0], drawn, supports_of(drawn.jackknife, having, held), np.asarray(defined)
        )


def compare_overlaps(
    a: Overlap, b: Overlap, classes: tuple[str, ...], held: BoolArray, patients: Patients
) -> tuple[Comparison, ...]:
    """Every figure of PER_SAMPLE that both have, made by `Overlap.of` with the same resamples and seed."""
    empty = [name for name, there in zip(classes, held.tolist(), strict=True) if not there]
    either, one_alone = a.defined | b.defined, a.defined ^ b.defined
    compared = []
    keys = [(name, label) for name in PER_SAMPLE for label in (MACRO, *classes)]
    for i, (name, label) in enumerate(keys):
        if np.isnan(a.value[i] + b.value[i]):
            continue
        of = slice(None) if label == MACRO else [classes.index(label)]
        rows: BoolArray = np.asarray(either[:, of].any(axis=1))
        alone = int(one_alone[:, of].any(axis=1).sum())
        smaller = min(a.support[i], b.support[i])
        note = joined(
            f"left out as undefined: {', '.join(empty)}" if empty and label == MACRO else "",
            f"in {alone} samples without a mask only one of the two predicts it" if alone else "",
            "few patients" if smaller < FEW_PATIENTS else "",
        )
        compared.append(
            compare_resampled(
                name, label, float(a.value[i]), float(b.value[i]),
                a.resampled.bootstrap[:, i] - b.resampled.bootstrap[:, i],
                a.resampled.jackknife[:, i] - b.resampled.jackknife[:, i],
                smaller, int(rows.sum()), patients.having(rows), note,
            )
        )  # fmt: skip
    return tuple(compared)
