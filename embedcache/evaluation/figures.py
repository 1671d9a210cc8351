"""A picture of one result: its figures with their intervals, ROC and reliability curves, and the path of the choice."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcache.evaluation import figure_panels as panels
from embedcache.evaluation.calibration import PROBABLE
from embedcache.evaluation.figure_files import new_figure, save_figure
from embedcache.evaluation.predictions import Predictions, read_predictions
from embedcache.evaluation.result_table import choice_of
from embedcache.types import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_result(result: Result, path: str | Path) -> Path:
    """Draw a result that was written or read, with the predictions beside it; see `probe_figure`. Returns the file."""
    return probe_figure(result, read_predictions(result), Path(path))


def probe_figure(result: Result, predictions: Predictions, path: Path) -> Path:
    """Draw `result` into `path` (the suffix names the format: `.png`, `.svg`, `.pdf`) and return it.

    AUROC on the test part with 95% intervals, hollow where patients are few; ROC curves of up to twelve classes, the commonest,
    three of them with bands; how reliable probabilities are; what validation scored along the hyper-parameter. A numeric task
    has its predictions against what was measured. Raises MissingPackageError without matplotlib, InputError for a format that it
    does not know.
    """
    test = predictions.of("test")
    numeric = result.task.kind == "numeric"
    figure = new_figure(11, 4.8)
    notes = _numbers(figure, result, test) if numeric else _classes(figure, result, test)
    name = result.task.name.replace("_", " ")
    figure.suptitle(
        f"{result.probe} probe on {name}", fontsize=14, fontweight="bold", color=panels.INK, x=0.01, ha="left"
    )
    rows = f"{len(test.sample):,} rows of {result.counts.get('test_patients', 0):,} patients"
    notes = [f"{result.chosen.get('features', '')} features, {choice_of(result)}; test: {rows}", *notes]
    figure.supxlabel("\n".join(notes), fontsize=9, color=panels.PALE, x=0.01, ha="left")
    return save_figure(figure, path)


def _classes(figure: "Figure", result: Result, test: Predictions) -> list[str]:
    """The panels of a task of classes; returns what is to be said below them."""
    areas = [m for m in result.metrics if m.name == "auroc" and m.value is not None]
    classes = [m for m in areas if m.label != "macro"]
    shown = classes + [m for m in areas if m.label == "macro"] if len(classes) > 1 else classes
    commonest = sorted(classes, key=lambda m: -m.positives)[: panels.MOST_CURVES]
    n = len(panels.COLOURS)
    style = {m.label: (panels.COLOURS[i % n], panels.STYLES[i // n]) for i, m in enumerate(commonest)}
    scores_are = result.chosen.get("scores_are", "")
    probable = scores_are in PROBABLE and bool((test.patient != "").all())
    lower = probable or bool(result.selection)
    top = max(4.6, 2.4 + 0.36 * len(shown))
    figure.set_size_inches(11, top + (4.4 if lower else 0))
    axes = figure.subplots(
        1 + lower, 2, width_ratios=(1.15, 1), squeeze=False, height_ratios=(top, 4.4) if lower else (1,)
    )
    panels.intervals(axes[0, 0], shown, style)
    panels.roc_curves(axes[0, 1], test, commonest, style)
    if lower:
        if probable:
            panels.reliability_curves(axes[1, 0], test, commonest, style, scores_are)
        else:  # a margin or a cosine is no probability
            axes[1, 0].set_visible(False)
        _path(axes[1, 1], result)
    undefined = [m.label for m in result.metrics if m.name == "auroc" and m.value is None]
    return [f"undefined, left out: {', '.join(undefined)}"] if undefined else []


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
