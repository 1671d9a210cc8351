"""`embedcache plan`."""

from typing import TYPE_CHECKING

import embedcache
from embedcache_cli.asking import extract_config, takes
from embedcache_cli.output import Json, print_json, print_table, silent, size, tell

if TYPE_CHECKING:
    from embedcache import ExtractConfig

NAME = "plan"


@takes(extract_config)
def command(config: "ExtractConfig", json: Json = False) -> int:
    """Say how many rows and bytes `extract` with the same options would write. Writes nothing."""
    report = embedcache.plan(config, silent if json else tell)
    if json:
        print_json({**vars(report), "bytes": report.bytes})
        return 0
    print(f"{report.dataset}: {report.samples} samples, {report.slices} slices")
    rows = [
        (p.backbone, array, p.rows_per_shard, p.pending_shards, size(bytes_))
        for p in report.passes
        for array, bytes_ in p.arrays.items()
    ]
    if not rows:
        print("everything is there already")
        return 0
    print_table(("backbone", "array", "rows a shard", "shards to write", "on disk"), rows)
    print(f"in all {size(report.bytes)} in {sum(p.files for p in report.passes)} files")
    return 0
