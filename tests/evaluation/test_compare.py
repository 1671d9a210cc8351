import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation.compare import compare_results
from embedcache.evaluation.holm import holm
from embedcache.evaluation.measured import read_measured, titles_of
from embedcache.evaluation.paired import compare_scores
from embedcache.evaluation.predictions import encode_predictions, read_predictions
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.evaluation.results import encode_result
from embedcache.types import Result, Task


def probed(made: Any, probe: str = "knn", **changes: Any) -> Result:
    return run_probe(ProbeConfig(probe, made.store, resamples=50, **changes))


@pytest.fixture
def made(make: Any) -> Any:
    """400 samples of 200 patients: 40 of them test."""
    return make(n=400)


def test_two_results_are_compared_as_their_scores_are(made: Any) -> None:
    a, b = probed(made), probed(made, features="mean")
    found = compare_results([a.path, b.path], resamples=200)
    assert found.names == (a.chosen["features"], "mean")
    assert (found.rows, found.patients) == (a.counts["test_samples"], a.counts["test_patients"])
    for result, i in ((a, 0), (b, 1)):
        for metric in ("auroc", "average_precision", "f1", "brier"):
            assert found.column(metric).values[i] == pytest.approx(result.metric(metric).value, rel=1e-9), metric
            assert found.column(metric, "Mass").values[i] == pytest.approx(
                result.metric(metric, "Mass").value, rel=1e-9
            )
    one, two = read_measured(a.path), read_measured(b.path)
    expected = compare_scores(
        one.test.label, one.test.score, two.test.score, one.test.patient, "multilabel", one.test.classes,
        (0.5, 0.5), ("vote share",) * 2, before=(one.before, two.before), resamples=200,
    )  # fmt: skip
    (pair,) = found.column("auroc", "Mass").pairs
    assert pair == next(c for c in expected if (c.metric, c.label) == ("auroc", "Mass"))
    assert found.column("auroc", "Mass").adjusted == (pytest.approx(pair.p),)


def test_a_result_against_itself_differs_in_nothing(made: Any) -> None:
    a = probed(made)
    b = run_probe(ProbeConfig("knn", made.store, resamples=50, force=True))
    found = compare_results([a.path, b.path], resamples=100)
    for column in found.columns:
        (pair,) = column.pairs
        assert pair.difference == 0
        if column.metric == "calibration_error":
            assert (pair.p, column.adjusted, column.best) == (None, (None,), ())
            continue
        assert pair.p == 1
        assert len(column.best) == 2


def test_with_three_the_best_is_a_set_after_holm(make: Any) -> None:
    made = make(n=1000, signal=1.2)
    good, worse = (
        probed(made, "logistic", C=(0.1,), features="cls"),
        probed(made, "logistic", C=(0.1,), features="mean"),
    )
    again = probed(made, "logistic", C=(0.11,), features="cls")
    found = compare_results([good.path, worse.path, again.path], metrics=["auroc"], label="macro", resamples=400)
    (column,) = found.columns
    assert len(set(found.names)) == 3
    assert round(column.values[0], 3) > round(column.values[1], 3)
    assert found.names[1] not in column.best
    assert {found.names[0], found.names[2]} <= set(column.best)
    raw = [pair.p for pair in column.pairs]
    assert all(p <= q for p, q in zip(raw, column.adjusted, strict=True))


def test_of_a_binary_task_class_and_macro_average_are_one_column_twice(make: Any) -> None:
    """Holm's correction is over the pairs of each column, as if the other were not there."""
    made = make(Task("covid", "binary", ("yes",)), n=300, signal=1.2)
    results = [probed(made, k=(k,), features=features) for k, features in ((5, "cls"), (20, "mean"), (40, "cls"))]
    found = compare_results([r.path for r in results], metrics=["auroc"], resamples=100)
    average, of_class = found.column("auroc"), found.column("auroc", "yes")
    assert replace(average, label="yes", pairs=()) == replace(of_class, pairs=())
    assert [replace(pair, label="yes") for pair in average.pairs] == list(of_class.pairs)
    assert average.adjusted == tuple(holm([pair.p for pair in average.pairs]))


def test_a_threshold_that_one_of_three_lacks_is_left_out_of_all_macro_averages(made: Any) -> None:
    results = [probed(made), probed(made, features="mean"), probed(made, features="cls", k=(5,))]
    rows = read_predictions(results[2])
    label = rows.label.copy()
    label[rows.part == "validation", 1] = 0
    Path(results[2].path).with_suffix(".parquet").write_bytes(encode_predictions(replace(rows, label=label)))
    column = compare_results([r.path for r in results], metrics=["f1"], resamples=50).column("f1")
    assert made.task.classes == ("Effusion", "Mass", "Nodule")
    for i, result in enumerate(results):
        two = [result.metric("f1", label).value for label in ("Effusion", "Nodule")]
        assert column.values[i] == pytest.approx(np.mean(two))
    assert [pair.a for pair in column.pairs] == [column.values[0], column.values[0], column.values[1]]
    assert all("left out as undefined: Mass" in pair.note for pair in column.pairs)


def test_results_are_asked_for_what_they_have_in_common(made: Any) -> None:
    paths = [probed(made).path, probed(made, features="mean").path]
    with pytest.raises(UnknownNameError, match="did you mean 'Mass'"):
        compare_results(paths, label="Masse", resamples=20)
    with pytest.raises(UnknownNameError, match="auroc"):
        compare_results(paths, metrics=["auc"], resamples=20)
    with pytest.raises(InputError, match="two results or more"):
        compare_results(paths[:1])


def test_what_can_not_be_compared_is_refused_by_what_differs(make: Any, made: Any, tmp_path: Path) -> None:
    a = probed(made)
    seeded = probed(made, "logistic", C=(0.1,), seed=3)
    called = [f"{Path(a.path).name} (knn on made-up, made)", f"{Path(seeded.path).name} (logistic on made-up, made)"]
    with pytest.raises(
        InputError, match=f"^{re.escape(' and '.join(called))} can not be compared: they tested other rows"
    ):
        compare_results([a.path, seeded.path])
    for change, says in (
        ({"seed": 3}, "they tested other rows"),
        ({"classes": ("Mass",)}, "their classes are"),
        ({"pool": None}, "--pool"),
    ):
        with pytest.raises(InputError, match=says):
            compare_results([a.path, probed(made, **change).path])
    y = made.y.copy()
    y[:, 0] = 1 - y[:, 0]
    made.relabel(y)
    with pytest.raises(InputError, match="labels of the same rows"):
        compare_results([a.path, probed(made).path])
    made.label(made.store.parents[1], Task("other", "binary", ("yes",)), made.y[:, :1])
    with pytest.raises(InputError, match="answer tasks 'findings' and 'other'"):
        compare_results([a.path, probed(made, task="other").path])


def test_of_results_of_several_tasks_one_is_chosen_by_what_their_jsons_say(made: Any) -> None:
    a, b = probed(made), probed(made, features="mean")
    made.label(made.store.parents[1], Task("other", "binary", ("yes",)), made.y[:, :1])
    other = probed(made, task="other")
    Path(other.path).with_suffix(".parquet").unlink()  # what is not compared is not read
    paths = [a.path, b.path, other.path]
    with pytest.raises(
        InputError, match=r"^3 results can not be compared.*'findings' and 'other'; choose one with --task NAME"
    ):
        compare_results(paths)
    assert len(compare_results(paths, task="findings", resamples=20).names) == 2
    with pytest.raises(InputError, match="Got 1 of task 'other'"):
        compare_results(paths, task="other")


def test_of_results_of_several_datasets_one_is_chosen(make: Any, made: Any) -> None:
    there = make(n=120, dataset="third", prefix="c")
    a, b, third = probed(made), probed(made, features="mean"), probed(there)
    paths = [a.path, third.path, b.path]
    with pytest.raises(InputError, match="they are of datasets made and third; choose one with --dataset NAME"):
        compare_results(paths, resamples=20)
    found = compare_results(paths, dataset="made", resamples=20)
    assert found.files == (Path(a.path).name, Path(b.path).name)
    with pytest.raises(UnknownNameError, match="did you mean 'third'"):
        compare_results(paths, dataset="thrid")
    with pytest.raises(InputError, match="Got 1 of dataset third"):
        compare_results(paths, dataset="third")


def test_the_order_of_rows_in_a_file_decides_nothing(made: Any, tmp_path: Path) -> None:
    a, b = probed(made), probed(made, features="mean")
    before = compare_results([a.path, b.path], resamples=50)
    rows = read_predictions(b)
    turned = rows.take(np.arange(len(rows.sample))[::-1])
    Path(b.path).with_suffix(".parquet").write_bytes(encode_predictions(turned))
    assert compare_results([a.path, b.path], resamples=50) == before


def test_predictions_without_patients_are_refused(made: Any) -> None:
    a = probed(made)
    rows = read_predictions(a)
    Path(a.path).with_suffix(".parquet").write_bytes(
        encode_predictions(replace(rows, patient=np.full(len(rows.sample), "")))
    )
    with pytest.raises(InputError, match="--force"):
        read_measured(a.path)


@pytest.mark.parametrize("key", ["threshold", "scores_are"])
def test_a_result_that_lacks_what_it_chose_is_one_clear_line(made: Any, key: str) -> None:
    a = probed(made)
    older = replace(a, chosen={name: value for name, value in a.chosen.items() if name != key})
    Path(a.path).write_text(encode_result(older))
    with pytest.raises(InputError, match=f"{key}.*--force"):
        read_measured(a.path)


def test_results_that_differ_in_nothing_but_their_files_are_called_by_those(made: Any) -> None:
    a = probed(made)
    b = replace(a, path=str(Path(a.path).with_name("other.json")))
    Path(b.path).write_text(encode_result(b))
    assert titles_of([a, b]) == (Path(a.path).stem, "other")
