from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.datasets import open_dataset
from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation.by_column import measure_subgroups
from embedcache.evaluation.grid import GridConfig, run_grid
from embedcache.evaluation.measure import measure
from embedcache.evaluation.measured import read_measured
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.evaluation.results import kept_split
from embedcache.evaluation.splits import read_split
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
    made.label(made.store.parents[1], Task("view", "binary", ("PA",), negative="AP"), made.y[:, :1])
    named = measure_subgroups(result.path, "view", resamples=20)
    assert [(g.name, g.n) for g in named.groups] == [
        ("AP", *(g.n for g in table.groups if g.name == "not PA")), ("PA", *(g.n for g in table.groups if g.name == "PA")),
    ]  # fmt: skip
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


# --- results that are pooled over samples -----------------------------------------------------------

VIEW = Task("view", "binary", ("PA",))
QUICK = {"pool_by": "patient", "resamples": 20}


@pytest.fixture
def pooled(make: Any) -> LabelledStore:
    """Two samples of each of 100 patients, which have one label."""
    made: LabelledStore = make(n=200)
    made.relabel(np.repeat(made.y[::2], 2, axis=0))
    return made


def parts_of(path: str) -> dict[str, str]:
    """Sample → part, as the result's own split has it."""
    result = read_measured(path).result
    split = read_split(kept_split(Path(path).parent, result.inputs["split"]))
    return dict(zip(split.sample.tolist(), split.part.tolist(), strict=True))


def test_patients_whose_samples_differ_are_in_no_group_and_are_counted(pooled: LabelledStore) -> None:
    result = run_probe(ProbeConfig("prototypes", pooled.store, "findings", **QUICK))
    part = parts_of(result.path)
    tested = [i for i in range(0, 200, 2) if part[pooled.samples[i]] == "test"]
    view = np.zeros((200, 1))
    view[tested[0]] = view[tested[1] + 1] = 1  # these two have one of each, whichever comes first
    view[tested[2]] = view[tested[2] + 1] = view[tested[3]] = 1
    view[tested[3] + 1] = np.nan  # which has no say
    pooled.label(pooled.store.parents[1], VIEW, view)
    table = measure_subgroups(result.path, "view", resamples=20)
    assert {g.name: g.n for g in table.groups} == {"PA": 2, "not PA": len(tested) - 4}
    assert table.left_out == 2
    assert table.notes == (
        f"2 of {len(tested)} rows, pooled by patient, have samples with different values of 'view', so they are in no group; "
        "a table with one value for each patient (--labels FILE) puts them there.",
    )
    shared = GridConfig((pooled.store,), ("prototypes",), ("findings",), shared=QUICK, by="view")
    assert run_grid(shared).notes == (f"made findings: {table.notes[0]}",)


def test_the_groups_of_pooled_rows_are_those_of_their_values(pooled: LabelledStore, tmp_path: Path) -> None:
    """Where all samples of a patient agree nothing is left out, and the figures are those of its rows."""
    result = run_probe(ProbeConfig("prototypes", pooled.store, "findings", **QUICK))
    sex = np.array(["F", "M"])[np.arange(200) // 2 % 2]
    age = 20 + np.arange(200) // 2
    write_columns(pooled, sex, age, tmp_path / "columns.csv")
    table = measure_subgroups(result.path, "sex", labels=tmp_path / "columns.csv", resamples=20)
    assert (table.left_out, table.notes) == (0, ())
    assert sum(g.n for g in table.groups) == result.counts["test_rows"]
    age[::2] += 1
    write_columns(pooled, sex, age, tmp_path / "columns.csv")
    with pytest.raises(InputError, match="have samples with different values of 'age', so there is no group"):
        measure_subgroups(result.path, "age", labels=tmp_path / "columns.csv")


def test_a_sample_that_no_row_was_pooled_over_has_no_say(make: Any, tmp_path: Path) -> None:
    made = make(n=200, quarantined=tuple(range(1, 200, 2)))
    made.relabel(np.repeat(made.y[::2], 2, axis=0))
    result = run_probe(ProbeConfig("prototypes", made.store, "findings", **QUICK))
    made.label(made.store.parents[1], VIEW, (np.arange(200) % 2).astype(float)[:, None])
    assert measure_subgroups(result.path, "view", resamples=20).left_out == 0


def test_a_sample_that_the_split_does_not_name_has_no_say(pooled: LabelledStore, tmp_path: Path) -> None:
    parts = ("train", "validation", "test")
    rows = "\n".join(f"{pooled.samples[i]},{pooled.patients[i]},{parts[i // 2 % 3]}" for i in range(0, 200, 2))
    (tmp_path / "split.csv").write_text(f"sample,patient,split\n{rows}\n")
    result = run_probe(ProbeConfig("prototypes", pooled.store, "findings", split=tmp_path / "split.csv", **QUICK))
    pooled.label(pooled.store.parents[1], VIEW, (np.arange(200) % 2).astype(float)[:, None])
    assert measure_subgroups(result.path, "view", resamples=20).left_out == 0


def test_units_of_a_column_are_told_by_the_labels_that_made_them_or_not_at_all(
    pooled: LabelledStore, tmp_path: Path
) -> None:
    def table(studies: list[str], name: str) -> Path:
        lines = ["id,study,sex,ill"]
        for i, sample in enumerate(pooled.samples):
            lines.append(f"{sample},{studies[i]},{'FM'[i % 2]},{int(pooled.y[i // 2 * 2, 0])}")
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path / name

    alone, together = (
        table([f"A{i}" for i in range(200)], "alone.csv"),
        table([f"A{i // 2}" for i in range(200)], "t.csv"),
    )
    shared: dict[str, Any] = {"pool_by": "study", "resamples": 20}
    result = run_probe(ProbeConfig("prototypes", pooled.store, "ill", labels=alone, **shared))
    found = measure_subgroups(result.path, "sex", labels=alone, resamples=20)
    assert (found.left_out, sum(g.n for g in found.groups)) == (0, result.counts["test_rows"])
    with pytest.raises(InputError, match="was pooled by 'study', and no labels here say which samples were together"):
        measure_subgroups(result.path, "sex", labels=together)
    pooled.label(pooled.store.parents[1], Task("sex", "binary", ("M",)), (np.arange(200) % 2).astype(float)[:, None])
    with pytest.raises(InputError, match="was pooled by 'study'"):
        measure_subgroups(result.path, "sex")

    grid = run_grid(
        GridConfig((pooled.store,), ("prototypes",), ("ill",), shared={**shared, "labels": together}, by="sex")
    )
    assert any(
        "pooled by study, have samples with different values of 'sex', so there is no group" in n for n in grid.notes
    )
    grid = run_grid(
        GridConfig((pooled.store,), ("prototypes",), ("ill",), shared={**shared, "labels": alone}, by="sex")
    )
    assert len({row.group for row in grid.table.rows}) == 3, "the whole, and each sex"


def test_units_are_told_by_the_labels_beside_the_store_where_a_table_has_the_column_alone(
    pooled: LabelledStore, tmp_path: Path
) -> None:
    pooled.label(pooled.store.parents[1], Task("visit", "numeric", ()), np.zeros((200, 1)))
    result = run_probe(ProbeConfig("prototypes", pooled.store, "findings", pool_by="visit", resamples=20))
    write_columns(pooled, np.array(["F", "M"])[np.arange(200) // 2 % 2], np.zeros(200), tmp_path / "sex.csv")
    table = measure_subgroups(result.path, "sex", labels=tmp_path / "sex.csv", resamples=20)
    assert (len(table.groups), table.left_out) == (2, 0)
