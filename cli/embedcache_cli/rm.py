"""`embedcache rm`."""

import sys
from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, print_json, size

NAME = "rm"


def command(
    store: Annotated[str, typer.Argument(help="A .zarr store.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> int:
    """Remove one store from disk. Labels and results stay."""
    shown = embedcache.show_store(store)
    if not yes:
        if json or not sys.stdin.isatty():
            raise typer.BadParameter("give --yes to remove a store without being asked")
        typer.confirm(f"remove {store} ({shown.slices} slices of {shown.dataset['name']})?", abort=True)
    freed = embedcache.remove_store(store)
    if json:
        print_json({"removed": store, "bytes": freed})
    else:
        print(f"removed {store}, {size(freed)}")
    return 0
