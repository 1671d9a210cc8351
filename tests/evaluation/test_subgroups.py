import numpy as np
import pytest
from scipy.stats import t as student

from embedcache.evaluation.clustered import Clustered
from embedcache.evaluation.curves import roc_band
from embedcache.evaluation.figure_panels import roc_curve
from embedcache.evaluation.measure import measure
from embedcache.evaluation.metrics import Ranking
from embedcache.evaluation.statistics import Patients
from embedcache.evaluation.subgroups import auroc_differences, group_names, subgroups
from embedcache.evaluation.thresholds import BeforeRefit


def world(seed: int = 0, worse: float = 0.0) -> tuple[np.ndarray, ...]:
    """Two labels, patients with two rows each, a sex per patient; scores of "F" are worse by so much."""
    random = np.random.default_rng(seed)
    patient = np.repeat(np.arange(150), 2)
    sex = np.where(random.random(150) < 0.5, "F", "M")[patient].astype(object)
    truth = (random.random((300, 2)) < 0.4).astype(float)
    gap = np.where(sex == "F", 1.5 - worse, 1.5)[:, None]
    scores = gap * truth + random.normal(size=(300, 2)) + 0.5 * random.normal(size=(150, 1))[patient]
    return truth, scores, patient, sex


def test_groups_are_the_result_of_their_rows_alone() -> None:
    truth, scores, patient, sex = world()
    sex[:4] = None
    before = BeforeRefit(truth[:100], scores[:100], scores)
    found = subgroups(truth, scores, patient, sex, "multilabel", ("a", "b"), 0.0, before=before, resamples=100, seed=3)
    assert [g.name for g in found] == ["F", "M", "missing"]
    assert sum(g.n for g in found) == 300
    inside = sex == "M"
    alone = measure(
        truth[inside], scores[inside], patient[inside], "multilabel", ("a", "b"), 0.0,
        before=BeforeRefit(truth[:100], scores[:100], scores[inside]), resamples=100, seed=3,
    )  # fmt: skip
    assert found[1].metrics == alone
    assert found[1].patients == Patients.of(patient[inside]).count
    assert all("few patients" in m.note or m.value is None for m in found[2].metrics)


def test_bands_of_ages_codes_and_missing_values() -> None:
    ages = np.array([3.0, 12, 19, 20, 35, 47, 58, 69, 70, 88, np.nan, 99])
    assert group_names(ages).tolist() == [
        "0 to 10", "10 to 20", "10 to 20", "20 to 30", "30 to 40", "40 to 50", "50 to 60", "60 to 70", "70 to 80",
        "80 to 90", "missing", "90 to 100",
    ]  # fmt: skip
    assert group_names(np.array([39.9, 40, 64, 65, 80]), (40, 65)).tolist() == [
        "below 40", "40 to 65", "40 to 65", "65 and more", "65 and more"
    ]  # fmt: skip
    assert group_names(np.array([1, 2, 1])).tolist() == ["1", "2", "1"]
    assert group_names(["AP", "", None, "PA"]).tolist() == ["AP", "missing", "missing", "PA"]
    truth, scores, patient, _ = world()
    column = np.random.default_rng(0).integers(5, 120, 300).astype(float)
    names = [g.name for g in subgroups(truth, scores, patient, column, "multilabel", ("a", "b"), 0.0, resamples=20)]
    assert names == sorted(names, key=lambda name: int(name.split()[0]))


def test_a_difference_between_groups_is_found_and_one_that_is_not_there_is_not() -> None:
    truth, scores, patient, sex = world(worse=1.3)
    found = {d.label: d for d in auroc_differences(truth, scores, patient, sex, ("a", "b"))}
    assert set(found) == {"macro", "a", "b"}
    assert found["macro"].p < 0.001
    p = [d.p for seed in range(150) for d in auroc_differences(*world(seed), ("a", "b")) if d.label == "macro"]
    # 150 true nulls: 5% of them is 7.5, four standard deviations are 10.7.
    assert 0 <= sum(value < 0.05 for value in p) <= 18
    assert abs(np.mean(p) - 0.5) < 0.1


def test_groups_without_enough_patients_do_not_enter() -> None:
    truth, scores, patient, sex = world()
    sex[:2] = "X"
    macro, a, _ = auroc_differences(truth, scores, patient, sex, ("a", "b"))
    # one group of one patient used to leave no macro test at all, and did not say so
    assert macro.label == "macro"
    assert macro.groups == a.groups == ("F", "M")
    assert macro.p is not None
    assert macro.note == a.note == "left out, too few patients: X"
    alone = auroc_differences(truth[2:], scores[2:], patient[2:], sex[2:], ("a", "b"))
    np.testing.assert_allclose(macro.p, alone[0].p, rtol=1e-6)
    assert auroc_differences(truth, scores, patient, np.full(300, "F"), ("a", "b")) == ()


def test_where_no_test_is_possible_it_is_said() -> None:
    truth, scores, patient, sex = world()
    scores[sex == "F", 1] = truth[sex == "F", 1]
    truth[sex == "M", 0] = np.where(patient[sex == "M"] == patient[sex == "M"][0], 1.0, 0.0)
    macro, a, b = auroc_differences(truth, scores, patient, sex, ("a", "b"))
    assert (macro.p, a.p, b.p) == (None, None, None)
    assert macro.note == "no test: the groups have fewer than two labels in common; left out, not in every group: a"
    assert (
        a.note == "no test: fewer than two groups have two scored patients of each class; left out, too few patients: M"
    )
    assert b.note == "no test: no spread in F"


def small_groups(random: np.random.Generator, count: int, positive: int, negative: int) -> tuple[np.ndarray, ...]:
    """Truth, scores with an AUROC of .8, patients and group of each, alike in all groups."""
    group = np.repeat(np.arange(count), positive + negative)
    y = np.tile(np.arange(positive + negative) < positive, count).astype(float)
    score = 1.19 * y + random.normal(size=len(y))
    return y[:, None], score[:, None], np.arange(len(y)), group.astype(str)


@pytest.mark.parametrize(("count", "positive", "negative"), [(8, 4, 20), (4, 10, 30)])
def test_many_small_groups_do_not_make_a_difference(count: int, positive: int, negative: int) -> None:
    """Wald's test against chi-squared rejected 25% of true nulls of the first, 8% of the second."""
    random = np.random.default_rng(count)
    found = [d for _ in range(300) for d in auroc_differences(*small_groups(random, count, positive, negative), ("a",))]
    p = np.array([d.p for d in found if d.p is not None])
    assert len(p) > 200
    # 5% of 300 are 15, two standard deviations 7.5
    assert (p < 0.05).sum() <= 22
    assert found[0].note == f"few patients in {', '.join(str(i) for i in range(count))}"


def test_two_groups_are_welchs_test() -> None:
    """Independent groups: the difference over its standard error is Student's, with Satterthwaite's degrees of freedom."""
    truth, scores, patient, group = small_groups(np.random.default_rng(0), 2, 40, 60)
    (found,) = auroc_differences(truth, scores, patient, group, ("a",))
    parts = [
        Clustered.of(Ranking.of(np.where(group == name, truth[:, 0], np.nan), scores[:, 0]), Patients.of(patient))
        for name in "01"
    ]
    influence = [part.influence() for part in parts]
    variance = np.array([u @ u for u in influence])
    df = [1 / ((u**4).sum() / v**2 - 1 / 100) * 2 for u, v in zip(influence, variance, strict=True)]
    t = (parts[0].value - parts[1].value) / np.sqrt(variance.sum())
    of_t = variance.sum() ** 2 / (variance**2 / np.minimum(df, 39)).sum()
    np.testing.assert_allclose([found.F, found.df[1]], [t**2, of_t], rtol=1e-9)
    np.testing.assert_allclose(found.p, 2 * student.sf(abs(t), of_t), rtol=1e-9)
    assert found.note == ""


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_the_roc_curve_on_the_grid_is_the_curve(digits: int) -> None:
    truth, scores, patient, _ = world()
    y, score = truth[:, 0], scores[:, 0].round(digits)
    y[:3] = np.nan
    band = roc_band(y, score, patient, resamples=300)
    assert band is not None
    known = ~np.isnan(y)
    false, true = roc_curve(y[known], score[known])
    np.testing.assert_allclose(band.true_positive_rate, np.interp(band.false_positive_rate, false, true), atol=1e-12)
    assert (band.low <= band.true_positive_rate + 1e-12).all()
    assert (band.true_positive_rate <= band.high + 1e-12).all()
    assert 0.03 < (band.high - band.low)[20:100].mean() < 0.4
    assert roc_band(np.zeros(9), np.arange(9.0), np.arange(9)) is None
