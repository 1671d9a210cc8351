"""`embedcache probe`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import embedcache
from embedcache.errors import InputError
from embedcache_cli.asking import takes
from embedcache_cli.output import Json, counted, print_json, print_table, tell, tell_stage

if TYPE_CHECKING:
    from embedcache.types import Metric

NAME = "probe"
app = typer.Typer(help="Fit a cheap head on cached features and measure it.", no_args_is_help=True)


def shared(
    store: Annotated[str, typer.Argument(help="A .zarr store.")],
    task: Annotated[str | None, typer.Option(help="Which task of the labels; the only one unless given.")] = None,
    features: Annotated[str, typer.Option(help="cls, mean, cls+mean, pooled, or auto: chosen by validation.")] = "auto",
    layers: Annotated[str, typer.Option(help="last, or numbers with commas: their CLS tokens side by side.")] = "last",
    pool: Annotated[
        str, typer.Option(help="Slices of a sample: mean, max, mean+max, middle; none keeps slices apart.")
    ] = "mean",
    strict_volumes: Annotated[
        bool,
        typer.Option(
            "--strict-volumes", help="Leave out a volume with a slice that was set aside; else pool the rest."
        ),
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(help="Labels for a store that lies alone: a labels.parquet, or a table of your own with its ids."),
    ] = None,
    join_on: Annotated[str | None, typer.Option(help="The column of that table with sample ids or patients.")] = None,
    split: Annotated[str | None, typer.Option(help="A split file, or the name of an imported split.")] = None,
    classes: Annotated[str | None, typer.Option(help="Only these findings, with commas.")] = None,
    validation: Annotated[float, typer.Option(help="Share of the training patients.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of the patients, where no test part is named.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the drawn split and of the bootstrap.")] = 0,
    standardize: Annotated[bool | None, typer.Option(help="By the training rows' mean and deviation.")] = None,
    resamples: Annotated[int, typer.Option(help="Of patients, for the intervals that are bootstrapped.")] = 1000,
    results: Annotated[
        str | None, typer.Option(help="Folder of the results; `results` of the cache unless given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fit again, and keep the result that is there.")] = False,
) -> dict[str, Any]:
    """The options that every probe shares, as arguments of ProbeConfig."""
    return {
        "store": Path(store),
        "task": task,
        "features": features,
        "layers": "last" if layers == "last" else numbers(layers, int, "--layers"),
        "pool": None if pool == "none" else pool,
        "strict_volumes": strict_volumes,
        "labels": Path(labels) if labels else None,
        "join_on": join_on,
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


Figure = Annotated[str | None, typer.Option(help="Draw the result to this PNG, SVG or PDF.")]


@app.command("logistic")
@takes(shared)
def logistic_command(
    asked: dict[str, Any],
    C: Annotated[str | None, typer.Option("--C", help="Grid of inverse penalties, with commas.")] = None,
    figure: Figure = None,
    json: Json = False,
) -> int:
    """Logistic regression: C and the vector chosen on validation, refitted on train+validation, tested once."""
    grid = numbers(C, float, "--C") if C else None
    return run(embedcache.ProbeConfig(probe="logistic", C=grid, **asked), figure, json)


@app.command("knn")
@takes(shared)
def knn_command(
    asked: dict[str, Any],
    k: Annotated[str | None, typer.Option("--k", help="Grid of neighbours, with commas.")] = None,
    figure: Figure = None,
    json: Json = False,
) -> int:
    """Nearest neighbours by cosine, votes weighted by softmax(similarity / 0.07); k chosen on validation."""
    grid = numbers(k, int, "--k") if k else None
    return run(embedcache.ProbeConfig(probe="knn", k=grid, **asked), figure, json)


def run(config: "embedcache.ProbeConfig", figure: str | None, json: bool) -> int:
    """Fit, print, draw."""
    result = embedcache.probe(config, None if json else tell_stage)
    if not json:
        tell_stage("")
    if figure:
        embedcache.draw_result(result, figure)
    if json:
        print_json(result)
    else:
        print_result(result)
    return 0


def print_result(result: "embedcache.Result") -> None:
    """The choice, the parts, a line per metric and class, and where it is written."""
    chosen, counts = result.chosen, result.counts
    layers = ", ".join(str(n) for n in chosen["layers"])
    name, value = next((n, chosen[n]) for n in ("C", "k") if n in chosen)
    print(
        f"{result.probe} probe on task {result.task.name}: {chosen['features']} of layer {layers}, {name} = {value:.4g}"
    )
    print(f"chosen by {chosen['selected_by']} ({chosen['validation_score']:.3f}); split {chosen['split']}")
    for part in ("train", "validation", "test"):
        samples = f"{counted(counts[f'{part}_samples'], 'sample')} of {counted(counts[f'{part}_patients'], 'patient')}"
        print(f"  {part:10}  {samples}")
    for reason in ("superseded", "quarantined", "not_in_split", "no_label"):
        if counts[f"left_out_{reason}"]:
            print(f"  left out    {counted(counts[f'left_out_{reason}'], 'sample')}: {reason.replace('_', ' ')}")
    print_metrics(result.metrics)
    for warning in result.warnings:
        tell(f"note: {warning}")
    print(result.path)


def print_metrics(metrics: "tuple[Metric, ...]") -> None:
    """A line per class with its figures and their 95% intervals; below, what is to be said of them."""
    names = list(dict.fromkeys(m.name for m in metrics))
    labels = list(dict.fromkeys(m.label for m in metrics))
    cells = {(m.label, m.name): m for m in metrics}
    rows = []
    for label in labels:
        of_label = [cells[label, name] for name in names if (label, name) in cells]
        positives = f"{of_label[0].positives:,} of {of_label[0].n:,}"
        rows.append((label, positives, *(figure(cells.get((label, name))) for name in names)))
    print_table(("class", "positives", *(name.replace("_", " ") for name in names)), rows)
    print(f"in brackets: 95% intervals over {counted(max(m.patients for m in metrics), 'patient')} of the test part")
    notes: dict[str, list[str]] = {}
    for m in metrics:
        for note in m.note.split("; "):
            if note == "few patients" and "macro" in labels:
                continue  # the macro average's note names them all
            if note and m.label not in notes.setdefault(note, []):
                notes[note].append(m.label)
    for note, told in notes.items():
        print(f"{', '.join(told)}: {note}")


def figure(metric: "Metric | None") -> str:
    """`0.712 (0.650-0.770)`, or a dash where undefined."""
    if metric is None or metric.value is None:
        return "-"
    interval = "" if metric.low is None or metric.high is None else f" ({metric.low:.3f}-{metric.high:.3f})"
    return f"{metric.value:.3f}{interval}"


def numbers(text: str, kind: type, switch: str) -> tuple[Any, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(kind(word) for word in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise InputError(f"{switch} takes {what} with commas between. Got {text!r}.") from None
