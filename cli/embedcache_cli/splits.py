"""`embedcache splits`."""

from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

import embedcache
from embedcache_cli.output import Json, counted, print_json, print_table

if TYPE_CHECKING:
    from embedcache import ShownSplit

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
    stratify: Annotated[
        str | None,
        typer.Option(
            help="A task: each part gets its share of the patients of every class, of those with none, and of those of whom "
            "nothing is known, as nearly as whole patients allow."
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Draw by patient what the dataset does not name, and write it down."""
    made = embedcache.make_splits(
        store, out, validation=validation, test=test, seed=seed, redraw=redraw, stratify=stratify
    )
    return _told(made, json)


@app.command("show")
def show_command(
    file: Annotated[str, typer.Argument(help="A split's CSV, or the name of one imported beside STORE.")],
    store: Annotated[
        str | None, typer.Argument(help="A .zarr store: its slices and labels are counted per part.")
    ] = None,
    json: Json = False,
) -> int:
    """Print what is in each part: samples, patients, and of a store slices and labels; exit code 1 where it is at fault.

    Labels are counted as they come, by sample or slice, and by patient where that is another number.
    """
    shown = embedcache.show_split(file, store)
    if json:
        print_json(shown)
        return shown.exit_code
    print_table(
        ("part", "samples", "patients", "slices"),
        [
            (p.part, f"{p.samples:,}", f"{p.patients:,}", "" if p.slices is None else f"{p.slices:,}")
            for p in shown.parts
        ],
    )
    if shown.balance:
        print()
        print_table(("task", "per", "label", *(p.part for p in shown.parts)), _label_rows(shown))
    drawn = "" if shown.seed is None else f", drawn with seed {shown.seed} (draw {shown.draw})"
    print(f"\n{shown.name}: digest {shown.digest}{drawn}")
    if shown.unnamed:
        print(f"{counted(shown.unnamed, 'sample')} of the store in no part")
    for fault in shown.faults:
        print(f"fault: {fault}")
    return shown.exit_code


def _label_rows(shown: "ShownSplit") -> list[tuple[str, ...]]:
    """Task by task a line per class, of what the labels attach to, and then, where those are other numbers, of patients."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for task, balance in groupby(shown.balance, lambda b: b.task):
        of_task = list(balance)
        for b in of_task:
            mean = "-" if b.mean is None else f"mean {b.mean:g} of {b.known:,}"
            said = mean if b.positive is None else _of(b.positive, b.known)
            rows.setdefault((task, b.level, b.label), []).append(said)
        if any(
            (b.known, b.positive) != (b.known_patients, b.positive_patients) for b in of_task if b.level != "patient"
        ):
            for b in of_task:
                rows.setdefault((task, "patient", b.label), []).append(_of(b.positive_patients, b.known_patients))
    return [(*key, *cells) for key, cells in rows.items()]


def _of(positive: int | None, known: int) -> str:
    if positive is None:
        return f"of {known:,}"
    return f"{positive:,} of {known:,}" + (f" ({positive / known:.0%})" if known else "")


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
