"""A picture of one result: its figures with their intervals, ROC and reliability curves, and the path of the choice."""

from collections.abc import Callable
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from embedcache.evaluation import figure_panels as panels
from embedcache.evaluation.calibration import PROBABLE
from embedcache.evaluation.figure_files import new_figure, save_figure
from embedcache.evaluation.predictions import Predictions, read_predictions
from embedcache.evaluation.result_table import choice_of, dataset_of
from embedcache.evaluation.statistics import FEW_PATIENTS
from embedcache.types import Metric, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

_LETTERS = 8
"""Of the title, beside each other in an inch."""


def draw_result(result: Result, path: str | Path) -> Path:
    """Draw a result that was written or read, with the predictions beside it; see `probe_figure`. Returns the file."""
    return probe_figure(result, read_predictions(result), Path(path))


def probe_figure(result: Result, predictions: Predictions, path: Path) -> Path:
    """Draw `result` into `path` (the suffix names the format: `.png`, `.svg`, `.pdf`) and return it.

    AUROC on the test part with 95% intervals, a square where patients are few; ROC curves of up to five classes, those with most
    positives, three of them with bands; how reliable probabilities are; what validation scored along the hyper-parameter. A
    numeric task has its predictions against what was measured. Raises MissingPackageError without matplotlib, InputError for a
    format that it does not know.
    """
    test = predictions.of("test")
    numeric = result.task.kind == "numeric"
    figure = new_figure(11, 4.8)
    notes = _numbers(figure, result, test) if numeric else _classes(figure, result, test)
    name = result.task.name.replace("_", " ")
    of = ", ".join(word for word in (result.source.get("backbone", ""), dataset_of(result)) if word)
    title = f"{result.probe} probe on {name}" + (f": {of}" if of else "")
    wide = int(figure.get_size_inches()[0] * _LETTERS)
    style = {"fontsize": 14, "fontweight": "bold", "color": panels.INK, "x": 0.01, "ha": "left"}
    figure.suptitle("\n".join(wrap(title, wide)), **style)
    rows = f"{len(test.sample):,} rows of {result.counts.get('test_patients', 0):,} patients"
    notes = [f"{result.chosen.get('features', '')} features, {choice_of(result)}; test: {rows}", *notes]
    figure.supxlabel("\n".join(notes), fontsize=9, color=panels.PALE, x=0.01, ha="left")
    return save_figure(figure, path)


def _classes(figure: "Figure", result: Result, test: Predictions) -> list[str]:
    """The panels of a task of classes, no empty one among them; returns what is to be said below them."""
    areas = [m for m in result.metrics if m.name == "auroc" and m.value is not None]
    classes = [m for m in areas if m.label != "macro"]
    curves = sorted(classes, key=lambda m: -m.positives)[: panels.MOST_CURVES]
    style = {m.label: colour for m, colour in zip(curves, panels.COLOURS, strict=False)}
    scores_are = result.chosen.get("scores_are", "")
    probable = scores_are in PROBABLE and bool((test.patient != "").all())  # a margin or a cosine is no probability
    rest: list[Callable[[Axes], None]] = []
    if curves:
        rest.append(lambda axes: panels.roc_curves(axes, test, curves, style, len(classes)))
    if curves and probable:
        rest.append(lambda axes: panels.reliability_curves(axes, test, curves, style, scores_are))
    if result.selection:
        rest.append(lambda axes: _path(axes, result))
    shown = classes + [m for m in areas if m.label == "macro"] if len(classes) > 1 else []
    places = _places(figure, len(shown), len(rest))
    if shown:
        panels.intervals(figure.add_subplot(places.pop(0)), shown, style)
    for draw, place in zip(rest, places, strict=True):
        draw(figure.add_subplot(place))
    return _notes(result, classes, len(shown), len(curves), probable)


def _places(figure: "Figure", rows: int, rest: int) -> "list[SubplotSpec]":
    """Where panels go: the one of `rows` intervals first, if there is one, then the `rest`, of which each fills its place."""
    if not rows:  # one class has no panel of intervals
        figure.set_size_inches(4.8 * max(rest, 1) + 0.6, 4.8)
        row = figure.add_gridspec(1, max(rest, 1))
        return [row[0, i] for i in range(rest)]
    top = max(4.6, 2.4 + 0.36 * rows)
    lower = rest > 1
    figure.set_size_inches(12, max(top, 9.0) if rest == 2 else top + (4.4 if lower else 0))
    heights = (1,) if not lower else (1, 1) if rest == 2 else (top, 4.4)
    grid = figure.add_gridspec(1 + lower, 2, width_ratios=(1.15, 1), height_ratios=heights)
    if rest == 2:
        return [grid[:, 0], grid[0, 1], grid[1, 1]]
    return [grid[i // 2, i % 2] for i in range(rest + 1)]


def _notes(result: Result, classes: list[Metric], intervals: int, curves: int, probable: bool) -> list[str]:
    """What the pictures' marks mean, of those that are there, and what they leave out."""
    few = any("few patients" in m.note for m in classes)
    meaning = f"fewer than {FEW_PATIENTS} patients with or without the class, so its interval's coverage is not claimed"
    notes = [f"{'square' if intervals else 'few patients'}: {meaning}"] if few else []
    if intervals and curves < len(classes):
        notes.append(f"in grey: classes that have no curve; the {curves} with most positives have one")
    if curves:
        notes.append(
            "dotted line: chance" + ("; of reliability, what is observed as often as predicted" if probable else "")
        )
    undefined = [m.label for m in result.metrics if m.name == "auroc" and m.value is None]
    return [*notes, *([f"undefined, left out: {', '.join(undefined)}"] if undefined else [])]


def _numbers(figure: "Figure", result: Result, test: Predictions) -> list[str]:
    left, right = figure.subplots(1, 2)
    panels.predicted_against_measured(left, test)
    _path(right, result)
    r2 = result.metric("r2", result.task.name)
    if r2.value is None:
        return []
    interval = "" if r2.low is None else f" ({r2.low:.3f} to {r2.high:.3f})"
    return [f"R2 {r2.value:.3f}{interval}"]


def _path(axes: Any, result: Result) -> None:
    chosen = result.chosen
    name = chosen.get("vector", chosen["features"])  # of results before there was a choice of layers, the kind
    panels.choice_path(axes, result.selection, chosen["parameter"], name, chosen[chosen["parameter"]])
