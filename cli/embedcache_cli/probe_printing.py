"""How a probe's result is told on a terminal."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcache_cli.output import counted, print_table, tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import embedcache
    from embedcache import Repetition
    from embedcache.types import Metric

SHOWN = ("auroc", "average_precision", "balanced_accuracy", "f1", "brier", "r2", "mae", "pearson")
"""Metrics that are printed; a terminal has no room for all."""
OF_ROWS = ("few patients", "left out as undefined", "undefined")
"""How notes begin that are of a class's rows, and so of all of its figures."""


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
    name = chosen["parameter"]
    scaled = ", standardized" if chosen.get("standardize") else ""
    choice = f"{features_of(chosen)}{scaled}, {name} = {chosen[name]:.4g}"
    print(f"{result.probe} probe on task {result.task.name}: {choice}")
    print(f"chosen by {chosen['selected_by']} ({chosen['validation_score']:.3f}); split {chosen['split']}")
    if "test_dataset" in result.source:
        print(f"fitted on {result.source['dataset']}, tested on {result.source['test_dataset']}")
    for part in ("train", "validation", "test"):
        samples = f"{counted(counts[f'{part}_samples'], 'sample')} of {counted(counts[f'{part}_patients'], 'patient')}"
        print(f"  {part:10}  {samples}")
    if counts.get("views", 1) > 1:
        print(f"  fitted on   {counts['views']} views of each row, the whole slice and cached crops")
    print_left_out(counts)
    print_metrics(result.metrics)
    for warning in result.warnings:
        tell(f"note: {warning}")
    print(result.path)


def print_left_out(counts: "Mapping[str, int]") -> None:
    """A line for each reason for which samples were left out."""
    for count, left_out in counts.items():
        where, _, reason = count.partition("left_out_")
        if reason and left_out:
            of = " of the tested store" if where else ""
            print(f"  left out    {counted(left_out, 'sample')}{of}: {reason.replace('_', ' ')}")


def print_metrics(metrics: "tuple[Metric, ...]") -> None:
    """A line per class with its figures and their 95% intervals; below, what is to be said of them."""
    there = list(dict.fromkeys(m.name for m in metrics))
    names = [name for name in there if name in SHOWN]
    labels = list(dict.fromkeys(m.label for m in metrics))
    cells = {(m.label, m.name): m for m in metrics}
    of_rows = any(name in there for name in ("r2", "mae"))  # numbers have no positives
    rows = []
    for label in labels:
        of_label = [cells[label, name] for name in names if (label, name) in cells]
        first = of_label[0]
        rows_there = f"{first.n:,}" if of_rows else counted(first.n, "row")
        positives = rows_there if of_rows or label in ("macro", "all") else f"{first.positives:,} of {first.n:,}"
        rows.append((label, positives, *(figure(cells.get((label, name))) for name in names)))
    print_table(("class", "rows" if of_rows else "positives", *(name.replace("_", " ") for name in names)), rows)
    print(f"in brackets: 95% intervals over {counted(max(m.patients for m in metrics), 'patient')} of the test part")
    if "f1" in names:
        print_f1([m for m in metrics if m.name == "f1"])
    more = [name.replace("_", " ") for name in there if name not in SHOWN]
    if more:
        print(f"in the file too: {', '.join(more)}")
    print_notes([cells[label, name] for label in labels for name in names if name != "f1" and (label, name) in cells])


def print_f1(metrics: "Sequence[Metric]") -> None:
    """Which model's scores F1 is of and what decides, as the notes of its classes say it; nothing where it is undefined."""
    notes = " ".join(m.note for m in metrics)
    if "of the class with the highest score" in notes:
        print("f1: of the refitted model, a row counted as the class with its highest score")
    elif "model before the refit" in notes:
        before = (
            "of the chosen model before its refit, its test scores cut at each class's best threshold on validation"
        )
        print(f"f1: {before}; the other figures here are of the refitted model")
    for without in ("row", "patient"):
        if f"scores without each {without}" in notes:
            print(
                f"f1: of the refitted model, its test scores cut at each class's best threshold on scores without each {without}"
            )


def print_notes(metrics: "Sequence[Metric]") -> None:
    """A line for each note, with the classes that it is of, and the figures unless it is of the rows that all of them share."""
    named_by_macro = any("few patients in" in m.note for m in metrics if m.label == "macro")
    figures_of: dict[tuple[str, str], list[str]] = {}
    for m in metrics:
        for note in m.note.split("; ") if m.note else ():
            if note == "few patients" and named_by_macro:
                continue
            figures_of.setdefault((note, m.label), []).append(m.name.replace("_", " "))
    told: dict[tuple[str, str], list[str]] = {}
    for (note, label), figures in figures_of.items():
        every = note.startswith(OF_ROWS) and len(figures) == sum(m.label == label for m in metrics)
        told.setdefault((note, "" if every else f" ({', '.join(figures)})"), []).append(label)
    for (note, of), there in told.items():
        print(f"{', '.join(there)}{of}: {note}")


def figure(metric: "Metric | None") -> str:
    """`0.712 (0.650-0.770)`, or a dash where undefined."""
    if metric is None or metric.value is None:
        return "-"
    return f"{metric.value:.3f}{in_brackets(metric.low, metric.high)}"


def in_brackets(low: float | None, high: float | None) -> str:
    """` (0.650-0.770)`, or nothing where there is no interval."""
    return "" if low is None or high is None else f" ({interval(low, high)})"


def interval(low: float, high: float) -> str:
    """`0.650-0.770`; `-0.120 to 0.340`, where a hyphen would be a sign."""
    return f"{low:.3f}{' to ' if low < 0 else '-'}{high:.3f}"


def features_of(chosen: "Mapping[str, Any]") -> str:
    """`cls+mean of layer 12`, `cls of layers 9, 10, 11, 12`, `pooled`."""
    layers = [str(n) for n in chosen["layers"]]
    where = f" of layer{'s' if len(layers) > 1 else ''} {', '.join(layers)}" if layers else ""
    return f"{chosen['features']}{where}"
