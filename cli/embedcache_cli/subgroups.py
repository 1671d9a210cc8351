"""`embedcache subgroups`."""

from typing import TYPE_CHECKING, Annotated

import typer

import embedcache
from embedcache_cli.asking import label_options, numbers, takes
from embedcache_cli.output import Json, counted, print_json, print_table, tell
from embedcache_cli.probe_printing import SHOWN, figure

if TYPE_CHECKING:
    from embedcache import DatasetOptions


@takes(label_options, only=("id_column", "path_column", "patient_column", "root_dir"))
def command(
    options: "DatasetOptions",
    result: Annotated[str, typer.Argument(help="A result's JSON.")],
    by: Annotated[str, typer.Option(help="The column: any of --labels or of --root, else a task of the labels.")],
    labels: Annotated[str | None, typer.Option(help="A table of your own with the column, by the store's ids.")] = None,
    join_on: Annotated[str | None, typer.Option(help="The column of that table with sample ids or patients.")] = None,
    root: Annotated[
        str | None, typer.Option(help="The dataset that was extracted, for a column of its own that is no label.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="How --root is read; the store's own dataset unless given, or table for a file of yours."),
    ] = None,
    store: Annotated[str | None, typer.Option(help="The store, if it is not in the cache of the result.")] = None,
    edges: Annotated[
        str | None, typer.Option(help="Where to cut a numeric column, with commas; tens unless given.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="A class, in place of the macro average.")] = None,
    resamples: Annotated[int, typer.Option(help="Of patients, for the intervals that are bootstrapped.")] = 1000,
    json: Json = False,
) -> int:
    """A result's test rows measured apart for each value of a column (sex, age, scanner, site, view)."""
    table = embedcache.measure_subgroups(
        result,
        by,
        store=store,
        labels=labels,
        join_on=join_on,
        dataset=dataset,
        root=root,
        options=options,
        edges=numbers(edges, float, "--edges") if edges is not None else None,
        resamples=resamples,
    )
    if json:
        print_json(table)
        return 0
    names = [n for n in dict.fromkeys(m.name for g in table.groups for m in g.metrics) if n in SHOWN]
    rows = []
    for group in table.groups:
        cells = {m.name: m for m in group.metrics if m.label in ((label,) if label is not None else ("macro", "all"))}
        if not cells and label is None:  # numbers have no macro average
            cells = {m.name: m for m in group.metrics}
        note = "; ".join(dict.fromkeys(m.note for m in cells.values() if m.note and m.name == "auroc"))
        rows.append((group.name, f"{group.n:,}", f"{group.patients:,}", *(figure(cells.get(n)) for n in names), note))
    print_table((table.column, "rows", "patients", *(n.replace("_", " ") for n in names), ""), rows)
    for d in table.differences:
        if d.label == (label or "macro") or len(table.differences) == 1:
            tested = "" if d.p is None else f" the same in {counted(len(d.groups), 'group')}: p = {d.p:.2g}"
            print(f"AUROC of {d.label}{tested}{'; ' if tested else ': '}{d.note}".rstrip("; "))
    for note in table.notes:
        tell(f"note: {note}")
    return 0
