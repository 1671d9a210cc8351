from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation.by_column import measure_subgroups
from embedcache.evaluation.measure import measure
from embedcache.evaluation.measured import read_measured
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.types import Task


@pytest.fixture
def made(make: Any) -> Any:
    return make(n=400)


def write_columns(made: Any, sex: np.ndarray, age: np.ndarray, file: Path) -> None:
    lines = ["id,sex,age"] + [f"{s},{x},{a}" for s, x, a in zip(made.samples, sex, age, strict=True)]
    file.write_text("\n".join(lines) + "\n")


def test_each_group_is_measured_on_its_rows_alone(made: Any, tmp_path: Path) -> None:
    sex = np.array(["F", "M"])[np.arange(400) // 2 % 2]
    write_columns(made, sex, 20 + np.arange(400) // 8, tmp_path / "columns.csv")
    result = run_probe(ProbeConfig("knn", made.store, resamples=50))
    table = measure_subgroups(result.path, "sex", labels=tmp_path / "columns.csv", resamples=50)
    assert len(table.groups) == 2
    assert sum(g.n for g in table.groups) == result.counts["test_rows"]
    read = read_measured(result.path)
    of = dict(zip(made.samples, sex, strict=True))
    female = np.array([of[s] == "F" for s in read.test.sample.tolist()])
    expected = measure(
        read.test.label[female], read.test.score[female], read.test.patient[female], "multilabel",
        read.test.classes, 0.5, score_name="vote share", before=None, resamples=50,
    )  # fmt: skip
    (group,) = [g for g in table.groups if g.name in ("F", "not M")]
    value = {(m.name, m.label): m.value for m in group.metrics}
    assert {(m.name, m.label): m.value for m in expected}.items() <= value.items()
    assert [d.label for d in table.differences] == ["macro", *made.task.classes]


def test_ages_are_cut_in_tens_or_at_edges_and_missing_ones_stand_apart(made: Any, tmp_path: Path) -> None:
    age = (20 + np.arange(400) // 8).astype(object)
    age[::10] = ""
    write_columns(made, np.full(400, "F"), age, tmp_path / "columns.csv")
    result = run_probe(ProbeConfig("knn", made.store, resamples=50))
    tens = measure_subgroups(result.path, "age", labels=tmp_path / "columns.csv", resamples=20)
    assert [g.name for g in tens.groups][:2] == ["20 to 30", "30 to 40"]
    assert tens.groups[-1].name == "missing"
    cut = measure_subgroups(result.path, "age", labels=tmp_path / "columns.csv", edges=(45.0,), resamples=20)
    assert [g.name for g in cut.groups] == ["below 45", "45 and more", "missing"]


def test_a_task_beside_the_store_is_a_column(made: Any) -> None:
    result = run_probe(ProbeConfig("knn", made.store, resamples=50))
    made.label(made.store.parents[1], Task("view", "binary", ("PA",)), made.y[:, :1])
    table = measure_subgroups(result.path, "view", resamples=20)
    assert {g.name for g in table.groups} == {"PA", "not PA"}
    with pytest.raises(UnknownNameError, match="view"):
        measure_subgroups(result.path, "veiw")


def test_a_column_without_any_value_is_refused(made: Any) -> None:
    result = run_probe(ProbeConfig("knn", made.store, resamples=50))
    made.label(made.store.parents[1], Task("view", "binary", ("PA",)), np.full((400, 1), np.nan))
    with pytest.raises(InputError, match="no row of the test part"):
        measure_subgroups(result.path, "view")
