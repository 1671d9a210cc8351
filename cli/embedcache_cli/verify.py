"""`embedcache verify`."""

from typing import TYPE_CHECKING, Annotated

import typer

import embedcache
from embedcache.errors import InputError, StoreError
from embedcache_cli.output import Json, ProgressLine, counted, print_json, size

if TYPE_CHECKING:
    from embedcache.store.verify import VerifyReport

NAME = "verify"


def command(
    store: Annotated[str, typer.Argument(help="A .zarr store, or a folder above stores.")], json: Json = False
) -> int:
    """Read every byte of a store and name what is not as it was written. Exit 1 if anything is."""
    summaries = embedcache.list_stores(store)
    if not summaries:
        raise InputError(f"there is no store at or below {store}; `embedcache ls CACHE` lists the stores of a cache.")
    reports: dict[str, VerifyReport] = {}
    unreadable: dict[str, str] = {}
    with ProgressLine("verifying", quiet=json, amount=size) as line:
        done, total = 0, sum(s.bytes for s in summaries)

        def read(count: int) -> None:
            nonlocal done
            done += count
            line.update(min(done, total), total)

        for summary in summaries:
            try:
                reports[summary.path] = embedcache.verify(summary.path, read)
            except StoreError as error:
                if len(summaries) == 1:
                    raise
                unreadable[summary.path] = str(error)  # the others are still worth reading
        line.update(total, total)  # files occupy more than they hold
    intact = not unreadable and all(r.intact for r in reports.values())
    if json:
        stores = [vars(report) | {"store": path} for path, report in reports.items()]
        print_json({"intact": intact, "stores": stores, "unreadable": unreadable})
        return 0 if intact else 1
    for path, report in reports.items():
        print_report(path, report)
    for path, reason in unreadable.items():
        print(f"{path}: {reason}")
    return 0 if intact else 1


def print_report(path: str, report: "VerifyReport") -> None:
    """One store in a line, and a line for each thing that is wrong."""
    state = "intact" if report.intact else f"{counted(len(report.damage), 'object')} damaged"
    pending = f", {counted(report.pending, 'shard')} pending" if report.pending else ""
    print(f"{path}: {state}{pending}; {counted(report.objects, 'object')}, {size(report.bytes)} read")
    for d in report.damage:
        place = f", shard {d.shard}, rows {d.rows[0]} to {d.rows[1] - 1}" if d.rows else ""
        print(f"  {d.object or d.array}{place}: {d.reason}")
    for name in report.junk:
        print(f"  {name}: nothing vouches for it (a killed writer's, or foreign); harmless")
