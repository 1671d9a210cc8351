"""`embedcache extract`."""

from typing import TYPE_CHECKING

import embedcache
from embedcache_cli.asking import extract_config, takes
from embedcache_cli.output import Json, ProgressLine, counted, duration, print_json, silent, tell, whose_ids

if TYPE_CHECKING:
    from embedcache import ExtractConfig


@takes(extract_config)
def command(config: "ExtractConfig", json: Json = False) -> int:
    """Run frozen backbones once over every image and store their tokens. Run it again to resume."""
    with ProgressLine("extracting", quiet=json) as line:
        listener = embedcache.Listener(
            tell=silent if json else tell, progress=lambda p: line.update(p.done, p.total, f"{p.binds} binds")
        )
        report = embedcache.extract(config, listener)
    if json:
        print_json({**vars(report), "exit_code": report.exit_code})
        return report.exit_code
    for store in report.stores:
        print(f"{store.path} (view {store.view})" if store.view else store.path)
        stored = counted(store.slices - store.quarantined, store.unit)
        print(f"  {', '.join(store.arrays)}: {stored}; {counted(report.samples, 'sample')} asked for")
    if report.decoded:
        rate = report.decoded / report.seconds
        took = f"{counted(report.decoded, 'slice')} in {duration(report.seconds)} ({rate:,.1f} a second, start-up included)"
        print(f"{took}; the slowest stage was {report.binds}")
    else:
        print("everything was there already")
    for reason, rows in report.quarantined.items():
        tell(f"set aside: {counted(rows, 'slice')} ({reason})")
    if report.quarantined:
        tell(f"`embedcache show {report.stores[0].path} --quarantine` lists what was set aside")
        if hint := whose_ids(report.stores[0].path, report.ids):
            tell(hint)
    return report.exit_code
