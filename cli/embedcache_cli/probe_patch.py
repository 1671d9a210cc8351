"""`embedcache probe patch-linear`: a linear head on patch tokens, measured on masks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import embedcache
from embedcache_cli.asking import label_options, numbers, place, takes
from embedcache_cli.output import Json, counted, print_json, print_table, tell, tell_stage
from embedcache_cli.probe_printing import figure, print_notes

if TYPE_CHECKING:
    from embedcache import DatasetOptions, PatchProbeConfig, Result

NAME = "patch-linear"
TABLE_OPTIONS = ("id_column", "path_column", "patient_column", "split_column", "mask_column", "root_dir")
FLOORS = (("", "patch tokens"), ("mean_mask_", "floor: mean mask"), ("position_", "floor: position"))
"""Prefix of the metrics, and what the table calls its rows."""
SHOWN = ("dice", "jaccard", "dice_jaccard_mean", "dice_pooled", "jaccard_pooled")


@takes(label_options, only=TABLE_OPTIONS)
def patch_config(
    options: "DatasetOptions",
    store: Annotated[str, typer.Argument(help="A .zarr store with patch tokens.")],
    root: Annotated[str, typer.Option(help="Where the masks are listed: the table, or the dataset's folder.")],
    dataset: Annotated[str, typer.Option(help="table, or the dataset that was extracted.")] = "table",
    mask_values: Annotated[
        str | None,
        typer.Option(
            help="VALUE=NAME with commas, as in 255=lung,127=ignore; every value but 0 is a class unless given."
        ),
    ] = None,
    layers: Annotated[
        str, typer.Option(help="auto (all with patch tokens), last, or numbers with commas: validation chooses one.")
    ] = "auto",
    C: Annotated[str | None, typer.Option("--C", help="Grid of inverse penalties, with commas.")] = None,
    max_patches: Annotated[int, typer.Option(help="Patches that are fitted, spread evenly over the slices.")] = 65_536,
    split: Annotated[str | None, typer.Option(help="A split file, or the name of an imported split.")] = None,
    validation: Annotated[float, typer.Option(help="Share of the training patients.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of the patients, where no test part is named.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the drawn split, the drawn patches and the bootstrap.")] = 0,
    resamples: Annotated[int, typer.Option(help="Of patients, for the intervals.")] = 1000,
    results: Annotated[
        str | None, typer.Option(help="Folder of the results; `results` of the cache unless given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fit again, and keep the result that is there.")] = False,
) -> "PatchProbeConfig":
    """The segmentation that the options describe."""
    return embedcache.PatchProbeConfig(
        store=Path(store),
        dataset=dataset,
        root=root,
        options=options,
        mask_values=mask_values,
        layers=_layers(layers),
        split=place(split, "--split"),
        validation=validation,
        test=test,
        seed=seed,
        resamples=resamples,
        C=numbers(C, float, "--C") if C is not None else None,
        max_patches=max_patches,
        results=place(results, "--results"),
        force=force,
    )


@takes(patch_config)
def command(config: "PatchProbeConfig", json: Json = False) -> int:
    """Segment by a linear head on patch tokens; Dice and Jaccard at the masks' own resolution, beside two floors."""
    result = embedcache.probe_patches(config, None if json else tell_stage)
    if json:
        print_json(result)
        return 0
    tell_stage("")
    print_result(result)
    return 0


def print_result(result: "Result") -> None:
    """The choice, the parts, a line per class and floor, and where it is written."""
    chosen, counts = result.chosen, result.counts
    print(f"{result.probe} on {', '.join(result.task.classes)}: layer {chosen['layers'][0]}, C = {chosen['C']:.4g}")
    print(f"chosen by {chosen['selected_by']} ({chosen['validation_score']:.3f}); split {chosen['split']}")
    for part in ("train", "validation", "test"):
        samples = f"{counted(counts[f'{part}_samples'], 'sample')} of {counted(counts[f'{part}_patients'], 'patient')}"
        print(f"  {part:10}  {samples}")
    for reason in ("superseded", "quarantined", "not_in_split", "no_mask"):
        if counts[f"left_out_{reason}"]:
            print(f"  left out    {counted(counts[f'left_out_{reason}'], 'sample')}: {reason.replace('_', ' ')}")
    cells = {(m.name, m.label): m for m in result.metrics}
    labels = list(dict.fromkeys(m.label for m in result.metrics))
    rows = [
        (label, what, *(figure(cells[prefix + name, label]) for name in SHOWN))
        for label in labels
        for prefix, what in FLOORS
    ]
    print_table(("class", "head", *(name.replace("_", " ") for name in SHOWN)), rows)
    print(f"in brackets: 95% intervals over {counted(counts['test_patients'], 'patient')} of the test part")
    print_notes([cells[name, label] for label in labels for name in SHOWN])
    for warning in result.warnings:
        tell(f"note: {warning}")
    print(result.path)


def _layers(text: str) -> 'tuple[int, ...] | Literal["auto", "last"]':
    match text:
        case "auto" | "last":
            return text
        case _:
            return numbers(text, int, "--layers")
