"""`embedcache embed`."""

from typing import Annotated

import typer

import embedcache
from embedcache_cli.asking import WEIGHTS_HELP
from embedcache_cli.output import Json, ProgressLine, counted, print_json, silent, tell


def command(
    images: Annotated[list[str], typer.Argument(help="Files, folders or globs; a folder's DICOM series are volumes.")],
    backbone: Annotated[str, typer.Option(help="Hub name or local folder.")],
    output: Annotated[str, typer.Option("--output", "-o", help="What to write: a .npz or a .parquet file.")],
    tokens: Annotated[
        str | None, typer.Option(help="cls, mean, cls+mean or pooled; cls unless given, mean where there is none.")
    ] = None,
    layers: Annotated[
        str, typer.Option(help="last, last:4, all, or numbers with commas: their CLS tokens side by side.")
    ] = "last",
    window: Annotated[str, typer.Option(help="As in `extract`: auto, ct-lung, 40/400, …")] = "auto",
    plane: Annotated[str, typer.Option(help="stored, axial, coronal or sagittal.")] = "stored",
    size: Annotated[int | None, typer.Option(help="Input size in pixels; the model's own unless given.")] = None,
    slices: Annotated[bool, typer.Option("--slices", help="A vector of each slice, and not their mean.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    compute_dtype: Annotated[str, typer.Option(help="fp32, bf16, fp16 (autocast), bf16-cast, fp16-cast.")] = "float32",
    weights: Annotated[str | None, typer.Option(help=WEIGHTS_HELP)] = None,
    json: Json = False,
) -> int:
    """Write vectors of a few images now; nothing else stays. The file names the images as you do: it is yours to share."""
    with ProgressLine("embedding", quiet=json) as line:
        listener = embedcache.Listener(
            tell=silent if json else tell, progress=lambda p: line.update(p.done, p.total, f"{p.binds} binds")
        )
        found = embedcache.embed(
            images,
            backbone,
            tokens=tokens,
            layers=layers,
            window=window,
            plane=plane,
            size=size,
            slices=slices,
            device=device,
            compute_dtype=compute_dtype,
            weights=weights,
            output=output,
            listener=listener,
        )
    rows, width = found.features.shape
    if json:
        print_json(
            {"output": output, "rows": rows, "width": width, **found.provenance, "set_aside": found.set_aside}
            | {"exit_code": found.exit_code}
        )
        return found.exit_code
    for bad in found.set_aside:
        tell(f"set aside: {bad.path}, slice {bad.slice} ({bad.reason})")
    what = "slice" if slices else "image"
    print(f"{output}: {counted(rows, what)}, {width} numbers each ({found.tokens}, layers {found.layers or '-'})")
    return found.exit_code
