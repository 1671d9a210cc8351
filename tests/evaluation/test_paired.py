"""Paired tests against the papers' own formulas, and Holm against his."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from embedcache.evaluation.clustered import Clustered
from embedcache.evaluation.holm import best_set, holm
from embedcache.evaluation.metrics import Ranking
from embedcache.evaluation.paired import compare_scores, difference_of, paired_ends, paired_p
from embedcache.evaluation.statistics import Patients
from embedcache.evaluation.thresholds import BeforeRefit


def two_scores(n: int = 240, per_patient: int = 1, gap: float = 0.5, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Labels, two scores (the second worse by `gap`), patients."""
    random = np.random.default_rng(seed)
    patient = np.arange(n) // per_patient
    shared = random.normal(size=n) + random.normal(size=patient.max() + 1)[patient]
    y = (random.random(n) < 0.4).astype(float)
    a = np.round(1.5 * y + shared + 0.5 * random.normal(size=n), 1)
    b = np.round((1.5 - gap) * y + shared + 0.5 * random.normal(size=n), 1)
    return y, a, b, patient


def literal_delong(y: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC of each score and their covariance, as DeLong, DeLong and Clarke-Pearson write it (1988), pair by pair."""
    X, Y = scores[y == 1], scores[y == 0]
    m, n, k = len(X), len(Y), scores.shape[1]
    psi = np.empty((k, m, n))
    for r in range(k):
        for i in range(m):
            for j in range(n):
                psi[r, i, j] = 1.0 if X[i, r] > Y[j, r] else 0.5 if X[i, r] == Y[j, r] else 0.0
    theta = psi.sum(axis=(1, 2)) / (m * n)
    V10, V01 = psi.sum(axis=2) / n, psi.sum(axis=1) / m
    S10, S01 = np.empty((k, k)), np.empty((k, k))
    for r in range(k):
        for s in range(k):
            S10[r, s] = ((V10[r] - theta[r]) * (V10[s] - theta[s])).sum() / (m - 1)
            S01[r, s] = ((V01[r] - theta[r]) * (V01[s] - theta[s])).sum() / (n - 1)
    return theta, S10 / m + S01 / n


def test_one_row_a_patient_is_delongs_test() -> None:
    y, a, b, patient = two_scores(n=90)
    theta, S = literal_delong(y, np.stack([a, b], axis=1))
    parts = difference_of(*(Clustered.of(Ranking.of(y, s), Patients.of(patient)) for s in (a, b)))
    variance = S[0, 0] + S[1, 1] - 2 * S[0, 1]
    np.testing.assert_allclose([parts.value, parts.variance()], [theta[0] - theta[1], variance], rtol=1e-10)
    found = next(c for c in compare_scores(y[:, None], a[:, None], b[:, None], patient, "binary", ("x",), resamples=50)
                 if (c.metric, c.label) == ("auroc", "x"))  # fmt: skip
    np.testing.assert_allclose([found.a, found.b], theta, rtol=1e-12)
    U = parts.influence()
    smaller = int(min((y == 1).sum(), (y == 0).sum()))
    df = min(smaller - 1, 2 / ((U**4).sum() / (U**2).sum() ** 2 - 1 / len(y)))
    z = found.difference / np.sqrt(variance)
    np.testing.assert_allclose(found.p, 2 * student.sf(abs(z), df), rtol=1e-9)
    np.testing.assert_allclose(found.high, found.difference + student.ppf(0.975, df) * np.sqrt(variance), rtol=1e-9)


def test_repeated_rows_are_no_new_evidence() -> None:
    once = two_scores(gap=0.2)
    four = tuple(np.repeat(v, 4) for v in once)
    p = [
        next(c.p for c in compare_scores(y[:, None], a[:, None], b[:, None], patient, "binary", ("x",), resamples=50)
             if (c.metric, c.label) == ("auroc", "x"))
        for y, a, b, patient in (once, four)
    ]  # fmt: skip
    np.testing.assert_allclose(p[1], p[0], rtol=1e-6)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass", "numeric"])
def test_turned_round_everything_is_the_same_and_a_score_with_itself_is_no_different(kind: str) -> None:
    random = np.random.default_rng(4)
    patient = random.integers(0, 80, 240)
    truth = random.normal(size=(240, 1)) if kind == "numeric" else np.eye(3)[random.integers(0, 3, 240)]
    a, b = (truth + random.normal(size=truth.shape) for _ in range(2))
    names = ("value", "value") if kind == "numeric" else ("log-odds", "log-odds")
    classes = tuple("abc")[: truth.shape[1]]
    before = None if kind == "numeric" else tuple(BeforeRefit(truth, s, s) for s in (a, b))

    def compare(one: np.ndarray, other: np.ndarray, both: object) -> tuple:
        return compare_scores(truth, one, other, patient, kind, classes, score_names=names, before=both, resamples=300)

    forth, back = compare(a, b, before), compare(b, a, before and before[::-1])
    assert [(c.metric, c.label) for c in forth] == [(c.metric, c.label) for c in back]
    assert len(forth) >= 4
    for one, other in zip(forth, back, strict=True):
        if one.metric == "calibration_error":
            continue  # never tested
        np.testing.assert_allclose([one.a, one.b, one.p], [other.b, other.a, other.p], rtol=1e-9)
        np.testing.assert_allclose([one.low, one.high], [-other.high, -other.low], rtol=1e-9, atol=1e-12)
        assert one.low <= one.difference + 0.1
        assert 0 < one.p <= 1
    for same in compare(a, a, before and (before[0], before[0])):
        assert (same.difference, same.p) == (0.0, None if same.metric == "calibration_error" else 1.0)


def test_a_clear_difference_is_seen_by_every_figure() -> None:
    y, a, b, patient = two_scores(n=600, per_patient=2, gap=1.4)
    compared = compare_scores(y[:, None], a[:, None], b[:, None], patient, "binary", ("x",), (0.7, 0.7), resamples=1000)
    p = {(c.metric, c.label): c.p for c in compared}
    assert all(p[name, label] < 0.01 for name in ("auroc", "average_precision") for label in ("x", "macro"))
    assert all(c.patients == 300 for c in compared)


def test_labels_that_one_side_lacks_are_left_out_by_name() -> None:
    random = np.random.default_rng(0)
    truth = (random.random((120, 3)) < 0.4).astype(float)
    a, b = random.normal(size=(2, 120, 3))
    b[:, 1] = np.nan
    compared = compare_scores(truth, a, b, np.arange(120), "multilabel", tuple("xyz"), resamples=100)
    assert {c.label for c in compared} == {"macro", "x", "z"}
    assert all(c.note.startswith("left out as undefined: y") for c in compared if c.label == "macro")


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_a_macro_average_over_one_label_has_the_test_of_that_label(kind: str) -> None:
    """They are one number: by a bootstrap of its own the average had p .09 where the class has .03."""
    y, a, b, patient = (v[:, None] for v in two_scores(n=40, per_patient=2, gap=1.0, seed=27))
    names: tuple[str, ...] = ("x",)
    if kind == "multilabel":  # of a second label only one side has scores
        random, names = np.random.default_rng(0), ("x", "y")
        y, a = np.hstack([y, random.integers(0, 2, y.shape)]), np.hstack([a, random.normal(size=a.shape)])
        b = np.hstack([b, np.full(b.shape, np.nan)])
    before = BeforeRefit(y, a, a), BeforeRefit(y, b, b)
    compared = compare_scores(y, a, b, patient[:, 0], kind, names, before=before, resamples=99)
    found = {(c.metric, c.label): c for c in compared}
    tested = {c.metric for c in compared}
    assert {"auroc", "average_precision", "f1", "brier", "calibration_error"} <= tested
    for metric in tested:
        mean, of_label = found[metric, "macro"], found[metric, "x"]
        assert replace(mean, label="x", note="") == replace(of_label, note="")
        assert mean.note == of_label.note + ("; left out as undefined: y" if kind == "multilabel" else "")
        assert mean.note.count("few patients") == 1
    assert found["auroc", "macro"].method == "clustered covariance"
    assert found["auroc", "macro"].p < 0.05


def test_macro_averages_are_over_the_labels_that_both_have_a_threshold_for() -> None:
    """Validation of one result lacks a class of y: its F1 is that of x and z alone, and so is the other's."""
    random = np.random.default_rng(0)
    truth = (random.random((120, 3)) < 0.4).astype(float)
    a, b = truth + random.normal(size=(2, 120, 3))
    lacking = truth.copy()
    lacking[:, 1] = 0
    before = BeforeRefit(truth, a, a), BeforeRefit(lacking, b, b)
    compared = compare_scores(truth, a, b, np.arange(120), "multilabel", tuple("xyz"), before=before, resamples=50)
    found = {(c.metric, c.label): c for c in compared}
    for metric in ("f1", "sensitivity_at_90_specificity", "specificity_at_95_specificity"):
        mean, x, z = (found[metric, label] for label in ("macro", "x", "z"))
        assert (mean.a, mean.b) == (pytest.approx((x.a + z.a) / 2), pytest.approx((x.b + z.b) / 2))
        assert (metric, "y") not in found
        assert mean.note == "left out as undefined: y"
    assert found["auroc", "macro"].note == ""
    xz = [0, 2]
    parts = tuple(
        BeforeRefit(one.validation_truth[:, xz], one.validation_scores[:, xz], one.test_scores[:, xz]) for one in before
    )
    alone = compare_scores(
        truth[:, xz], a[:, xz], b[:, xz], np.arange(120), "multilabel", tuple("xz"), before=parts, resamples=50
    )
    (mean,) = [c for c in alone if (c.metric, c.label) == ("f1", "macro")]
    among = found["f1", "macro"]
    np.testing.assert_allclose([mean.low, mean.high, mean.p], [among.low, among.high, among.p])


def test_without_a_threshold_in_common_no_macro_average_is_compared() -> None:
    random = np.random.default_rng(0)
    truth = (random.random((120, 2)) < 0.4).astype(float)
    a, b = truth + random.normal(size=(2, 120, 2))
    only = [np.where(np.arange(2) == j, truth, 0.0) for j in range(2)]
    before = BeforeRefit(only[0], a, a), BeforeRefit(only[1], b, b)
    compared = compare_scores(truth, a, b, np.arange(120), "multilabel", tuple("xy"), before=before, resamples=50)
    assert "f1" not in {c.metric for c in compared}
    assert {c.label for c in compared if c.metric == "auroc"} == {"macro", "x", "y"}


def test_a_p_value_is_never_zero() -> None:
    assert paired_p(np.full(99, 0.3)) == pytest.approx(0.02)
    assert paired_p(np.array([-1.0, 1.0] * 50)) == 1
    assert paired_p(np.full(99, 0.3), df=20.0) > 0.02


@pytest.mark.parametrize("patients", [8, 120])
def test_a_scorer_that_ties_everywhere_is_beaten_by_one_that_has_all_in_order(patients: int) -> None:
    """Their difference is one half in every resample: no spread, and yet no doubt."""
    truth = np.eye(2)[np.arange(patients) % 2]
    perfect, constant = truth.copy(), np.zeros_like(truth)
    compared = compare_scores(truth, perfect, constant, np.arange(patients), "multilabel", ("x", "y"), resamples=499)
    found = {(c.metric, c.label): c for c in compared}
    for label in ("x", "macro"):
        one = found["auroc", label]
        assert (one.a, one.b, one.difference) == (1.0, 0.5, 0.5)
        assert one.note.startswith("no spread: a sign test over patients")
        # half of the patients are in each class, and all of them say the same: 2 / 2**n; no less than the resamples can show
        exact = 2 * 0.5 ** (patients / 2)
        assert one.p == pytest.approx(max(exact, 2 / 500) if label == "macro" else exact)
    turned = compare_scores(truth, constant, perfect, np.arange(patients), "multilabel", ("x", "y"), resamples=499)
    assert [c.p for c in turned] == [c.p for c in compared]
    p = np.array([[np.nan, found["auroc", "x"].p], [np.nan] * 2])
    assert best_set(("perfect", "constant"), [1.0, 0.5], p) == (
        ("perfect",) if patients > 8 else ("perfect", "constant")
    )


def test_calibration_errors_are_not_tested() -> None:
    """A score of two levels and one without ties, both calibrated to perfection: ties alone made the first the better one."""
    random = np.random.default_rng(0)
    chance = random.random(2000)
    y = (random.random(2000) < chance).astype(float)[:, None]
    levels = np.where(chance < 0.5, 0.25, 0.75)
    compared = compare_scores(
        y, levels[:, None], chance[:, None], np.arange(2000), "binary", ("x",), (0.5, 0.5), ("probability",) * 2,
        resamples=200,
    )  # fmt: skip
    found = [c for c in compared if c.metric == "calibration_error"]
    assert [c.label for c in found] == ["macro", "x"]
    for c in found:
        assert (c.p, c.low, c.high, c.method) == (None, None, None, "")
        assert c.a < c.b
        assert "not tested: " in c.note


def test_a_rare_class_is_named_where_balanced_accuracies_are_compared() -> None:
    random = np.random.default_rng(0)
    truth = np.eye(3)[np.repeat([0, 1, 2], [3, 60, 60])]
    a, b = (truth + random.normal(size=truth.shape) for _ in range(2))
    found = {c.metric: c for c in compare_scores(truth, a, b, np.arange(123), "multiclass", tuple("abc"), resamples=100)
             if c.label == "all"}  # fmt: skip
    assert "few patients in a" in found["balanced_accuracy"].note
    assert found["accuracy"].note == ""


@pytest.mark.parametrize("k", [2, 3, 4, 12])
def test_an_interval_and_its_p_value_agree_with_few_patients(k: int) -> None:
    """Ends that stopped at the last resample left 0 out where p was far from 5%: of two patients in half of all nulls."""
    random = np.random.default_rng(k)
    df, stretch, rejected = k - 1.0, np.sqrt(k / (k - 1)), 0
    for shift in [0.0] * 200 + [1.5] * 50:
        each = random.normal(size=k)
        drawn = random.multinomial(k, np.full(k, 1 / k), size=999) @ (each + shift) / k
        value = float(each.mean() + shift)
        low, high = paired_ends(drawn, value, float(student.ppf(0.975, df)) * stretch)
        p = paired_p(drawn, df, stretch, value)
        assert 2 / 1000 <= p <= 1
        if abs(p - 0.05) > 0.004:  # a step of one resample
            assert (p < 0.05) == (low > 0 or high < 0)
        rejected += p < 0.05 and shift == 0
    assert rejected <= 22  # 5% of 200 are 10, four standard deviations 12.3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_his_procedure(p: list[float]) -> None:
    """Step down: the smallest is compared with alpha / m, the next with alpha / (m - 1); stop at the first that fails."""
    adjusted = holm(p)
    m = len(p)
    literal, worst = np.empty(m), 0.0
    for rank, i in enumerate(sorted(range(m), key=lambda i: p[i])):
        worst = max(worst, (m - rank) * p[i])
        literal[i] = min(1.0, worst)
    np.testing.assert_array_equal(adjusted, literal)
    with_missing = holm([*p, np.nan])
    np.testing.assert_array_equal(with_missing[:-1], adjusted)
    assert np.isnan(with_missing[-1])


def test_the_best_is_a_set() -> None:
    names = ("a", "b", "c", "d")
    p = np.array([[np.nan, 0.5, 0.001, 0.001], [0] * 2 + [0.02, 0.001], [0] * 3 + [0.2], [0] * 4])
    # b against c: 0.02 x 3 pairs left is above .05, so c is beaten by a alone.
    assert best_set(names, [0.9, 0.89, 0.8, 0.7], p) == ("a", "b")
    assert best_set(names, [0.9, 0.89, 0.8, 0.7], p, higher_is_better=False) == ("c", "d")
    assert best_set(names, [0.9, np.nan, 0.8, 0.7], np.full((4, 4), 0.9)) == ("a", "c", "d")
    assert best_set(("a",), [0.1], [[np.nan]]) == ("a",)
