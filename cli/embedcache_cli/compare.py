"""`embedcache compare`."""

from typing import TYPE_CHECKING, Annotated

import typer

import embedcache
from embedcache_cli.output import Json, counted, print_json, print_table
from embedcache_cli.probe_printing import SHOWN

OF_MASKS = ("dice", "jaccard")
"""Figures of segmentations that are printed unless others are asked for."""

if TYPE_CHECKING:
    from embedcache import ComparedResults


def command(
    results: Annotated[list[str], typer.Argument(help="JSONs of two results or more, on the same test rows.")],
    label: Annotated[str | None, typer.Option(help="Only this class; macro is the average.")] = None,
    metrics: Annotated[str | None, typer.Option(help="These metrics, with commas; all for every one.")] = None,
    task: Annotated[str | None, typer.Option(help="Of the results given, those that answer this task.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Of the results given, those that were tested on this dataset.")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Of patients, for what is bootstrapped.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    json: Json = False,
) -> int:
    """Paired tests between results: every pair, differences with 95% intervals by patient, p after Holm's correction."""
    names = None if metrics in (None, "all") else tuple(name.strip() for name in str(metrics).split(","))
    found = embedcache.compare_results(
        results, label=label, metrics=names, resamples=resamples, seed=seed, task=task, dataset=dataset
    )
    if json:
        print_json(found)
    else:
        print_comparison(found, everything=metrics is not None, of_classes=label is not None or len(results) == 2)
    return 0


def print_comparison(found: "ComparedResults", everything: bool, of_classes: bool) -> None:
    """A line per figure and pair; below, the best of each column as a set, where there are more than two."""
    for i, (name, file) in enumerate(zip(found.names, found.files, strict=True)):
        print(f"{chr(65 + i)}  {name}  {file}")
    print(f"task {found.task}: {counted(found.rows, 'test row')} of {counted(found.patients, 'patient')}")
    letters = [
        f"{chr(65 + i)} - {chr(65 + j)}" for i in range(len(found.names)) for j in range(i + 1, len(found.names))
    ]
    columns = [
        c
        for c in found.columns
        if (everything or c.metric in (*SHOWN, *OF_MASKS)) and (of_classes or c.label in ("macro", "all", found.task))
    ]
    rows = [
        (
            column.metric.replace("_", " "),
            column.label,
            pair,
            f"{c.a:.3f}",
            f"{c.b:.3f}",
            f"{c.difference:+.3f}" + ("" if c.low is None else f" ({c.low:+.3f} to {c.high:+.3f})"),
            "-" if c.p is None else f"{c.p:.2g}",
            "-" if adjusted is None else f"{adjusted:.2g}",
            c.note,
        )
        for column in columns
        for pair, c, adjusted in zip(letters, column.pairs, column.adjusted, strict=True)
    ]
    header = ("metric", "class", "pair", "first", "second", "difference", "p", "p (Holm)", "")
    if len(found.names) == 2:
        rows = [(*row[:2], "", *row[3:7], "", row[8]) for row in rows]  # one pair: nothing to correct
    print_table(header, rows)
    if len(found.names) > 2:
        letter = {name: chr(65 + i) for i, name in enumerate(found.names)}
        print("not shown to be worse than another, at 5% after Holm's correction over all pairs of the column:")
        print_table(
            ("metric", "class", "best"),
            [(c.metric.replace("_", " "), c.label, ", ".join(letter[name] for name in c.best) or "-") for c in columns],
        )
