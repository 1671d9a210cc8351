"""`embedcache probe logistic`, `knn` and `ridge`, and what every probe's command asks and prints."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import embedcache
from embedcache.errors import InputError
from embedcache_cli.asking import numbers, place, takes
from embedcache_cli.output import Json, print_json, tell_stage
from embedcache_cli.probe_printing import print_repetition, print_result

app = typer.Typer(help="Fit a cheap head on cached features and measure it.", no_args_is_help=True)


def shared(
    store: Annotated[str | None, typer.Argument(help="A .zarr store; or name it with --train.")] = None,
    train: Annotated[str | None, typer.Option(help="The store to fit on, in place of the argument.")] = None,
    task: Annotated[str | None, typer.Option(help="Which task of the labels; the only one unless given.")] = None,
    features: Annotated[str, typer.Option(help="cls, mean, cls+mean, pooled, or auto: chosen by validation.")] = "auto",
    layers: Annotated[
        str,
        typer.Option(
            help="last, or numbers with commas: their CLS tokens side by side; auto: validation chooses the last block or four; "
            "own: as the probe does (linear auto, others last)."
        ),
    ] = "own",
    views: Annotated[
        int, typer.Option(help="Fit on this many cached views of each row too: those of `extract --views`.")
    ] = 0,
    pool: Annotated[
        str,
        typer.Option(help="Slices of a sample: mean, max, mean+max, middle, middle-N, top-K; none keeps slices apart."),
    ] = "mean",
    pool_by: Annotated[
        str | None,
        typer.Option(
            help="Pool over all slices of a patient, or of a patient's samples with one value of this column."
        ),
    ] = None,
    planes: Annotated[
        list[str] | None,
        typer.Option(help="A store of the same images cut along another plane, set side by side. Repeatable."),
    ] = None,
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
    test: Annotated[
        str,
        typer.Option(
            help="Share of the patients, where no test part is named; or another store, all of whose samples test."
        ),
    ] = "0.2",
    test_labels: Annotated[str | None, typer.Option(help="Labels of that store, if not those beside it.")] = None,
    seed: Annotated[int, typer.Option(help="Of the drawn split, and of whatever else is drawn.")] = 0,
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
    share, test_store = share_or_store(test)
    return {
        "store": Path(one_store(store, train)),
        "task": task,
        "features": features,
        "layers": None
        if layers == "own"
        else layers
        if layers in ("last", "auto")
        else numbers(layers, int, "--layers"),
        "views": views,
        "pool": None if pool == "none" else pool,
        "pool_by": pool_by,
        "planes": tuple(Path(p) for p in planes or ()),
        "strict_volumes": strict_volumes,
        "labels": place(labels, "--labels"),
        "join_on": join_on,
        "split": place(split, "--split"),
        "classes": tuple(c.strip() for c in classes.split(",")) if classes is not None else None,
        "validation": validation,
        "test": share,
        "test_store": test_store,
        "test_labels": place(test_labels, "--test-labels"),
        "seed": seed,
        "standardize": {"own": None, "yes": True, "no": False, "auto": "auto"}[standardize],
        "resamples": resamples,
        "results": place(results, "--results"),
        "force": force,
    }


def one_store(store: str | None, train: str | None) -> str:
    """The store that is fitted, from the argument or from `--train`."""
    if (store is None) == (train is None):
        raise InputError("name one store to fit on: as the argument, or with --train.")
    return str(store if store is not None else train)


def share_or_store(test: str) -> tuple[float, Path | None]:
    """What `--test` says: a share of the patients, or a store to test on."""
    try:
        return float(test), None
    except ValueError:
        if not Path(test).exists():
            raise InputError(
                f"--test takes a share of the patients or a store, and there is no store at {test}."
            ) from None
        return 0.2, Path(test)


Figure = Annotated[str | None, typer.Option(help="Draw the result to this PNG, SVG or PDF.")]


Select = Annotated[
    Literal["validation", "leave-one-out", "leave-patient-out"],
    typer.Option(
        help="What chooses k and the vector: the validation part; or all rows but those for testing, each scored without "
        "itself (leave-one-out) or without its patient's rows (leave-patient-out)."
    ),
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
    test: Annotated[
        str | None, typer.Option(help="With --like: another store to test on than the recorded one.")
    ] = None,
    test_labels: Annotated[str | None, typer.Option(help="With --like: labels of that store.")] = None,
    force: Annotated[bool, typer.Option("--force", help="With --like: write it, although the same was asked.")] = False,
    json: Json = False,
) -> int | None:
    """Fit a cheap head on cached features and measure it."""
    if ctx.invoked_subcommand is not None:
        if like or store or labels or split or test or test_labels or force or json:
            raise InputError(
                "options come after the probe's name; only `probe --like RESULT.json` goes without a name."
            )
        return None
    if like is None:
        raise InputError(
            "`probe` needs the name of a probe, or --like RESULT.json; `embedcache probe --help` lists them."
        )
    done = embedcache.repeat_probe(
        like,
        store,
        labels=labels,
        split=split,
        test_store=test,
        test_labels=test_labels,
        force=force,
        progress=None if json else tell_stage,
    )
    if json:
        print_json(done)
        return 0
    tell_stage("")
    print_repetition(done)
    return 0


def elsewhere(device: str) -> dict[str, str]:
    """What a device adds to the options. The CPU goes without saying: a result keeps the name that it had before there was a
    choice.
    """
    return {} if device == "cpu" else {"device": device}


@app.command("logistic")
@takes(shared)
def logistic_command(
    asked: dict[str, Any],
    C: Annotated[str | None, typer.Option("--C", help="Grid of inverse penalties, with commas.")] = None,
    class_weight: Annotated[
        Literal["none", "balanced"], typer.Option(help="balanced: both classes of a label weigh the same.")
    ] = "none",
    device: Annotated[
        str, typer.Option(help="cpu, or where torch solves: cuda, cuda:1; coefficients agree to rounding.")
    ] = "cpu",
    figure: Figure = None,
    json: Json = False,
) -> int:
    """Logistic regression: C and the vector chosen on validation, refitted on train+validation, tested once."""
    grid = numbers(C, float, "--C") if C is not None else None
    options = {"class_weight": class_weight} if class_weight != "none" else {}
    config = embedcache.ProbeConfig(probe="logistic", C=grid, options=options | elsewhere(device), **asked)
    return run(config, figure, json)


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
    device: Annotated[
        str, typer.Option(help="cpu, or where neighbours are searched: cuda, cuda:1. They are the same.")
    ] = "cpu",
    figure: Figure = None,
    json: Json = False,
) -> int:
    """Nearest neighbours by cosine; k and the vector chosen on validation."""
    grid = numbers(k, int, "--k") if k is not None else None
    options = {"votes": votes} | elsewhere(device)
    config = embedcache.ProbeConfig(probe="knn", k=grid, options=options, select=select, **asked)
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
    options = {"alpha": numbers(alpha, float, "--alpha")} if alpha is not None else {}
    return run(embedcache.ProbeConfig(probe="ridge", options=options, **asked), figure, json)


def run(config: "embedcache.ProbeConfig", figure: str | None, json: bool) -> int:
    """Fit, print, draw."""
    if figure is not None:
        embedcache.check_figure(figure)
    result = embedcache.probe(config, None if json else tell_stage)
    if not json:
        tell_stage("")
    if figure is not None:
        embedcache.draw_result(result, figure)
    if json:
        print_json(result)
    else:
        print_result(result)
    return 0
