"""`embedcache figure`."""

from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, print_json

NAME = "figure"
app = typer.Typer(help="Pictures from a cache.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `pca` a command of its own, while it is the only one."""


@app.command("pca")
def pca_command(
    store: Annotated[str, typer.Argument(help="A .zarr store with patch tokens (extract --tokens cls,mean,patch).")],
    out: Annotated[str, typer.Option("--out", "-o", help="The picture: .png, .svg or .pdf.")] = "pca.png",
    sample: Annotated[
        list[str] | None, typer.Option(help="ID or ID:SLICE; repeat it. The first samples unless given.")
    ] = None,
    layer: Annotated[int, typer.Option(help="A stored layer; negative from the last one.")] = -1,
    slices: Annotated[int, typer.Option(help="How many samples, where none are named.")] = 6,
    json: Json = False,
) -> int:
    """Colour the patch tokens of several slices by one PCA: equal colours are similar tokens; background is white."""
    report = embedcache.draw_pca(store, out, tuple(sample or ()), layer, slices)
    if json:
        print_json(report)
    else:
        print(f"{report.path}: layer {report.layer} of {', '.join(report.slices)}")
    return 0
