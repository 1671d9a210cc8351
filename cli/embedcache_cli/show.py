"""`embedcache show`."""

from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, plain, print_json, print_table

NAME = "show"


def command(
    store: Annotated[str, typer.Argument(help="A .zarr store.")],
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="List the slices that were set aside, and why.")
    ] = False,
    json: Json = False,
) -> int:
    """Show one store: recipe, arrays, passes, and what was set aside."""
    shown = embedcache.show_store(store)
    if json:
        print_json(shown)
        return 0
    if quarantine:
        rows = [(q.sample, q.slice_index, q.stage, q.reason) for q in shown.quarantine]
        print_table(("sample", "slice", "stage", "reason"), rows)
        return 0
    for name, value in plain(shown).items():
        if name == "quarantine":
            print(f"set aside: {len(value)} slices" + (" (--quarantine lists them)" if value else ""))
        elif isinstance(value, dict):
            print(f"{name}:")
            for key, inner in value.items():
                print(f"  {key}: {inner}")
        else:
            print(f"{name}: {value}")
    return 0
