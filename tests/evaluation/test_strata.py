"""Draws within the labels of a task, and what is said of a draw that leaves a part without a class."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import InputError
from embedcache.evaluation.few_shot import few_shot
from embedcache.evaluation.few_shot_config import FewShotConfig
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.evaluation.split_files import make_splits
from embedcache.evaluation.splits import read_split
from embedcache.evaluation.strata import lacking, strata_of
from embedcache.testing.labelled_stores import long_labels
from embedcache.types import Task, strings

SAMPLES = [f"s{i}" for i in range(10)]
PATIENTS = [f"p{i // 2}" for i in range(10)]


def strata(task: Task, y: list[list[float]], patients: list[str] = PATIENTS) -> list[int]:
    """The stratum of the first sample of each patient; both samples must have one."""
    labels = long_labels(task, SAMPLES, PATIENTS, np.array(y, dtype=float), [""] * 10)
    found = strata_of(strings(SAMPLES), strings(patients), labels, task).stratum
    assert (found[::2] == found[1::2]).all()
    return found[::2].tolist()


def test_a_binary_task_parts_those_with_a_positive_those_without_and_the_unknown() -> None:
    y = [[1], [0], [0], [0], [np.nan], [1], [np.nan], [np.nan], [np.nan], [0]]
    assert strata(Task("mass", "binary", ("mass",)), y) == [0, 1, 0, 2, 1]


def test_of_several_findings_the_rarest_counts() -> None:
    y = [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1], [1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert strata(Task("all", "multilabel", ("often", "seldom", "once")), y) == [1, 0, 2, 3, 0]


def test_of_equally_rare_classes_the_first_counts() -> None:
    y = np.eye(2)[[0, 1, 0, 0, 1, 1, 0, 0, 1, 1]].tolist()
    assert strata(Task("kind", "multiclass", ("a", "b")), y) == [0, 0, 1, 0, 1]


def test_the_store_says_whose_a_sample_is_and_rows_of_patients_are_joined_by_them() -> None:
    task = Task("mass", "binary", ("mass",))
    y = np.array([[1.0]] + [[0.0]] * 9)
    labels = long_labels(task, SAMPLES, PATIENTS, y, [""] * 10)
    renamed = strings([f"q{i // 5}" for i in range(10)])
    assert strata_of(strings(SAMPLES), renamed, labels, task).stratum.tolist() == [0] * 5 + [1] * 5
    of_patients = replace(labels, sample=strings([""] * 10))
    assert strata_of(strings(SAMPLES), strings(PATIENTS), of_patients, task).stratum.tolist() == [0, 0] + [1] * 8


def test_numbers_have_no_strata(make: Callable[..., Any], tmp_path: Path) -> None:
    made = make(Task("age", "numeric", ()))
    with pytest.raises(
        InputError, match=r"'age' is a numeric task, and strata are of classes; name another with --stratify"
    ):
        make_splits(made.store, tmp_path / "a.csv", stratify="age")
    assert not (tmp_path / "a.csv").exists()


def rare(made: Any) -> Any:
    """The second finding is that of ten patients only, the first five among them; the others of nobody."""
    y = np.zeros_like(made.y)
    y[:, 0] = made.y[:, 0]
    y[:20, 1] = 1
    made.relabel(y)
    return made


def test_a_rare_finding_is_in_every_part_by_its_share_and_seeds_differ(made: Any, tmp_path: Path) -> None:
    store = rare(made).store
    digests = set()
    for seed in range(12):
        report = make_splits(store, tmp_path / "a.csv", seed=seed, stratify="findings")
        assert report.patients == {"train": 51, "validation": 13, "test": 16}
        split = read_split(tmp_path / "a.csv")
        having = [split.part[split.sample == name][0] for name in made.samples[:20:2]]
        assert [having.count(part) for part in ("train", "validation", "test")] == [6, 2, 2]
        digests.add(report.digest)
    assert len(digests) == 12
    assert str(report).endswith("; drawn within findings")


def test_where_nothing_is_drawn_there_is_nothing_to_stratify(make: Callable[..., Any], tmp_path: Path) -> None:
    made = make(given=lambda patient: ("train", "validation", "test")[patient % 3])
    with pytest.raises(InputError, match=r"name every part, so none is drawn; --redraw draws anew"):
        make_splits(made.store, tmp_path / "a.csv", stratify="findings")
    assert make_splits(made.store, tmp_path / "a.csv", redraw=True, stratify="findings").strata == "findings"


HINT = (
    "draw with another --seed, or within the labels "
    "(`embedcache splits make STORE --stratify findings`, then --split split.csv)."
)


def lopsided(made: Any) -> Any:
    """The second finding has all of its ten patients in what seed 0 draws for training."""
    split = Path(made.store).parent / "s.csv"
    make_splits(made.store, split, seed=0)
    read = read_split(split)
    train = sorted(set(read.patient[read.part == "train"].tolist()))[:10]
    y = np.zeros_like(made.y)
    y[:, 0] = made.y[:, 0]
    y[np.isin(made.patients, train), 1] = 1
    made.relabel(y)
    return made


def test_a_draw_that_leaves_a_part_without_a_class_says_how_to_mend_it(made: Any, tmp_path: Path) -> None:
    store = lopsided(made).store
    ask = ProbeConfig("logistic", store, classes=("Effusion", "Mass"), C=(1.0,), resamples=20)
    (line,) = [line for line in run_probe(ask).warnings if "--stratify" in line]
    assert line == f"of this draw validation has no patient with Mass, test has no patient with Mass; {HINT}"
    curve = few_shot(FewShotConfig(store, classes=("Effusion", "Mass"), shots=(1,), seeds=2, whole=False))
    assert line in curve.warnings
    make_splits(store, tmp_path / "a.csv", stratify="findings")
    mended = run_probe(replace(ask, split=tmp_path / "a.csv"))
    assert not [line for line in mended.warnings if "of this draw" in line]
    assert mended.metric("auroc", "Mass").value is not None


def test_of_a_split_that_was_given_nothing_is_said(made: Any, tmp_path: Path) -> None:
    store = lopsided(made).store
    make_splits(store, tmp_path / "a.csv", seed=0)
    ask = ProbeConfig("logistic", store, split=tmp_path / "a.csv", classes=("Effusion", "Mass"), C=(1.0,), resamples=20)
    assert not [line for line in run_probe(ask).warnings if "--stratify" in line]


def test_a_class_that_is_too_rare_for_every_part_is_not_blamed_on_the_draw() -> None:
    parts = np.array(["train"] * 8 + ["validation"] * 8 + ["test"] * 8)
    groups = np.arange(24)
    truth = np.zeros((24, 1))
    truth[:5] = 1
    assert lacking(truth, groups, parts, ("mass",), ("train", "validation", "test"), "mass") == ()
    truth[:6] = 1
    (line,) = lacking(truth, groups, parts, ("mass",), ("validation",), "mass")
    assert line.startswith("of this draw validation has no patient with mass; draw")
    truth[[6, 8]] = 1
    (line,) = lacking(truth, groups, parts, ("mass",), ("train", "validation", "test"), "mass")
    assert line.startswith(
        "of this draw train has one patient without mass, validation has one patient with mass, test has no patient with mass;"
    )
