"""`embedcache probe attention`, `linear-svm`, `prototypes`, and `run` for any probe that is registered."""

from typing import Annotated, Any, Literal

import typer

import embedcache
from embedcache_cli.asking import numbers, takes
from embedcache_cli.output import Json
from embedcache_cli.probe import Figure, run, shared


@takes(shared)
def attention_command(
    asked: dict[str, Any],
    weight_decay: Annotated[str | None, typer.Option(help="Grid of penalties, with commas.")] = None,
    hidden: Annotated[int, typer.Option(help="Width of the attention's inner layer.")] = 64,
    lr: Annotated[float, typer.Option(help="Adam's first learning rate; it falls to zero by a cosine.")] = 0.01,
    epochs: Annotated[int, typer.Option(help="Steps, each over all training samples.")] = 150,
    first_weights: Annotated[int, typer.Option(help="Seed of the attention's first weights.")] = 0,
    device: Annotated[str, typer.Option(help="cpu needs no torch; else as torch calls it, such as cuda.")] = "cpu",
    figure: Figure = None,
    json: Json = False,
) -> int:
    """Gated attention over the slices of a sample, then a linear head: weight decay chosen on validation."""
    options = {"hidden": hidden, "lr": lr, "epochs": epochs, "seed": first_weights, "device": device}
    if weight_decay is not None:
        options["weight_decay"] = numbers(weight_decay, float, "--weight-decay")
    return run(embedcache.ProbeConfig(probe="attention", options=options, **asked), figure, json)


@takes(shared)
def linear_svm_command(
    asked: dict[str, Any],
    C: Annotated[str | None, typer.Option("--C", help="Grid of inverse penalties, with commas.")] = None,
    class_weight: Annotated[
        Literal["none", "balanced"], typer.Option(help="balanced: both classes of a label weigh the same.")
    ] = "none",
    figure: Figure = None,
    json: Json = False,
) -> int:
    """Linear support vector machine, one per label: C chosen on validation, refitted on train+validation, tested once."""
    grid = numbers(C, float, "--C") if C is not None else None
    options = {"class_weight": class_weight} if class_weight != "none" else {}
    return run(embedcache.ProbeConfig(probe="linear-svm", C=grid, options=options, **asked), figure, json)


@takes(shared)
def prototypes_command(
    asked: dict[str, Any],
    metric: Annotated[Literal["cosine", "euclidean"], typer.Option(help="How near a class mean is.")] = "cosine",
    shrink: Annotated[
        str | None,
        typer.Option(help="Standard errors by which class means move together, with commas; 0 moves none."),
    ] = None,
    figure: Figure = None,
    json: Json = False,
) -> int:
    """Nearest class mean."""
    options: dict[str, Any] = {"metric": metric}
    if shrink is not None:
        options["shrink"] = numbers(shrink, float, "--shrink")
    return run(embedcache.ProbeConfig(probe="prototypes", options=options, **asked), figure, json)


@takes(shared)
def run_command(
    asked: dict[str, Any],
    name: Annotated[str, typer.Argument(help="A registered probe, of another package too.")],
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, an option of the probe; several values with commas. Repeatable."),
    ] = None,
    figure: Figure = None,
    json: Json = False,
) -> int:
    """Any registered probe by its name: `probe run NAME STORE --option NAME=VALUE`."""
    options = embedcache.parse_probe_options(name, option or [])
    return run(embedcache.ProbeConfig(probe=name, options=options, **asked), figure, json)


COMMANDS = {
    "attention": attention_command,
    "linear-svm": linear_svm_command,
    "prototypes": prototypes_command,
    "run": run_command,
}
