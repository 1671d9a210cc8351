"""The panels of a result's picture, each drawn into axes that it is given."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedcache.evaluation.calibration import BINS, probabilities, reliability
from embedcache.evaluation.curves import roc_band
from embedcache.evaluation.metrics import Ranking
from embedcache.evaluation.predictions import Predictions
from embedcache.probes.base import Matrix
from embedcache.types import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by the colour-blind; the two palest are left out on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--")
MOST_CURVES = 5
"""More classes can not be told apart; the others stand in the panel of intervals."""
MOST_BANDS = 3
"""Bands of more classes hide each other."""
INK = "#222222"
PALE = "#9a9a9a"
# One meaning each in all pictures; a hollow dot is one of a grid's that was shown to be worse.
FEW_MARK = "s"
"""Of too few patients for what its interval claims."""
LACKING_MARK = "X"
"""A macro average over fewer classes than others beside it."""
BEYOND_MARK = "<"
"""At an axis's end: what it stands for lies, or goes on, where the axis does not reach."""
THIN, EDGE, MOST_EDGES = 1.4, 2.2, 3
"""Points that a line of a choice is wide, and that it is wider for each later one that lies on it, so that its edges show."""
POSITIVES_PER_BIN = 10
FEWEST_BINS = 3
Styles = Mapping[str, str]
"""The colour of each class that has curves."""


def intervals(axes: "Axes", shown: Sequence[Metric], style: Styles) -> None:
    """One line per class, in the task's order, the macro average below all."""
    for y, m in enumerate(shown):
        macro = m.label == "macro"
        colour = INK if macro else style.get(m.label, PALE)
        assert m.value is not None  # undefined ones are not shown
        if m.low is not None and m.high is not None:
            axes.plot([m.low, m.high], [y, y], color=colour, linewidth=2.2)
        few = "few patients" in m.note
        axes.plot(
            m.value,
            y,
            marker="D" if macro else FEW_MARK if few else "o",
            markersize=8,
            color=colour,
            clip_on=False,  # at 1 half of it lies beyond the axis
            zorder=3,
        )
        axes.annotate(
            f"{m.value:.3f}", (1.03, y), xycoords=("axes fraction", "data"), va="center", fontsize=10, color=INK
        )
    axes.axvline(0.5, color=PALE, linewidth=1, linestyle=":")
    if len(shown) > 1:
        axes.axhline(len(shown) - 1.5, color=PALE, linewidth=0.6)
    axes.set_yticks(range(len(shown)), [_row_name(m) for m in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    lows = [m.low if m.low is not None else m.value for m in shown]
    axes.set_xlim(max(0.0, min([0.48, *(low - 0.03 for low in lows if low is not None)])), 1.0)
    axes.set_xlabel("AUROC with 95% interval, clustered by patient")
    _titled(axes, "By class (with the number of its positives)")


def roc_curves(axes: "Axes", test: Predictions, chosen: Sequence[Metric], style: Styles, of: int) -> None:
    """ROC curves of `chosen`, out of `of` classes, the first of them with a band: 95% at each false positive rate, over patients.

    One class alone has its area in the title.
    """
    axes.plot([0, 1], [0, 1], color=PALE, linewidth=1, linestyle=":")
    for place, m in enumerate(chosen):
        j = test.classes.index(m.label)
        colour = style[m.label]
        if place < MOST_BANDS:
            band = roc_band(test.label[:, j], test.score[:, j], test.patient)
            if band is not None:
                axes.fill_between(band.false_positive_rate, band.low, band.high, color=colour, alpha=0.15, linewidth=0)
        false, true = roc_curve(test.label[:, j], test.score[:, j])
        axes.plot(false, true, color=colour, linewidth=1.6, label=m.label, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("False positive rate (1 - specificity)")
    axes.set_ylabel("True positive rate (sensitivity)")
    _legend_beside(axes, len(chosen))
    _titled(axes, _roc_title(chosen, of))


def _roc_title(chosen: Sequence[Metric], of: int) -> str:
    title = f"ROC on the test part, 95% bands over patients{f' (of {MOST_BANDS})' if len(chosen) > MOST_BANDS else ''}"
    if of == 1:
        (m,) = chosen
        interval = "" if m.low is None else f" ({m.low:.3f} to {m.high:.3f})"
        return f"{title}\nAUROC {m.value:.3f}{interval}, {m.positives:,} positives"
    return title if of == len(chosen) else f"{title}\nthe {len(chosen)} of {of} classes with most positives"


def reliability_curves(
    axes: "Axes", test: Predictions, chosen: Sequence[Metric], style: Styles, score_name: str
) -> None:
    """Observed share of positives by predicted probability, in bins of as many rows each.

    As many bins as have POSITIVES_PER_BIN on average, from FEWEST_BINS to those of the calibration error: where positives are
    few, more bins would show chance.
    """
    probability = probabilities(test.score, score_name)
    most = 0.0
    counts = []
    for m in chosen[:MOST_BANDS]:
        j = test.classes.index(m.label)
        colour = style[m.label]
        rarer = min(m.positives, m.n - m.positives)
        bins = min(BINS, max(FEWEST_BINS, rarer // POSITIVES_PER_BIN))
        curve = reliability(test.label[:, j], probability[:, j], test.patient, bins)
        counts.append(len(curve.predicted))  # equal probabilities stay together
        axes.fill_between(curve.predicted, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
        points: dict[str, Any] = {
            "color": colour,
            "marker": "o",
            "markersize": 3.5,
            "linewidth": 1.4,
            "clip_on": False,
        }
        axes.plot(curve.predicted, curve.observed, label=m.label, **points)
        most = float(np.nanmax([most, *curve.predicted, *curve.high, *curve.observed]))
    side = min(1.0, 1.05 * most) or 1.0
    axes.plot([0, side], [0, side], color=PALE, linewidth=1, linestyle=":")
    axes.set_xlim(0, side)
    axes.set_ylim(0, side)
    axes.set_xlabel(f"Predicted probability (from {score_name})")
    axes.set_ylabel("Observed share of positives")
    _legend_beside(axes, len(chosen))
    among = f"{min(counts)} to {max(counts)}" if len(set(counts)) > 1 else f"{counts[0]}"
    _titled(axes, f"Reliability on the test part, 95% bands over patients\nin {among} bins of as many rows each")


def choice_path(axes: "Axes", selection: Mapping[str, Any], parameter: str, features: str, value: float) -> None:
    """What validation scored at each value of the hyper-parameter, for each choice of features; the chosen one is marked."""
    by = ""
    paths = {name: path for name, path in selection.items() if "scores" in path}
    lines = [_line(path) for path in paths.values()]
    edges = _edges(lines)
    for i, (name, path) in enumerate(paths.items()):
        by = path["by"]
        values, scores = lines[i]
        colour, line = COLOURS[i % len(COLOURS)], STYLES[i // len(COLOURS) % len(STYLES)]
        width = THIN + EDGE * edges[i]
        plain: dict[str, Any] = {"color": colour, "linestyle": line, "linewidth": width, "markersize": 1.6 + width}
        plain["marker"] = "o" if line == STYLES[0] else "+"  # dots of a long grid hide the dashes
        axes.plot(values, scores, label=name, **plain)
        if name == features:
            at = int(np.argmin(np.abs(values - value)))
            ring: dict[str, Any] = {"marker": "o", "markersize": 10, "markerfacecolor": "none", "markeredgewidth": 1.8}
            ring |= {"clip_on": False, "zorder": 3}
            axes.plot(values[at], scores[at], color=colour, **ring)
    tried = np.array([value for path in paths.values() for value in path["values"]], dtype=np.float64)
    if (tried > 0).all():
        axes.set_xscale("log")
    elif (tried > 0).any():  # a penalty of 0 has no place on a logarithmic axis
        axes.set_xscale("symlog", linthresh=float(tried[tried > 0].min()))
    axes.set_xlabel(parameter)
    axes.set_ylabel(f"{by.replace('auroc', 'AUROC')} of the rows that choose")
    if len(paths) > 1:
        axes.legend(loc="best", fontsize=8, frameon=False)
    _titled(axes, f"Choice of {parameter}: {value:.3g} (circled)")


def _line(path: Mapping[str, Any]) -> tuple[Matrix, Matrix]:
    """The values of a path in ascending order, and the score at each, NaN where there is none."""
    scores = np.array([np.nan if s is None else s for s in path["scores"]], dtype=np.float64)
    values = np.array(path["values"], dtype=np.float64)
    order = np.argsort(values)
    return values[order], scores[order]


def _edges(lines: Sequence[tuple[Matrix, Matrix]]) -> list[int]:
    """How many later lines each one must be seen under: those that come to 1% of the axis at two of its values."""
    known = np.concatenate([scores[~np.isnan(scores)] for _, scores in lines]) if lines else np.zeros(0)
    near = 0.01 * float(np.ptp(known)) if len(known) else 0.0
    edges = [0] * len(lines)
    for i in reversed(range(len(lines))):
        values, scores = lines[i]
        for later in range(i + 1, len(lines)):
            others, others_scores = lines[later]
            if np.array_equal(values, others) and (np.abs(scores - others_scores) <= near).sum() >= min(2, len(values)):
                edges[i] = min(MOST_EDGES, max(edges[i], edges[later] + 1))
    return edges


def predicted_against_measured(axes: "Axes", test: Predictions) -> None:
    """A point per test row of a numeric task, and the line on which both are equal."""
    measured, predicted = test.label[:, 0], test.score[:, 0]
    known = ~(np.isnan(measured) | np.isnan(predicted))
    axes.scatter(measured[known], predicted[known], s=10, color=COLOURS[0], alpha=0.5, linewidths=0)
    both = np.concatenate([measured[known], predicted[known]])
    ends = [float(both.min(initial=np.inf)), float(both.max(initial=-np.inf))]
    axes.plot(ends, ends, color=PALE, linewidth=1, linestyle=":")
    axes.set_xlabel("Measured")
    axes.set_ylabel("Predicted")
    _titled(axes, "Predictions on the test part")


def roc_curve(y: Matrix, score: Matrix) -> tuple[Matrix, Matrix]:
    """False and true positive rates from (0, 0) to (1, 1), one point per distinct score."""
    ranking = Ranking.of(y, score)
    positive, negative = ranking.positive[::-1], 1 - ranking.positive[::-1]
    ends: npt.NDArray[np.int64] = len(ranking.index) - 1 - ranking.starts[::-1]
    true, false = np.cumsum(positive)[ends] / positive.sum(), np.cumsum(negative)[ends] / negative.sum()
    return np.append(0.0, false), np.append(0.0, true)


def _legend_beside(axes: "Axes", curves: int) -> None:
    """A legend that hides no curve."""
    if curves > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)


def _titled(axes: "Axes", title: str) -> None:
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, length=3)


def _row_name(m: Metric) -> str:
    return "macro average" if m.label == "macro" else f"{m.label}  ({m.positives:,})"
