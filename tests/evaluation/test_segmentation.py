"""Dice and Jaccard against their definitions, and against the faults that public evaluation code has."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from embedcache.evaluation.segmentation import FIGURES, Overlaps, confusion, mean_dice, measure_overlap
from embedcache.types import Metric, strings

LUNG = ("lung",)


def counts_of(*pairs: tuple[list[int], list[int]], n_classes: int = 2) -> np.ndarray:
    """(samples, n_classes, n_classes) of (truth, prediction) per sample."""
    return np.stack([confusion(np.array(t), np.array(p), n_classes) for t, p in pairs])


def measured(counts: np.ndarray, classes: tuple[str, ...] = LUNG) -> dict[tuple[str, str], Metric]:
    groups = strings([f"p{i}" for i in range(len(counts))])
    return {(m.name, m.label): m for m in measure_overlap(counts, groups, classes, resamples=50)}


pixels = hnp.arrays(np.uint8, st.integers(1, 60), elements=st.integers(0, 3))


@given(truth=pixels, seed=st.integers(0, 99))
def test_against_scikit_learn(truth: np.ndarray, seed: int) -> None:
    predicted = np.random.default_rng(seed).integers(0, 4, truth.shape)
    counts = confusion(truth, predicted, 4)
    np.testing.assert_array_equal(counts, confusion_matrix(truth, predicted, labels=range(4)))
    overlaps = Overlaps.of(counts)
    there = np.isin([1, 2, 3], np.union1d(truth, predicted))
    dice = f1_score(truth, predicted, labels=[1, 2, 3], average=None, zero_division=0)
    jaccard = jaccard_score(truth, predicted, labels=[1, 2, 3], average=None, zero_division=0)
    np.testing.assert_allclose(overlaps.dice()[there], dice[there])
    np.testing.assert_allclose(overlaps.jaccard()[there], jaccard[there])
    assert np.isnan(overlaps.dice()[~there]).all()


def test_false_positives_cost_in_both_metrics() -> None:
    """Fault 3: with the background ignored, calling everything lung scored 1."""
    found = measured(counts_of(([0, 0, 1, 1], [1, 1, 1, 1])))
    assert found["dice", "lung"].value == pytest.approx(2 / 3)
    assert found["jaccard", "lung"].value == pytest.approx(1 / 2)
    assert found["dice_pooled", "lung"].value == pytest.approx(2 / 3)
    assert found["jaccard_pooled", "lung"].value == pytest.approx(1 / 2)
    assert found["dice_jaccard_mean", "lung"].value == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_ignored_pixels_cost_nothing_whatever_is_predicted_there() -> None:
    truth = np.array([0, 1, 1, 2, 2])
    a, b = (confusion(truth, np.array([0, 1, 0, x, y]), 2) for x, y in ((0, 0), (1, 1)))
    np.testing.assert_array_equal(a, b)
    assert a.sum() == 3


def test_an_empty_mask_with_a_prediction_scores_zero_and_without_one_is_left_out() -> None:
    """Fault 6: what is undefined is neither 0 nor 1, and is said."""
    found = measured(counts_of(([1, 1], [1, 1]), ([0, 0], [0, 1]), ([0, 0], [0, 0])))
    dice = found["dice", "lung"]
    assert dice.value == pytest.approx(1 / 2)
    assert (dice.n, dice.positives, dice.patients) == (2, 1, 2)
    assert "1 samples left out: neither mask nor prediction" in dice.note


def test_a_class_that_is_nowhere_is_undefined_and_left_out_of_the_mean_by_name() -> None:
    found = measured(counts_of(([0, 1], [0, 1]), ([1, 1], [1, 0]), n_classes=3), ("lung", "heart"))
    assert found["dice", "heart"].value is None
    assert "undefined" in found["dice", "heart"].note
    assert found["dice", "macro"].value == found["dice", "lung"].value
    assert "left out as undefined: heart" in found["dice", "macro"].note


def test_heads_and_floors_are_averaged_over_the_classes_of_the_masks() -> None:
    """A head whose false positive lay in a class that no mask holds had a 0 averaged in; one without, nothing."""
    clean, stray = (
        counts_of(([0, 1, 1, 0], [0, 1, 1, third]), ([1, 1, 0, 0], [1, 1, 0, 0]), n_classes=3) for third in (0, 2)
    )
    without, with_stray = (measured(counts, ("lung", "heart")) for counts in (clean, stray))
    for name in FIGURES:
        assert without[name, "macro"].value == with_stray[name, "macro"].value == 1.0
        assert with_stray[name, "heart"].value is None
        assert with_stray[name, "heart"].note == "undefined: in no mask; falsely predicted in 1 samples"
        assert without[name, "heart"].note == "undefined: in no mask and no prediction"
    np.testing.assert_array_equal(mean_dice(np.stack([clean, stray])), [1.0, 1.0])


def test_few_patients_widen_the_interval_of_dice() -> None:
    """With the normal quantile the interval of five patients held the true mean in 82 of 100 samples."""
    held, truth = 0, 2 / 3
    for seed in range(200):
        counts = drawn_counts(np.random.default_rng(seed), 5)
        found = measure_overlap(counts, strings(list("abcde")), LUNG, resamples=300, seed=seed)[1]
        held += found.low <= truth <= found.high
        assert "few patients" in found.note
    assert held >= 175  # it is 92 in 100
    alike = measured(counts_of(*[([1, 1], [1, 1])] * 5))["dice", "lung"]
    assert (alike.low, alike.high, alike.note) == (1.0, 1.0, "no spread: all patients alike; few patients")


def drawn_counts(random: np.random.Generator, patients: int) -> np.ndarray:
    """Of one sample a patient whose Dice is 2/3 on average."""
    dice = random.beta(8, 4, patients)
    both = np.round(1000 * dice).astype(int)
    return np.stack([np.stack([np.full(patients, 5000), 1000 - both], 1), np.stack([1000 - both, both], 1)], 1)


def test_per_sample_and_pooled_differ_as_they_should() -> None:
    """A small sample weighs as much as a large one per sample, and by its pixels when pooled."""
    found = measured(counts_of(([1], [0]), ([1] * 99, [1] * 99)))
    assert found["dice", "lung"].value == pytest.approx(0.5)
    assert found["dice_pooled", "lung"].value == pytest.approx(2 * 99 / (100 + 99))


@given(seed=st.integers(0, 200))
def test_mean_dice_is_the_macro_figure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 3, (5, 3, 3)) * rng.integers(0, 2, (5, 1, 1))
    value = measured(counts, ("a", "b"))["dice", "macro"].value
    assert mean_dice(counts) == pytest.approx(np.nan if value is None else value, nan_ok=True)
    np.testing.assert_array_equal(mean_dice(np.stack([counts, counts])), [mean_dice(counts)] * 2)


def test_intervals_hold_the_value_and_follow_patients_not_samples() -> None:
    rng = np.random.default_rng(0)
    pairs = [
        (t := rng.integers(0, 2, 200), np.where(rng.random(200) < rng.uniform(0.02, 0.4), 1 - t, t)) for _ in range(40)
    ]
    counts = np.stack([confusion(t, p, 2) for t, p in pairs])
    alone = strings([f"p{i}" for i in range(40)])
    (one, *_), (two, *_) = (
        measure_overlap(np.repeat(counts, k, axis=0), np.repeat(alone, k), LUNG, resamples=400) for k in (1, 3)
    )
    for metric in (one, two):
        assert metric.low is not None
        assert metric.low < metric.value < metric.high
    # three copies of each patient's sample are no more evidence
    assert (two.low, two.high) == pytest.approx((one.low, one.high))
    assert two.patients == 40
    assert two.note == ""


def test_names_carry_the_prefix_and_cover_every_figure() -> None:
    found = measure_overlap(counts_of(([1, 0], [1, 0])), strings(["p"]), LUNG, prefix="floor_", resamples=20)
    assert [m.name for m in found] == [f"floor_{name}" for name in FIGURES for _ in range(2)]
    assert all(m.low is None for m in found), "one patient has no interval"
