from pathlib import Path
from typing import Any

import pytest

from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.evaluation.result_table import tabulate_results
from embedcache.types import Task


@pytest.fixture
def cache(make: Any) -> Path:
    """Three results: two probes of one task, one of them on one class more."""
    made = make()
    for probe, classes in (("knn", None), ("logistic", None), ("logistic", ("Mass",))):
        run_probe(
            ProbeConfig(probe, made.store, classes=classes, resamples=20, C=None if probe == "knn" else (0.1, 1.0))
        )
    return Path(made.store).parents[2]


def test_each_result_is_a_line_with_what_was_asked_and_found(cache: Path) -> None:
    table = tabulate_results(cache)
    assert [(x.dataset, x.backbone, x.probe) for x in table.lines] == [
        ("made", "made-up", probe) for probe in ("knn", "logistic", "logistic")
    ]
    assert table == tabulate_results(cache / "results")
    first = table.lines[0]
    assert first.choice.startswith("k = ")
    assert first.features.endswith("of layer 2")
    assert first.label == "macro"
    assert 0.5 < first.figures["auroc"].value < 1
    assert table.metrics[:2] == ("auroc", "average_precision")
    assert "accuracy" not in table.metrics
    assert "accuracy" in tabulate_results(cache, metrics=("all",)).metrics


def test_lines_are_filtered(cache: Path) -> None:
    assert [x.probe for x in tabulate_results(cache, probe="knn").lines] == ["knn"]
    assert len(tabulate_results(cache, label="Mass").lines) == 3
    assert len(tabulate_results(cache, label="Nodule").lines) == 2  # one result does not know it
    assert tabulate_results(cache, metrics=("auroc",)).metrics == ("auroc",)
    assert len(tabulate_results(cache, backbone="made", dataset="made", task="findings").lines) == 3
    assert tabulate_results(cache, backbone="dinov2").lines == ()


@pytest.mark.parametrize(
    "wrong", [{"probe": "logistik"}, {"task": "x"}, {"dataset": "x"}, {"label": "Masse"}, {"metrics": ("auc",)}]
)
def test_a_slip_is_told_with_what_there_is(cache: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UnknownNameError, match="There is"):
        tabulate_results(cache, **wrong)


def test_what_is_of_all_classes_together_stands_beside_the_macro_average(make: Any) -> None:
    made = make(Task("tumour", "multiclass", ("meningioma", "glioma", "pituitary")), signal=3.0)
    run_probe(ProbeConfig("knn", made.store, resamples=20))
    (line,) = tabulate_results(made.store.parents[2]).lines
    assert line.figures["accuracy"].label == "all"
    assert line.figures["auroc"].label == "macro"


def test_a_damaged_result_is_told_of_and_the_others_are_listed(cache: Path) -> None:
    folder = cache / "results"
    damaged = sorted(folder.glob("*.json"))[0]
    damaged.write_text("{")
    table = tabulate_results(cache)
    assert len(table.lines) == 2
    assert len(table.unreadable) == 1
    assert damaged.name in table.unreadable[0]
    with pytest.raises(InputError, match="no folder"):
        tabulate_results(cache / "elsewhere")
