import csv
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import embedcache
from embedcache.errors import InputError, NewerFormatError
from embedcache.evaluation.clustered import Clustered, macro_auroc_interval, mean_auroc_interval
from embedcache.evaluation.few_shot import few_shot
from embedcache.evaluation.few_shot_config import FewShotConfig
from embedcache.evaluation.few_shot_figures import t_interval
from embedcache.evaluation.few_shot_result import FewShotResult, decode_curve, encode_curve, read_curve
from embedcache.evaluation.few_shot_scores import head_aurocs, head_scores
from embedcache.evaluation.metrics import Ranking
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.evaluation.splits import read_split
from embedcache.evaluation.statistics import Patients
from embedcache.types import Task

SHOTS, SEEDS = (1, 2, 4), 5


def config(made: Any, **changes: object) -> FewShotConfig:
    return replace(FewShotConfig(made.store, shots=SHOTS, seeds=SEEDS), **changes)


def drawn(result: FewShotResult) -> list[dict[str, str]]:
    with Path(result.path).with_suffix(".csv").open(newline="") as file:
        return list(csv.DictReader(file))


def parts(result: FewShotResult) -> dict[str, str]:
    folder = Path(result.path).parents[1] / "splits"
    split = read_split(folder / f"{result.inputs['split'][:16]}.csv")
    return dict(zip(split.patient.tolist(), split.part.tolist(), strict=True))


def test_a_curve_rises_with_what_the_features_carry(make: Any) -> None:
    made = make(n=400)
    result = few_shot(config(made))
    assert [point.shots for point in result.points] == [1, 2, 4, None]
    values = [point.macro.value for point in result.points]
    assert values == sorted(values)
    assert values[0] > 0.6
    assert values[-1] > 0.9
    for point in result.points[:-1]:
        assert len(point.auroc) == len(point.C) == len(point.patients) == SEEDS
        assert point.macro.draws_low < point.macro.value < point.macro.draws_high
        assert point.macro.test_low < point.macro.value < point.macro.test_high
        assert [figure.label for figure in point.figures] == ["macro", *made.task.classes]
    assert result.setting == "few-shot"
    assert result.is_few_shot
    whole = result.points[-1]
    assert (whole.patients, whole.rows) == ((result.counts["train_patients"],), (result.counts["train_rows"],))
    assert whole.macro.draws_low is None


def test_drawn_patients_are_of_the_training_part_and_nested(make: Any) -> None:
    made = make(n=400)
    result = few_shot(config(made))
    part = parts(result)
    assert set(part.values()) == {"train", "validation", "test"}
    by_seed = defaultdict(lambda: defaultdict(set))
    for row in drawn(result):
        assert part[row["patient"]] == row["split"] == "train"
        by_seed[row["seed"]][int(row["draw"])].add(row["sample"])
    assert len(by_seed) == SEEDS
    samples = defaultdict(set)
    for sample, patient in zip(made.samples, made.patients, strict=True):
        samples[patient].add(sample)
    for i, point in enumerate(result.points[:-1]):
        for seed, rows, patients in zip(point.seeds, point.rows, point.patients, strict=True):
            within = set().union(*(found for n, found in by_seed[str(seed)].items() if n <= SHOTS[i]))
            owners = {patient for patient, own in samples.items() if own & within}
            assert (len(within), len(owners)) == (rows, patients)
            assert within == set().union(*(samples[patient] for patient in owners)), "all samples of a patient"


def test_a_finding_in_a_row_without_the_asked_label_makes_nobody_healthy(make: Any) -> None:
    """Every second patient has an effusion in a sample of which nobody knows whether there is a mass, and none in the other."""
    made = make(n=400)
    patient = np.arange(400) // 2
    y = np.zeros((400, 3))
    y[patient % 4 == 1, 1] = 1
    unknown = (patient % 2 == 0) & (np.arange(400) % 2 == 1)
    y[unknown, 0], y[unknown, 1] = 1, np.nan
    made.relabel(y)
    result = few_shot(config(made, classes=("Mass",)))
    assert {int(row["patient"][1:]) % 4 for row in drawn(result)} == {1, 3}


def test_every_area_is_that_of_a_literal_loop(make: Any) -> None:
    """Draw by draw: standardise the drawn rows by themselves, fit each label with scikit-learn, score the test rows."""
    made = make(n=300)
    y = made.y.copy()
    y[::7, 1] = np.nan
    made.relabel(y)
    result = few_shot(config(made))
    cache = embedcache.FeatureCache.open(made.store)
    features = cache.features("cls", task=made.task.name)
    part = parts(result)
    where = np.array([part[patient] for patient in features.groups.tolist()])
    rows = drawn(result)
    test = where == "test"
    for point in result.points:
        for i, seed in enumerate(point.seeds):
            if point.shots is None:
                train = where == "train"
            else:
                ids = [r["sample"] for r in rows if r["seed"] == str(seed) and int(r["draw"]) <= point.shots]
                train = np.isin(features.sample_id, ids)
            X = features.X.astype(np.float64)
            X = (X - X[train].mean(axis=0)) / X[train].std(axis=0)
            areas = []
            for j, name in enumerate(made.task.classes):
                known, own = train & ~np.isnan(features.y[:, j]), test & ~np.isnan(features.y[:, j])
                if len(np.unique(features.y[known, j])) < 2:
                    assert point.by_class[name][i] is None
                    continue
                model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(X[known], features.y[known, j])
                areas.append(roc_auc_score(features.y[own, j], model.decision_function(X[own])))
                assert point.by_class[name][i] == pytest.approx(areas[-1], abs=1e-6)
            assert point.auroc[i] == pytest.approx(np.mean(areas), abs=1e-6)
        assert point.macro.value == pytest.approx(np.mean(point.auroc))


def test_test_and_validation_labels_change_no_draw_and_no_fit(make: Any) -> None:
    """Of patients' part alone it depends who is drawn; other labels in validation change nothing, in test only the areas."""
    made = make(n=300, given=lambda p: ("test", "validation", "train", "train")[p % 4])
    before = few_shot(config(made))
    y = made.y.copy()
    y[[i for i, part in enumerate(made.splits) if part == "validation"]] = 0
    made.relabel(y)
    after = few_shot(config(made))
    assert after.path != before.path
    assert after.points == before.points
    tests = [i for i, part in enumerate(made.splits) if part == "test"]
    y[tests] = 1 - y[tests]
    made.relabel(y)
    flipped = few_shot(config(made))
    assert drawn(flipped) == drawn(before)
    for point, old in zip(flipped.points, before.points, strict=True):
        np.testing.assert_allclose(point.auroc, 1 - np.array(old.auroc), atol=1e-12)


def test_labels_dealt_to_other_patients_are_not_found(make: Any) -> None:
    """Twenty times each patient gets another one's labels: the interval over test patients seldom leaves one half out.

    Of 20 intervals at 95% more than four miss by chance with a probability of .3%.
    """
    made = make(n=400)
    blocks = made.y.reshape(-1, 2, made.y.shape[1])
    missed, values = 0, []
    for seed in range(20):
        made.relabel(blocks[np.random.default_rng(seed).permutation(len(blocks))].reshape(made.y.shape))
        result = few_shot(config(made, shots=(4,), whole=False, classes=("Effusion",)))
        figure = result.points[0].macro
        missed += not figure.test_low <= 0.5 <= figure.test_high
        values.append(figure.value)
    assert missed <= 4
    assert abs(np.mean(values) - 0.5) < 0.05


def test_the_same_question_is_answered_once(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    first = few_shot(config(made), told.append)
    assert "fitting to 1 patient per class" in told
    assert read_curve(Path(first.path)) == first
    again_told: list[str] = []
    assert few_shot(config(made), again_told.append) == first
    assert again_told == []
    assert few_shot(config(made, seeds=SEEDS + 1)).path != first.path
    forced = few_shot(config(made, force=True))
    assert Path(forced.path).name == f"{Path(first.path).stem}-2.json"
    assert forced.points == first.points
    elsewhere = few_shot(config(made, results=tmp_path / "elsewhere"))
    assert Path(elsewhere.path).parent == tmp_path / "elsewhere" / "few-shot"
    assert elsewhere.inputs == first.inputs
    assert embedcache.list_results(Path(first.path).parents[1]) == [], "a curve is no result of a probe"


def test_C_by_leaving_patients_out_is_chosen_inside_the_draw(make: Any) -> None:
    made = make(n=300)
    result = few_shot(config(made, select="leave-patient-out", C=(1e-3, 1.0, 30.0)))
    one, two, four, whole = result.points
    assert set(one.C) == {1.0}
    assert "nobody can be left out" in one.notes[0]
    assert set(two.C) | set(four.C) <= {1e-3, 1.0, 30.0}
    assert len(set(two.C) | set(four.C)) > 1
    assert whole.C == (1.0,)
    assert result.is_few_shot
    fixed = few_shot(config(made, C=(1e-3,)))
    for point, same_size in zip(result.points, fixed.points, strict=True):
        for chosen, area, other in zip(point.C, point.auroc, same_size.auroc, strict=True):
            if chosen == 1e-3:
                assert area == other


def test_validation_may_choose_C_and_is_not_few_shot(make: Any) -> None:
    made = make(n=300)
    result = few_shot(config(made, select="validation"))
    assert result.setting.startswith("not few-shot")
    assert not result.is_few_shot
    assert any("not few-shot" in warning for warning in result.warnings)
    assert len({c for point in result.points for c in point.C}) > 1


def test_preset_paper_takes_the_first_patients_once(make: Any) -> None:
    made = make(n=300)
    result = few_shot(config(made, preset="paper", seeds=None))
    assert all(point.seeds == (None,) and point.macro.draws_low is None for point in result.points)
    part = parts(result)
    order = sorted(set(made.patients))
    positives = made.y.reshape(-1, 2, 3).max(axis=1)
    for n in SHOTS:
        expected = set()
        for j in range(4):
            has = positives[:, j] == 1 if j < 3 else positives.max(axis=1) == 0
            members = [p for p, yes in zip(order, has, strict=True) if yes and part[p] == "train"]
            expected |= set(members[:n])
        assert {r["patient"] for r in drawn(result) if int(r["draw"]) <= n} == expected
        assert all(r["seed"] == "" for r in drawn(result))
    assert any("preset paper" in warning for warning in result.warnings)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_other_kinds_of_task(make: Any, kind: str) -> None:
    task = Task("finding", kind, ("sick",) if kind == "binary" else ("a", "b", "c"))
    made = make(task, n=300)
    result = few_shot(config(made, select="leave-patient-out"))
    assert result.points[2].macro.value > 0.7
    cache = embedcache.FeatureCache.open(made.store)
    features = cache.features("cls", task="finding")
    part = parts(result)
    where = np.array([part[patient] for patient in features.groups.tolist()])
    train, test = where == "train", where == "test"
    X = features.X.astype(np.float64)
    X = (X - X[train].mean(axis=0)) / X[train].std(axis=0)
    chance = (
        LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(X[train], features.y[train]).predict_proba(X[test])
    )
    for j, name in enumerate(result.classes):
        truth = features.y[test] == (1 if kind == "binary" else j)
        area = roc_auc_score(truth, chance[:, -1] if kind == "binary" else chance[:, j])
        assert result.points[-1].by_class[name][0] == pytest.approx(area, abs=1e-5)


def test_slices_of_a_drawn_patient_come_along(make: Any) -> None:
    made = make(n=120, slices=3)
    pooled, apart = few_shot(config(made)), few_shot(config(made, pool=None))
    for a, b in zip(pooled.points, apart.points, strict=True):
        assert a.patients == b.patients
        assert tuple(3 * rows for rows in a.rows) == b.rows


def test_a_class_with_too_few_patients_gives_all_it_has_and_says_so(make: Any) -> None:
    made = make(n=200)
    y = made.y.copy()
    train = [p for p, part in parts(few_shot(config(made))).items() if part == "train"]
    sick = [i for i, patient in enumerate(made.patients) if patient in train][:6]
    tests = [i for i, patient in enumerate(made.patients) if patient not in train]
    y[:, 2] = 0
    y[sick, 2] = 1
    y[tests[:10], 2] = 1
    made.relabel(y)
    result = few_shot(config(made))
    assert [dict(point.too_few) for point in result.points] == [{}, {}, {"Nodule": 3}, {}]
    assert "Nodule: all 3 patients of the training part went into draws of 4 shots and more." in result.warnings
    y[:, 2] = 0
    made.relabel(y)
    none = few_shot(config(made))
    assert none.points[0].too_few["Nodule"] == 0
    assert "Nodule: the training part has no such patient, so none could be drawn." in none.warnings
    assert none.points[0].by_class["Nodule"] == (None,) * SEEDS
    assert none.points[0].figures[3].value is None
    assert "Nodule" in none.points[0].macro.note


def test_who_is_left_out_and_what_is_pooled_in_part_is_said_as_by_a_probe(make: Any) -> None:
    made = make(n=300, slices=2, quarantined=(0, 2, 3), given=lambda p: ("test", "validation", "train", "train")[p % 4])
    y = made.y.copy()
    y[40:44] = np.nan
    made.relabel(y)
    for strict in (False, True):
        asked = {"features": "cls", "layers": "last", "strict_volumes": strict}
        curve = few_shot(config(made, **asked))
        probed = run_probe(ProbeConfig("knn", made.store, k=(5,), resamples=20, **asked))
        counts = {name: count for name, count in probed.counts.items() if name != "views"}
        assert curve.counts == counts
        assert (counts["left_out_quarantined"], counts["left_out_no_label"]) == (1, 4)
        how = "left out, since slices of them were" if strict else "pooled without the slices that were"
        (line,) = (w for w in curve.warnings if "set aside" in w)
        assert line in probed.warnings
        assert how in line


def test_a_part_without_rows_is_refused(make: Any) -> None:
    made = make(n=60, given=lambda p: ("validation", "train")[p % 2])
    y = made.y.copy()
    y[[i for i, part in enumerate(made.splits) if part == "train"]] = np.nan
    made.relabel(y)
    with pytest.raises(InputError, match="the train part has no sample with features and a label of task 'findings'"):
        few_shot(config(made))


def test_every_store_is_asked_before_the_first_is_fitted(make: Any, tmp_path: Path) -> None:
    made, other = make(n=200), make(Task("other", "binary", ("sick",)), n=60, dataset="second")
    gone = tmp_path / "gone.zarr"
    twice = made.store.parent / ".." / made.store.parent.name / made.store.name
    told: list[str] = []
    for stores, figure, said in (
        ((made.store, gone), None, "there is no store at"),
        ((made.store, twice), None, "is given twice"),
        ((made.store, other.store), tmp_path / "x.png", "different tasks"),
        ((made.store,), tmp_path / "none" / "x.png", "make it first"),
        ((), None, "a curve needs a store"),
    ):
        with pytest.raises(InputError, match=said):
            embedcache.few_shot_curves([config(made, store=store) for store in stores], figure, told.append)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="results can not be written into"):
        few_shot(config(made, results=tmp_path / "file" / "results"), told.append)
    assert told == []
    ways = [config(made), config(made, C=(0.1,))]  # of one store, but another question
    heard: list[FewShotResult] = []
    found = embedcache.few_shot_curves(ways, tmp_path / "x.png", told=heard.append)
    assert found == tuple(heard)
    assert (tmp_path / "x.png").exists()
    assert embedcache.read_curve(Path(found[0].path)) == found[0]


def test_fewer_seeds_than_the_protocols_are_said(made: Any) -> None:
    assert any("fewer than the 20" in warning for warning in few_shot(config(made)).warnings)
    assert not any("fewer than" in w for w in few_shot(config(made, seeds=20, shots=(1,), whole=False)).warnings)


def test_what_can_not_be_asked(made: Any) -> None:
    for changes, said in (
        ({"shots": (4, 2)}, "ascending"),
        ({"shots": (0, 2)}, "from 1 on"),
        ({"seeds": 0}, "1 or more"),
        ({"C": (0.1, 1.0)}, "leave-patient-out"),
        ({"C": (-1.0,)}, "positive"),
        ({"layers": "auto"}, "choose no layers"),
        ({"preset": "paper"}, "leave --seeds or --preset out"),
    ):
        with pytest.raises(InputError, match=said):
            config(made, **changes)
    with pytest.raises(InputError, match="did you mean 'leave-patient-out'"):
        config(made, select="leave-patients-out")
    with pytest.raises(InputError, match="preset must be 'paper' or None"):
        config(made, preset="papers")


def test_a_file_of_another_format_is_refused(made: Any, tmp_path: Path) -> None:
    result = few_shot(config(made, whole=False))
    assert replace(decode_curve(encode_curve(result), "x"), path=result.path) == result
    document = json.loads(encode_curve(result))
    with pytest.raises(NewerFormatError):
        decode_curve(json.dumps({**document, "version": 99}), "x")
    with pytest.raises(InputError, match="its format is"):
        decode_curve(json.dumps({**document, "format": "embedcache-result"}), "x")
    del document["points"]
    with pytest.raises(InputError, match="damaged"):
        decode_curve(json.dumps(document), "x")
    with pytest.raises(InputError, match="no few-shot result"):
        decode_curve("[]", "x")
    with pytest.raises(InputError, match="there is no"):
        read_curve(tmp_path / "gone.json")


def test_the_interval_over_draws_is_students() -> None:
    values = np.random.default_rng(0).normal(0.7, 0.05, 20)
    expected = stats.t.interval(0.95, 19, values.mean(), stats.sem(values))
    np.testing.assert_allclose(t_interval(values), expected)
    assert t_interval(values[:1]) is None


def test_the_interval_over_test_patients_is_the_clustered_one_of_the_mean(make: Any) -> None:
    """One draw: that of its scores. Several draws with the same scores: still the same."""
    random = np.random.default_rng(0)
    truth, scores = (random.random((200, 2)) < 0.4).astype(float), random.normal(size=(200, 2))
    patients = Patients.of(np.arange(200) // 4)
    rankings = [Ranking.of(truth[:, j], scores[:, j]) for j in range(2)]
    of_label = [Clustered.of(ranking, patients) for ranking in rankings]
    expected = macro_auroc_interval(rankings, patients)
    assert mean_auroc_interval([Clustered.mean([part] * 3) for part in of_label]) == expected
    # of two scores: the variance of the mean, from the mean of the components
    other = Clustered.of(Ranking.of(truth[:, 0], random.normal(size=200)), patients)
    both = Clustered.mean([of_label[0], other])
    assert both.value == pytest.approx((of_label[0].value + other.value) / 2)
    covariance = Clustered.mean([of_label[0], other]).variance() * 4 - of_label[0].variance() - other.variance()
    assert abs(covariance) <= 2 * np.sqrt(of_label[0].variance() * other.variance())


def test_areas_of_many_heads_are_exact_with_ties_and_missing_labels() -> None:
    random = np.random.default_rng(0)
    truth = (random.random((300, 3)) < [0.5, 0.1, 0.9]).astype(float)
    truth[random.random((300, 3)) < 0.1] = np.nan
    scores = random.integers(0, 12, (9, 300)).astype(np.float32)
    scores[4] = np.nan
    label = np.array([0, 1, 2] * 3)
    found = head_aurocs(truth, scores, label)
    for i, (head, j) in enumerate(zip(scores, label, strict=True)):
        known = ~np.isnan(truth[:, j])
        expected = np.nan if i == 4 else roc_auc_score(truth[known, j], head[known])
        np.testing.assert_allclose(found[i], expected, atol=1e-12)
    one_class = head_aurocs(np.ones((300, 3)), scores, label)
    assert np.isnan(one_class).all()
    X, coef = random.normal(size=(50, 8)).astype(np.float32), random.normal(size=(5, 8))
    np.testing.assert_allclose(head_scores(X, coef), coef @ X.T, atol=1e-5)
