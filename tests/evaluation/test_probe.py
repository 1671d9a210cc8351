import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation.predictions import read_predictions
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.evaluation.results import read_result
from embedcache.evaluation.splits import make_split, read_split, write_split
from embedcache.probes.logistic import LogisticProbe
from embedcache.store.reader import FeatureCache
from embedcache.types import Split, Task, strings

SHORT = (1e-4, 1e-2, 1.0)
"""A grid that keeps these tests quick."""


def config(made: Any, **changes: object) -> ProbeConfig:
    return replace(ProbeConfig("logistic", made.store, C=SHORT, resamples=100), **changes)


def test_a_probe_finds_what_the_features_carry_and_says_on_what(made: Any) -> None:
    result = run_probe(config(made))
    auroc = result.metric("auroc")
    assert auroc.value > 0.85
    assert auroc.low < auroc.value < auroc.high
    assert [m.label for m in result.metrics if m.name == "auroc"] == ["macro", *made.task.classes]
    c = result.counts
    assert (c["test_patients"], c["validation_patients"], c["train_patients"]) == (16, 13, 51)
    assert c["train_samples"] + c["validation_samples"] + c["test_samples"] == len(made.samples)
    assert result.level == "sample"


@pytest.mark.parametrize("features", ["cls", "auto"])
def test_the_refit_is_the_model_of_all_rows_that_are_not_for_testing(make: Any, features: str) -> None:
    """It starts from the chosen one, whose rows had another scale, and ends where a fit from nothing ends."""
    made = make(n=1600, given=lambda p: "test" if p % 4 == 0 else "validation" if p % 4 == 1 else "train")
    result = run_probe(config(made, features=features, C=(1e-3, 1e-1)))
    cache = FeatureCache.open(made.store)
    both = [cache.features(result.chosen["vector"], task="findings", split=part) for part in ("train", "validation")]
    X, y = (np.concatenate([getattr(rows, name) for rows in both]) for name in ("X", "y"))
    assert len(X) >= 20 * X.shape[1]  # enough for it to start there
    mean, std = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    C = (result.chosen["C"],)
    fitted = LogisticProbe(C=C, tol=1e-11).fit_path((X - mean) / std, y, "multilabel", C, 3)
    test = cache.features(result.chosen["vector"], task="findings", split="test")
    expected = dict(zip(test.sample_id, fitted.scores((test.X - mean) / std)[0], strict=True))
    found = read_predictions(result).of("test")
    for sample, score in zip(found.sample.tolist(), found.score, strict=True):
        np.testing.assert_allclose(score, expected[sample], atol=0.01)
    objective = result.selection["refit"]["solver"]["objective"][0]
    assert objective == pytest.approx(fitted.diagnostics.path["objective"][0], rel=1e-5)


def test_features_without_signal_score_near_one_half(make: Any) -> None:
    """The same job on noise: nothing of the labels reaches the scores but through the features."""
    made = make(n=400, signal=0.0)
    value = run_probe(config(made)).metric("auroc").value
    assert value is not None
    assert abs(value - 0.5) < 0.12  # three labels, 80 test samples: a standard error of about .04


def test_test_labels_choose_nothing(make: Any) -> None:
    """Permuted test labels change the figures, and neither the choice nor any score."""
    made = make(given=lambda p: "test" if p % 4 == 0 else "validation" if p % 4 == 1 else "train")
    before = run_probe(config(made))
    y = made.y.copy()
    tests = [i for i, part in enumerate(made.splits) if part == "test"]
    y[tests] = 1 - y[tests]
    made.relabel(y)
    after = run_probe(config(made))
    assert after.path != before.path
    assert after.chosen == before.chosen
    np.testing.assert_array_equal(read_predictions(after).score, read_predictions(before).score)
    assert after.metric("auroc").value == pytest.approx(1 - before.metric("auroc").value)


def test_validation_labels_do_choose(make: Any) -> None:
    """The control of the test above: the same change in the validation part moves the choice's score."""
    made = make(given=lambda p: "test" if p % 4 == 0 else "validation" if p % 4 == 1 else "train")
    before = run_probe(config(made))
    y = made.y.copy()
    validates = [i for i, part in enumerate(made.splits) if part == "validation"]
    y[validates] = 1 - y[validates]
    made.relabel(y)
    assert run_probe(config(made)).chosen["validation_score"] != before.chosen["validation_score"]


def test_a_rerun_returns_the_file_without_reading_features(made: Any) -> None:
    first = run_probe(config(made))
    for shard in made.store.glob("layer_2/*/c/**/*"):
        if shard.is_file():
            shard.write_bytes(b"")  # whoever reads a feature now fails
    again = run_probe(config(made))
    assert again == first
    assert read_result(Path(first.path)) == first
    assert Path(first.path).parent == made.store.parents[2] / "results"


def test_other_images_under_the_same_names_are_another_question(make: Any) -> None:
    """Recipe, ids, labels and split are the same: only the bytes that are read tell them apart."""
    good = make(signal=2.0)
    before = run_probe(config(good))
    shutil.rmtree(good.store)
    replaced = make(signal=0.0)
    assert replaced.store == good.store
    after = run_probe(config(replaced))
    assert after.path != before.path
    assert after.metric("auroc").value < 0.65 < before.metric("auroc").value


def test_a_dataset_with_the_same_ids_is_another_question(make: Any) -> None:
    first, other = run_probe(config(make())), run_probe(config(make(dataset="twin")))
    assert other.path != first.path
    assert (first.source["dataset"], other.source["dataset"]) == ("made", "twin")
    assert other.metrics == first.metrics


def test_force_writes_beside(made: Any) -> None:
    first = run_probe(config(made))
    second = run_probe(config(made, force=True))
    third = run_probe(config(made, force=True))
    stem = Path(first.path).stem
    assert [Path(r.path).name for r in (second, third)] == [f"{stem}-2.json", f"{stem}-3.json"]
    assert second.metrics == first.metrics
    assert second.chosen == first.chosen


def test_a_copied_dataset_folder_gives_the_same_result(made: Any, tmp_path: Path) -> None:
    """No path enters a digest."""
    first = run_probe(config(made))
    elsewhere = tmp_path / "elsewhere" / "made"
    elsewhere.parent.mkdir()
    made.store.parents[1].rename(elsewhere)
    moved = run_probe(config(made, store=elsewhere / made.store.parent.name / made.store.name))
    assert Path(moved.path).name == Path(first.path).name
    assert moved.metrics == first.metrics
    assert str(tmp_path) not in Path(moved.path).read_text()


def test_no_patient_is_named_in_the_result(made: Any) -> None:
    text = Path(run_probe(config(made)).path).read_text()
    assert not any(f'"{p}"' in text for p in made.patients)


def test_a_lone_store_takes_its_labels_and_split_from_files(made: Any, tmp_path: Path) -> None:
    lone = tmp_path / "lone" / made.store.name
    lone.parent.mkdir()
    made.store.rename(lone)
    with pytest.raises(InputError, match="--labels"):
        run_probe(config(made, store=lone))
    split = make_split(strings(made.samples), strings(made.patients), seed=7)
    write_split(split, tmp_path / "split.csv")
    labels = made.store.parents[1] / "labels.parquet"
    result = run_probe(config(made, store=lone, labels=labels, split=tmp_path / "split.csv"))
    assert Path(result.path).parent == lone.parent / "results"
    predictions = read_predictions(result)
    tested = set(predictions.sample[predictions.part == "test"].tolist())
    assert tested == set(split.sample[split.part == "test"].tolist())
    assert read_split(tmp_path / "split.csv").seed == 7


def test_a_patient_on_both_sides_of_a_given_split_stops_everything(made: Any, tmp_path: Path) -> None:
    part = ["test" if i == 0 else "train" if i < 80 else "validation" for i in range(len(made.samples))]
    rows = "\n".join(f"{s},q{i},{part[i]}" for i, s in enumerate(made.samples))  # the file's own patients hide it
    (tmp_path / "split.csv").write_text(f"sample,patient,split\n{rows}\n")
    with pytest.raises(InputError, match="one patient in two parts"):
        run_probe(config(made, split=tmp_path / "split.csv"))
    assert not (made.store.parents[2] / "results").exists()


def test_the_labels_own_split_is_kept_and_completed(make: Any) -> None:
    made = make(given=lambda p: "test" if p < 20 else "train")
    result = run_probe(config(made))
    predictions = read_predictions(result)
    assert set(predictions.sample[predictions.part == "test"].tolist()) == set(made.samples[:40])
    assert result.counts["validation_patients"] == 12


@pytest.mark.parametrize(("probe", "grid"), [("logistic", {"C": (0.1, 10.0)}), ("knn", {"C": None, "k": (3, 400)})])
def test_multiclass_and_both_probes(make: Any, probe: str, grid: dict[str, object]) -> None:
    made = make(Task("tumour", "multiclass", ("meningioma", "glioma", "pituitary")), signal=3.0)
    result = run_probe(config(made, probe=probe, **grid))
    assert result.metric("auroc").value > 0.9
    assert result.metric("accuracy", "all").value > 0.7


def test_binary_tasks_have_a_macro_average_of_one(make: Any) -> None:
    result = run_probe(config(make(Task("covid", "binary", ("yes",)))))
    one, macro = result.metric("auroc", "yes"), result.metric("auroc")
    assert (one.value, one.low, one.high) == (macro.value, macro.low, macro.high)


def test_slices_are_pooled_or_kept_apart(make: Any) -> None:
    made = make(slices=3, quarantined=(0,))
    pooled = run_probe(config(made))
    apart = run_probe(config(made, pool=None))
    assert (pooled.level, apart.level) == ("sample", "slice")
    assert run_probe(config(made, pool="none")).path == apart.path
    total = sum(apart.counts[f"{part}_rows"] for part in ("train", "validation", "test"))
    assert total == 3 * len(made.samples) - 1
    assert any("pooled without the slices that were set aside" in line for line in pooled.warnings)
    strict = run_probe(config(made, strict_volumes=True))
    assert any("1 sample was left out" in line for line in strict.warnings)
    assert sum(strict.counts[f"{part}_rows"] for part in ("train", "validation", "test")) == len(made.samples) - 1


def test_what_is_left_out_is_counted(make: Any) -> None:
    made = make(quarantined=(0, 1))
    y = made.y.copy()
    y[10:15] = np.nan
    y[20:30, 1] = np.nan
    made.relabel(y)
    result = run_probe(config(made))
    assert result.counts["left_out_quarantined"] == 2
    assert result.counts["left_out_no_label"] == 5


def test_a_label_without_both_classes_in_training_is_left_out_by_name(make: Any) -> None:
    made = make(given=lambda p: "test" if p % 4 == 0 else "validation" if p % 4 == 1 else "train")
    y = made.y.copy()
    y[[i for i, part in enumerate(made.splits) if part == "train"], 2] = 0
    made.relabel(y)
    result = run_probe(config(made))
    assert result.metric("auroc", "Nodule").value is None
    assert "training part" in result.metric("auroc", "Nodule").note
    assert "Nodule" in result.metric("auroc").note
    two = [result.metric("auroc", name).value for name in ("Effusion", "Mass")]
    assert result.metric("auroc").value == pytest.approx(np.mean(two))


def test_classes_restrict_the_macro_average(made: Any) -> None:
    result = run_probe(config(made, classes=("Mass", "Effusion")))
    assert [m.label for m in result.metrics if m.name == "auroc"] == ["macro", "Effusion", "Mass"]
    with pytest.raises(UnknownNameError, match="Mass"):
        run_probe(config(made, classes=("Masss",)))


@pytest.mark.parametrize(("kind", "says"), [("numeric", "probe ridge"), ("segmentation", "patch-linear")])
def test_tasks_for_later_are_refused_by_name(made: Any, tmp_path: Path, kind: str, says: str) -> None:
    task = Task("later", kind, ())
    made.label(tmp_path / "other", replace(task, classes=("value",)), made.y[:, :1])
    with pytest.raises(InputError, match=says):
        run_probe(config(made, labels=tmp_path / "other" / "labels.parquet"))


def test_several_tasks_must_be_chosen_from(made: Any) -> None:
    second = Task("other", "binary", ("yes",))
    made.label(made.store.parents[1], second, made.y[:, :1])
    with pytest.raises(InputError, match="2 tasks: findings, other"):
        run_probe(config(made))
    assert run_probe(config(made, task="other")).task == second


def test_a_split_of_another_store_is_refused(made: Any, tmp_path: Path) -> None:
    write_split(Split(strings(["x"]), strings(["p"]), strings(["train"])), tmp_path / "split.csv")
    with pytest.raises(InputError, match="1 samples that the store does not hold"):
        run_probe(config(made, split=tmp_path / "split.csv"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"k": (5,)}, "unknown option"),
        ({"C": ()}, "positive"),
        ({"C": (0.0,)}, "positive"),
        ({"validation": 1.5}, "between"),
        ({"C": (1.0,), "options": {"C": (2.0,)}}, "C is given twice"),
        ({"C": None, "options": {"C": "big"}}, r"C must be one or several numbers\. Got 'big'"),
        ({"options": {"tol": "small"}}, "tol must be a number. Got 'small'"),
        ({"options": {"max_iter": 2.5}}, "max_iter must be a whole number. Got 2.5"),
        ({"options": {"device": None}}, "device must be text like 'cpu'. Got None"),
        ({"probe": "knn", "C": None, "options": {"temperature": 0}}, "temperature must be above 0. Got 0"),
        ({"probe": "linear-svm", "C": None, "options": {"tol": float("nan")}}, "takes no such options: tol = nan"),
    ],
)
def test_bad_options_are_one_line(made: Any, change: dict[str, object], says: str) -> None:
    with pytest.raises((InputError, UnknownNameError), match=says) as caught:
        run_probe(config(made, **change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("probe", ["logistic", "linear-svm"])
def test_one_value_of_a_grid_needs_no_tuple_around_it(made: Any, probe: str) -> None:
    bare = config(made, probe=probe, C=None, options={"C": 0.01})
    assert run_probe(bare).inputs == run_probe(replace(bare, options={"C": (0.01,)})).inputs


def test_results_that_can_not_be_written_are_refused_before_the_fits(made: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stages: list[str] = []
    with pytest.raises(InputError, match=r"results can not be written into .* is a file"):
        run_probe(config(made, results=tmp_path / "file" / "results"), stages.append)
    assert stages == []


@pytest.mark.parametrize("force", [False, True])
def test_no_torch_is_imported_by_a_probe_and_no_solver_by_a_rerun(made: Any, force: bool) -> None:
    run_probe(config(made))
    program = (
        "import json, sys; from embedcache.evaluation.probe import ProbeConfig, run_probe; from pathlib import Path;"
        f"run_probe(ProbeConfig('logistic', Path({str(made.store)!r}), C={SHORT!r}, resamples=100, force={force}));"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "embedcache.evaluation.probe" in loaded
    assert not loaded & {"torch", "transformers", "sklearn", "faiss", "matplotlib", "embedcache.backbones"}
    assert not loaded & {"nibabel", "pydicom", "PIL", "requests"}, (
        "half a second of each probe, for images that it reads none of"
    )
    # pyarrow imports pandas, where there is one, for what there are other ways to do: half a second of each probe
    assert not loaded & ({"pandas"} if force else {"pandas", "zarr"})
