"""`embedcache ls`."""

from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, counted, print_json, size


def command(
    cache: Annotated[str, typer.Argument(help="A cache, or any folder above stores.")] = "cache", json: Json = False
) -> int:
    """List the stores of a cache with what they hold and how much disk they use."""
    stores = embedcache.list_stores(cache)
    if json:
        print_json(stores)
        return 0
    for s in stores:
        print(s.path)
        aside = f"{counted(s.quarantined, s.unit)} set aside" if s.quarantined else ""
        view = f"view {s.view}" if s.view else ""
        held = (
            (view, counted(s.samples, "sample"), counted(s.slices, s.unit or "slice"), aside) if s.fingerprint else ()
        )
        print(f"  {', '.join(text for text in (*held, size(s.bytes), s.state) if text)}")
        if s.arrays:
            print(f"  {', '.join(s.arrays)}")
    print(f"{counted(len(stores), 'store')}, {size(sum(s.bytes for s in stores))}")
    return 0
