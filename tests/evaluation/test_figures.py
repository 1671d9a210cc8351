from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_curve as reference_curve

from embedcache.errors import InputError
from embedcache.evaluation.figure_files import new_figure
from embedcache.evaluation.figure_panels import choice_path, roc_curve
from embedcache.evaluation.figures import draw_result, probe_figure
from embedcache.evaluation.predictions import Predictions, read_predictions
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.types import Result


def test_a_figure_is_drawn_and_differs_with_what_it_shows(made: Any, tmp_path: Path) -> None:
    drawn = []
    for classes in (None, ("Mass",)):
        result = run_probe(ProbeConfig("knn", made.store, resamples=50, classes=classes))
        path = probe_figure(result, read_predictions(result), tmp_path / f"{len(drawn)}.png")
        with Image.open(path) as image:
            drawn.append(np.asarray(image.convert("L").resize((200, 100))))
    assert all(image.std() > 10 for image in drawn)  # a blank page has 0
    assert not np.array_equal(*drawn)
    with pytest.raises(InputError, match=r"use \.png"):
        probe_figure(result, read_predictions(result), tmp_path / "figure.nothing")


def test_a_result_is_drawn_from_the_predictions_beside_it(made: Any, tmp_path: Path) -> None:
    result = run_probe(ProbeConfig("knn", made.store, resamples=50))
    drawn = draw_result(result, str(tmp_path / "drawn.png"))
    same = probe_figure(result, read_predictions(result), tmp_path / "same.png")
    with Image.open(drawn) as left, Image.open(same) as right:
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))
    Path(result.path).with_suffix(".parquet").unlink()
    with pytest.raises(InputError, match="no predictions beside"):
        draw_result(result, tmp_path / "gone.png")


def test_paths_of_a_choice_are_told_apart_and_no_dot_is_cut() -> None:
    axes = new_figure(4, 4).subplots()
    path = {"values": [0.1, 1.0], "scores": [0.9, 1.0], "by": "macro auroc"}
    names = [f"vector {i}" for i in range(9)]
    choice_path(axes, dict.fromkeys(names, path), "C", names[8], 1.0)
    shown = {str(line.get_label()): (line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len({shown[name] for name in names}) == 9
    marks = {str(line.get_label()): line.get_marker() for line in axes.lines}
    assert [marks[name] for name in names] == ["o"] * 6 + ["+"] * 3, "dashes do not show between many dots"
    (ring,) = [line for line in axes.lines if line.get_markersize() == 10]
    assert not ring.get_clip_on()


def test_a_line_under_others_shows_at_their_sides() -> None:
    axes = new_figure(4, 4).subplots()
    tied = {"values": [10.0, 0.1, 1.0], "scores": [0.7, 0.5, 0.9], "by": "macro auroc"}
    half = {"values": [0.1, 1.0, 10.0], "scores": [0.5, 0.9, None], "by": "macro auroc"}
    apart = {**half, "scores": [0.8, 0.9, 0.6]}  # it crosses at one value
    choice_path(axes, {"cls": tied, "mean": half, "cls+mean": tied, "apart": apart}, "C", "cls", 1.0)
    wide = {str(line.get_label()): line.get_linewidth() for line in axes.lines}
    assert wide["cls"] > wide["mean"] + 2 > wide["cls+mean"] + 4
    assert wide["cls+mean"] == wide["apart"]


def labelled(text: str, axes: Any) -> bool:
    return text in axes.get_title(loc="left")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved."""
    from matplotlib.figure import Figure

    found: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: (found.append(self), save(self, path)))
    return found


def many_classes(result: Result, n: int) -> tuple[Result, Predictions]:
    """The result as if it had `n` classes: copies of its first one, each with a positive fewer."""
    predictions = read_predictions(result)
    first = result.metric("auroc", predictions.classes[0])
    names = tuple(f"finding {i}" for i in range(n))
    copies = tuple(replace(first, label=name, positives=first.positives - i) for i, name in enumerate(names))
    columns = [np.repeat(x[:, :1], n, axis=1) for x in (predictions.label, predictions.score)]
    return (
        replace(result, metrics=(*copies, result.metric("auroc")), task=replace(result.task, classes=names)),
        replace(predictions, classes=names, label=columns[0], score=columns[1]),
    )


def test_many_classes_leave_the_curves_readable(made: Any, tmp_path: Path, drawn: list[Any]) -> None:
    result, predictions = many_classes(run_probe(ProbeConfig("logistic", made.store, resamples=50)), 9)
    probe_figure(result, predictions, tmp_path / "many.png")
    (figure,) = drawn
    by_class, roc, reliability, choice = figure.axes
    assert labelled("By class", by_class)
    assert labelled("the 5 of 9 classes with most positives", roc)
    assert labelled("Reliability", reliability)
    legend = roc.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [f"finding {i}" for i in range(5)]
    figure.canvas.draw()
    assert legend.get_window_extent().x0 >= roc.get_window_extent().x1, "the legend lies on no curve"
    value = result.chosen["C"]
    assert labelled(f"Choice of C: {value:.3g} (circled)", choice)
    assert not choice.texts, "a label at the ring would run into the title"
    for curve in [line for line in reliability.lines if len(line.get_xdata()) > 2]:
        assert len(curve.get_xdata()) <= max(3, result.metrics[0].positives // 10)
    assert "dotted line: chance" in figure.get_supxlabel()
    assert "in grey: classes that have no curve" in figure.get_supxlabel()
    assert "square: fewer than 30 patients" in figure.get_supxlabel()
    marks = [line.get_marker() for line in by_class.lines if line.get_marker() != "None"]
    assert marks == ["s"] * 9 + ["D"], "a hollow dot has another meaning, in the picture of a grid"
    assert not any(line.get_markerfacecolor() == "white" for axes in figure.axes for line in axes.lines)


def test_one_class_has_no_empty_panel(made: Any, tmp_path: Path, drawn: list[Any]) -> None:
    result = run_probe(ProbeConfig("logistic", made.store, resamples=50, classes=("Mass",)))
    probe_figure(result, read_predictions(result), tmp_path / "one.png")
    assert all(axes.get_visible() and axes.lines for axes in drawn[0].axes)
    assert len(drawn[0].axes) == 3
    assert labelled(f"AUROC {result.metric('auroc', 'Mass').value:.3f}", drawn[0].axes[0])


def test_a_picture_names_backbone_and_dataset_and_no_path(made: Any, tmp_path: Path, drawn: list[Any]) -> None:
    result = run_probe(ProbeConfig("knn", made.store, resamples=50))
    probe_figure(result, read_predictions(result), tmp_path / "x.png")
    assert drawn[0].get_suptitle().replace("\n", " ") == "knn probe on findings: made-up, made"
    probe_figure(replace(result, source={}), read_predictions(result), tmp_path / "old.png")
    assert drawn[1].get_suptitle() == "knn probe on findings"


def test_curves_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    y, score = (random.random(60) < 0.4).astype(float), random.integers(0, 9, 60).astype(float)
    false, true = roc_curve(y, score)
    expected = reference_curve(y, score, drop_intermediate=False)
    np.testing.assert_allclose(false, expected[0], rtol=1e-12)
    np.testing.assert_allclose(true, expected[1], rtol=1e-12)
