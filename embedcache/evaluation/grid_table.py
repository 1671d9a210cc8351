"""The table of a grid: rows are backbone x probe, columns dataset x task x metric; the best of a column is a set.

"Best" is what no other of the column is shown to be better than: paired tests over patients of every pair in the column, Holm's
method over all of them, 5%. Nothing is marked where results were not measured on the same test rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from embedcache.errors import InputError
from embedcache.evaluation.compare import compare_measured
from embedcache.evaluation.estimates import ALL, MACRO
from embedcache.evaluation.measured import read_measured
from embedcache.evaluation.result_table import dataset_of
from embedcache.evaluation.subgroups import Subgroup
from embedcache.types import Metric, Result

WHOLE = ""
"""The group of a row that is not apart for a value of a column."""
UNTESTED = (
    "not every result has the figure, or no test is possible: a class has one patient, or it is a calibration error"
)
MARK = "not shown to be worse than another of its column, at 5% after Holm's correction over all pairs of the column"


@dataclass(frozen=True)
class Entry:
    """A result that the table shows, and its groups, if they are asked for."""

    result: Result
    groups: tuple[Subgroup, ...] = ()


@dataclass(frozen=True)
class GridColumn:
    """One metric of one task of one dataset."""

    dataset: str
    """`fitted -> tested`, if they are two."""
    task: str
    metric: str
    label: str
    """A class (of a binary task its one), `macro` or `all`; the task's own name for numbers."""
    asked: bool
    """Whether that class was asked for, in place of the average."""
    compared: int
    """How many results were tested against each other; 0 where none is marked."""
    note: str = ""
    """Why none is marked."""

    @property
    def figure(self) -> str:
        """`auroc`, or `auroc of Mass` where a class was asked for."""
        return self.metric.replace("_", " ") + (f" of {self.label}" if self.asked else "")

    @property
    def title(self) -> str:
        """`nih-cxr14 findings auroc`."""
        return f"{self.dataset} {self.task} {self.figure}"


@dataclass(frozen=True)
class GridFigure:
    """One figure of one result, or of a group of its test rows."""

    value: float | None
    low: float | None
    high: float | None
    best: bool
    """One of the best of its column; of a group nothing is claimed."""
    patients: int
    note: str
    file: str
    """Name of the result's JSON."""


@dataclass(frozen=True)
class GridRow:
    """One probe on one backbone; of all test rows, or of a group of them."""

    backbone: str
    store: str
    """Name of the store where a dataset has several of this backbone, whose recipes differ; else ""."""
    probe: str
    group: str
    figures: tuple[GridFigure | None, ...]
    """By column; None where there is no such result, or no such figure."""


@dataclass(frozen=True)
class GridTable:
    """What a grid found."""

    columns: tuple[GridColumn, ...]
    rows: tuple[GridRow, ...]
    notes: tuple[str, ...]

    def titles(self) -> list[tuple[str, ...]]:
        """What tells rows apart, a tuple per row as `headings` names it."""
        named = [
            f"{row.backbone} ({row.store.removesuffix('.zarr')})" if row.store else row.backbone for row in self.rows
        ]
        grouped = any(row.group for row in self.rows)
        return [
            (name, row.probe, row.group) if grouped else (name, row.probe)
            for name, row in zip(named, self.rows, strict=True)
        ]

    def headings(self) -> tuple[str, ...]:
        """Of the first columns, those of `titles`."""
        return ("backbone", "probe", *(("group",) if any(row.group for row in self.rows) else ()))


def tabulate(
    entries: Sequence[Entry], metrics: tuple[str, ...] | None, label: str | None, comparisons: int
) -> GridTable:
    """Lay results out, no two of one dataset, task, probe and store. metrics: None is AUROC, and R2 for numbers; comparisons:
    resamples of the tests, 0 for none."""
    row_of = _Rows(entries)
    kept = sorted(entries, key=lambda e: (dataset_of(e.result), e.result.task.name))
    columns: list[GridColumn] = []
    cells: dict[tuple[tuple[str, str, str], str, int], GridFigure] = {}
    notes: list[str] = []
    for (dataset, task), group in groupby(kept, key=lambda e: (dataset_of(e.result), e.result.task.name)):
        of_task = list(group)
        shown = _shown(of_task, metrics, label)
        if not shown:
            notes.append(f"no result of task {task} of {dataset} has a figure that was asked for.")
        best, why = _best(of_task, shown, comparisons)
        for metric, of_label in shown:
            j = len(columns)
            marked = best.get((metric, of_label))
            compared = 0 if marked is None else len(of_task)
            lacking = UNTESTED if marked is None and len(of_task) > 1 and comparisons else ""
            columns.append(GridColumn(dataset, task, metric, of_label, label is not None, compared, why or lacking))
            notes += [f"nothing is marked in {columns[j].title}: {columns[j].note}"] if columns[j].note else []
            for i, entry in enumerate(of_task):
                figure = _figure(
                    entry.result.metrics, metric, of_label, entry.result, marked is not None and i in marked
                )
                if figure is not None:
                    cells[row_of(entry.result), WHOLE, j] = figure
                for part in entry.groups:
                    figure = _figure(part.metrics, metric, of_label, entry.result, False)
                    if figure is not None:
                        cells[row_of(entry.result), part.name, j] = figure
    return GridTable(tuple(columns), _rows(entries, row_of, cells, len(columns)), tuple(notes))


class _Rows:
    """Which row a result stands in: its backbone's, and its store's where a dataset has several of that backbone."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        stores: dict[tuple[str, str], set[str]] = {}
        for source in (entry.result.source for entry in entries):
            stores.setdefault((source["dataset"], source["backbone"]), set()).add(source["store"])
        self.several = {backbone for (_, backbone), names in stores.items() if len(names) > 1}

    def __call__(self, result: Result) -> tuple[str, str, str]:
        backbone = result.source["backbone"]
        return backbone, result.source["store"] if backbone in self.several else "", result.probe


def _shown(entries: list[Entry], metrics: tuple[str, ...] | None, label: str | None) -> list[tuple[str, str]]:
    """Metric and label of each column of a task."""
    task = entries[0].result.task
    # a binary task's one class is its average too, and is called by its name
    whole = (*(task.classes if task.kind == "binary" else ()), MACRO, ALL, task.name)
    asked = metrics if metrics is not None else ("r2" if task.kind == "numeric" else "auroc",)
    found = []
    for name in asked:
        there = {m.label for entry in entries for m in entry.result.metrics if m.name == name}
        of_label = next((x for x in ((label,) if label else whole) if x in there), None)
        if of_label is not None:
            found.append((name, of_label))
    return found


def _best(
    entries: list[Entry], shown: list[tuple[str, str]], comparisons: int
) -> tuple[dict[tuple[str, str], set[int]], str]:
    """Per column the places of the best, or nothing and why."""
    if len(entries) < 2 or comparisons == 0 or not shown:
        return {}, ""
    pairs = len(entries) * (len(entries) - 1) // 2
    names = tuple(str(i) for i in range(len(entries)))
    try:
        found = compare_measured(
            [read_measured(entry.result.path) for entry in entries],
            names,
            # no p value is under 2 / (resamples + 1), and Holm multiplies it by the number of pairs
            resamples=max(comparisons, 80 * pairs) if comparisons else 0,
        )
    except InputError as error:
        return {}, str(error)
    # where no pair can be tested (one patient in a class) nobody is known to be among the best
    there = {
        (column.metric, column.label): column for column in found.columns if any(p is not None for p in column.adjusted)
    }
    return {key: {int(name) for name in there[key].best} for key in shown if key in there}, ""


def _figure(metrics: tuple[Metric, ...], name: str, label: str, result: Result, best: bool) -> GridFigure | None:
    for m in metrics:
        if (m.name, m.label) == (name, label):
            return GridFigure(m.value, m.low, m.high, best, m.patients, m.note, Path(result.path).name)
    return None


def _rows(
    entries: Sequence[Entry],
    row_of: _Rows,
    cells: dict[tuple[tuple[str, str, str], str, int], GridFigure],
    width: int,
) -> tuple[GridRow, ...]:
    """Backbones in the order of the stores, of each its probes, the groups of a row below it."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for entry in entries:
        known = groups.setdefault(row_of(entry.result), [WHOLE])
        known += [part.name for part in entry.groups if part.name not in known]
    backbones = list(dict.fromkeys((backbone, store) for backbone, store, _ in groups))
    ordered = sorted(groups, key=lambda row: backbones.index(row[:2]))
    return tuple(
        GridRow(*row, group, tuple(cells.get((row, group, j)) for j in range(width)))
        for row in ordered
        for group in groups[row]
    )
