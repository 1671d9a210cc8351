"""Fitted on one store, tested on another."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache import FeatureCache
from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation.by_column import measure_subgroups
from embedcache.evaluation.compare import compare_results
from embedcache.evaluation.predictions import read_predictions
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.evaluation.repeat import repeat_probe
from embedcache.evaluation.result_table import tabulate_results
from embedcache.store.labels import read_labels, write_labels
from embedcache.testing.labelled_stores import FINDINGS, LabelledStore, long_labels, write_labelled_store
from embedcache.types import Labels, Result, Task

SHORT = (1e-2, 1.0)
TUMOUR = Task("tumour", "multiclass", ("meningioma", "glioma", "pituitary"))


def thirds(patient: int) -> str:
    return ("train", "validation", "test")[patient % 3]


def probed(made: LabelledStore, **changes: Any) -> Result:
    return run_probe(replace(ProbeConfig("logistic", made.store, C=SHORT, resamples=50), **changes))


@pytest.fixture
def other(make: Callable[..., LabelledStore]) -> LabelledStore:
    """A second dataset of the same recipe: other patients, no signal lost."""
    return make(seed=5, n=60, dataset="other", prefix="b")


def copied(made: LabelledStore, rows: list[int], dataset: str, **how: Any) -> LabelledStore:
    """These samples of `made` as a store of their own, features and labels alike."""
    cache = FeatureCache.open(made.store)
    copy = LabelledStore(
        made.store.parents[2] / dataset / made.store.parent.name / made.store.name,
        [made.samples[i] for i in rows],
        [made.patients[i] for i in rows],
        made.y[rows],
        made.task,
        ["" for _ in rows],
    )
    tokens = {(2, "cls_token"): cache.features("cls").X[rows], (2, "patch_mean"): cache.features("mean").X[rows]}
    write_labelled_store(copy, tokens, **how)
    return copy


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("knn", FINDINGS),
        ("logistic", FINDINGS),
        ("knn", TUMOUR),
        ("logistic", TUMOUR),
        ("ridge", Task("age", "numeric", ())),
    ],
)
def test_the_test_part_as_a_store_of_its_own_scores_as_the_plain_run(
    make: Callable[..., LabelledStore], name: str, task: Task
) -> None:
    made = make(task, given=thirds)
    plain = run_probe(ProbeConfig(name, made.store, resamples=50))
    part = copied(made, [i for i in range(len(made.samples)) if thirds(i // 2) == "test"], "part")
    away = run_probe(ProbeConfig(name, made.store, resamples=50, test_store=part.store))
    assert away.path != plain.path
    assert away.metrics == plain.metrics
    assert away.chosen == plain.chosen
    one, two = read_predictions(plain), read_predictions(away)
    np.testing.assert_array_equal(one.score, two.score)
    np.testing.assert_array_equal(one.sample, two.sample)
    np.testing.assert_array_equal(one.before, two.before)
    assert away.counts["test_left_out_trained_patients"] == 0
    assert away.counts["unused_test_samples"] == plain.counts["test_samples"]


def test_labels_of_the_tested_store_choose_nothing(made: LabelledStore, other: LabelledStore) -> None:
    before = probed(made, test_store=other.store)
    other.relabel(other.y[np.random.default_rng(0).permutation(len(other.y))])
    after = probed(made, test_store=other.store)
    assert after.path != before.path
    assert after.chosen == before.chosen
    assert after.selection == before.selection
    np.testing.assert_array_equal(read_predictions(after).score, read_predictions(before).score)
    assert abs((after.metric("auroc").value or 0) - 0.5) < 0.15 < (before.metric("auroc").value or 0) - 0.5


def test_features_of_the_tested_store_choose_nothing(
    made: LabelledStore, other: LabelledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of its rows is read before the choice and the refit are made."""
    from embedcache.evaluation import probe as module

    read: list[str] = []
    assemble = FeatureCache.features

    def watched(self: FeatureCache, *args: Any, **kwargs: Any) -> Any:
        read.append(self.root.dataset.name)
        return assemble(self, *args, **kwargs)

    refit = module.refit

    def fitted(*args: Any) -> Any:
        read.append("refit")
        return refit(*args)

    monkeypatch.setattr(FeatureCache, "features", watched)
    monkeypatch.setattr(module, "refit", fitted)
    probed(made, test_store=other.store)
    assert read == ["made", "refit", "other"]


def test_a_result_says_where_it_was_fitted_and_tested(made: LabelledStore, other: LabelledStore) -> None:
    plain, away = probed(made), probed(made, test_store=other.store)
    assert away.counts["test_samples"] == len(other.samples)
    assert away.counts["train_samples"] == plain.counts["train_samples"]
    assert (away.source["dataset"], away.source["test_dataset"]) == ("made", "other")
    assert any("tested on other; the own test part of made is not used" in line for line in away.warnings)
    # who fitted is the same; who tested is told beside it
    assert {k: v for k, v in away.inputs.items() if k not in ("elsewhere", "config")} == {
        k: v for k, v in plain.inputs.items() if k != "config"
    }
    there = probed(other)
    assert away.inputs["elsewhere"]["plan"] == there.inputs["plan"]
    assert away.inputs["elsewhere"]["labels"] == there.inputs["labels"]
    (line,) = (x for x in tabulate_results(made.store.parents[2]).lines if x.file == Path(away.path).name)
    assert line.dataset == "made -> other"
    assert len(tabulate_results(made.store.parents[2], dataset="other").lines) == 2
    assert probed(made, test_store=other.store) == away


def test_a_folder_of_the_dataset_names_its_store_of_the_same_recipe(
    made: LabelledStore, other: LabelledStore, make: Callable[..., LabelledStore]
) -> None:
    direct = probed(made, test_store=other.store)
    assert probed(made, test_store=other.store.parents[1]).path == direct.path
    alien = make(seed=5, dataset="other", backbone="second", prefix="b", n=60)
    alien.store.rename(alien.store.with_name("ffffffffffff.zarr"))
    assert probed(made, test_store=other.store.parents[1]).path == direct.path


def test_another_recipe_is_refused_field_by_field(made: LabelledStore) -> None:
    alien = copied(made, list(range(20)), "alien", size=56)
    with pytest.raises(
        InputError, match=r"image\.size is \[28, 28\] in the first and \[56, 56\] in the second"
    ) as told:
        probed(made, test_store=alien.store)
    assert "model" not in str(told.value)
    assert "\n" not in str(told.value)


def test_an_array_that_the_tested_store_lacks_is_named(made: LabelledStore) -> None:
    cache = FeatureCache.open(made.store)
    part = replace(made, store=made.store.parents[2] / "part" / made.store.parent.name / made.store.name)
    write_labelled_store(part, {(2, "cls_token"): cache.features("cls").X})
    with pytest.raises(UnknownNameError, match="layer_2/patch_mean"):
        probed(made, test_store=part.store)
    probed(made, test_store=part.store, features="cls")


def test_slices_that_were_set_aside_there_are_told(make: Callable[..., LabelledStore]) -> None:
    made = make(slices=2)
    other = make(slices=2, quarantined=(0, 2, 3), dataset="other", prefix="b", n=60, seed=5)
    pooled = probed(made, test_store=other.store)
    assert pooled.counts["test_left_out_quarantined"] == 1
    assert pooled.counts["test_samples"] == 59
    assert any("1 sample of other was pooled without the slices" in line for line in pooled.warnings)
    strict = probed(made, test_store=other.store, strict_volumes=True)
    assert strict.counts["test_samples"] == 58
    apart = probed(made, test_store=other.store, pool=None)
    assert (apart.level, apart.counts["test_rows"]) == ("slice", 2 * 60 - 3)


def test_patients_who_train_are_left_out_of_the_test(make: Callable[..., LabelledStore], other: LabelledStore) -> None:
    made = make(given=thirds)
    mixed = copied(made, list(range(40)), "mixed")
    result = probed(made, test_store=mixed.store)
    predictions = read_predictions(result).of("test")
    expected = [s for i, s in enumerate(made.samples[:40]) if thirds(i // 2) == "test"]
    assert predictions.sample.tolist() == expected
    assert result.counts["test_left_out_trained_patients"] == 40 - len(expected)
    assert any(f"{40 - len(expected)} samples of 14 patients were left out" in line for line in result.warnings)
    trained = copied(made, [i for i in range(60) if thirds(i // 2) != "test"], "trained")
    with pytest.raises(InputError, match="nobody is left to test"):
        probed(made, test_store=trained.store)


def renamed(made: LabelledStore, rows: list[int], dataset: str = "again") -> LabelledStore:
    """These samples under other ids of samples and patients, in this order: the same images, extracted twice."""
    names = replace(
        made, samples=[f"x{name}" for name in made.samples], patients=[f"x{name}" for name in made.patients]
    )
    return copied(names, rows, dataset)


def test_images_that_train_are_counted_under_whatever_ids(make: Callable[..., LabelledStore]) -> None:
    made = make(given=thirds)
    rows = [*range(40)][::-1]
    result = probed(made, test_store=renamed(made, rows).store)
    count = sum(thirds(i // 2) != "test" for i in rows)
    assert result.counts["test_samples"] == 40
    (line,) = [line for line in result.warnings if "unseen" in line]
    assert line.startswith(f"{count} of 40 test samples of again have the very tokens of a sample of made that trains")
    assert "leaks STORE --against OTHER" in line
    notes = tabulate_results(made.store.parents[2]).notes
    assert any(note.endswith(line) for note in notes)


def test_images_that_neither_train_nor_choose_are_not_counted(make: Callable[..., LabelledStore]) -> None:
    made = make(given=thirds)
    test = [i for i in range(40) if thirds(i // 2) == "test"]
    assert not [x for x in probed(made, test_store=renamed(made, test).store).warnings if "unseen" in x]
    # one that has no label is in no fit
    y = made.y.copy()
    y[:20] = np.nan
    result = probed(made, test_store=renamed(made, list(range(40)), "whole").store)
    made.relabel(y)
    fewer = probed(made, test_store=made.store.parents[2] / "whole")
    counts = [int(line.split()[0]) for x in (result, fewer) for line in x.warnings if "unseen" in line]
    assert counts == [sum(thirds(i // 2) != "test" for i in part) for part in (range(40), range(20, 40))]


def test_samples_of_several_slices_are_one_image_if_all_their_slices_are(make: Callable[..., LabelledStore]) -> None:
    made = make(slices=2, given=thirds)
    tokens = FeatureCache.open(made.store).tokens(2, "cls_token").read()[:320].copy()
    tokens[0] += 1  # of sample 0 one slice is another
    again = replace(
        made,
        store=made.store.parents[2] / "again" / made.store.parent.name / made.store.name,
        samples=[f"x{name}" for name in made.samples],
        patients=[f"x{name}" for name in made.patients],
    )
    write_labelled_store(again, {(2, "cls_token"): tokens, (2, "patch_mean"): tokens}, slices=2)
    (line,) = [x for x in probed(made, test_store=again.store, features="cls").warnings if "unseen" in x]
    count = sum(thirds(i // 2) != "test" for i in range(160))
    assert line.startswith(f"{count - 1} of 160 test samples")


def test_ids_that_can_not_be_compared_are_told(
    made: LabelledStore, other: LabelledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pseudonyms of two datasets differ for one patient: silence would claim more than is known."""
    from embedcache.evaluation import elsewhere

    assert not any("can not be seen" in line for line in probed(made, test_store=other.store).warnings)
    cache = FeatureCache.open(made.store)
    pseudonyms = replace(cache.root, id_scheme="pseudonym", key_id="a" * 16)
    for change, comparable in (
        ({}, True),
        ({"key_id": "b" * 16}, False),
        ({"dataset": replace(cache.root.dataset, name="x")}, False),
        ({"id_scheme": "kept"}, False),
    ):
        one, two = FeatureCache.open(made.store), FeatureCache.open(made.store)
        one.root, two.root = pseudonyms, replace(pseudonyms, **change)  # type: ignore[arg-type]
        assert elsewhere._same_names(one, two) is comparable
    monkeypatch.setattr(elsewhere, "_same_names", lambda a, b: False)
    result = probed(made, test_store=other.store, force=True)
    assert any("whether one is in both can not be seen" in line for line in result.warnings)


def relabelled(other: LabelledStore, task: Task, y: np.ndarray) -> None:
    other.label(other.store.parents[1], task, y)


def test_classes_that_only_one_has_are_left_out_by_name(made: LabelledStore, other: LabelledStore) -> None:
    whole = probed(made, test_store=other.store)
    folder = other.store.parents[1]
    labels = read_labels(folder)
    # another order, one class less, one more
    relabelled(other, Task("findings", "multilabel", ("Hernia", "Nodule", "Effusion")), other.y[:, [1, 2, 0]])
    result = probed(made, test_store=other.store)
    assert [m.label for m in result.metrics if m.name == "auroc"] == ["macro", "Effusion", "Nodule"]
    assert any("not among the classes of other, so left out: Mass" in line for line in result.warnings)
    shared = probed(made, test_store=other.store, classes=("Effusion", "Nodule"))
    assert shared.path == result.path
    relabelled(other, Task("findings", "multilabel", ("Hernia", "Fibrosis")), other.y[:, :2])
    with pytest.raises(InputError, match="0 in both"):
        probed(made, test_store=other.store)
    write_labels(folder, labels)
    assert probed(made, test_store=other.store).path == whole.path


def test_classes_of_one_kind_are_matched_by_name_not_by_number(make: Callable[..., LabelledStore]) -> None:
    made = make(TUMOUR, signal=3.0)
    turned = Task("tumour", "multiclass", ("pituitary", "other", "meningioma"))
    other = make(turned, signal=3.0, dataset="other", prefix="b", n=90)
    # the features carry class j of their own store: make them those of the class of the same name
    cache = FeatureCache.open(other.store)
    X = [cache.features(kind).X.copy() for kind in ("cls", "mean")]
    for values in X:
        values[:, :3] = values[:, [2, 1, 0]]
    moved = LabelledStore(
        other.store.parents[2] / "moved" / other.store.parent.name / other.store.name,
        other.samples, other.patients, other.y, turned, other.splits,
    )  # fmt: skip
    write_labelled_store(moved, {(2, "cls_token"): X[0], (2, "patch_mean"): X[1]})
    result = probed(made, test_store=moved.store)
    assert (result.metric("auroc", "pituitary").value or 0) > 0.9
    assert (result.metric("auroc", "meningioma").value or 0) > 0.9
    assert result.metric("auroc", "glioma").value is None
    assert result.counts["test_left_out_no_label"] == int(other.y[:, 1].sum())
    assert any("fitted, and undefined in the test: glioma" in line for line in result.warnings)
    assert any("rows left out: other" in line for line in result.warnings)


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (Task("others", "multilabel", FINDINGS.classes), "hold no task 'findings', which is fitted; there is: others"),
        (Task("findings", "binary", ("Effusion",)), "kind multilabel where it is fitted and kind binary in other"),
        (Task("findings", "multilabel", FINDINGS.classes, level="patient"), "level sample where .* level patient"),
    ],
)
def test_other_tasks_are_refused(made: LabelledStore, other: LabelledStore, task: Task, says: str) -> None:
    (other.store.parents[1] / "labels.parquet").unlink()
    relabelled(other, task, other.y[:, : len(task.classes)])
    with pytest.raises(InputError, match=says):
        probed(made, test_store=other.store)


def test_samples_without_a_label_do_not_test(made: LabelledStore, other: LabelledStore) -> None:
    y = other.y.copy()
    y[:10] = np.nan
    other.relabel(y)
    result = probed(made, test_store=other.store)
    assert result.counts["test_samples"] == len(other.samples) - 10
    assert result.counts["test_left_out_no_label"] == 10
    other.relabel(np.full_like(y, np.nan))
    with pytest.raises(InputError, match="--test-labels FILE"):
        probed(made, test_store=other.store)


def test_the_tested_store_may_lie_alone(made: LabelledStore, other: LabelledStore, tmp_path: Path) -> None:
    before = probed(made, test_store=other.store)
    lone = tmp_path / "usb" / other.store.name
    lone.parent.mkdir()
    other.store.rename(lone)
    with pytest.raises(InputError, match="--labels FILE"):
        probed(made, test_store=lone)
    labels = other.store.parents[1] / "labels.parquet"
    assert probed(made, test_store=lone, test_labels=labels).path == before.path


def test_a_split_file_needs_no_test_part(made: LabelledStore, other: LabelledStore, tmp_path: Path) -> None:
    parts = ["train" if p < "p0060" else "validation" for p in made.patients]
    rows = "\n".join(f"{s},{p},{part}" for s, p, part in zip(made.samples, made.patients, parts, strict=True))
    (tmp_path / "split.csv").write_text(f"sample,patient,split\n{rows}\n")
    with pytest.raises(InputError, match="names no test samples"):
        probed(made, split=tmp_path / "split.csv")
    result = probed(made, split=tmp_path / "split.csv", test_store=other.store)
    assert result.counts["unused_test_samples"] == 0
    assert result.counts["train_samples"] + result.counts["validation_samples"] == len(made.samples)


def test_a_repetition_finds_both_stores(made: LabelledStore, other: LabelledStore) -> None:
    """Both bear one name: they are told apart by their datasets."""
    away = probed(made, test_store=other.store)
    done = repeat_probe(away.path)
    assert (done.inputs, done.figures, done.largest_change) == ((), (), 0.0)
    plain = probed(made)
    assert repeat_probe(plain.path).inputs == ()
    swapped = repeat_probe(away.path, test_store=made.store)
    assert "elsewhere.plan" in [d.name for d in swapped.inputs]


def with_site(made: LabelledStore, sites: list[str]) -> Labels:
    site = Task("site", "multiclass", ("A", "B"))
    y = np.array([[s == "A", s == "B"] for s in sites], dtype=float)
    return long_labels(site, made.samples, made.patients, y, made.splits)


def test_subgroups_of_a_result_are_those_of_the_tested_store(made: LabelledStore, other: LabelledStore) -> None:
    away = probed(made, test_store=other.store)
    sites = ["A" if i % 4 < 2 else "B" for i in range(len(other.samples))]
    write_labels(other.store.parents[1], with_site(other, sites))
    table = measure_subgroups(away.path, "site", resamples=50)
    assert [(g.name, g.n) for g in table.groups] == [("A", 30), ("B", 30)]
    macro = next(m for m in table.groups[0].metrics if m.name == "auroc" and m.label == "macro")
    assert macro.low is not None
    assert macro.low < (macro.value or 0)


def test_results_fitted_on_two_stores_are_compared_on_a_third(
    made: LabelledStore, other: LabelledStore, make: Callable[..., LabelledStore]
) -> None:
    third = make(seed=9, dataset="third", prefix="c")
    one, two = probed(made, test_store=other.store), probed(third, test_store=other.store)
    found = compare_results([one.path, two.path], resamples=50)
    assert found.names == ("fitted on made", "fitted on third")
    assert found.rows == len(other.samples)


def test_a_choice_by_left_out_patients_is_tested_elsewhere_too(made: LabelledStore, other: LabelledStore) -> None:
    result = run_probe(ProbeConfig("knn", made.store, resamples=50, select="leave-patient-out", test_store=other.store))
    assert result.counts["test_samples"] == len(other.samples)
    assert (result.metric("auroc").value or 0) > 0.8
