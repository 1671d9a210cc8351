"""The figures of a result against scikit-learn and scipy; their intervals against the same figures on repeated rows."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
)

from embedcache.evaluation.bootstrap import Draws
from embedcache.evaluation.calibration import calibration_error
from embedcache.evaluation.estimating import estimate
from embedcache.evaluation.measure import measure
from embedcache.evaluation.metrics import HIGHER_IS_BETTER
from embedcache.evaluation.regression import value_figures
from embedcache.evaluation.statistics import Patients
from embedcache.evaluation.thresholds import BeforeRefit, f1_threshold, specificity_threshold
from embedcache.types import Metric

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def by_name(metrics: tuple[Metric, ...]) -> dict[tuple[str, str], Metric]:
    return {(m.name, m.label): m for m in metrics}


def multilabel(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, BeforeRefit]:
    """Three labels, one row in ten without the first, log-odds with ties, patients, and the model before its refit."""
    random = np.random.default_rng(seed)
    patient = np.sort(random.integers(0, n // 3, n))
    truth = (random.random((n, 3)) < (0.3, 0.5, 0.2)).astype(float)
    scores = np.round(2 * truth - 1 + random.normal(size=(n, 3)), 1)
    truth[random.random(n) < 0.1, 0] = np.nan
    validation = (random.random((200, 3)) < 0.3).astype(float)
    before = BeforeRefit(validation, validation + random.normal(size=(200, 3)), scores + 0.3)
    return truth, scores, patient, before


def test_every_figure_of_a_multilabel_task_is_scikit_learns() -> None:
    truth, scores, patient, before = multilabel()
    found = by_name(measure(truth, scores, patient, "multilabel", tuple("abc"), 0.0, before=before, resamples=100))
    for j, label in enumerate("abc"):
        known = ~np.isnan(truth[:, j])
        y, s, chance = truth[known, j], scores[known, j], expit(scores[known, j])
        v, vs, test = before.validation_truth[:, j], before.validation_scores[:, j], before.test_scores[known, j]
        best, at = f1_threshold(v, vs), [specificity_threshold(v, vs, q) for q in (0.90, 0.95)]
        expected = {
            "auroc": roc_auc_score(y, s),
            "average_precision": average_precision_score(y, s),
            "accuracy": accuracy_score(y, s > 0),
            "balanced_accuracy": balanced_accuracy_score(y, s > 0),
            "f1": f1_score(y, test > best),
            "brier": brier_score_loss(y, chance),
            "calibration_error": calibration_error(y, chance),
            **{f"sensitivity_at_{n}_specificity": (test[y == 1] > t).mean() for n, t in zip((90, 95), at, strict=True)},
            **{
                f"specificity_at_{n}_specificity": (test[y == 0] <= t).mean() for n, t in zip((90, 95), at, strict=True)
            },
        }
        for name, value in expected.items():
            np.testing.assert_allclose(found[name, label].value, value, err_msg=name, **EXACT)
            assert found[name, label].n == known.sum()
    names = {name for name, _ in found}
    assert names <= set(HIGHER_IS_BETTER)
    assert {name for name in HIGHER_IS_BETTER if not HIGHER_IS_BETTER[name]} <= {"brier", "calibration_error", "mae"}
    for name in names:
        mean = np.mean([found[name, label].value for label in "abc"])
        np.testing.assert_allclose(found[name, "macro"].value, mean, **EXACT)
    for m in found.values():
        assert m.low is not None
        assert m.high is not None
        # A calibration error's interval lies below it where chance alone may have made it.
        assert m.low <= m.value <= m.high or m.name == "calibration_error"
    assert "model before the refit" in found["f1", "a"].note


def test_without_the_model_before_its_refit_no_threshold_is_chosen() -> None:
    truth, scores, patient, _ = multilabel()
    names = {m.name for m in measure(truth, scores, patient, "multilabel", tuple("abc"), 0.0, resamples=50)}
    assert names == {"auroc", "average_precision", "accuracy", "balanced_accuracy", "brier", "calibration_error"}


def test_a_multiclass_task_is_scikit_learns() -> None:
    random = np.random.default_rng(1)
    number = random.integers(0, 3, 300)
    truth, odds = np.eye(3)[number], random.normal(size=(300, 3)) + 1.5 * np.eye(3)[number]
    chance = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    found = by_name(
        measure(
            truth, np.log(chance), random.integers(0, 90, 300), "multiclass", tuple("abc"), 0.0,
            score_name="log-probability", before=BeforeRefit(truth, odds, odds), resamples=100,
        )
    )  # fmt: skip
    chosen = chance.argmax(axis=1)
    expected = {
        ("accuracy", "all"): accuracy_score(number, chosen),
        ("balanced_accuracy", "all"): balanced_accuracy_score(number, chosen),
        ("f1", "macro"): f1_score(number, chosen, average="macro"),
        ("f1", "b"): f1_score(number == 1, chosen == 1),
        ("brier", "all"): ((chance - truth) ** 2).sum(axis=1).mean(),
        ("brier", "c"): brier_score_loss(number == 2, chance[:, 2]),
        ("calibration_error", "all"): calibration_error((number == chosen).astype(float), chance.max(axis=1)),
        ("calibration_error", "a"): calibration_error(truth[:, 0], chance[:, 0]),
        ("auroc", "macro"): roc_auc_score(number, chance, multi_class="ovr"),
    }
    for key, value in expected.items():
        np.testing.assert_allclose(found[key].value, value, err_msg=str(key), **EXACT)
    assert ("brier", "macro") not in found
    assert ("accuracy", "a") not in found
    assert ("sensitivity_at_90_specificity", "macro") in found


def test_resamples_are_the_figures_of_repeated_rows() -> None:
    """Every figure, drawn and with a patient left out, against the figure of the rows themselves."""
    truth, scores, patient, before = multilabel(150, seed=3)
    patients = Patients.of(patient)
    arguments = "multilabel", tuple("abc"), 0.0, "log-odds"
    whole = estimate(truth, scores, patients, *arguments, before, 4, 9)
    draws = Draws.of_block(patients.count, 4, 9, 0)
    rows = [np.repeat(np.arange(150), draws.count[patients.code, r]) for r in range(4)]
    rows += [np.flatnonzero(patients.code != c) for c in range(3)]
    for r, kept in enumerate(rows):
        part = BeforeRefit(before.validation_truth, before.validation_scores, before.test_scores[kept])
        again = estimate(truth[kept], scores[kept], Patients.of(patient[kept]), *arguments, part, 1, 0)
        for key, e in whole.found.items():
            if key[0] != "calibration_error":  # its bins are cut once, on all rows
                drawn = e.drawn[r] if r < 4 else e.left_out[r - 4]
                np.testing.assert_allclose(drawn, again.found[key].value, err_msg=str(key), **EXACT)


def test_a_label_without_a_threshold_is_named() -> None:
    truth, scores, patient, before = multilabel()
    validation = before.validation_truth.copy()
    validation[:, 1] = 0
    lacking = BeforeRefit(validation, before.validation_scores, before.test_scores)
    found = by_name(measure(truth, scores, patient, "multilabel", tuple("abc"), 0.0, before=lacking, resamples=50))
    assert found["f1", "b"].value is None
    assert found["f1", "b"].note == "undefined: no threshold, since validation lacks a class"
    assert "left out as undefined: b" in found["sensitivity_at_90_specificity", "macro"].note
    assert found["auroc", "b"].value is not None
    np.testing.assert_allclose(found["f1", "macro"].value, (found["f1", "a"].value + found["f1", "c"].value) / 2)


def test_scores_of_the_refitted_model_meet_no_threshold_of_another() -> None:
    """F1 and sensitivity depend on the earlier model's test scores alone."""
    truth, scores, patient, before = multilabel()
    bent = np.where(scores > 0, scores + 3, scores)
    first, second = (
        by_name(measure(truth, s, patient, "multilabel", tuple("abc"), 0.0, before=before, resamples=50))
        for s in (scores, bent)
    )
    same = [key for key in first if key[0] == "f1" or "specificity" in key[0]]
    assert all(first[key] == second[key] for key in same)
    assert first["brier", "a"] != second["brier", "a"]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "numeric"])
def test_one_patient_and_one_row_are_no_error(kind: str) -> None:
    truth = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])[:, : 2 if kind == "multiclass" else 1]
    classes = ("a", "b")[: truth.shape[1]]
    for rows in (3, 1):
        for m in measure(truth[:rows], truth[:rows] * 0.5, np.zeros(rows), kind, classes, 0.0, resamples=20,
                         score_name="value" if kind == "numeric" else "log-odds"):  # fmt: skip
            assert m.low is None
            assert m.note


def numeric(n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    patient = random.integers(0, 80, n)
    y = np.round(60 + 10 * random.normal(size=n), 0)
    return y, np.round(y + 8 * random.normal(size=n), 0), patient


def test_numeric_figures_are_scikit_learns_and_scipys() -> None:
    y, prediction, patient = numeric()
    with_missing = np.append(y, np.nan), np.append(prediction, 3.0), np.append(patient, 0)
    found = by_name(
        measure(
            with_missing[0][:, None], with_missing[1][:, None], with_missing[2], "numeric", ("age",), 0.0,
            score_name="value", resamples=200,
        )
    )  # fmt: skip
    expected = {
        "r2": r2_score(y, prediction),
        "mae": mean_absolute_error(y, prediction),
        "pearson": pearsonr(y, prediction).statistic,
        "spearman": spearmanr(y, prediction).statistic,
    }
    assert {name for name, _ in found} == set(expected)
    for name, value in expected.items():
        m = found[name, "age"]
        np.testing.assert_allclose(m.value, value, rtol=1e-11)
        assert m.low < m.value < m.high
        assert (m.n, m.patients, m.note) == (300, len(np.unique(patient)), "")


def test_numeric_resamples_are_those_of_repeated_rows() -> None:
    y, prediction, patient = numeric()
    patients = Patients.of(patient)
    draws = Draws.of_block(patients.count, 3, 0, 0)
    sums, ranks = value_figures(y, prediction, patients)
    drawn = np.concatenate([sums.figures(draws), ranks.figures(draws)])
    for r in range(3):
        w = draws.count[patients.code, r]
        a, b = np.repeat(y, w), np.repeat(prediction, w)
        expected = r2_score(a, b), mean_absolute_error(a, b), pearsonr(a, b).statistic, spearmanr(a, b).statistic
        np.testing.assert_allclose(drawn[:, r], expected, rtol=1e-11)
    out = patients.code != 0
    np.testing.assert_allclose(sums.left_out()[0, 0], r2_score(y[out], prediction[out]), rtol=1e-11)


def test_a_constant_target_or_prediction_is_said() -> None:
    y, prediction, patient = numeric()
    flat = np.full_like(y, 60.0)
    target, predicted = (
        by_name(measure(a[:, None], b[:, None], patient, "numeric", ("age",), 0.0, score_name="value", resamples=50))
        for a, b in ((flat, prediction), (y, flat))
    )
    assert target["r2", "age"].note == target["spearman", "age"].note == "undefined: the target is constant"
    assert (
        predicted["pearson", "age"].note == predicted["spearman", "age"].note == "undefined: the prediction is constant"
    )
    np.testing.assert_allclose(predicted["r2", "age"].value, r2_score(y, flat), rtol=1e-9)
    nothing = measure(np.full((3, 1), np.nan), np.zeros((3, 1)), np.arange(3), "numeric", ("age",), 0.0)
    assert all(m.value is None and m.note for m in nothing)


def test_a_score_that_is_no_probability_has_no_brier_score() -> None:
    """A margin or a distance ranks and decides, and says nothing of how likely."""
    random = np.random.default_rng(0)
    truth = (random.random((80, 2)) < 0.4).astype(float)
    scores = truth + random.normal(size=(80, 2))
    patient = np.array([f"p{i // 2}" for i in range(80)])
    asked = {"resamples": 50, "before": BeforeRefit(truth, scores, scores)}
    odds = measure(truth, scores, patient, "multilabel", ("a", "b"), 0.5, score_name="log-odds", **asked)
    margin = measure(truth, scores, patient, "multilabel", ("a", "b"), 0.5, score_name="distance", **asked)
    assert margin == tuple(m for m in odds if m.name not in ("brier", "calibration_error"))


def test_balanced_accuracy_knows_the_rarest_class() -> None:
    """Its interval counted all patients as its support: with three in a class it held the truth in 79 of 100 samples."""
    classes = np.repeat([0, 1, 2], [3, 60, 60])
    truth = np.eye(3)[classes]
    held = 0
    for seed in range(60):
        scores = np.random.default_rng(seed).normal(size=(len(classes), 3)) + 1.2 * truth
        found = by_name(
            measure(
                truth, scores, np.arange(len(classes)), "multiclass", tuple("abc"), 0.0, score_name="log-probability",
                resamples=200, seed=seed,
            )
        )  # fmt: skip
        balanced = found["balanced_accuracy", "all"]
        held += balanced.low <= 0.690 <= balanced.high  # P(a normal + 1.2 is the largest of three)
        assert "few patients in a" in balanced.note
        assert "few patients" not in found["accuracy", "all"].note
    assert held >= 55
    with_absent = np.column_stack([truth, np.zeros(len(truth))])
    four = np.column_stack([scores, np.full(len(scores), -9.0)])
    found = by_name(
        measure(
            with_absent, four, np.arange(len(four)), "multiclass", tuple("abcd"), 0.0, score_name="log-probability",
            resamples=50,
        )
    )  # fmt: skip
    assert found["balanced_accuracy", "all"].value == pytest.approx(balanced.value)
    assert "left out as undefined: d; few patients in a" in found["balanced_accuracy", "all"].note


def test_the_macro_of_one_label_twice_is_that_label() -> None:
    """Its calibration error's interval too, whose bins are those of both."""
    random = np.random.default_rng(0)
    score = random.normal(size=(300, 1))
    truth = (random.random((300, 1)) < expit(2 * score)).astype(float)
    found = measure(
        np.tile(truth, 2), np.tile(score, 2), np.arange(300), "multilabel", ("a", "b"), 0.0, score_name="log-odds"
    )
    of = {(m.name, m.label): m for m in found}
    macro, one = of["calibration_error", "macro"], of["calibration_error", "a"]
    assert macro.value == pytest.approx(one.value)
    assert (macro.low, macro.high) == pytest.approx((one.low, one.high))
