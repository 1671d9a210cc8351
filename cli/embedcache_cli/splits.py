"""`embedcache splits`."""

from typing import Annotated

import typer

import embedcache
from embedcache_cli.output import Json, print_json

NAME = "splits"
app = typer.Typer(help="Which samples train, validate and test, as files.", no_args_is_help=True)
Store = Annotated[str, typer.Argument(help="A .zarr store.")]
Out = Annotated[str, typer.Option("--out", "-o", help="The CSV to write.")]


@app.command("make")
def make_command(
    store: Store,
    out: Out = "split.csv",
    validation: Annotated[float, typer.Option(help="Share of the training patients.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of the patients, where the dataset names no test part.")] = 0.2,
    seed: Annotated[int, typer.Option()] = 0,
    redraw: Annotated[bool, typer.Option("--redraw", help="Draw anew even where the dataset names parts.")] = False,
    json: Json = False,
) -> int:
    """Draw by patient what the dataset does not name, and write it down."""
    return _told(embedcache.make_splits(store, out, validation=validation, test=test, seed=seed, redraw=redraw), json)


@app.command("export")
def export_command(store: Store, out: Out = "split.csv", json: Json = False) -> int:
    """Write down the parts that the dataset itself names."""
    return _told(embedcache.export_splits(store, out), json)


@app.command("import")
def import_command(
    file: Annotated[str, typer.Argument(help="CSV with the columns sample, patient, split, draw, seed.")],
    store: Store,
    name: Annotated[str, typer.Option(help="What `--split` will call it.")],
    json: Json = False,
) -> int:
    """Check a split against a store's samples and keep it beside the store's dataset."""
    return _told(embedcache.import_splits(file, store, name), json)


def _told(report: object, json: bool) -> int:
    if json:
        print_json(report)
    else:
        print(report)
    return 0
