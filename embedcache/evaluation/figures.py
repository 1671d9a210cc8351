"""A picture of one result: the AUROC of every class with its interval, and the ROC curves behind them."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, MissingPackageError
from embedcache.evaluation.metrics import Ranking
from embedcache.evaluation.predictions import Predictions, read_predictions
from embedcache.probes.base import Matrix
from embedcache.types import Metric, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by the colour-blind; the two palest are left out on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = ("-", "--")
_MOST_CURVES = len(_COLOURS) * len(_STYLES)
_INK = "#222222"
_PALE = "#9a9a9a"


def draw_result(result: Result, path: str | Path) -> Path:
    """Draw a result that was written or read, with the predictions beside it; see `probe_figure`. Returns the file."""
    return probe_figure(result, read_predictions(result), Path(path))


def probe_figure(result: Result, predictions: Predictions, path: Path) -> Path:
    """Draw `result` into `path` (the suffix names the format: `.png`, `.svg`, `.pdf`) and return it.

    Left: AUROC on the test part with 95% intervals, hollow where patients are few. Right: ROC curves of up to twelve
    classes, the commonest. Raises MissingPackageError without matplotlib, InputError for a format that it does not know.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # optional, and 0.4 s
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(
            "figures need matplotlib; install it with `pip install 'embedcache[figures]'`."
        ) from error

    test = predictions.take(np.asarray(predictions.part == "test"))
    areas = [m for m in result.metrics if m.name == "auroc" and m.value is not None]
    classes = [m for m in areas if m.label != "macro"]
    macro = [m for m in areas if m.label == "macro"]
    shown = classes + macro if len(classes) > 1 else classes
    commonest = sorted(classes, key=lambda m: -m.positives)[:_MOST_CURVES]
    style = {m.label: (_COLOURS[i % len(_COLOURS)], _STYLES[i // len(_COLOURS)]) for i, m in enumerate(commonest)}

    figure = Figure(figsize=(11, max(4.6, 2.4 + 0.36 * len(shown))), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _intervals(left, shown, style)
    _curves(right, test, commonest, style)
    patients = result.counts.get("test_patients", 0)
    name = result.task.name.replace("_", " ")
    figure.suptitle(f"{result.probe} probe on {name}", fontsize=14, fontweight="bold", color=_INK, x=0.01, ha="left")
    undefined = [m.label for m in result.metrics if m.name == "auroc" and m.value is None]
    rows = f"{len(test.sample):,} rows of {patients:,} patients"
    notes = [f"{result.chosen.get('features', '')} features, {_choice(result)}; test: {rows}"]
    if undefined:
        notes.append(f"undefined, left out: {', '.join(undefined)}")
    figure.supxlabel("\n".join(notes), fontsize=9, color=_PALE, x=0.01, ha="left")
    try:
        figure.savefig(path)
    except ValueError as error:
        raise InputError(
            f"a figure can not be written as {path.suffix or 'a file without suffix'}; use .png."
        ) from error
    return path


def _intervals(axes: "Axes", shown: list[Metric], style: dict[str, tuple[str, str]]) -> None:
    """One line per class, in the task's order, the macro average below all."""
    for y, m in enumerate(shown):
        macro = m.label == "macro"
        colour, line = (_INK, "-") if macro else style.get(m.label, (_PALE, "-"))
        assert m.value is not None  # undefined ones are not shown
        if m.low is not None and m.high is not None:
            axes.plot([m.low, m.high], [y, y], color=colour, linewidth=2.2, linestyle=line)
        hollow = "few patients" in m.note and not macro
        axes.plot(
            m.value,
            y,
            marker="D" if macro else "o",
            markersize=8,
            color=colour,
            markerfacecolor="white" if hollow else colour,
            markeredgewidth=1.8,
        )
        axes.annotate(
            f"{m.value:.3f}", (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=10, color=_INK
        )
    axes.axvline(0.5, color=_PALE, linewidth=1, linestyle=":")
    if len(shown) > 1:
        axes.axhline(len(shown) - 1.5, color=_PALE, linewidth=0.6)
    axes.set_yticks(range(len(shown)), [_row_name(m) for m in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    lows = [m.low if m.low is not None else m.value for m in shown]
    axes.set_xlim(max(0.0, min([0.48, *(low - 0.03 for low in lows if low is not None)])), 1.0)
    axes.set_xlabel("AUROC with 95% interval, clustered by patient")
    few = any("few patients" in m.note for m in shown)
    axes.set_title("By class" + (" (hollow: few patients)" if few else ""), fontsize=11, color=_INK, loc="left")
    _plain_axes(axes)


def _curves(axes: "Axes", test: Predictions, chosen: list[Metric], style: dict[str, tuple[str, str]]) -> None:
    axes.plot([0, 1], [0, 1], color=_PALE, linewidth=1, linestyle=":")
    for m in chosen:
        j = test.classes.index(m.label)
        colour, line = style[m.label]
        false, true = roc_curve(test.label[:, j], test.score[:, j])
        axes.plot(false, true, color=colour, linestyle=line, linewidth=1.6, label=m.label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("False positive rate (1 - specificity)")
    axes.set_ylabel("True positive rate (sensitivity)")
    axes.set_title("ROC on the test part", fontsize=11, color=_INK, loc="left")
    if len(chosen) > 1:
        axes.legend(loc="lower right", fontsize=8, frameon=False)
    _plain_axes(axes)


def _plain_axes(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, length=3)


def _row_name(m: Metric) -> str:
    return "macro average" if m.label == "macro" else f"{m.label}  ({m.positives:,})"


def _choice(result: Result) -> str:
    """The hyper-parameter that validation chose: `C = 0.0316`."""
    for name in ("C", "k"):
        if name in result.chosen:
            return f"{name} = {result.chosen[name]:.3g}"
    return "as chosen on validation"


def roc_curve(y: Matrix, score: Matrix) -> tuple[Matrix, Matrix]:
    """False and true positive rates from (0, 0) to (1, 1), one point per distinct score."""
    ranking = Ranking.of(y, score)
    positive, negative = ranking.positive[::-1], 1 - ranking.positive[::-1]
    ends: npt.NDArray[np.int64] = len(ranking.index) - 1 - ranking.starts[::-1]
    true, false = np.cumsum(positive)[ends] / positive.sum(), np.cumsum(negative)[ends] / negative.sum()
    return np.append(0.0, false), np.append(0.0, true)
