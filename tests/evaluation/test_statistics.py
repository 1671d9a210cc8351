import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest, bootstrap
from scipy.stats import t as student

from embedcache.evaluation.clustered import Clustered, auroc_interval, macro_auroc_interval
from embedcache.evaluation.measure import measure
from embedcache.evaluation.metrics import Ranking, accuracy
from embedcache.evaluation.statistics import (
    EXACT,
    Patients,
    bca_interval,
    degrees_of_freedom,
    fisher_interval,
    patients_together,
    resample,
    widened,
    wilson_interval,
)


def clustered_data(n: int = 120, per_patient: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores that share a patient's own shift, and patients; a few scores tie."""
    random = np.random.default_rng(seed)
    patient = np.arange(n) // per_patient
    shift = random.normal(size=patient.max() + 1)[patient]
    y = (random.random(n) < 0.4).astype(float)
    score = np.round(y + shift + random.normal(size=n), 1)
    return y, score, np.array([f"p{i:03d}" for i in patient])


def literal_obuchowski(y: np.ndarray, score: np.ndarray, patient: np.ndarray) -> float:
    """The variance as the paper writes it, pair by pair and cluster by cluster."""
    X, Y = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    kernel = np.array([[float(score[i] > score[j]) + 0.5 * (score[i] == score[j]) for j in Y] for i in X])
    theta = kernel.mean()
    V10, V01 = kernel.mean(axis=1), kernel.mean(axis=0)
    clusters = np.unique(patient)
    a = np.array([(V10[patient[X] == c] - theta).sum() for c in clusters])
    b = np.array([(V01[patient[Y] == c] - theta).sum() for c in clusters])
    K, I10, I01 = len(clusters), len(np.unique(patient[X])), len(np.unique(patient[Y]))
    S10 = I10 / ((I10 - 1) * len(X)) * (a**2).sum()
    S01 = I01 / ((I01 - 1) * len(Y)) * (b**2).sum()
    S11 = K / (K - 1) * (a * b).sum()
    return S10 / len(X) + S01 / len(Y) + 2 * S11 / (len(X) * len(Y))


def literal_degrees(kernel: np.ndarray) -> float:
    """Satterthwaite's, of a sum of squares over independent rows: 2 / (sum of fourth powers / squared sum of squares - 1/k)."""
    m, n = kernel.shape
    parts = ((kernel.mean(1) - kernel.mean(), m), (kernel.mean(0) - kernel.mean(), n))
    U = np.concatenate([part / np.sqrt(count * (count - 1)) for part, count in parts])
    return float(min(min(m, n) - 1, 2 / ((U**4).sum() / (U**2).sum() ** 2 - 1 / (m + n))))


@pytest.mark.parametrize("per_patient", [1, 3, 7])
def test_variance_is_obuchowskis(per_patient: int) -> None:
    y, score, patient = clustered_data(per_patient=per_patient)
    parts = Clustered.of(Ranking.of(y, score), Patients.of(patient))
    np.testing.assert_allclose(parts.variance(), literal_obuchowski(y, score, patient), rtol=1e-10)


def test_variance_is_delongs_when_each_patient_has_one_sample() -> None:
    y, score, _ = clustered_data()
    alone = np.array([f"p{i:03d}" for i in range(len(y))])
    kernel = (score[y == 1][:, None] > score[y == 0]) + 0.5 * (score[y == 1][:, None] == score[y == 0])
    delong = kernel.mean(1).var(ddof=1) / (y == 1).sum() + kernel.mean(0).var(ddof=1) / (y == 0).sum()
    parts = Clustered.of(Ranking.of(y, score), Patients.of(alone))
    np.testing.assert_allclose(parts.variance(), delong, rtol=1e-10)
    interval = auroc_interval(Ranking.of(y, score), Patients.of(alone))
    theta = kernel.mean()
    half = student.ppf(0.975, literal_degrees(kernel)) * np.sqrt(delong) / (theta * (1 - theta))
    np.testing.assert_allclose([interval.low, interval.high], expit(logit(theta) + np.array([-half, half])), rtol=1e-10)


def test_patients_with_many_alike_samples_widen_the_interval() -> None:
    """Every row four times is no new evidence: the clustered interval stays nearly, the naive one halves."""
    y, score, patient = clustered_data(per_patient=1)
    once = auroc_interval(Ranking.of(y, score), Patients.of(patient))
    y4, s4, p4 = np.repeat(y, 4), np.repeat(score, 4), np.repeat(patient, 4)
    four = auroc_interval(Ranking.of(y4, s4), Patients.of(p4))
    naive = auroc_interval(Ranking.of(y4, s4), Patients.of(np.arange(len(y4)).astype(str)))
    width = [i.high - i.low for i in (once, four, naive)]  # type: ignore[operator]
    np.testing.assert_allclose(width[1], width[0], rtol=1e-9)
    assert width[2] < 0.6 * width[0]


def test_macro_interval_of_equal_labels_is_the_labels_own() -> None:
    """Three copies of one label average to it; independent labels would have a third of the variance."""
    y, score, patient = clustered_data(per_patient=1)
    patients = Patients.of(patient)
    ranking = Ranking.of(y, score)
    one, three = auroc_interval(ranking, patients), macro_auroc_interval([ranking] * 3, patients)
    np.testing.assert_allclose([three.low, three.high], [one.low, one.high], rtol=1e-9)


def test_macro_interval_agrees_with_a_bootstrap_over_patients() -> None:
    random = np.random.default_rng(3)
    y, score, patient = clustered_data(n=600, per_patient=3)
    second = (random.random(600) < 0.3).astype(float)
    other = second + 0.7 * score + random.normal(size=600)
    patients = Patients.of(patient)
    rankings = [Ranking.of(y, score), Ranking.of(second, other)]
    interval = macro_auroc_interval(rankings, patients)
    drawn = resample(lambda w: np.stack([r.auroc(w) for r in rankings], axis=-1).mean(-1)[:, None], patients, 2000, 0)
    low, high = np.quantile(drawn.bootstrap, [0.025, 0.975])
    # Quantiles of 2,000 draws have a standard error of about 4% of the width, the two methods differ by O(1/patients).
    width = high - low
    np.testing.assert_allclose([interval.low, interval.high], [low, high], atol=0.12 * width)


def test_a_rare_label_does_not_blow_up_the_macro_interval() -> None:
    """Equal labels rest on as many patients as each; one whose variance is small hardly counts."""
    assert patients_together(np.array([1.0, 1.0]), [21, 21]) == 21
    assert patients_together(np.array([1.0, 1e-9]), [101, 2]) == pytest.approx(101, rel=1e-6)
    assert patients_together(np.array([1.0, 5.0]), [101, 1]) == pytest.approx(101)
    assert patients_together(np.array([5.0]), [1]) == 1
    assert patients_together(np.array([0.0, 0.0]), [9, 7]) == 7


@pytest.mark.parametrize("order", [1.0, -1.0])
def test_perfect_separation_has_an_exact_interval(order: float) -> None:
    """12 positive patients all above 30 negative ones: the lower bound is that of 12 successes of 12."""
    y = np.repeat([1.0, 0.0], [12, 30])
    interval = auroc_interval(Ranking.of(y, order * y), Patients.of(np.arange(42).astype(str)))
    bound = binomtest(12, 12).proportion_ci(0.95, "exact").low
    expected = (bound, 1.0) if order > 0 else (0.0, 1 - bound)
    np.testing.assert_allclose([interval.low, interval.high], expected, rtol=1e-9)
    assert interval.method == EXACT


def test_one_patient_in_a_class_has_no_interval_and_says_so() -> None:
    y, score = np.array([1.0, 1, 0, 0, 0]), np.array([3.0, 1, 2, 0, 1])
    interval = auroc_interval(Ranking.of(y, score), Patients.of(["a", "a", "b", "c", "d"]))
    assert (interval.low, interval.high) == (None, None)
    assert "one patient" in interval.note


def test_scores_that_all_tie_keep_one_half() -> None:
    y = np.repeat([1.0, 0.0], 20)
    interval = auroc_interval(Ranking.of(y, np.zeros(40)), Patients.of(np.arange(40).astype(str)))
    assert (interval.low, interval.high) == (0.5, 0.5)
    assert "tie" in interval.note


@pytest.mark.parametrize("figure", ["average_precision", "accuracy"])
def test_bca_is_scipys_when_samples_are_independent(figure: str) -> None:
    random = np.random.default_rng(5)
    n = 90
    y = (random.random(n) < 0.4).astype(float)
    score = y + 1.3 * random.normal(size=n)
    right = ((score > 0.5) == (y == 1)).astype(float)
    patients = Patients.of(np.arange(n).astype(str))
    ranking = Ranking.of(y, score)

    def ours(w: np.ndarray) -> np.ndarray:
        return (ranking.average_precision(w) if figure == "average_precision" else accuracy(right, w))[:, None]

    def theirs(rows: np.ndarray) -> float:
        i = rows.astype(int)
        if figure == "accuracy":
            return float(right[i].mean())
        return float(Ranking.of(y[i], score[i]).average_precision())

    drawn = resample(ours, patients, 4000, 0)
    value = float(ours(np.ones((1, n)))[0, 0])
    found = bca_interval(value, drawn.bootstrap[:, 0], drawn.jackknife[:, 0], n)
    result = bootstrap(
        (np.arange(n, dtype=float),), theirs, n_resamples=4000, vectorized=False, method="BCa", rng=random
    )
    low, high = result.confidence_interval
    # Each end of an interval from 4,000 draws has a Monte-Carlo error of about 2.5% of the width; BCa doubles it in the tail.
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=0.1 * (high - low))
    # On scipy's own draws nothing is left to chance.
    same = bca_interval(value, result.bootstrap_distribution, drawn.jackknife[:, 0], n)
    np.testing.assert_allclose([same.low, same.high], [low, high], rtol=1e-9)


def test_wilson_is_wilsons_of_the_rows_that_patients_are_worth() -> None:
    """One row a patient: n - 1, by the unbiased variance. Every row four times: the same but for the patients' factor."""
    hits = np.repeat([1.0, 0.0], [12, 40])
    alone, four = wilson_interval(hits, np.ones(52)), wilson_interval(4 * hits, np.full(52, 4.0))
    z, n, p = student.ppf(0.975, 1e9), 51, 12 / 52
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = (centre + np.array([-half, half])) / (1 + z**2 / n)
    np.testing.assert_allclose([alone.low, alone.high], expected, rtol=1e-7)
    np.testing.assert_allclose([four.low, four.high], expected, rtol=1e-7)
    assert wilson_interval(np.zeros(20), np.ones(20)).method == EXACT
    assert wilson_interval(np.ones(1), np.full(1, 9.0)).low is None


def test_fishers_interval_is_the_textbooks_where_rows_are_independent() -> None:
    """The standard deviation of atanh(r) is 1 / sqrt(n - 3)."""
    random = np.random.default_rng(0)
    n, r = 103, 0.6
    drawn = np.tanh(np.arctanh(r) + random.normal(size=20_000) / np.sqrt(n - 3))
    found = fisher_interval(r, drawn, 10**6)
    np.testing.assert_allclose([found.low, found.high], np.tanh(np.arctanh(r) + np.array([-0.196, 0.196])), atol=4e-3)
    assert fisher_interval(1.0, np.ones(9), 5).note.startswith("no spread")


def test_everything_right_has_an_exact_interval() -> None:
    y = np.repeat([1.0, 0.0], 25)[:, None]
    metrics = measure(y, y - 0.5, np.arange(50).astype(str), "binary", ("yes",), 0.0, resamples=50)
    found = next(m for m in metrics if m.name == "accuracy")
    np.testing.assert_allclose(found.low, binomtest(50, 50).proportion_ci(0.95, "exact").low, rtol=1e-9)
    assert (found.value, found.high) == (1.0, 1.0)


def test_measure_depends_on_neither_order_nor_run() -> None:
    """The same patients in another order, and again: the same figures and intervals to the last bit but for sums."""
    y, score, patient = clustered_data()
    again = np.random.default_rng(1).permutation(len(y))
    options = {"resamples": 200, "seed": 4}
    first = measure(y[:, None], score[:, None], patient, "binary", ("yes",), 0.5, **options)
    second = measure(y[again, None], score[again, None], patient[again], "binary", ("yes",), 0.5, **options)
    other = measure(y[:, None], score[:, None], patient, "binary", ("yes",), 0.5, resamples=200, seed=5)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose([a.value, a.low, a.high], [b.value, b.low, b.high], rtol=1e-9)
    assert [m.low for m in other] != [m.low for m in first]


def test_few_patients_are_marked() -> None:
    y, score, patient = clustered_data(n=240, per_patient=2)
    many = measure(y[:, None], score[:, None], patient, "binary", ("yes",), 0.5, resamples=50)
    few = measure(y[:40, None], score[:40, None], patient[:40], "binary", ("yes",), 0.5, resamples=50)
    assert not any("few patients" in m.note for m in many)
    assert all("few patients" in m.note for m in few)


def test_undefined_labels_are_named_and_left_out() -> None:
    random = np.random.default_rng(0)
    truth = (random.random((80, 3)) < 0.5).astype(float)
    truth[:, 1] = 0
    scores = random.normal(size=(80, 3))
    scores[:, 2] = np.nan
    metrics = {(m.name, m.label): m for m in measure(
        truth, scores, np.arange(80).astype(str), "multilabel", ("a", "b", "c"), 0.0, resamples=50
    )}  # fmt: skip
    assert metrics["auroc", "b"].note == "undefined: no positive in the test part"
    assert metrics["auroc", "c"].note == "undefined: not both classes in the training part"
    assert metrics["auroc", "macro"].value == metrics["auroc", "a"].value
    assert metrics["auroc", "macro"].note.startswith("left out as undefined: b, c")
    assert all(metrics[name, label].value is None for name in ("accuracy", "average_precision") for label in "bc")


def test_nothing_defined_is_no_error() -> None:
    metrics = measure(np.zeros((4, 1)), np.ones((4, 1)), np.array(list("abcd")), "binary", ("yes",), 0.5)
    assert {(m.name, m.label) for m in metrics} == {
        (name, label) for name in ("auroc", "average_precision") for label in ("macro", "yes")
    }
    assert all(m.value is None and m.note for m in metrics)


@pytest.mark.parametrize("skewed", [1.0, -1.0])
def test_two_patients_in_a_class_do_not_turn_an_interval_round(skewed: float) -> None:
    """One degree of freedom: the end is so far out that BCa's formula passes its pole."""
    random = np.random.default_rng(0)
    values = skewed * np.array([0.0, 0.1, 0.1, 0.2, 0.9])
    drawn = random.choice(values, (999, 5)).mean(axis=1)
    left_out = (values.sum() - values) / 4
    found = bca_interval(values.mean(), drawn, left_out, 2, z=widened(left_out, 2))
    assert found.low < values.mean() < found.high
    assert (found.low, found.high) == (drawn.min(), drawn.max())
    assert found.note == "cut off at the extreme resample"
    assert bca_interval(values.mean(), drawn, left_out, 2, z=1.0).note == ""


def test_an_interval_holds_its_figure_with_two_patients_in_a_class() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        y = np.repeat([1.0, 0.0], [2, 40])
        score = y + random.normal(size=42)
        metrics = measure(y[:, None], score[:, None], np.arange(42).astype(str), "binary", ("x",), 0.5, resamples=200)
        for m in metrics:
            assert m.low is None or m.name == "calibration_error" or m.low <= m.value <= m.high, m
            assert m.name != "average_precision" or m.low < m.value < m.high or m.value == 1


@pytest.mark.parametrize("n", [2, 5, 9])
def test_widening_is_students_quantile_of_a_plain_mean(n: int) -> None:
    left_out = np.linspace(-1.0, 1.0, n)
    expected = student.ppf(0.975, n - 1) * np.sqrt(n / (n - 1))
    assert widened(np.concatenate([left_out, [np.nan]]), 1e9) <= expected * 3  # fourth powers may say less
    assert widened(np.tile([-1.0, 1.0], 50)[: 2 * n], float(n)) == pytest.approx(
        student.ppf(0.975, n - 1) * np.sqrt(2 * n / (2 * n - 1))
    )


def test_degrees_of_freedom_are_satterthwaites() -> None:
    """2 (Σ x²)² / (Σ x⁴ - (Σ x²)² / n): many for equal shares, one for a patient that has all of them."""
    x = np.array([3.0, 1, 1, 1, 1, 1, 1, 1])
    squares, fourths = (x**2).sum(), (x**4).sum()
    assert degrees_of_freedom(x, 1e9) == pytest.approx(2 / (fourths / squares**2 - 1 / len(x)))
    assert degrees_of_freedom(x, 3.0) == 2.0
    assert degrees_of_freedom(np.ones(8), 5.0) == 4.0


def test_a_correlations_interval_is_students_of_as_many_patients() -> None:
    drawn = np.tanh(np.random.default_rng(0).normal(0.5, 0.2, 400))
    found = fisher_interval(0.46, drawn, patients=6)
    half = student.ppf(0.975, 5) * np.sqrt(6 / 5) * np.arctanh(drawn).std(ddof=1)
    assert (found.low, found.high) == pytest.approx(
        (np.tanh(np.arctanh(0.46) - half), np.tanh(np.arctanh(0.46) + half))
    )


def test_a_value_above_all_resamples_has_a_finite_bias() -> None:
    drawn = np.linspace(0.1, 0.5, 99)
    found = bca_interval(0.9, drawn, np.linspace(-1, 1, 20), 20.0)
    assert found.high == 0.9
    assert 0.1 < found.low < 0.9
