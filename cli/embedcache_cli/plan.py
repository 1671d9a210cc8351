"""`embedcache plan`."""

from typing import TYPE_CHECKING, Annotated

import typer

import embedcache
from embedcache.errors import InputError
from embedcache_cli.asking import extract_config, takes
from embedcache_cli.output import Json, counted, duration, print_json, print_table, silent, size, tell

if TYPE_CHECKING:
    from embedcache import ExtractConfig
    from embedcache.extraction.plan import PlanReport


@takes(extract_config)
def command(
    config: "ExtractConfig",
    budget: Annotated[
        str | None,
        typer.Option(help="Bytes you allow, as 50GiB or 500MB: what fits is proposed, the least loss first."),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Run a few batches on the device to forecast the time; some seconds a backbone.")
    ] = True,
    json: Json = False,
) -> int:
    """Say how many rows and bytes `extract` with the same options would write, and how long it would take.

    Exit 2 if the cache's disk, or the budget, can not hold it. Writes nothing.
    """
    report = embedcache.plan(config, silent if json else tell, calibrate=calibrate, budget=budget)
    if json:
        memory = report.memory and {**vars(report.memory), "total": report.memory.total, "fits": report.memory.fits}
        print_json(
            {
                **vars(report),
                "memory": memory,
                "bytes": report.bytes,
                "fits": report.fits,
                "rows_at_risk": report.rows_at_risk,
                "seconds_at_risk": report.seconds_at_risk,
                "exit_code": report.exit_code,
            }
        )
    else:
        show(report)
    if report.exit_code:
        raise InputError(report.problem)
    return 0


def show(report: "PlanReport") -> None:
    """The forecast for people."""
    print(f"{report.dataset}: {counted(report.samples, 'sample')}, {counted(report.slices, report.unit)}")
    rows = [
        (p.backbone, p.view or "", array, p.rows_per_shard, p.pending_shards, size(bytes_))
        for p in report.passes
        for array, bytes_ in p.arrays.items()
    ]
    if not rows:
        print("everything is there already")
        return
    print_table(("backbone", "view", "array", "rows a shard", "shards to write", "on disk"), rows)
    files = counted(sum(p.files for p in report.passes), "file")
    print(
        f"in all {size(report.bytes)} in {files}; {size(report.needed)} of disk, and {size(report.free)} is free for it"
    )
    show_memory(report)
    show_time(report)
    show_risk(report)
    show_proposals(report)


def show_memory(report: "PlanReport") -> None:
    """What the run takes at its peak, and where."""
    if report.memory is None:
        return
    m = report.memory
    parts = ("libraries", "tables", "weights", "inputs", "shards", "slots", "images")
    said = ", ".join(f"{part} {size(getattr(m, part))}" for part in parts)
    each = f", for each of {m.processes} processes" if m.processes > 1 else ""
    print(
        f"about {size(m.total)} of main memory at the peak, activations not counted; {size(m.available)} is there "
        f"({said}{each})"
    )


def show_time(report: "PlanReport") -> None:
    """What the calibration found, stage by stage."""
    if report.time is None or report.rates is None:
        return
    time, rates = report.time, report.rates
    for p in report.passes:
        if p.slices_per_second:
            view = f" view {p.view}" if p.view else ""
            print(f"{p.backbone}{view}: {p.slices_per_second:,.1f} {p.unit}s a second on {rates.device}")
    slowest = f"the slowest stage is {time.binds}"
    stages = f"decode {duration(time.decode)}, forward {duration(time.forward)}, write {duration(time.write)}"
    print(f"about {duration(time.seconds)}, start-up {duration(time.startup)} included: {slowest} (alone: {stages})")


def show_risk(report: "PlanReport") -> None:
    """What a kill costs, and what changes that."""
    if not report.rows_at_risk:
        return
    seconds = report.seconds_at_risk
    took = "" if seconds is None else f", about {duration(seconds)} of work"
    each = " on each device" if report.memory is not None and report.memory.processes > 1 else ""
    print(
        f"a kill loses the shard that each backbone is filling{each}: {counted(report.rows_at_risk, report.unit)} at most{took}; "
        "--rows-per-shard sets how many"
    )


def show_proposals(report: "PlanReport") -> None:
    """Under a budget: what could be asked instead, and the first that fits."""
    if report.budget is None:
        return
    best = next((p for p in report.proposals if p.fits), None)
    rows = [
        ("->" if p is best else "", p.name, size(p.needed), "fits" if p.fits else "too large", p.switches)
        for p in report.proposals
    ]
    print(f"within {size(report.budget)}:")
    print_table(("", "what is stored", "of disk", "", "switches"), rows)
