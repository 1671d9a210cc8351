"""`embedcache verify`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import embedcache
from embedcache.errors import InputError, StoreError
from embedcache_cli.asking import sources, takes
from embedcache_cli.output import Json, ProgressLine, counted, print_json, print_table, silent, size, tell

if TYPE_CHECKING:
    from embedcache import ExtractConfig
    from embedcache.store.verify import Damage, VerifyReport


@takes(sources)
def command(
    config: "ExtractConfig | None",
    store: Annotated[str, typer.Argument(help="A .zarr store, or a folder above stores.")],
    recompute: Annotated[
        str | None,
        typer.Option(help="Also make this share of the rows again, as 1% or a number, and compare; needs --root."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the rows that --recompute draws.")] = 0,
    json: Json = False,
) -> int:
    """Read every byte of a store and name what is not as it was written. Exit 1 if anything is.

    --recompute goes further: it makes tokens again from your images and weights, so that a cache from elsewhere can be trusted.
    """
    if recompute is not None:
        if config is None:
            raise InputError("--recompute makes tokens from the images: say where they are with --dataset and --root.")
        return compare(store, config, recompute, seed, json)
    if config is not None:
        raise InputError("verify reads the store alone; --root and what goes with it are for --recompute.")
    summaries = embedcache.list_stores(store)
    if not summaries:
        raise InputError(f"there is no store at or below {store}; `embedcache ls CACHE` lists the stores of a cache.")
    reports: dict[str, VerifyReport] = {}
    labels: dict[str, tuple[Damage, ...]] = {}
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
            folder = str(Path(summary.path).resolve().parent.parent)
            if folder not in labels:
                labels[folder] = embedcache.verify_labels(folder)
        line.update(total, total)  # files occupy more than they hold
    intact = not unreadable and all(r.intact for r in reports.values()) and not any(labels.values())
    if json:
        stores = [vars(report) | {"store": path} for path, report in reports.items()]
        print_json({"intact": intact, "stores": stores, "unreadable": unreadable, "labels": labels})
        return 0 if intact else 1
    for path, report in reports.items():
        print_report(path, report)
    for path, reason in unreadable.items():
        print(f"{path}: {reason}")
    for folder, damage in labels.items():
        for d in damage:
            print(f"{folder}: {d.object} {d.reason}")
    if any(labels.values()):
        tell(
            "copy labels.parquet and labels.sha256 again from whoever gave you the cache; on the machine that extracted, "
            "`embedcache repair STORE --root ROOT` reads the labels anew"
        )
    if unreadable or not all(r.intact for r in reports.values()):
        tell("`embedcache repair STORE` mends what can be mended; with --root and --backbone it makes the rest again")
    return 0 if intact else 1


def compare(store: str, config: "ExtractConfig", share: str, seed: int, json: bool) -> int:
    """The outcome of making some rows again, as a table."""
    below = [s.path for s in embedcache.list_stores(store)] if Path(store).is_dir() else []
    if below and Path(below[0]) != Path(store):
        raise InputError(
            f"--recompute makes rows of one store again, and {store} is a folder above {counted(len(below), 'store')}: "
            f"name one, such as {below[0]}."
        )
    changes: dict[str, Any] = {"backbones": config.backbones} if config.backbones else {}
    for name in ("workers", "decode_timeout", "mixed", "weights"):
        changes[name] = getattr(config, name)
    if config.device != "auto":
        changes["device"] = config.device
    like = embedcache.config_like(store, config.dataset, config.root, config.options, **changes)
    with ProgressLine("computing", quiet=json) as line:
        listener = embedcache.Listener(tell=silent if json else tell, progress=lambda p: line.update(p.done, p.total))
        report = embedcache.recompute(store, like, share, seed, listener)
    if json:
        print_json({**vars(report), "trusted": report.trusted})
        return 0 if report.trusted else 1
    rows = [
        (a.array, a.tokens, a.identical, f"{a.worst:.1e}", f"{a.limit:.0e}", len(a.wrong) or "") for a in report.arrays
    ]
    print_table(("array", "tokens", "identical as stored", "worst relative L2", "limit", "wrong slices"), rows)
    print(
        "identical as stored: tokens that come out bit by bit in the array's dtype; the L2 is from the stored token to the one "
        "made again in float32, so rounding alone makes it more than 0"
    )
    for a in report.arrays:
        if a.wrong:
            print(f"{a.array}: other tokens than these images give: {', '.join(a.wrong[:5])}")
    if report.unreadable:
        tell(f"{counted(report.unreadable, 'row')} of the draw could not be read here")
    verdict = "as its images and weights give it" if report.trusted else "NOT what its images and weights give"
    print(f"{store}: {counted(report.rows, 'row')} of {report.of:,} made again (seed {seed}): {verdict}")
    return 0 if report.trusted else 1


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
