"""`embedcache verify`."""

from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, ProgressLine, print_json, size

NAME = "verify"


def command(
    store: Annotated[str, typer.Argument(help="A .zarr store, or a folder above stores.")], json: Json = False
) -> int:
    """Read every byte of a store and name what is not as it was written. Exit 1 if anything is."""
    reports = []
    with ProgressLine("verifying", quiet=json) as line:
        done = 0
        summaries = embedcache.list_stores(store)
        total = sum(s.bytes for s in summaries)

        def read(count: int) -> None:
            nonlocal done
            done += count
            line.update(min(done, total), total, "bytes")

        reports = [embedcache.verify(s.path, read) for s in summaries]
    intact = all(r.intact for r in reports)
    if json:
        print_json({"intact": intact, "stores": reports})
        return 0 if intact else 1
    for report in reports:
        state = "intact" if report.intact else f"{len(report.damage)} objects damaged"
        pending = f", {report.pending} shards pending" if report.pending else ""
        print(f"{report.store}: {state}{pending}; {report.objects} objects, {size(report.bytes)} read")
        for d in report.damage:
            place = f", shard {d.shard}, rows {d.rows[0]} to {d.rows[1] - 1}" if d.rows else ""
            print(f"  {d.object or d.array}{place}: {d.reason}")
        for name in report.junk:
            print(f"  {name}: nothing vouches for it (a killed writer's, or foreign); harmless")
    return 0 if intact else 1
