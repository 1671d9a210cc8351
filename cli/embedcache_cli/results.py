"""`embedcache results`."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import embedcache
from embedcache_cli.asking import place
from embedcache_cli.output import Json, counted, print_json, print_table, tell
from embedcache_cli.probe_printing import figure, in_brackets

if TYPE_CHECKING:
    from embedcache.evaluation.curve_table import CurveLine
    from embedcache.evaluation.few_shot_result import CurveFigure
    from embedcache.evaluation.result_table import ResultLine, ResultTable


def command(
    folder: Annotated[str, typer.Argument(help="A cache, or a folder of results.")] = "cache",
    probe: Annotated[str | None, typer.Option(help="Only this probe; few-shot for curves.")] = None,
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Only backbones whose name has this in it.")] = None,
    label: Annotated[str | None, typer.Option(help="A class, in place of the macro average.")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="These columns, with commas; all for every one that there is.")
    ] = None,
    csv: Annotated[
        str | None, typer.Option(help="Write the table of probes to this CSV file too, intervals in columns.")
    ] = None,
    json: Json = False,
) -> int:
    """List the results and few-shot curves of a cache: what was asked and chosen, figures with their 95% intervals."""
    file = place(csv, "--csv")
    if file is not None:
        embedcache.check_file(file, "the table")
    table = embedcache.tabulate_results(
        folder,
        probe=probe,
        task=task,
        backbone=backbone,
        dataset=dataset,
        label=label,
        metrics=tuple(name.strip() for name in metrics.split(",")) if metrics is not None else None,
    )
    if file is not None:
        write_csv(table, file)
    if json:
        print_json(table)
    else:
        print_lines(table)
    return 1 if table.unreadable else 0


def print_lines(table: "ResultTable") -> None:
    """What was asked on the left, a column per metric, the file on the right."""
    names = tuple(name.replace("_", " ") for name in table.metrics)
    rows = [(*_asked(x), *(figure(x.figures.get(name)) for name in table.metrics), x.file) for x in table.lines]
    if rows:
        print_table(("dataset", "task", "backbone", "probe", "features", "chosen", "class", *names, "file"), rows)
    print_curves(table.curves)
    print(counted(len(rows), "result") + (f", {counted(len(table.curves), 'curve')}" if table.curves else ""))
    for note in table.notes:
        tell(f"note: {note}")
    for line in table.unreadable:
        tell(f"left out: {line}")


def print_curves(curves: "tuple[CurveLine, ...]") -> None:
    """A line for each curve: AUROC by patients of each class, with its interval over test patients."""
    numbers = sorted({int(size) for x in curves for size in x.figures if size != "all"})
    sizes = [*map(str, numbers), *(["all"] if any("all" in x.figures for x in curves) else [])]
    rows = [
        (
            *(x.dataset, x.task, x.backbone, x.setting.partition(":")[0], x.features, f"C {x.C}", x.label),
            *(curve_figure(x.figures.get(size)) for size in sizes),
            x.file,
        )
        for x in curves
    ]
    if rows:
        names = tuple("all" if size == "all" else f"{size} a class" for size in sizes)
        print_table(
            ("dataset", "task", "backbone", "AUROC by patients", "features", "C", "class", *names, "file"), rows
        )


def curve_figure(found: "CurveFigure | None") -> str:
    """`0.712 (0.650-0.770)`, or a dash where undefined."""
    if found is None or found.value is None:
        return "-"
    return f"{found.value:.3f}{in_brackets(found.test_low, found.test_high)}"


def write_csv(table: "ResultTable", path: Path) -> None:
    """A line per result: value, low and high of each metric in columns of their own."""
    figures = [f"{name}{part}" for name in table.metrics for part in ("", "_low", "_high")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ("dataset", "task", "backbone", "probe", "features", "chosen", "class", "test_patients", *figures, "file")
        )
        for x in table.lines:
            cells = [
                "" if m is None or value is None else repr(value)
                for m in (x.figures.get(name) for name in table.metrics)
                for value in ((m.value, m.low, m.high) if m else (None,) * 3)
            ]
            writer.writerow((*_asked(x), x.test_patients, *cells, x.file))


def _asked(x: "ResultLine") -> tuple[str, ...]:
    return x.dataset, x.task, x.backbone, x.probe, x.features, x.choice, x.label
