"""`embedcache datasets`."""

from typing import TYPE_CHECKING, Annotated

import typer

import embedcache
from embedcache_cli.asking import label_options, takes
from embedcache_cli.output import Json, counted, print_json, print_records

if TYPE_CHECKING:
    from embedcache import Audit, DatasetEntry, DatasetOptions

MOST_PROBLEMS = 20
"""Lines that are printed; `--json` has them all."""
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
    files: Annotated[
        int,
        typer.Option(
            help="Samples whose image and mask are opened, evenly spread; that every file is there is seen anyway."
        ),
    ] = 200,
    json: Json = False,
) -> int:
    """Hold a folder against its dataset: size, missing and empty files, labels, and the images and masks of some samples."""
    audit = embedcache.audit_dataset(dataset, root, options, files)
    if json:
        print_json(audit)
        return audit.exit_code
    for problem in audit.problems[:MOST_PROBLEMS]:
        print(f"problem: {problem}")
    if len(audit.problems) > MOST_PROBLEMS:
        print(f"problem: {len(audit.problems) - MOST_PROBLEMS:,} more of them; --json lists all")
    for notice in audit.notices:
        print(f"notice: {notice}")
    parts = "".join(f", {part} {n:,}" for part, n in audit.parts.items())
    print(f"{audit.dataset}: {counted(audit.samples, 'sample')}, {counted(audit.patients, 'patient')}{parts}")
    print(f"tasks: {', '.join(audit.tasks) or 'none'}")
    print(f"{_opened(audit, files)}; {counted(len(audit.problems), 'problem')}")
    return audit.exit_code


def _opened(audit: "Audit", files: int) -> str:
    """How far the check went, and how it goes further."""
    of = "" if audit.opened == audit.samples else f"{audit.opened:,} of "
    more = f" (--files {audit.samples} opens all)" if audit.opened == files < audit.samples else ""
    headers = audit.opened - audit.read
    read = f", {audit.read:,} of these read whole and {headers:,} by their headers" if headers else ""
    return f"{of}{counted(audit.samples, 'sample')} opened{more}{read}"
