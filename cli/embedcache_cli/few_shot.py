"""`embedcache few-shot`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import embedcache
from embedcache_cli.asking import numbers, takes
from embedcache_cli.output import Json, counted, print_json, print_table, tell, tell_stage
from embedcache_cli.probe import shared
from embedcache_cli.probe_printing import interval, print_left_out

if TYPE_CHECKING:
    from embedcache import FewShotResult
    from embedcache.evaluation.few_shot_result import CurvePoint

SHARED = (
    "task", "pool", "strict_volumes", "labels", "join_on", "split", "classes", "validation", "seed", "results", "force",
)  # fmt: skip
"""Options that are those of a probe."""


@takes(shared, only=SHARED, store="")
def command(
    asked: dict[str, Any],
    stores: Annotated[list[str], typer.Argument(help="One or several .zarr stores: a curve each.")],
    shots: Annotated[str, typer.Option(help="Patients of each class, with commas.")] = "1,2,4,8,16",
    seeds: Annotated[int | None, typer.Option(help="Draws of each size; 20 unless given.")] = None,
    preset: Annotated[
        Literal["paper"] | None, typer.Option(help="paper: one draw, the first patients of each class by sorted id.")
    ] = None,
    select: Annotated[
        Literal["fixed", "leave-patient-out", "validation"],
        typer.Option(
            help="How C comes about: given; by leaving out each patient of a draw; or on the whole validation part, "
            "which is not few-shot and is labelled so."
        ),
    ] = "fixed",
    C: Annotated[str | None, typer.Option("--C", help="The value, 1 unless given; or those to choose among.")] = None,
    whole: Annotated[bool, typer.Option("--all/--no-all", help="Fit to the whole training part too.")] = True,
    features: Annotated[
        str, typer.Option(help="cls, mean, cls+mean, pooled; auto: the first of them that is stored.")
    ] = "auto",
    layers: Annotated[str, typer.Option(help="last, or numbers with commas: their CLS tokens side by side.")] = "last",
    standardize: Annotated[
        bool, typer.Option("--standardize/--no-standardize", help="By the mean and deviation of a draw's own rows.")
    ] = True,
    test: Annotated[float, typer.Option(help="Share of the patients, where no test part is named.")] = 0.2,
    figure: Annotated[str | None, typer.Option(help="Draw all curves to this PNG, SVG or PDF.")] = None,
    json: Json = False,
) -> int:
    """Few-shot curve: AUROC by patients of each class, drawn many times over.

    Under --json one document, whose `curves` are one of each store.
    """
    configs = [
        embedcache.FewShotConfig(
            store=Path(store),
            shots=numbers(shots, int, "--shots"),
            seeds=seeds,
            preset=preset,
            select=select,
            C=numbers(C, float, "--C") if C is not None else None,
            whole=whole,
            features=features,
            layers="last" if layers == "last" else numbers(layers, int, "--layers"),
            standardize=standardize,
            test=test,
            **{name: asked[name] for name in SHARED},
        )
        for store in stores
    ]

    def tell_curve(curve: "FewShotResult") -> None:
        tell_stage("")
        print_curve(curve)

    if json:
        print_json({"curves": embedcache.few_shot_curves(configs, figure)})
    else:
        embedcache.few_shot_curves(configs, figure, tell_stage, tell_curve)
    return 0


def print_curve(curve: "FewShotResult") -> None:
    """What was fitted, a line for each number of patients, and where it is written."""
    chosen = curve.chosen
    layers = f" of layer {', '.join(map(str, chosen['layers']))}" if chosen["layers"] else ""
    who = curve.source.get("backbone", "")
    print(f"{curve.setting} curve of {who} on task {curve.task.name}: {chosen['features']}{layers}, C {chosen['C']}")
    counts = curve.counts
    print(
        f"drawn from {counted(counts['train_patients'], 'training patient')} ({chosen['draws']}); "
        f"test: {counted(counts['test_samples'], 'sample')} of {counted(counts['test_patients'], 'patient')}"
    )
    print_left_out(counts)
    print_table(
        ("per class", "patients", "rows", "overlaps", "C", "AUROC", "95% over draws", "95% over test patients"),
        [_line(point) for point in curve.points],
    )
    for point in curve.points:
        size = "all" if point.shots is None else str(point.shots)
        for note in (*point.notes, point.macro.note):
            if note:
                tell(f"note: {size}: {note}")
    for warning in curve.warnings:
        tell(f"note: {warning}")
    print(curve.path)


def _line(point: "CurvePoint") -> tuple[str, ...]:
    figure = point.macro
    return (
        "all" if point.shots is None else str(point.shots),
        _mean(point.patients),
        _mean(point.rows),
        _mean(point.overlaps),
        " ".join(f"{value:g}" + (f"x{point.C.count(value)}" if len(set(point.C)) > 1 else "") for value in sorted(set(point.C))),
        "-" if figure.value is None else f"{figure.value:.3f}",
        _interval(figure.draws_low, figure.draws_high),
        _interval(figure.test_low, figure.test_high),
    )  # fmt: skip


def _mean(values: tuple[int, ...]) -> str:
    return f"{round(sum(values) / len(values)):,}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else interval(low, high)
