"""`embedcache probe`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import embedcache
from embedcache_cli.asking import takes
from embedcache_cli.output import Json, print_json, print_table, tell

NAME = "probe"
app = typer.Typer(help="Fit a cheap head on cached features and measure it.", no_args_is_help=True)
Store = Annotated[str, typer.Argument(help="A .zarr store.")]


def shared(
    store: Store,
    task: Annotated[str | None, typer.Option(help="Which task of the labels; the only one unless given.")] = None,
    features: Annotated[str, typer.Option(help="cls, mean, cls+mean, pooled, or auto: chosen by validation.")] = "auto",
    layers: Annotated[str, typer.Option(help="last, or numbers with commas: their CLS tokens side by side.")] = "last",
    pool: Annotated[
        str, typer.Option(help="Slices of a sample: mean, max, mean+max, middle; none keeps slices apart.")
    ] = "mean",
    labels: Annotated[str | None, typer.Option(help="A label table for a store that lies alone.")] = None,
    split: Annotated[str | None, typer.Option(help="A split file, or the name of an imported split.")] = None,
    classes: Annotated[str | None, typer.Option(help="Only these findings, with commas.")] = None,
    validation: Annotated[float, typer.Option(help="Share of the training patients.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of the patients, where no test part is named.")] = 0.2,
    seed: Annotated[int, typer.Option()] = 0,
    standardize: Annotated[bool | None, typer.Option(help="By the training rows' mean and deviation.")] = None,
    resamples: Annotated[int, typer.Option(help="Of patients, for the intervals that are bootstrapped.")] = 1000,
    results: Annotated[str | None, typer.Option(help="Folder of the results.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Fit again, and keep the result that is there.")] = False,
    figure: Annotated[str | None, typer.Option(help="Draw it to this PNG.")] = None,
) -> dict[str, Any]:
    """The options that every probe shares, as arguments of ProbeConfig."""
    return {
        "store": Path(store),
        "task": task,
        "features": features,
        "layers": "last" if layers == "last" else numbers(layers, int, "--layers"),
        "pool": None if pool == "none" else pool,
        "labels": Path(labels) if labels else None,
        "split": Path(split) if split else None,
        "classes": tuple(c.strip() for c in classes.split(",")) if classes else None,
        "validation": validation,
        "test": test,
        "seed": seed,
        "standardize": standardize,
        "resamples": resamples,
        "results": Path(results) if results else None,
        "force": force,
    }


@app.command("logistic")
@takes(shared, shared)
def logistic_command(
    options: dict[str, Any],
    C: Annotated[str | None, typer.Option("--C", help="Grid of inverse penalties, with commas.")] = None,
    json: Json = False,
) -> int:
    """Logistic regression: C and the vector chosen on validation, refitted on train+validation, tested once."""
    grid = numbers(C, float, "--C") if C else None
    return run(embedcache.ProbeConfig(probe="logistic", C=grid, **without_figure(options)), options["figure"], json)


@app.command("knn")
@takes(shared, shared)
def knn_command(
    options: dict[str, Any],
    k: Annotated[str | None, typer.Option("--k", help="Grid of neighbours, with commas.")] = None,
    json: Json = False,
) -> int:
    """Nearest neighbours by cosine, votes weighted by softmax(similarity / 0.07); k chosen on validation."""
    grid = numbers(k, int, "--k") if k else None
    return run(embedcache.ProbeConfig(probe="knn", k=grid, **without_figure(options)), options["figure"], json)


def run(config: "embedcache.ProbeConfig", figure: str | None, json: bool) -> int:
    """Fit, print, draw."""
    result = embedcache.probe(config, None if json or not sys.stderr.isatty() else lambda stage: tell(f"{stage} …"))
    if figure:
        embedcache.draw_result(result, figure)
    if json:
        print_json({**vars(result), "path": result.path})
        return 0
    print(f"{result.probe} on {result.task.name}: {', '.join(f'{k} {v}' for k, v in result.chosen.items())}")
    print(", ".join(f"{v} {k.replace('_', ' ')}" for k, v in result.counts.items()))
    rows = [
        (m.label, m.name, number(m.value), f"{number(m.low)} to {number(m.high)}", m.positives, m.n, m.patients, m.note)
        for m in result.metrics
    ]
    print_table(("class", "metric", "value", "95% interval", "positives", "n", "patients", "note"), rows)
    for warning in result.warnings:
        tell(f"note: {warning}")
    print(result.path)
    return 0


def without_figure(options: dict[str, Any]) -> dict[str, Any]:
    """The options that a ProbeConfig has."""
    return {k: v for k, v in options.items() if k != "figure"}


def number(value: float | None) -> str:
    """Three decimals, or a dash where undefined."""
    return "-" if value is None else f"{value:.3f}"


def numbers(text: str, kind: type, switch: str) -> tuple[Any, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(kind(word) for word in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{switch} takes numbers with commas. Got {text!r}.") from None
