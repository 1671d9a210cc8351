"""`embedcache probe`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import embedcache
from embedcache.errors import InputError
from embedcache_cli.asking import takes
from embedcache_cli.output import Json, counted, print_json, print_table, tell, tell_stage

if TYPE_CHECKING:
    from embedcache import Repetition
    from embedcache.types import Metric

NAME = "probe"
SHOWN = ("auroc", "average_precision", "balanced_accuracy", "f1", "brier", "r2", "mae", "pearson")
"""Metrics that are printed; a terminal has no room for all."""
app = typer.Typer(help="Fit a cheap head on cached features and measure it.", no_args_is_help=True)


def shared(
    store: Annotated[str, typer.Argument(help="A .zarr store.")],
    task: Annotated[str | None, typer.Option(help="Which task of the labels; the only one unless given.")] = None,
    features: Annotated[str, typer.Option(help="cls, mean, cls+mean, pooled, or auto: chosen by validation.")] = "auto",
    layers: Annotated[
        str,
        typer.Option(
            help="last, or numbers with commas: their CLS tokens side by side; auto: validation chooses the last block or four."
        ),
    ] = "last",
    views: Annotated[
        int, typer.Option(help="Fit on this many cached views of each row too: those of `extract --views`.")
    ] = 0,
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
    standardize: Annotated[
        Literal["own", "yes", "no", "auto"],
        typer.Option(
            help="By the training rows' mean and deviation; auto: validation chooses; own: as the probe does."
        ),
    ] = "own",
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
        "layers": layers if layers in ("last", "auto") else numbers(layers, int, "--layers"),
        "views": views,
        "pool": None if pool == "none" else pool,
        "strict_volumes": strict_volumes,
        "labels": Path(labels) if labels else None,
        "join_on": join_on,
        "split": Path(split) if split else None,
        "classes": tuple(c.strip() for c in classes.split(",")) if classes else None,
        "validation": validation,
        "test": test,
        "seed": seed,
        "standardize": {"own": None, "yes": True, "no": False, "auto": "auto"}[standardize],
        "resamples": resamples,
        "results": Path(results) if results else None,
        "force": force,
    }


Figure = Annotated[str | None, typer.Option(help="Draw the result to this PNG, SVG or PDF.")]


Select = Annotated[
    Literal["validation", "leave-one-out", "leave-patient-out"],
    typer.Option(help="What chooses k: the validation part, or all rows but those for testing, each without its own."),
]


@app.callback(invoke_without_command=True)
def repeat_command(
    ctx: typer.Context,
    like: Annotated[
        str | None, typer.Option(help="Repeat what this result's JSON records, and say what differs.")
    ] = None,
    store: Annotated[str | None, typer.Option(help="With --like: another store than the recorded one.")] = None,
    labels: Annotated[str | None, typer.Option(help="With --like: these labels, not those beside the store.")] = None,
    split: Annotated[str | None, typer.Option(help="With --like: another split than the recorded one.")] = None,
    force: Annotated[bool, typer.Option("--force", help="With --like: write it, although the same was asked.")] = False,
    json: Json = False,
) -> int | None:
    """Fit a cheap head on cached features and measure it."""
    if ctx.invoked_subcommand is not None:
        if like or store or labels or split or force or json:
            raise InputError(
                "options come after the probe's name; only `probe --like RESULT.json` goes without a name."
            )
        return None
    if like is None:
        raise InputError(
            "`probe` needs the name of a probe, or --like RESULT.json; `embedcache probe --help` lists them."
        )
    done = embedcache.repeat_probe(
        like, store, labels=labels, split=split, force=force, progress=None if json else tell_stage
    )
    if json:
        print_json(done)
        return 0
    tell_stage("")
    print_repetition(done)
    return 0


@app.command("logistic")
@takes(shared)
def logistic_command(
    asked: dict[str, Any],
    C: Annotated[str | None, typer.Option("--C", help="Grid of inverse penalties, with commas.")] = None,
    class_weight: Annotated[
        Literal["none", "balanced"], typer.Option(help="balanced: both classes of a label weigh the same.")
    ] = "none",
    figure: Figure = None,
    json: Json = False,
) -> int:
    """Logistic regression: C and the vector chosen on validation, refitted on train+validation, tested once."""
    grid = numbers(C, float, "--C") if C else None
    options = {"class_weight": class_weight} if class_weight != "none" else {}
    return run(embedcache.ProbeConfig(probe="logistic", C=grid, options=options, **asked), figure, json)


@app.command("knn")
@takes(shared)
def knn_command(
    asked: dict[str, Any],
    k: Annotated[str | None, typer.Option("--k", help="Grid of neighbours, with commas.")] = None,
    votes: Annotated[
        Literal["softmax", "ml-knn"],
        typer.Option(
            help="softmax: weighted by exp(similarity / 0.07); ml-knn: posterior of the count (Zhang & Zhou)."
        ),
    ] = "softmax",
    select: Select = "validation",
    figure: Figure = None,
    json: Json = False,
) -> int:
    """Nearest neighbours by cosine; k and the vector chosen on validation."""
    grid = numbers(k, int, "--k") if k else None
    config = embedcache.ProbeConfig(probe="knn", k=grid, options={"votes": votes}, select=select, **asked)
    return run(config, figure, json)


@app.command("ridge")
@takes(shared)
def ridge_command(
    asked: dict[str, Any],
    alpha: Annotated[str | None, typer.Option(help="Grid of penalties, with commas.")] = None,
    figure: Figure = None,
    json: Json = False,
) -> int:
    """Ridge regression for numbers (age, a measurement): alpha and the vector chosen on validation, tested once."""
    options = {"alpha": numbers(alpha, float, "--alpha")} if alpha else {}
    return run(embedcache.ProbeConfig(probe="ridge", options=options, **asked), figure, json)


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


def print_repetition(done: "Repetition") -> None:
    """The result of now, and below it each thing that is not as recorded."""
    print_result(done.now)
    recorded = Path(done.recorded.path).name
    sections = (("asked", done.inputs), ("software", done.software), ("found", done.figures))
    rows = [(what, d.name, d.recorded, d.now) for what, section in sections for d in section]
    if rows:
        print(f"beside {recorded}:")
        print_table(("", "", "recorded", "now"), rows)
    if not done.inputs:
        print(f"the same was asked as in {recorded}" + ("" if done.figures else ", and the same was found"))
    if done.largest_change is not None:
        print(f"the scores of test rows differ by at most {done.largest_change:.3g}")


def print_result(result: "embedcache.Result") -> None:
    """The choice, the parts, a line per metric and class, and where it is written."""
    chosen, counts = result.chosen, result.counts
    layers = ", ".join(str(n) for n in chosen["layers"])
    name = chosen["parameter"]
    choice = f"{name} = {chosen[name]:.4g}"
    print(f"{result.probe} probe on task {result.task.name}: {chosen['features']} of layer {layers}, {choice}")
    print(f"chosen by {chosen['selected_by']} ({chosen['validation_score']:.3f}); split {chosen['split']}")
    for part in ("train", "validation", "test"):
        samples = f"{counted(counts[f'{part}_samples'], 'sample')} of {counted(counts[f'{part}_patients'], 'patient')}"
        print(f"  {part:10}  {samples}")
    if counts.get("views", 1) > 1:
        print(f"  fitted on   {counts['views']} views of each row, the whole slice and cached crops")
    for reason in ("superseded", "quarantined", "not_in_split", "no_label"):
        if counts[f"left_out_{reason}"]:
            print(f"  left out    {counted(counts[f'left_out_{reason}'], 'sample')}: {reason.replace('_', ' ')}")
    print_metrics(result.metrics)
    for warning in result.warnings:
        tell(f"note: {warning}")
    print(result.path)


def print_metrics(metrics: "tuple[Metric, ...]") -> None:
    """A line per class with its figures and their 95% intervals; below, what is to be said of them."""
    there = list(dict.fromkeys(m.name for m in metrics))
    names = [name for name in there if name in SHOWN]
    labels = list(dict.fromkeys(m.label for m in metrics))
    cells = {(m.label, m.name): m for m in metrics}
    rows = []
    for label in labels:
        of_label = [cells[label, name] for name in names if (label, name) in cells]
        first = of_label[0]
        positives = f"{first.positives:,} of {first.n:,}" if first.positives else f"{first.n:,}"
        rows.append((label, positives, *(figure(cells.get((label, name))) for name in names)))
    print_table(("class", "positives", *(name.replace("_", " ") for name in names)), rows)
    print(f"in brackets: 95% intervals over {counted(max(m.patients for m in metrics), 'patient')} of the test part")
    if "f1" in names:
        print("f1: each class at the threshold that validation chose, by the model before its refit")
    more = [name.replace("_", " ") for name in there if name not in SHOWN]
    if more:
        print(f"in the file too: {', '.join(more)}")
    notes: dict[str, list[str]] = {}
    for m in metrics:
        for note in m.note.split("; ") if m.name in names and m.name != "f1" else ():
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
