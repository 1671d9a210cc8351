"""`embedcache figure`."""

from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, counted, print_json

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
    background: Annotated[
        str,
        typer.Option(help="auto: white where the tokens show one; keep: every patch is coloured; drop: always white."),
    ] = "auto",
    images: Annotated[
        bool, typer.Option(help="Show the images above, where this machine knows where they lie.")
    ] = True,
    json: Json = False,
) -> int:
    """Colour the patch tokens of several slices by one PCA: equal colours are similar tokens; a background is white."""
    report = embedcache.draw_pca(store, out, tuple(sample or ()), layer, slices, background, images)
    if json:
        print_json(report)
    else:
        print(f"{report.path}: layer {report.layer} of {', '.join(report.slices)}; background {report.background}")
        if images and report.images < len(report.slices):
            print(f"{report.images} of {counted(len(report.slices), 'image')} shown: the others can not be read here")
        if report.coarse:
            print(
                f"the grid of {report.grid[0]}x{report.grid[1]} patches is coarse: "
                "extract with a larger --size to see shapes in it"
            )
    return 0
