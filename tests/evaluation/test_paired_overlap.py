"""Segmentations against each other, on made-up Dice of samples."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from embedcache.evaluation.paired import Comparison
from embedcache.evaluation.paired_overlap import Overlap, compare_overlaps
from embedcache.evaluation.statistics import Patients

CLASSES = ("organ", "tumour")


def compared(a: np.ndarray, b: np.ndarray, held: np.ndarray, groups: np.ndarray) -> dict[tuple[str, str], Comparison]:
    patients = Patients.of(groups)
    made = [Overlap.of(dice, held, patients, 2000, 0) for dice in (a, b)]
    return {(c.metric, c.label): c for c in compare_overlaps(*made, CLASSES, held, patients)}


def test_with_one_sample_a_patient_the_test_is_nearly_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    a = rng.beta(8, 3, (60, 2))
    b = np.clip(a + rng.normal(-0.02, 0.07, a.shape), 0, 1)
    found = compared(a, b, np.array([True, True]), np.arange(60).astype(str))
    for j, name in enumerate(CLASSES):
        pair, theirs = found["dice", name], ttest_rel(a[:, j], b[:, j])
        assert pair.difference == pytest.approx(a[:, j].mean() - b[:, j].mean())
        low, high = theirs.confidence_interval()
        assert (pair.low, pair.high) == (pytest.approx(low, abs=0.003), pytest.approx(high, abs=0.003))
        assert pair.p == pytest.approx(theirs.pvalue, abs=0.03)
        assert (pair.n, pair.patients, pair.note) == (60, 60, "")
    assert found["dice", "macro"].difference == pytest.approx(a.mean() - b.mean())
    assert found["jaccard", "organ"].a == pytest.approx((a[:, 0] / (2 - a[:, 0])).mean())


def test_samples_of_one_patient_are_drawn_together() -> None:
    rng = np.random.default_rng(1)
    shift = np.repeat(rng.normal(0, 0.1, 40), 10)[:, None]
    a = np.full((400, 2), 0.5)
    by_patient = compared(a, a + shift, np.array([True, True]), np.repeat(np.arange(40), 10).astype(str))
    alone = compared(a, a + shift, np.array([True, True]), np.arange(400).astype(str))
    widths = [found["dice", "organ"].high - found["dice", "organ"].low for found in (by_patient, alone)]
    assert widths[0] > 2.5 * widths[1]


def test_false_alarms_of_one_are_told_and_a_class_without_masks_is_left_out() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.beta(8, 3, (2, 50, 2))
    a[:5, 0] = np.nan  # neither mask nor prediction
    b[:5, 0] = 0.0  # predicted where there is no mask
    a[:, 1] = np.nan
    b[:, 1] = 0.0
    found = compared(a, b, np.array([True, False]), np.arange(50).astype(str))
    assert ("dice", "tumour") not in found
    organ, macro = found["dice", "organ"], found["dice", "macro"]
    assert (organ.a, organ.b) == (pytest.approx(a[5:, 0].mean()), pytest.approx(b[:, 0].mean()))
    assert organ.n == 50
    assert organ.note == "in 5 samples without a mask only one of the two predicts it"
    assert macro.difference == pytest.approx(organ.difference)
    assert macro.note.startswith("left out as undefined: tumour")
