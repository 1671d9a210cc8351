"""Probes over patients, over several planes and over bags of slices, through a whole run."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation.few_shot import FewShotConfig, few_shot
from embedcache.evaluation.predictions import read_predictions
from embedcache.evaluation.probe import ProbeConfig, read_features, run_probe
from embedcache.evaluation.question import ask
from embedcache.evaluation.repeat import repeat_probe
from embedcache.evaluation.selection import Rows
from embedcache.evaluation.views import with_views
from embedcache.probes.attention import AttentionProbe
from embedcache.store.labels import write_labels
from embedcache.store.reader import FeatureCache
from embedcache.testing.labelled_stores import WIDTH, LabelledStore, make_labelled_store, write_labelled_store
from embedcache.testing.stores import make_plan, make_store
from embedcache.types import Augmentation, DatasetInfo, Labels, Recipe, Task, strings

ILL = Task("ill", "binary", ("ill",))
Make = Callable[..., LabelledStore]


def by_patient(made: LabelledStore) -> None:
    """Labels that both samples of a patient share."""
    made.relabel(np.repeat(made.y[::2], 2, axis=0))


def test_a_patient_is_one_row_and_its_samples_are_counted(make: Make) -> None:
    made = make(ILL, n=80, slices=3)
    with pytest.raises(
        InputError, match=r"of 40 units, pooled by patient, have samples with different labels of task 'ill'"
    ):
        run_probe(ProbeConfig("prototypes", made.store, pool_by="patient"))
    by_patient(made)
    result = run_probe(ProbeConfig("prototypes", made.store, pool_by="patient", pool="top-2", resamples=20))
    rows = sum(result.counts[f"{part}_rows"] for part in ("train", "validation", "test"))
    assert rows == 40
    assert sum(result.counts[f"{part}_samples"] for part in ("train", "validation", "test")) == 80
    assert result.level == "patient"
    assert (result.inputs["config"]["pool_by"], result.inputs["config"]["pool"]) == ("patient", "top-2")
    assert set(read_predictions(result).sample.tolist()) <= {f"s{i:04d}" for i in range(0, 80, 2)}
    again = repeat_probe(result.path)
    assert not again.inputs
    assert not again.figures
    sample = run_probe(ProbeConfig("prototypes", made.store, pool="top-2", resamples=20))
    assert sample.level == "sample"
    assert "pool_by" not in sample.inputs["config"]
    assert "units" not in sample.inputs
    named = run_probe(ProbeConfig("prototypes", made.store, pool="top-2", pool_by="sample", resamples=20))
    assert named.path == sample.path, "a sample is what slices are pooled over anyway"


def label_patients(made: LabelledStore) -> None:
    """One label for each patient, and none of a sample."""
    patients = sorted(set(made.patients))
    named, nobody = (strings([word] * len(patients)) for word in ("ill", ""))
    labels = Labels(
        (replace(ILL, level="patient"),), named, nobody, strings(patients),
        np.full(len(patients), -1, dtype=np.int32), named, made.y[::2, 0], nobody,
    )  # fmt: skip
    write_labels(made.store.parents[1], labels)


def test_a_task_of_patients_is_measured_by_patient_unless_said(make: Make) -> None:
    made = make(ILL, n=80, slices=3)
    label_patients(made)
    result = run_probe(ProbeConfig("prototypes", made.store, resamples=20))
    assert (result.level, result.inputs["config"]["pool_by"]) == ("patient", "patient")
    assert sum(result.counts[f"{part}_rows"] for part in ("train", "validation", "test")) == 40
    assert any("is of patients" in warning and "--pool-by sample" in warning for warning in result.warnings)
    asked = run_probe(ProbeConfig("prototypes", made.store, pool_by="patient", resamples=20))
    assert asked.path == result.path
    apart = run_probe(ProbeConfig("prototypes", made.store, pool_by="sample", resamples=20))
    assert apart.level == "sample"
    assert sum(apart.counts[f"{part}_rows"] for part in ("train", "validation", "test")) == 80
    assert not any("is of patients" in warning for warning in apart.warnings)
    middle = run_probe(ProbeConfig("prototypes", made.store, pool="middle", resamples=20))
    assert middle.level == "sample"
    curve = few_shot(FewShotConfig(made.store, shots=(2,), seeds=2, whole=False))
    assert curve.inputs["config"]["pool_by"] == "patient"
    assert curve.counts["test_rows"] == curve.counts["test_patients"] == result.counts["test_patients"]
    assert any("is of patients" in warning for warning in curve.warnings)


def test_a_task_of_patients_with_a_sample_each_is_as_before(make: Make) -> None:
    made = make(ILL, n=80)
    single = replace(made, store=made.store.parents[2] / "single" / "made-up" / made.store.name, patients=made.samples)
    write_labelled_store(single, {(2, "cls_token"): np.ones((80, WIDTH), np.float32)})
    question = ask(ProbeConfig("prototypes", single.store))
    assert question.pool_by is None
    made.relabel(made.y)
    assert ask(ProbeConfig("prototypes", made.store)).pool_by is None, "a task of samples"


def test_a_column_of_ones_own_table_may_hold_identifiers(make: Make, tmp_path: Path) -> None:
    made = make(ILL, n=80, slices=2)
    by_patient(made)
    studies = [
        f"1.2.840.{i // 4 * 4 + i % 2}" for i in range(80)
    ]  # the first samples of two patients, then the second ones
    columns = {
        "sample": made.samples,
        "ill": (np.repeat(made.y[::2, 0], 2)).astype(int).tolist(),
        "StudyInstanceUID": studies,
    }
    table = tmp_path / "mine.csv"
    pyarrow.csv.write_csv(pa.table(columns), table)
    asked = ProbeConfig(
        "prototypes", made.store, "ill", labels=table, join_on="sample", pool_by="StudyInstanceUID", resamples=20
    )
    result = run_probe(asked)
    rows = sum(result.counts[f"{part}_rows"] for part in ("train", "validation", "test"))
    assert rows == 80, "a study of two patients is one of each"
    assert "1.2.840" not in Path(result.path).read_text()
    with pytest.raises(UnknownNameError, match="did you mean 'StudyInstanceUID'"):
        run_probe(replace(asked, pool_by="StudyInstanceUIDs"))
    with pytest.raises(UnknownNameError, match="There is: ill, patient, sample"):
        run_probe(ProbeConfig("prototypes", made.store, pool_by="StudyInstanceUID"))
    columns["StudyInstanceUID"] = [f"1.2.840.{i // 2}" for i in range(80)]
    pyarrow.csv.write_csv(pa.table(columns), table)
    other = run_probe(asked)
    assert other.inputs["units"] != result.inputs["units"], "who is together decides, so it is asked anew"
    patients = run_probe(replace(asked, pool_by="patient"))
    assert [m.value for m in other.metrics] == [m.value for m in patients.metrics]


# --- attention --------------------------------------------------------------------------------------


def test_attention_reads_slices_and_scores_samples(make: Make) -> None:
    made = make(ILL, n=60, slices=4, quarantined=(5, 6))
    result = run_probe(
        ProbeConfig("attention", made.store, features="cls", options={"epochs": 40, "hidden": 8}, resamples=20)
    )
    assert result.inputs["config"]["pool"] == "bags"
    assert result.level == "sample"
    predictions = read_predictions(result)
    assert (predictions.slice == -1).all()
    assert result.counts["test_rows"] == result.counts["test_samples"]
    assert result.metric("auroc", "ill").value > 0.8

    cache = FeatureCache.open(made.store)
    test = predictions.of("test").sample.tolist()
    rest = [s for s in made.samples if s not in test]
    train = cache.features("cls", pool="bags", task="ill", split=rest)
    tested = cache.features("cls", pool="bags", task="ill", split=test)
    mean, std = train.X.mean(axis=0), train.X.std(axis=0)
    probe = AttentionProbe(epochs=40, hidden=8)
    value = result.chosen["weight_decay"]
    path = probe.fit_bags((train.X - mean) / std, train.sizes, train.y, "binary", (value,), 1)
    by_hand = path.bag_scores((tested.X - mean) / std, tested.sizes)[0]
    np.testing.assert_allclose(predictions.of("test").score, by_hand, atol=1e-3)
    again = repeat_probe(result.path)
    assert not again.inputs
    assert again.largest_change == 0


def test_attention_over_patients_has_a_bag_of_all_their_slices(make: Make) -> None:
    made = make(ILL, n=60, slices=2)
    by_patient(made)
    options = {"epochs": 10, "hidden": 4, "weight_decay": (1.0,)}
    result = run_probe(ProbeConfig("attention", made.store, options=options, pool_by="patient", resamples=20))
    assert sum(result.counts[f"{part}_rows"] for part in ("train", "validation", "test")) == 30
    assert result.level == "patient"


def test_who_pools_is_not_asked_how(make: Make) -> None:
    made = make(ILL, n=40, slices=2)
    with pytest.raises(InputError, match="'attention' pools the slices itself"):
        run_probe(ProbeConfig("attention", made.store, pool="max"))
    with pytest.raises(InputError, match="'knn' takes one vector per sample"):
        run_probe(ProbeConfig("knn", made.store, pool="bags"))
    with pytest.raises(UnknownNameError, match="did you mean 'middle'"):
        run_probe(ProbeConfig("knn", made.store, pool="midle"))


@pytest.mark.parametrize("probe", ["attention", "prototypes"])
def test_the_test_part_as_a_store_of_its_own_scores_the_same(make: Make, probe: str) -> None:
    """Bags and units of a second store are read as those of the first."""
    parts = ("train", "validation", "test")
    made = make(ILL, n=60, slices=3, given=lambda patient: parts[patient % 3])
    by_patient(made)
    options = {"epochs": 10, "hidden": 4, "weight_decay": (1.0, 0.1)} if probe == "attention" else {}
    config = ProbeConfig(probe, made.store, features="cls", options=options, pool_by="patient", resamples=20)
    plain = run_probe(config)
    rows = [i for i in range(60) if i // 2 % 3 == 2]
    labels = np.repeat(made.y[::2], 2, axis=0)
    part = LabelledStore(
        made.store.parents[2] / "part" / made.store.parent.name / made.store.name,
        [made.samples[i] for i in rows],
        [made.patients[i] for i in rows],
        labels[rows],
        ILL,
        ["" for _ in rows],
    )
    cache = FeatureCache.open(made.store)
    tokens = {
        (2, kind): cache.tokens(2, kind).read()[: 60 * 3].reshape(60, 3, -1)[rows]
        for kind in ("cls_token", "patch_mean")
    }
    write_labelled_store(part, {key: values.reshape(len(rows) * 3, -1) for key, values in tokens.items()}, 3)
    away = run_probe(replace(config, test_store=part.store))
    assert away.path != plain.path
    assert away.metrics == plain.metrics
    assert away.counts["test_samples"] == plain.counts["test_samples"] == 20
    assert away.counts["test_rows"] == 10
    assert "units" in away.inputs["elsewhere"]
    np.testing.assert_array_equal(read_predictions(away).score, read_predictions(plain).score)


def test_views_of_a_bag_are_bags(make: Make) -> None:
    made = make(ILL, n=20, slices=3, quarantined=(4,))
    view = plane(made, "stored", 3, view=1)
    config = ProbeConfig("attention", made.store, features="cls", views=1, options={"epochs": 2, "hidden": 2})
    question = ask(config)
    features = read_features(question, config)
    at = np.arange(len(features.X))
    rows = Rows(features.X, at, features.y, features.groups, features.sample_id, features.slice_index, features.sizes)
    seen, of = with_views(rows, question, config)
    assert len(seen) == len(of) == len(seen.sizes)
    assert seen.sizes.sum() == len(seen.matrix) == len(seen.at)
    last = seen.take(np.arange(len(seen)) == len(seen) - 1)
    own = FeatureCache.open(view).features("cls", pool=None, split=last.sample_id.tolist())
    np.testing.assert_array_equal(last.features((slice(0, own.X.shape[1]),), None), own.X)
    assert run_probe(replace(config, resamples=20)).counts["views"] == 2


def test_views_of_a_patient_are_found_by_the_patient(make: Make) -> None:
    """In the view the first sample of patient 0 is set aside, so that its row goes by the id of the second one there."""
    made = make(ILL, n=40, slices=3)
    by_patient(made)
    view = plane(made, "stored", 3, view=1, quarantined=(0, 1, 2, 6))
    config = ProbeConfig("prototypes", made.store, features="cls", pool_by="patient", views=1, resamples=20)
    question = ask(config)
    features = read_features(question, config)
    at = np.arange(len(features.X))
    rows = Rows(features.X, at, features.y, features.groups, features.sample_id, features.slice_index, features.sizes)
    seen, of = with_views(rows, question, config)
    fitted = set(question.split.patient[question.split.part != "test"].tolist())
    assert sorted(rows.groups[of[len(rows) :]].tolist()) == sorted(fitted)
    own = FeatureCache.open(view).features("cls", pool_by="patient", split=question.split.sample.tolist())
    assert own.sample_id[own.groups == "p0000"].tolist() == ["s0001"]
    place = {patient: i for i, patient in enumerate(own.groups.tolist())}
    np.testing.assert_array_equal(
        seen.matrix[len(rows) :], own.X[[place[p] for p in seen.groups[len(rows) :].tolist()]]
    )


# --- planes -----------------------------------------------------------------------------------------


def plane(made: LabelledStore, name: str, slices: int, **changed: object) -> Path:
    """A store beside another one: the same samples along another plane or as another view, with other tokens."""
    cache = FeatureCache.open(made.store)
    image = replace(cache.recipe.image, plane=name)
    if view := int(str(changed.pop("view", 0))):
        image = replace(image, view=view, augmentation=Augmentation((0.5, 1.0), (1.0, 1.0), 0.0, 0))
    recipe = replace(cache.recipe, image=image)
    asked = {"recipe": recipe, "dataset": DatasetInfo("made"), "n": len(made.samples), **changed}
    n = int(str(asked.pop("n")))
    plan = make_plan([slices] * n, quantum=cache.index.plan.quantum if slices == 3 else None)
    plan = replace(plan, sample_id=cache.samples().id[:n], patient_id=cache.samples().patient_id[:n])
    path = made.store.parent / f"{name}.zarr"
    shutil.rmtree(path, ignore_errors=True)
    random = np.random.default_rng(slices)
    tokens = {"values": lambda spec, rows: random.normal(size=(rows, *spec.shape)).astype("f4")}
    make_store(path, plan, cache.passes[0].arrays, **tokens, **asked)
    return path


@pytest.fixture
def made(tmp_path: Path) -> LabelledStore:
    return make_labelled_store(tmp_path, ILL, n=80, slices=3, quarantined=(0, 1, 2))


def test_planes_are_pooled_each_by_itself_and_stand_side_by_side(made: LabelledStore) -> None:
    coronal, sagittal = plane(made, "coronal", 5), plane(made, "sagittal", 2)
    config = ProbeConfig(
        "prototypes", made.store, features="cls+mean", pool="mean+max", planes=(coronal, sagittal), resamples=20
    )
    result = run_probe(config)
    assert [p["plane"] for p in result.inputs["planes"]] == ["coronal", "sagittal"]
    assert result.counts["left_out_quarantined"] == 1

    question = ask(config)
    features = read_features(question, config)
    kept = made.samples[1:]
    parts = [
        FeatureCache.open(path).features("cls+mean", pool="mean+max", split=kept).X
        for path in (made.store, coronal, sagittal)
    ]
    np.testing.assert_array_equal(features.X, np.concatenate(parts, axis=1))
    columns = question.choices["cls+mean"].columns(features.columns)
    assert columns == (slice(0, features.X.shape[1]),)
    cls = replace(question.choices["cls+mean"], kind="cls").columns(features.columns)
    width = parts[0].shape[1] // 4
    assert cls == tuple(slice(2 * k * width, (2 * k + 1) * width) for k in range(6))

    again = repeat_probe(result.path, made.store)
    assert not again.inputs
    assert again.largest_change == 0
    alone = run_probe(replace(config, planes=()))
    assert "planes" not in alone.inputs
    shutil.rmtree(coronal)
    with pytest.raises(InputError, match="no store of plane 'coronal'"):
        repeat_probe(result.path, made.store)


def test_what_differs_besides_the_plane_is_said(made: LabelledStore) -> None:
    def refused(path: Path, says: str, pool: str | None = "mean") -> None:
        with pytest.raises(InputError, match=says):
            run_probe(ProbeConfig("prototypes", made.store, pool=pool, planes=(path,)))

    recipe = FeatureCache.open(made.store).recipe
    refused(made.store, "is cut along the plane 'stored', as .* is; give each plane once")
    other: Recipe = replace(recipe, image=replace(recipe.image, plane="coronal", size=(14, 14)))
    refused(plane(made, "coronal", 2, recipe=other), r"more than the plane: image.size is \[28, 28\] and \[14, 14\]")
    other = replace(
        recipe, model=replace(recipe.model, weights_digest="1" * 64), image=replace(recipe.image, plane="axial")
    )
    refused(plane(made, "axial", 2, recipe=other), "model.weights_digest is 000000000000… and 111111111111…")
    refused(plane(made, "axial", 2, dataset=DatasetInfo("theirs")), "the datasets are theirs and made")
    refused(plane(made, "axial", 2, n=79), "1 samples with their patients are in one of them only")
    refused(plane(made, "axial", 2), "pool them", pool=None)


def test_a_patient_that_lost_a_scan_in_one_plane_is_said_or_left_out(made: LabelledStore) -> None:
    """Of patients 0 (in the first plane) and 3 (in the second) a scan is not there; of patient 5 two slices are not."""
    by_patient(made)
    coronal = plane(made, "coronal", 2, quarantined=(2 * 7, 2 * 7 + 1, 2 * 10))
    config = ProbeConfig("prototypes", made.store, features="cls", pool_by="patient", planes=(coronal,), resamples=20)
    pooled = read_features(ask(config), config)
    assert len(pooled) == 40
    assert pooled.incomplete.tolist() == ["s0001", "s0006", "s0010"]
    members = dict(zip(pooled.groups.tolist(), pooled.members.tolist(), strict=True))
    assert {patient for patient, n in members.items() if n == 1} == {"p0000", "p0003"}
    result = run_probe(config)
    assert "3 units (pooled by patient) were pooled without the slices that were set aside." in result.warnings
    assert result.counts["left_out_quarantined"] == 2

    strict = replace(config, strict_volumes=True)
    whole = read_features(ask(strict), strict)
    assert sorted({*pooled.groups.tolist()} - {*whole.groups.tolist()}) == ["p0000", "p0003", "p0005"]
    assert whole.incomplete.tolist() == pooled.incomplete.tolist()
    kept = np.isin(pooled.groups, whole.groups)
    np.testing.assert_array_equal(whole.X, pooled.X[kept])
    assert (
        "3 units (pooled by patient) were left out, since slices of them were set aside." in run_probe(strict).warnings
    )
    # by sample nothing is pooled without a scan: the scan itself is left out
    alone = replace(config, pool_by=None)
    assert read_features(ask(alone), alone).incomplete.tolist() == ["s0010"]
