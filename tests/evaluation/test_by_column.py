from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.datasets import open_dataset
from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation.by_column import measure_subgroups
from embedcache.evaluation.measure import measure
from embedcache.evaluation.measured import read_measured
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.testing import make_replica
from embedcache.testing.labelled_stores import WIDTH, LabelledStore, write_labelled_store
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


def test_any_column_of_ones_own_table_groups_though_it_is_no_label(made: Any, tmp_path: Path) -> None:
    site = np.array(["North", "South", "N/A"])[np.arange(400) // 2 % 3]
    rows = [f"{p},{s},{40 + i % 50:03d}Y" for i, (p, s) in enumerate(zip(made.patients[::2], site[::2], strict=True))]
    file = tmp_path / "people.csv"
    file.write_text("PatientID,InstitutionName,PatientAge\n" + "\n".join(rows) + "\n")
    result = run_probe(ProbeConfig("knn", made.store, resamples=50))
    table = measure_subgroups(result.path, "InstitutionName", labels=file, resamples=20)
    assert [g.name for g in table.groups] == ["North", "South", "missing"]
    assert sum(g.n for g in table.groups) == result.counts["test_rows"]
    of = dict(zip(made.samples, site, strict=True))
    test = read_measured(result.path).test.sample.tolist()
    assert table.groups[0].n == sum(of[s] == "North" for s in test)
    ages = measure_subgroups(result.path, "PatientAge", labels=file, resamples=20)
    assert [g.name for g in ages.groups] == ["40 to 50", "50 to 60", "60 to 70", "70 to 80", "80 to 90"]
    labels = made.store.parents[1] / "labels.parquet"
    assert b"North" not in labels.read_bytes()
    assert b"North" not in Path(result.path).read_bytes()
    file.write_text(file.read_text() + f"{made.patients[0]},South,040Y\n")
    says = r"row 1 of people\.csv and row 201 of people\.csv are of the same sample or patient and differ in column"
    with pytest.raises(InputError, match=says):
        measure_subgroups(result.path, "InstitutionName", labels=file)


def test_columns_of_the_dataset_itself_group(tmp_path: Path) -> None:
    root = make_replica("chexpert", tmp_path / "data")
    store, ids, columns = _tested_on(root, tmp_path)
    for by in ("Sex", "AP/PA"):
        table = measure_subgroups(store, by, root=str(root), resamples=20)
        values = dict(zip(ids, columns[by].tolist(), strict=True))
        test = read_measured(store).test.sample.tolist()
        assert {g.name: g.n for g in table.groups} == Counter(values[s] or "missing" for s in test)
    with pytest.raises(UnknownNameError, match="unknown column of chexpert 'sex'; did you mean 'Sex'"):
        measure_subgroups(store, "sex", root=str(root))
    with pytest.raises(InputError, match="give one of them"):
        measure_subgroups(store, "Sex", root=str(root), labels=root / "train.csv")
    # its own table names the archive's folder, which the ids do not
    joined = measure_subgroups(store, "Sex", labels=root / "train.csv", resamples=20)
    assert {g.name for g in joined.groups} <= {"Female", "Male", "missing"}
    assert {g.name for g in joined.groups} & {"Female", "Male"}


def _tested_on(root: Path, tmp_path: Path) -> tuple[str, list[str], Any]:
    """A result whose samples are those of the replica, its test part drawn from train.csv."""
    dataset = open_dataset("chexpert", str(root))
    samples = dataset.samples()
    train = samples.split == "train"
    ids, patients = samples.id[train].tolist(), samples.patient_id[train].tolist()
    n = len(ids)
    made = LabelledStore(
        tmp_path / "chexpert" / "made-up" / "0123456789ab.zarr",
        ids,
        patients,
        (np.arange(n) % 2).astype(float)[:, None],
        Task("ill", "binary", ("ill",)),
        ["train" if i < n // 3 else "validation" if i < 2 * n // 3 else "test" for i in range(n)],
    )
    random = np.random.default_rng(0)
    write_labelled_store(made, {(2, "cls_token"): random.normal(size=(n, WIDTH)).astype(np.float32)})
    result = run_probe(ProbeConfig("logistic", made.store, C=(1.0,), resamples=20))
    return result.path, ids, {name: values[train] for name, values in dataset.columns().items()}
