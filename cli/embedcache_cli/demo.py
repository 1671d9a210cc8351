"""`embedcache demo`."""

from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, print_json, silent, tell


def command(
    out: Annotated[str, typer.Option("--out", "-o", help="Folder for the demo's cache and page.")] = "demo-output",
    json: Json = False,
) -> int:
    """Extract, probe and draw, on real images that packages ship. Weights are a trained ViT-S/14, not DINOv2's."""
    report = embedcache.run_demo(out, silent if json else tell)
    if json:
        print_json(report)
    else:
        print(f"open {report.page}")
    return 0
