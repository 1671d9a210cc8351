"""`embedcache extract`."""

from typing import TYPE_CHECKING

import embedcache
from embedcache_cli.asking import takes_config
from embedcache_cli.output import Json, ProgressLine, print_json, silent, tell

if TYPE_CHECKING:
    from embedcache import ExtractConfig

NAME = "extract"


@takes_config()
def command(config: "ExtractConfig", json: Json = False) -> int:
    """Run frozen backbones once over every image and store their tokens. Run it again to resume."""
    with ProgressLine("extracting", quiet=json) as line:
        listener = embedcache.Listener(
            tell=silent if json else tell, progress=lambda p: line.update(p.done, p.total, f"bound by {p.binds}")
        )
        report = embedcache.extract(config, listener)
    if json:
        print_json({**vars(report), "exit_code": report.exit_code})
        return report.exit_code
    for store in report.stores:
        print(store.path)
        print(f"  {', '.join(store.arrays)}: {store.slices - store.quarantined} slices of {report.samples} samples")
    if report.decoded:
        rate = report.decoded / report.seconds
        print(f"decoded {report.decoded} slices in {report.seconds:.1f} s ({rate:.1f} a second); {report.binds} binds")
    else:
        print("everything was there already")
    for reason, rows in report.quarantined.items():
        tell(f"set aside: {rows} slices ({reason}); `embedcache show STORE --quarantine` lists them")
    return report.exit_code
