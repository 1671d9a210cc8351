"""`embedcache ls`."""

from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, print_json, print_table, size

NAME = "ls"


def command(
    cache: Annotated[str, typer.Argument(help="A cache, or any folder above stores.")] = "cache", json: Json = False
) -> int:
    """List the stores of a cache with what they hold and how much disk they use."""
    stores = embedcache.list_stores(cache)
    if json:
        print_json(stores)
        return 0
    rows = [
        (
            s.dataset,
            s.backbone,
            s.fingerprint[:12],
            s.samples,
            s.slices,
            s.quarantined,
            ", ".join(s.arrays),
            s.state,
            size(s.bytes),
        )
        for s in stores
    ]
    print_table(("dataset", "backbone", "recipe", "samples", "slices", "set aside", "arrays", "state", "disk"), rows)
    print(f"{len(stores)} stores, {size(sum(s.bytes for s in stores))}")
    return 0
