"""`embedcache labels`."""

from typing import TYPE_CHECKING, Annotated

import typer

import embedcache
from embedcache_cli.asking import takes_config
from embedcache_cli.output import Json, print_json, print_table, silent, tell

if TYPE_CHECKING:
    from embedcache import ExtractConfig

NAME = "labels"
app = typer.Typer(help="What a table or dataset says of its samples.", no_args_is_help=True)


@app.command("show")
def show_command(
    table: Annotated[str, typer.Argument(help="A CSV or Parquet table, or a dataset's folder with --dataset.")],
    dataset: Annotated[str, typer.Option(help="How to read it.")] = "table",
    task: Annotated[list[str] | None, typer.Option(help="NAME=KIND[:COLUMN,…]")] = None,
    positive: Annotated[list[str] | None, typer.Option(help="TASK=VALUE")] = None,
    sep: Annotated[str | None, typer.Option(help="What separates labels in a cell.")] = None,
    level: Annotated[str | None, typer.Option(help="patient, study, sample or slice.")] = None,
    labels: Annotated[str | None, typer.Option(help="A second table that holds the labels.")] = None,
    join_on: Annotated[str | None, typer.Option(help="Its column of sample ids or patients.")] = None,
    slice_column: Annotated[str | None, typer.Option(help="Its column of slice numbers.")] = None,
    json: Json = False,
) -> int:
    """Print which columns are taken as labels, what was found in them, and which switch overrides it."""
    options = embedcache.DatasetOptions(
        tasks=tuple(task or ()),
        positive=tuple(positive or ()),
        sep=sep,
        level=level,
        label_table=labels,
        join_on=join_on,
        slice_column=slice_column,
    )
    what = table if dataset == "table" and labels is None else embedcache.open_dataset(dataset, table, options)
    lines = embedcache.describe_labels(what, options)
    if json:
        print_json(lines)
        return 0
    rows = []
    for line in lines:
        counts = ", ".join(f"{name} {count}" for name, count in (line.get("classes") or {}).items())
        rows.append(
            (
                line.get("column", ""),
                line["task"] or "-",
                line.get("kind", ""),
                line.get("level", ""),
                counts,
                line.get("missing", ""),
                line["reason"],
                line["switch"],
            )
        )
    print_table(("column", "task", "kind", "level", "classes", "missing", "why", "to have it otherwise"), rows)
    return 0


@app.command("sync")
@takes_config("backbone")
def sync_command(config: "ExtractConfig", json: Json = False) -> int:
    """Read the dataset's labels again and refresh the label table beside its stores."""
    report = embedcache.sync_labels(config, silent if json else tell)
    if json:
        print_json(report)
    else:
        print(f"{report.path}: {report.samples} samples, tasks {', '.join(report.tasks) or 'none'}")
    return 0
