"""A grid's table as a picture: a panel per column, a dot with its interval per row."""

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from embedcache.errors import InputError
from embedcache.evaluation.figure_files import new_figure, save_figure
from embedcache.evaluation.figure_panels import BEYOND_MARK, COLOURS, INK, PALE
from embedcache.evaluation.grid_table import MARK, GridColumn, GridFigure, GridRow, GridTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ACROSS = 4
"""Panels beside each other; more stand below."""
_CHANCE = {"auroc": 0.5, "balanced_accuracy": 0.5, "r2": 0.0, "pearson": 0.0, "spearman": 0.0}
"""What knows nothing scores."""
_LETTERS = 14
"""Of a note, beside each other in an inch."""
_LINE = 0.14
"""Inches that a line of a note takes."""
FILLED, HOLLOW, UNTESTED_MARK = "filled", "hollow", "dash"
_ARROW = "arrow: goes on beyond the axis; with a number, that is the value, filled or hollow as dots are"
_MARGIN = 0.08
"""Of a range, left and right of it."""
_LEAST = {"r2": -1.0}
"""Where an axis ends at the latest: R2 has no least value, and an interval of a few patients would hide all others."""


def draw_grid(table: GridTable, path: str | Path) -> Path:
    """Draw `table` into `path` (the suffix names the format: `.png`, `.svg`, `.pdf`) and return it.

    A panel per column, those of one metric over one range. Rows have one colour per backbone; filled dots are the best of a
    column, as a set, hollow ones the others; what was not tested (a group, a column that none is marked in) has a dash across its
    interval. The picture says so. An axis of R2 ends at -1, with an arrow where a value (written beside it) or an interval lies
    beyond. Raises MissingPackageError without matplotlib, InputError for an
    unknown format or a table without rows.
    """
    if not table.rows:
        raise InputError("the table has no rows, so there is nothing to draw.")
    titles = [", ".join(word for word in title if word) for title in table.titles()]
    across = min(MOST_ACROSS, len(table.columns))
    down = -(-len(table.columns) // across)
    size = (2.2 + 2.9 * across, down * (1.3 + 0.27 * len(titles)) + 0.2)
    notes = ["95% intervals, clustered by patient", *_legend(table)]
    lines = [line for note in notes for line in wrap(note, int(size[0] * _LETTERS))]
    figure = new_figure(size[0], size[1] + _LINE * len(lines))
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for j, axes in enumerate(panels):
        if j < len(table.columns):
            _panel(axes, table, j)
            if j % across == 0:
                axes.set_yticks(range(len(titles)), titles, fontsize=9)
        else:
            axes.set_visible(False)
    for metric in {column.metric for column in table.columns}:
        of_metric = [axes for axes, column in zip(panels, table.columns, strict=False) if column.metric == metric]
        _share_range(of_metric, _LEAST.get(metric))
    panels[0].set_ylim(len(titles) - 0.5, -0.5)
    figure.supxlabel("\n".join(lines), fontsize=8, color=PALE, x=0.01, ha="left")
    return save_figure(figure, path)


def _legend(table: GridTable) -> list[str]:
    """What the marks stand for, of those that are there."""
    marks = {
        mark
        for row in table.rows
        for column, figure in zip(table.columns, row.figures, strict=True)
        if figure is not None and (mark := _mark(row, column, figure.best))
    }
    told = (
        (FILLED, f"filled dot: {MARK}"),
        (HOLLOW, "hollow dot: shown to be worse, by the same tests"),
        (UNTESTED_MARK, "upright dash: not tested against others"),
    )
    said = [text for mark, text in told if mark in marks]
    beyond = [
        _reaches(figure) < least
        for row in table.rows
        for column, figure in zip(table.columns, row.figures, strict=True)
        if figure is not None and figure.value is not None and (least := _LEAST.get(column.metric)) is not None
    ]
    return [*said, _ARROW] if any(beyond) else said


def _reaches(figure: GridFigure) -> float:
    """The lowest of what is drawn of a figure that has a value."""
    assert figure.value is not None
    return figure.value if figure.low is None or figure.high is None else min(figure.value, figure.low)


def _mark(row: GridRow, column: GridColumn, best: bool) -> str:
    if row.group or not column.compared:
        return UNTESTED_MARK
    return FILLED if best else HOLLOW


def _panel(axes: "Axes", table: GridTable, j: int) -> None:
    backbones = list(dict.fromkeys((row.backbone, row.store) for row in table.rows))
    column = table.columns[j]
    chance = _CHANCE.get(column.metric)
    if chance is not None:
        axes.axvline(chance, color=PALE, linewidth=1, linestyle=":")
    for y, row in enumerate(table.rows):
        figure = row.figures[j]
        if figure is None or figure.value is None:
            continue
        colour = COLOURS[backbones.index((row.backbone, row.store)) % len(COLOURS)]
        thin = 1.0 if row.group else 1.8
        if figure.low is not None and figure.high is not None:
            axes.plot([figure.low, figure.high], [y, y], color=colour, linewidth=thin)
        mark = _mark(row, column, figure.best)
        dot: dict[str, Any] = {
            "marker": "|" if mark == UNTESTED_MARK else "o",
            "markersize": 7,
            "color": colour,
            "markerfacecolor": "white" if mark == HOLLOW else colour,
            "markeredgewidth": thin,
        }
        least = _LEAST.get(column.metric)
        if least is None or figure.value >= least:
            axes.plot(figure.value, y, clip_on=False, zorder=3, **dot)
        if least is not None and _reaches(figure) < least:
            _beyond(axes, figure.value, least, y, dot)
    axes.set_title(_title(column), fontsize=9, color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, length=3, labelsize=8)
    axes.margins(x=_MARGIN)


def _beyond(axes: "Axes", value: float, least: float, y: int, dot: dict[str, Any]) -> None:
    """An arrow at the axis's end, small for the interval; for a tested value that lies beyond it stands for the dot."""
    small = {"markersize": 4, "color": dot["color"]}
    arrow = small if value >= least or dot["marker"] == "|" else dot
    axes.plot(least, y, clip_on=False, zorder=3, **{**arrow, "marker": BEYOND_MARK})
    if value < least:
        above: dict[str, Any] = {"textcoords": "offset points", "va": "bottom", "fontsize": 7, "color": INK}
        axes.annotate(f"{value:.3g}", (least, y), (5, 1), **above)


def _share_range(panels: "list[Axes]", least: float | None) -> None:
    """One range for all panels of a metric, so that they can be held beside each other; from `least` on at the lowest."""
    ranges = [axes.get_xlim() for axes in panels]
    left, right = min(left for left, _ in ranges), max(right for _, right in ranges)
    if least is not None and left < least:  # what lies far beyond gives the right no wider margin
        most = max(float(axes.dataLim.x1) for axes in panels)
        left, right = least, most + _MARGIN * (most - least)
    for axes in panels:
        axes.set_xlim(left, right)


def _title(column: GridColumn) -> str:
    return f"{column.dataset}\n{column.task.replace('_', ' ')}\n{column.figure}"
