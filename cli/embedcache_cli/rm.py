"""`embedcache rm`."""

import sys
from typing import Annotated

import typer

import embedcache
from embedcache.errors import InputError
from embedcache_cli.output import Json, counted, print_json, size


def command(
    store: Annotated[str, typer.Argument(help="A .zarr store.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> int:
    """Remove one store from disk. Labels and results stay."""
    if not yes:
        shown = embedcache.show_store(store)
        if json or not sys.stdin.isatty():
            raise InputError("`rm` asks before it removes, and nobody can answer here; give --yes.")
        question = f"remove {store} ({counted(shown.slices, 'slice')} of {shown.dataset['name']}, {size(shown.bytes)})?"
        typer.confirm(question, abort=True, err=True)
    freed = embedcache.remove_store(store)
    if json:
        print_json({"removed": store, "bytes": freed})
    else:
        print(f"removed {store}; {size(freed)} are free again")
    return 0
