"""`embedcache repair`."""

from typing import TYPE_CHECKING, Annotated

import typer

import embedcache
from embedcache_cli.asking import sources, takes
from embedcache_cli.output import Json, ProgressLine, counted, print_json, silent, tell

if TYPE_CHECKING:
    from embedcache import ExtractConfig


@takes(sources)
def command(
    config: "ExtractConfig | None",
    store: Annotated[str, typer.Argument(help="A .zarr store.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    json: Json = False,
) -> int:
    """Put a damaged store back: from the rest of it, from the dataset, and by computing lost tokens again.

    Without --root it mends what needs no source. Exit 1 if something stays damaged; each thing is told with its reason.
    """
    with ProgressLine("computing", quiet=json) as line:
        listener = embedcache.Listener(
            tell=silent if json else tell, progress=lambda p: line.update(p.done, p.total, f"{p.binds} binds")
        )
        report = embedcache.repair(store, config, listener, dry_run)
    if json:
        print_json({**vars(report), "exit_code": report.exit_code})
        return report.exit_code
    would = "would be " if dry_run else ""
    for mended in report.mended:
        print(f"{mended.object}: {would}mended {mended.how}")
    for shard in report.remade:
        again = {True: ", bit for bit", False: ", with other last bits than before", None: ""}[shard.identical]
        rows = f"shard {shard.shard} of {shard.pass_id}, rows {shard.rows[0]} to {shard.rows[1] - 1}"
        print(f"{rows}: {would}computed again{again} ({shard.reason})")
    for left in report.left:
        print(f"{left.object or 'index'}: stays damaged: {left.reason}")
    for damage in report.damage:
        print(f"{damage.object or damage.array or 'index'}: damaged: {damage.reason}")
    done = counted(len(report.mended), "object") + f" {would}mended, " + counted(len(report.remade), "shard")
    print(f"{report.store}: {done} {would}computed again, {len(report.left)} left")
    return report.exit_code
