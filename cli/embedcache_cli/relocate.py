"""`embedcache relocate`."""

from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, counted, print_json, tell


def command(
    dataset: Annotated[str, typer.Argument(help="A dataset's folder in a cache: CACHE/DATASET.")],
    root: Annotated[tuple[str, str], typer.Option(help="OLD NEW: where the sources were, and where they are.")],
    json: Json = False,
) -> int:
    """Tell the private index of this machine that the sources were moved. Exit 1 if some are not at the new place."""
    report = embedcache.relocate(dataset, *root)
    if json:
        print_json({**vars(report), "exit_code": report.exit_code})
        return report.exit_code
    print(f"{counted(report.moved, 'source')} moved")
    for ids, what in ((report.missing, "not at the new place"), (report.different, "of another size there")):
        if ids:
            tell(f"{what}: {counted(len(ids), 'sample')}, the first {ids[0]}")
    return report.exit_code
