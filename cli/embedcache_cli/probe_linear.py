"""`embedcache probe linear`: heads of all learning rates and vectors, trained at once."""

from typing import Annotated, Any, Literal

import typer

import embedcache
from embedcache_cli.asking import numbers, takes
from embedcache_cli.output import Json
from embedcache_cli.probe import Figure, run, shared

NAME = "linear"


@takes(shared, layers="auto")
def command(
    asked: dict[str, Any],
    layers: Annotated[
        str,
        typer.Option(help="auto: the last block and the last four; last; or numbers with commas, side by side."),
    ] = "auto",
    preset: Annotated[
        Literal["paper", "dinov2"],
        typer.Option(help="paper: 4 learning rates, ten epochs; dinov2: 13 by batch/256, 12,500 iterations."),
    ] = "paper",
    lr: Annotated[
        str | None, typer.Option("--lr", help="Learning rates in place of the preset's, with commas.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows of a batch; the preset's 128 unless given.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps, in place of the preset's.")] = None,
    momentum: Annotated[float, typer.Option(help="Of the gradient.")] = 0.9,
    training_seed: Annotated[int, typer.Option(help="Of the batches and of where heads start.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, or where torch trains: cuda:0.")] = "cpu",
    figure: Figure = None,
    json: Json = False,
) -> int:
    """Linear heads by SGD, of all learning rates and vectors at once; one chosen on validation, refitted, tested once."""
    options: dict[str, Any] = {"preset": preset, "momentum": momentum, "seed": training_seed, "device": device}
    if lr is not None:
        options["lr"] = numbers(lr, float, "--lr")
    options |= {name: n for name, n in (("batch_size", batch_size), ("iterations", iterations)) if n is not None}
    asked["layers"] = layers if layers in ("last", "auto") else numbers(layers, int, "--layers")
    return run(embedcache.ProbeConfig(probe="linear", options=options, **asked), figure, json)
