from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache import FeatureCache
from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation.split_files import import_splits, make_splits
from embedcache.evaluation.split_show import show_split
from embedcache.evaluation.splits import members, read_split
from embedcache.store.labels import read_labels, write_labels
from embedcache.testing.labelled_stores import long_labels
from embedcache.types import PARTS, Task, strings


def test_a_file_alone(made: Any, tmp_path: Path) -> None:
    report = make_splits(made.store, tmp_path / "a.csv", seed=4)
    shown = show_split(tmp_path / "a.csv")
    assert {p.part: p.samples for p in shown.parts} == report.samples
    assert {p.part: p.patients for p in shown.parts} == report.patients
    assert [p.slices for p in shown.parts] == [None] * 3
    assert (shown.name, shown.digest, shown.seed, shown.draw) == ("a", report.digest, 4, 0)
    assert shown.balance == shown.faults == ()
    assert shown.exit_code == 0


def test_with_its_store_slices_and_labels_are_counted(made: Any, tmp_path: Path) -> None:
    make_splits(made.store, tmp_path / "a.csv", seed=4)
    import_splits(tmp_path / "a.csv", made.store, "mine")
    shown = show_split("mine", made.store)
    assert shown.name == "mine"
    assert shown.unnamed == 0
    part = members(read_split(tmp_path / "a.csv"))
    cache = FeatureCache.open(made.store)
    slices = dict(zip(cache.samples().id.tolist(), cache.samples().slices.tolist(), strict=True))
    for content in shown.parts:
        assert content.slices == sum(n for sample, n in slices.items() if part[sample] == content.part)
    assert len(shown.balance) == len(made.task.classes) * len(PARTS)
    patients = np.array(made.patients)
    for b in shown.balance:
        inside = np.array([part[s] == b.part for s in made.samples])
        values = made.y[inside, made.task.classes.index(b.label)]
        assert (b.known, b.positive) == ((~np.isnan(values)).sum(), (values == 1).sum())
        known, positive = (set(patients[inside][of].tolist()) for of in (~np.isnan(values), values == 1))
        assert (b.known_patients, b.positive_patients) == (len(known), len(positive))
        assert (b.task, b.level, b.mean) == (made.task.name, "sample", None)


def test_numbers_have_a_mean_and_classes_share_what_is_known(made: Any, tmp_path: Path) -> None:
    make_splits(made.store, tmp_path / "a.csv", seed=4)
    n = len(made.samples)
    age = np.arange(n, dtype=float)[:, np.newaxis]
    age[3] = np.nan
    made.label(made.store.parents[1], Task("age", "numeric", ()), age)
    shown = show_split(tmp_path / "a.csv", made.store)
    part = members(read_split(tmp_path / "a.csv"))
    ours = {b.part: b for b in shown.balance if b.task == "age"}
    for name in PARTS:
        values = np.array([age[i, 0] for i, s in enumerate(made.samples) if part[s] == name])
        assert ours[name].mean == pytest.approx(np.nanmean(values))
        assert ours[name].known == (~np.isnan(values)).sum()
        assert ours[name].positive is ours[name].positive_patients is None
        known = {
            p for p, s, a in zip(made.patients, made.samples, age[:, 0], strict=True) if part[s] == name and a == a
        }
        assert ours[name].known_patients == len(known)

    kind = Task("kind", "multiclass", ("a", "b"))
    hot = np.eye(2)[np.arange(n) % 2]
    hot[hot == 0] = np.nan  # only the row of the true class counts
    made.label(made.store.parents[1], kind, hot)
    shown = show_split(tmp_path / "a.csv", made.store)
    for name in PARTS:
        a, b = (x for x in shown.balance if x.task == "kind" and x.part == name)
        assert a.positive + b.positive == a.known == b.known > 0


def test_patients_of_a_class_are_those_with_a_sample_of_it_whatever_the_labels_call_them(
    made: Any, tmp_path: Path
) -> None:
    make_splits(made.store, tmp_path / "a.csv", seed=4)
    y = np.zeros((len(made.samples), len(made.task.classes)))
    y[::2, 0] = 1  # one sample of each patient
    y[:, 1] = np.nan
    y[:2, 1] = 1
    made.relabel(y)
    shown = show_split(tmp_path / "a.csv", made.store)
    counts = {p.part: p.patients for p in shown.parts}
    first, second = made.task.classes[:2]
    for b in shown.balance:
        if b.label == first:
            assert (b.positive, b.known_patients, b.positive_patients) == (counts[b.part],) * 3
    assert sum(b.known for b in shown.balance if b.label == second) == 2
    assert sum(b.known_patients for b in shown.balance if b.label == second) == 1

    folder = made.store.parents[1]
    labels = read_labels(folder)
    write_labels(folder, replace(labels, patient=strings([f"x{i}" for i in range(len(labels.patient))])))
    assert show_split(tmp_path / "a.csv", made.store).balance == shown.balance


def test_a_task_of_patients_counts_each_once(made: Any, tmp_path: Path) -> None:
    make_splits(made.store, tmp_path / "a.csv", seed=4)
    folder = made.store.parents[1]
    task = Task("sex", "binary", ("male",), "patient")
    n = len(made.samples)
    rows = long_labels(task, made.samples, made.patients, np.ones((n, 1)), [""] * n)
    one = np.arange(n) % 2 == 0
    names = ("task", "patient", "slice", "klass", "value", "split")
    of_patients = replace(rows, sample=strings([""] * (n // 2)), **{name: getattr(rows, name)[one] for name in names})
    write_labels(folder, of_patients)
    shown = show_split(tmp_path / "a.csv", made.store)
    counts = [p.patients for p in shown.parts]
    ours = [b for b in shown.balance if b.task == "sex"]
    assert [b.level for b in ours] == ["patient"] * 3
    for of in ("known", "positive", "known_patients", "positive_patients"):
        assert [getattr(b, of) for b in ours] == counts


@pytest.mark.parametrize("by", ["the file", "the store"])
def test_a_patient_in_two_parts_is_a_fault(made: Any, tmp_path: Path, by: str) -> None:
    path = tmp_path / "a.csv"
    make_splits(made.store, path, seed=4)
    lines = path.read_text().splitlines()
    patient = lines[1].split(",")[1]
    at = [i for i, line in enumerate(lines) if line.split(",")[1] == patient]
    cells = lines[at[0]].split(",")
    cells[2] = "test" if cells[2] != "test" else "train"
    if by == "the store":  # as if the table of the split knew no patients
        cells[1] = "someone"
    lines[at[0]] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    shown = show_split(path, made.store)
    (fault,) = shown.faults
    assert fault.startswith(f"by {by}, 1 patient is in several parts: sample")
    assert patient not in fault
    assert shown.exit_code == 1
    assert show_split(path).exit_code == (1 if by == "the file" else 0)


def test_samples_of_something_else_and_samples_left_out(made: Any, make: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    make_splits(made.store, path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:1], *lines[11:], "other,someone,train,0,0"]) + "\n")
    shown = show_split(path, made.store)
    assert shown.unnamed == 10
    assert shown.faults == (f"1 of its {len(lines) - 10} samples are not in {made.store.name}",)


def test_no_split_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no split file"):
        show_split(tmp_path / "gone.csv")
    (tmp_path / "a.csv").write_text("sample,patient,split\na,p,tarin\n")
    with pytest.raises(UnknownNameError, match="did you mean 'train'"):
        show_split(tmp_path / "a.csv")
