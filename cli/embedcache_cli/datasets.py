"""`embedcache datasets`."""

from typing import TYPE_CHECKING, Annotated

import typer

import embedcache
from embedcache_cli.asking import label_options, takes
from embedcache_cli.output import Json, counted, print_json, print_records

if TYPE_CHECKING:
    from embedcache import DatasetEntry, DatasetOptions

NAME = "datasets"
app = typer.Typer(help="Which datasets can be read, and whether a folder holds one.")


@app.callback(invoke_without_command=True)
def list_command(context: typer.Context, json: Json = False) -> int:
    """List the datasets that can be read: size, licence, citation, and where to get them."""
    if context.invoked_subcommand is not None:
        return 0
    entries = embedcache.describe_datasets()
    if json:
        print_json(entries)
    else:
        print_records([(entry.name, _record(entry)) for entry in entries])
    return 0


def _record(entry: "DatasetEntry") -> dict[str, str]:
    patients = f", {counted(entry.patients, 'patient')}" if entry.patients else ""
    return {
        "size": f"{entry.samples:,} {entry.what}{patients}" if entry.samples else "",
        "split": entry.split,
        "licence": entry.licence,
        "cite": entry.citation,
        "from" if entry.samples else "is": entry.homepage,
    }


@app.command("check")
@takes(label_options)
def check_command(
    options: "DatasetOptions",
    dataset: Annotated[str, typer.Argument(help="Which dataset it should be.")],
    root: Annotated[str, typer.Argument(help="Its folder, or the table.")],
    files: Annotated[int, typer.Option(help="Samples whose image and mask are opened, evenly spread.")] = 200,
    json: Json = False,
) -> int:
    """Hold a folder against its dataset: size, missing pieces, labels, masks, and the headers of some files."""
    audit = embedcache.audit_dataset(dataset, root, options, files)
    if json:
        print_json(audit)
        return audit.exit_code
    for problem in audit.problems:
        print(f"problem: {problem}")
    for notice in audit.notices:
        print(f"notice: {notice}")
    parts = "".join(f", {part} {n:,}" for part, n in audit.parts.items())
    print(f"{audit.dataset}: {counted(audit.samples, 'sample')}, {counted(audit.patients, 'patient')}{parts}")
    tasks = ", ".join(audit.tasks) or "none"
    print(f"tasks: {tasks}; {counted(audit.opened, 'sample')} opened, {counted(len(audit.problems), 'problem')}")
    return audit.exit_code
