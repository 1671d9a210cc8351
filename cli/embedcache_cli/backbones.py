"""`embedcache backbones`."""

from typing import TYPE_CHECKING, Annotated

import typer

import embedcache
from embedcache_cli.asking import WEIGHTS_HELP
from embedcache_cli.output import Json, counted, print_json, print_records, print_table
from embedcache_cli.output import size as bytes_text

if TYPE_CHECKING:
    from embedcache.backbones.catalogue import BackboneCard
    from embedcache.types import BackboneInfo, VolumeInput

app = typer.Typer(help="Which backbones there are, and what one of them is.")


@app.callback(invoke_without_command=True)
def list_command(context: typer.Context, json: Json = False) -> int:
    """List the families, and the checkpoints that are known by name; any other of a family works as well."""
    if context.invoked_subcommand is not None:
        return 0
    found = embedcache.describe_backbones()
    if json:
        print_json(found)
        return 0
    print_table(
        ("backbone", "family", "what", "parameters", "licence", ""),
        [
            (
                k.name,
                k.family,
                k.what,
                millions(k.parameters),
                k.licence,
                ", ".join(word for word, true in (("gated", k.gated), ("study", k.study)) if true),
            )
            for k in found.known
        ],
    )
    print()
    print_table(("family", "given as"), [(f.name, f.named) for f in found.families])
    return 0


def millions(count: int | None) -> str:
    """A number of parameters for people."""
    return "" if count is None else f"{count / 1e6:,.1f}M"


@app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(help="Hub name, timm:NAME, local folder, or pixels:32.")],
    size: Annotated[int | None, typer.Option(help="A side in pixels other than its own: patch grid and bytes.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub name.")] = None,
    weights: Annotated[str | None, typer.Option(help=WEIGHTS_HELP)] = None,
    json: Json = False,
) -> int:
    """Explain one backbone: tokens, norm, patch grid, preprocessing, size, licence, and whether it can load here."""
    card = embedcache.explain_backbone(name, size=size, revision=revision, weights=weights)
    if json:
        print_json(card)
        return 0
    print_records([(card.name, record(card))])
    if not card.loading.loads:
        print(f"it can not load here: {card.loading.problem}")
    return 0


def record(card: "BackboneCard") -> dict[str, object]:
    """A card line by line; what is not known has no line."""
    counts = [counted_parameters(card.parameters, "that run")]
    if card.stored_parameters != card.parameters:
        counts.append(counted_parameters(card.stored_parameters, "in its files"))
    return {
        "what": card.what,
        "family": card.family,
        "parameters": ", ".join(text for text in counts if text),
        "licence": card.licence + (" (gated)" if card.gated else ""),
        "cite": card.citation,
        "page": card.page,
        "study": card.paper or ("one of its backbones" if card.study else ""),
        **(described(card) if card.info else expected(card)),
        "loads here": "yes" if card.loading.loads else "no",
    }


def counted_parameters(count: int | None, what: str) -> str:
    """`22.1M that run`."""
    return "" if count is None else f"{millions(count)} {what}"


def expected(card: "BackboneCard") -> dict[str, object]:
    """What is known of one whose files are not here."""
    known = card.known
    side = known.size if known else None
    return {"layers": known.layers or "" if known else "", "own input": f"{side}x{side}" if side else ""}


def described(card: "BackboneCard") -> dict[str, object]:
    """What its configuration says."""
    info = card.info
    assert info is not None
    sides = "x".join(map(str, card.size))
    files = ", ".join(f"{file.name} {bytes_text(file.size)}" for file in card.loading.files)
    return {
        "tokens": ", ".join(info.kinds)
        + (f" ({counted(info.registers, 'register')} left out)" if info.registers else ""),
        "norm": info.norm,
        "layers": layers(card),
        "own input": own_input(info),
        **(spaced(info, info.volume) if info.volume else {}),
        "refused": card.size_problem,
        f"bytes {'a volume' if info.volume else 'an image'}": ", ".join(
            f"{kind} {bytes_text(n)}" for kind, n in card.image_bytes.items()
        )
        + (f" at {sides} and layer {info.layers}, float16" if card.image_bytes else ""),
        "positions": info.model.position_interpolation,
        "preprocessing": preprocessing(card),
        "weights": files,
        "commit": card.loading.commit,
        "digest": info.model.weights_digest,
    }


def own_input(info: "BackboneInfo") -> str:
    """`224x224, no other`, or `96x96x96 voxels (z, y, x)`."""
    sides = "x".join(map(str, info.shape))
    if info.volume is None:
        return sides + (", no other" if info.fixed_size else "")
    sliding = ", no other at once; more of a volume with --volume-size and --sliding" if info.fixed_size else ""
    return f"{sides} voxels (z, y, x){sliding}"


def spaced(info: "BackboneInfo", volume: "VolumeInput") -> dict[str, object]:
    """How whole volumes come to that input: their spacing and window."""
    if volume.spacing is None:
        spacing = "none of its own: volumes are stretched to the input, unless --spacing says mm"
    else:
        mm = " x ".join(f"{v:g}" for v in volume.spacing)
        field = " x ".join(f"{n * v:g}" for n, v in zip(info.shape, volume.spacing, strict=True))
        spacing = f"{mm} mm (z, y, x): {field} mm about a volume's centre"
    return {"spacing": spacing, "window": f"{info.window} in place of auto" if info.window else ""}


def layers(card: "BackboneCard") -> str:
    """`12 of width 384, 16x16 patches at 224x224`; one by one where they differ."""
    sides = "x".join(map(str, card.size))
    alike: dict[tuple[int, tuple[int, ...] | None], list[int]] = {}
    for layer in card.layers:
        alike.setdefault((layer.width, layer.grid), []).append(layer.layer)
    told = []
    for (width, grid), numbers in alike.items():
        which = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
        patches = f", {'x'.join(map(str, grid))} patches" if grid else ""
        told.append(f"{which}: width {width}{patches}")
    return "; ".join(told) + (f" (at {sides})" if any(layer.grid for layer in card.layers) else "")


def preprocessing(card: "BackboneCard") -> str:
    """Mean and standard deviation, and the processor's own geometry, which only `--fit processor` uses."""
    info = card.info
    assert info is not None
    numbers = f"mean {', '.join(f'{v:g}' for v in info.mean)}; std {', '.join(f'{v:g}' for v in info.std)}"
    if not info.processor:
        return numbers
    resize = " x ".join(str(v) for v in info.processor["size"].values())
    edge = "shortest side " if "shortest_edge" in info.processor["size"] else ""
    crop = info.processor["crop_size"]
    cut = f", centre crop {crop['height']}x{crop['width']}" if info.processor["do_center_crop"] else ""
    return f"{numbers}; with --fit processor: {edge}{resize}{cut}"
