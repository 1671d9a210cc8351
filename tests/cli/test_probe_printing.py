"""What a terminal says of a result's figures."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from embedcache_cli.probe_printing import print_metrics, print_notes

from embedcache.evaluation.measure import measure
from embedcache.evaluation.statistics import degenerate_interval
from embedcache.evaluation.thresholds import BeforeRefit
from embedcache.types import Metric

M = Metric("auroc", "M", 1.0, 0.4, 1.0, "", 9, 5, 9)


def notes(capsys: pytest.CaptureFixture[str], *metrics: Metric) -> list[str]:
    print_notes(metrics)
    return capsys.readouterr().out.splitlines()


def test_a_note_names_the_figures_that_it_is_of(capsys: pytest.CaptureFixture[str]) -> None:
    spread = degenerate_interval(1.0, 4, "").note
    tied = degenerate_interval(0.5, 4, "").note
    assert spread != tied
    metrics = (
        replace(M, label="macro", note=f"{spread}; few patients in M"),
        replace(M, label="macro", name="balanced_accuracy", note=f"{tied}; few patients in M"),
        replace(M, note=f"{spread}; few patients"),
        replace(M, name="balanced_accuracy", note=f"{tied}; few patients"),
        replace(M, label="CT", note="undefined: no positive in the test part"),
    )
    assert notes(capsys, *metrics) == [
        f"macro, M (auroc): {spread}",
        "macro: few patients in M",
        f"macro, M (balanced accuracy): {tied}",
        "CT: undefined: no positive in the test part",
    ]


def test_few_patients_are_told_of_each_class_where_the_macro_average_does_not_name_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = replace(M, note="few patients")
    assert notes(capsys, replace(few, label="macro"), few) == ["macro, M: few patients"]


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_figure_without_spread_is_not_praised(value: float) -> None:
    note = degenerate_interval(value, 4, "").note
    assert note.startswith("no spread: ")
    assert "whichever patients are drawn" in note
    assert "order" not in note


def test_a_macro_average_has_rows_and_no_positives(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    truth = np.eye(3)[rng.integers(0, 3, 60)]
    groups = np.arange(60).astype(str)
    print_metrics(measure(truth, rng.normal(size=(60, 3)), groups, "multiclass", ("a", "b", "c"), 0.0, resamples=50))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["class", "positives"]
    assert [line.split()[:3] for line in lines if line.startswith(("macro ", "all "))][:2] == [
        ["macro", "60", "rows"],
        ["all", "60", "rows"],
    ]


@pytest.mark.parametrize(
    ("kind", "without", "says"),
    [
        (
            "multilabel",
            "",
            "of the chosen model before its refit, its test scores cut at each class's best threshold on validation",
        ),
        (
            "multilabel",
            "patient",
            "of the refitted model, its test scores cut at each class's best threshold on scores without each",
        ),
        ("multiclass", "", "of the refitted model, a row counted as the class with its highest score"),
    ],
)
def test_f1_says_which_models_scores_it_is_of(
    capsys: pytest.CaptureFixture[str], kind: Any, without: Any, says: str
) -> None:
    rng = np.random.default_rng(0)
    truth, scores = np.eye(3)[rng.integers(0, 3, 60)], rng.normal(size=(60, 3))
    groups, before = np.arange(60).astype(str), BeforeRefit(truth, scores, scores, without)
    print_metrics(measure(truth, scores, groups, kind, ("a", "b", "c"), 0.0, before=before, resamples=50))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("f1: ")]
    assert line.startswith(f"f1: {says}")
