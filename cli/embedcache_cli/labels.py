"""`embedcache labels`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

import embedcache
from embedcache_cli.asking import READING, extract_config, label_options, takes
from embedcache_cli.output import Json, counted, print_json, print_records, print_table, silent, tell

if TYPE_CHECKING:
    from embedcache import DatasetOptions, ExtractConfig

app = typer.Typer(help="What a table or dataset says of its samples.", no_args_is_help=True)


@app.command("show")
@takes(label_options)
def show_command(
    options: "DatasetOptions",
    table: Annotated[str, typer.Argument(help="A CSV or Parquet table, or a dataset's folder with --dataset.")],
    dataset: Annotated[str, typer.Option(help="How to read it.")] = "table",
    json: Json = False,
) -> int:
    """Print which columns say where, who and what part, which are labels, and which switch overrides it."""
    alone = dataset == "table" and options.label_table is None
    opened = None if alone else embedcache.open_dataset(dataset, table, options)
    roles = embedcache.describe_roles(opened or table, options)
    lines = embedcache.describe_labels(opened or table, options)
    if json:
        print_json([*roles, *lines])
        return 0
    if roles:
        print_table(
            ("what", "column", "meaning", "otherwise"),
            [(r["role"], r["column"] or "-", r["reason"], r["switch"]) for r in roles],
        )
        print()
    print_records([_record(line) for line in lines])
    if not any(line["task"] for line in lines):
        masks = any(r["role"] == "mask" and r["column"] for r in roles)
        print("no column is a label" + ("; the masks are for `embedcache probe patch-linear`" if masks else ""))
    for notice in opened.notices if opened else ():
        tell(f"notice: {notice}")
    return 0


def _record(line: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """A column as its name and what is said of it; nothing is said of what is not there."""
    if not line["task"]:
        return line["column"], {"no task": line["reason"], "otherwise": line["switch"]}
    found = ", ".join(f"{name} {count}" for name, count in (line["classes"] or {}).items())
    task = f"{line['kind']} task {line['task']!r}, a label per {line['level']}"
    return line["column"] or line["task"], {
        "task": task,
        "found": "; ".join(text for text in (found, f"{line['missing']} missing" if line["missing"] else "") if text),
        "because": line["reason"],
        "otherwise": line["switch"],
    }


@app.command("sync")
@takes(extract_config, only=READING, backbone=())
def sync_command(config: "ExtractConfig", json: Json = False) -> int:
    """Read the dataset's labels again and refresh the label table beside its stores."""
    report = embedcache.sync_labels(config, silent if json else tell)
    if json:
        print_json(report)
    else:
        print(f"{report.path}: {counted(report.samples, 'sample')}, tasks {', '.join(report.tasks) or 'none'}")
    return 0
