"""`embedcache probe all`: a grid of stores, probes and tasks, and its table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import embedcache
from embedcache_cli.asking import numbers, takes
from embedcache_cli.output import Json, ProgressLine, counted, print_json, print_table, tell
from embedcache_cli.probe import shared
from embedcache_cli.probe_printing import in_brackets

if TYPE_CHECKING:
    from embedcache import Grid
    from embedcache.evaluation.grid_table import GridFigure, GridTable

NAME = "all"


@takes(shared, store="", train=None, task=None)
def command(
    asked: dict[str, Any],
    stores: Annotated[list[str], typer.Argument(help="Stores of one dataset or of several.")],
    probes: Annotated[
        str | None, typer.Option(help="With commas; logistic, knn and ridge where they answer, unless given.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="With commas; all of the labels' tasks unless given.")] = None,
    C: Annotated[
        str | None, typer.Option("--C", help="Of logistic and linear-svm: grid of inverse penalties, with commas.")
    ] = None,
    k: Annotated[str | None, typer.Option("--k", help="Of knn: grid of neighbours, with commas.")] = None,
    alpha: Annotated[str | None, typer.Option(help="Of ridge: grid of penalties, with commas.")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Columns of the table, with commas; auroc, and r2 for numbers, unless given.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="A class, in place of the macro average.")] = None,
    by: Annotated[
        str | None, typer.Option(help="A column of the labels (site, sex, age): each group in a row of its own too.")
    ] = None,
    comparisons: Annotated[
        int, typer.Option(help="Resamples of the tests that mark the best of a column; 0 marks nothing.")
    ] = 10_000,
    figure: Annotated[str | None, typer.Option(help="Draw the table to this PNG, SVG or PDF.")] = None,
    out: Annotated[str | None, typer.Option(help="Write the table to this .csv, .tex or .json too.")] = None,
    json: Json = False,
) -> int:
    """Every store x probe x task; what is answered already is not fitted again. At the end one table."""
    for name in ("store", "task"):
        asked.pop(name)
    if figure is not None:
        embedcache.check_figure(figure)
    kinds: dict[str, tuple[str | None, type]] = {"C": (C, float), "k": (k, int), "alpha": (alpha, float)}
    grids = {n: numbers(text, kind, f"--{n}") for n, (text, kind) in kinds.items() if text is not None}
    config = embedcache.GridConfig(
        stores=tuple(stores),
        probes=words(probes),
        tasks=words(tasks),
        grids=grids,
        shared=asked,
        metrics=words(metrics),
        label=label,
        by=by,
        comparisons=comparisons,
        out=Path(out) if out is not None else None,
    )
    with ProgressLine("probing", quiet=json) as line:
        grid = embedcache.probe_all(config, line.update)
    if figure is not None and grid.table.rows:
        embedcache.draw_grid(grid.table, figure)
    if json:
        print_json(document(grid))
    else:
        print_grid(grid)
    return 1 if grid.failed or grid.lacking else 0


def words(text: str | None) -> tuple[str, ...] | None:
    """Words with commas between them."""
    return tuple(word.strip() for word in text.split(",")) if text is not None else None


def document(grid: "Grid") -> dict[str, Any]:
    """The cells by their files, the table, the notes."""
    cells = [
        {
            "dataset": cell.dataset,
            "backbone": cell.backbone,
            "store": cell.store,
            "probe": cell.probe,
            "task": cell.task,
            "computed": cell.computed,
            "path": cell.result.path if cell.result is not None else None,
            "error": cell.error,
        }
        for cell in grid.cells
    ]
    return {"cells": cells, "table": grid.table, "notes": grid.notes}


def print_grid(grid: "Grid") -> None:
    """The table; below it what was fitted and found, and what is to be said."""
    if grid.table.rows:
        print_grid_table(grid.table)
    computed = sum(cell.computed for cell in grid.cells)
    found = len(grid.cells) - computed - len(grid.failed)
    print(f"{counted(computed, 'result')} fitted, {found} found")
    for note in grid.notes:
        tell(f"note: {note}")
    for cell in grid.failed:
        what = " ".join(word for word in (cell.dataset, cell.backbone, cell.store, cell.probe, cell.task) if word)
        tell(f"failed: {what}: {cell.error}")


def print_grid_table(table: "GridTable") -> None:
    """Backbone and probe on the left, then a column for each dataset, task and metric."""
    rows = [
        (*title, *(cell(found) for found in row.figures)) for title, row in zip(table.titles(), table.rows, strict=True)
    ]
    print_table((*table.headings(), *(column.title for column in table.columns)), rows)
    print("in brackets: 95% intervals clustered by patient")
    if any(column.compared for column in table.columns):
        print("*: not shown to be worse than another of its column, at 5% after Holm's correction over all its pairs")
    few = sum("few patients" in found.note for row in table.rows for found in row.figures if found is not None)
    if few:
        print(f"few patients, so that an interval's coverage is not claimed: in {counted(few, 'figure')}")


def cell(found: "GridFigure | None") -> str:
    """`0.712 (0.650-0.770) *`, or a dash where there is none."""
    if found is None or found.value is None:
        return "-"
    return f"{found.value:.3f}{in_brackets(found.low, found.high)}{' *' if found.best else ''}"
