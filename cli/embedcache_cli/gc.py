"""`embedcache gc`."""

from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, print_json, print_table, size, tell


def command(
    path: Annotated[str, typer.Argument(help="A .zarr store, or a folder above stores.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List only; try this first.")] = False,
    json: Json = False,
) -> int:
    """Remove what is of no use any more: junk of killed writers, superseded shards, stores that were never begun."""
    report = embedcache.collect_garbage(path, dry_run)
    if json:
        print_json({**vars(report), "bytes": report.bytes})
        return 0
    if report.found:
        print_table(
            ("store", "what", "why", "on disk"),
            [(r.store, r.what or "the whole store", r.why, size(r.bytes)) for r in report.found],
        )
    verb = "removed" if report.removed else "would be removed"
    print(f"{len(report.found)} things, {size(report.bytes)}, {verb}")
    for line in report.skipped:
        tell(f"skipped {line}")
    return 0
