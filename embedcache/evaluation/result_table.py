"""`embedcache results`: the results and the few-shot curves of a folder, filtered, one line each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcache.errors import EmbedcacheError, InputError, suggest
from embedcache.evaluation.curve_table import CurveLine, curve_lines, read_curves
from embedcache.evaluation.few_shot_result import FewShotResult
from embedcache.evaluation.results import CURVES, is_result_name, read_result
from embedcache.evaluation.store_inputs import told_of_patients
from embedcache.types import Metric, Result

RESULTS = "results"
MACRO, ALL = "macro", "all"
SHOWN = ("auroc", "average_precision", "balanced_accuracy", "f1", "brier", "r2", "mae", "dice", "jaccard")
"""Columns unless others are asked for; every metric is in the files."""


@dataclass(frozen=True)
class ResultLine:
    """One result in a table."""

    file: str
    """Name of the JSON."""
    dataset: str
    """`fitted -> tested`, if they are two."""
    backbone: str
    probe: str
    task: str
    level: str
    features: str
    choice: str
    """The hyper-parameter that was chosen: `C = 0.0316`."""
    label: str
    """The class whose figures these are, `macro` or `all`."""
    test_samples: int
    test_patients: int
    figures: Mapping[str, Metric]
    """By metric; those that the class has."""
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ResultTable:
    """The lines of a folder, and the files in it that could not be read."""

    lines: tuple[ResultLine, ...]
    metrics: tuple[str, ...]
    """Columns: every metric that a line has."""
    unreadable: tuple[str, ...]
    """What is wrong with the others, a sentence each."""
    curves: tuple[CurveLine, ...] = ()
    """Few-shot curves, whose figures are AUROC by patients of each class."""
    notes: tuple[str, ...] = ()
    """Of results whose dataset named no patients."""


def tabulate_results(
    folder: str | Path,
    *,
    probe: str | None = None,
    task: str | None = None,
    backbone: str | None = None,
    dataset: str | None = None,
    label: str | None = None,
    metrics: tuple[str, ...] | None = None,
) -> ResultTable:
    """The results in `folder` (a cache, or a folder of results) that match, in the order of dataset, task, backbone and probe.

    Curves match as probe `few-shot`, and have the one metric AUROC.

    `label`: a class instead of the macro average. `metrics`: these columns, ("all",) for every one that there is; None for those
    of `SHOWN`. `backbone` matches a part of the name. A file that can not be read is told of, and the others are listed. Raises
    InputError if there is no such folder, UnknownNameError for a probe, task, dataset, class or metric that no result has.
    """
    found, curves, unreadable = _read(Path(folder))
    every: tuple[Result | FewShotResult, ...] = (*found, *curves)
    for name, what, has in (
        ("probe", probe, {*(r.probe for r in found), *(CURVES for _ in curves)}),
        ("task", task, {r.task.name for r in every}),
        ("dataset", dataset, {name for r in every for name in (dataset_of(r), *datasets_of(r))}),
    ):
        if what is not None and what not in has:
            raise suggest(f"{name} in the results", what, has)

    def matches(r: Result | FewShotResult) -> bool:
        return (
            (probe is None or (r.probe if isinstance(r, Result) else CURVES) == probe)
            and (task is None or r.task.name == task)
            and (dataset is None or dataset in (dataset_of(r), *datasets_of(r)))
            and (backbone is None or backbone in r.source.get("backbone", ""))
        )

    kept, drawn = [r for r in found if matches(r)], [curve for curve in curves if matches(curve)]
    labels = {m.label for r in kept for m in r.metrics} | {f.label for c in drawn for p in c.points for f in p.figures}
    if label is not None and label not in labels:
        raise suggest("class in the results", label, labels)
    lines = sorted(
        (line for r in kept for line in _lines(r, label)),
        key=lambda x: (x.dataset, x.task, x.backbone, x.probe, x.features, x.file),
    )
    of_curves = curve_lines(drawn if metrics is None or {"auroc", "all"} & {*metrics} else (), label or MACRO)
    there = list(dict.fromkeys(name for line in lines for name in line.figures))
    if metrics is None or metrics == ("all",):
        metrics = tuple(name for name in there if metrics or name in SHOWN)
    for name in metrics:
        if name not in there and not (name == "auroc" and of_curves):
            raise suggest("metric in the results", name, there)
    warned = [(x.dataset, x.warnings) for x in lines] + [(x.dataset, x.warnings) for x in of_curves]
    notes = dict.fromkeys(note for named, warnings in warned for note in told_of_patients(named, warnings))
    shown = tuple(name for name in metrics if name in there)
    return ResultTable(tuple(lines), shown, tuple(unreadable), of_curves, tuple(notes))


def _read(folder: Path) -> tuple[list[Result], list[FewShotResult], list[str]]:
    where = folder / RESULTS if (folder / RESULTS).is_dir() else folder
    if where.name == CURVES and where.is_dir() and not (where / CURVES).is_dir():
        where = where.parent  # the curves' own folder: they are listed with the results above it
    if folder.is_file():
        raise InputError(f"{folder} is a file; name a cache, or the folder of its results.")
    if not where.is_dir():
        raise InputError(f"there is no folder {folder}; name a cache, or the folder of its results.")
    found, unreadable = [], []
    for path in sorted(where.iterdir()):
        if is_result_name(path.name):
            try:
                found.append(read_result(path))
            except EmbedcacheError as error:
                unreadable.append(str(error))
    curves, wrong = read_curves(where)
    return found, curves, [*unreadable, *wrong]


def _lines(result: Result, label: str | None) -> Iterator[ResultLine]:
    figures = {m.name: m for m in result.metrics if m.label == (label or MACRO)}
    if label is None:
        # what is of all classes together has no macro average, and a number neither
        figures |= {m.name: m for m in result.metrics if m.label in (ALL, result.task.name) and m.name not in figures}
    if figures:
        yield ResultLine(
            file=Path(result.path).name,
            dataset=dataset_of(result),
            backbone=result.source.get("backbone", ""),
            probe=result.probe,
            task=result.task.name,
            level=result.level,
            features=features_of(result.chosen),
            choice=choice_of(result),
            label=label or next(iter(figures.values())).label,
            test_samples=result.counts.get("test_samples", 0),
            test_patients=result.counts.get("test_patients", 0),
            figures=figures,
            warnings=result.warnings,
        )


def datasets_of(result: Result | FewShotResult) -> tuple[str, ...]:
    """The dataset that it was fitted on, and the one that it was tested on, if that is another store's."""
    source = result.source
    return (source.get("dataset", ""), *((source["test_dataset"],) if "test_dataset" in source else ()))


def dataset_of(result: Result | FewShotResult) -> str:
    """`nih-cxr14`, or `nih-cxr14 -> chexpert` of a result that was tested elsewhere."""
    return " -> ".join(datasets_of(result))


def features_of(chosen: Mapping[str, Any]) -> str:
    """`cls+mean of layer 12`."""
    layers = chosen.get("layers") or []
    where = f" of layer {','.join(str(n) for n in layers)}" if layers else ""
    return f"{chosen.get('features', '')}{where}"


def choice_of(result: Result) -> str:
    """The hyper-parameter that was chosen: `C = 0.0316`."""
    chosen = result.chosen
    # version 1 did not say which of what was chosen it is
    name = chosen.get("parameter") or next((name for name in ("C", "k") if name in chosen), None)
    return f"{name} = {chosen[name]:.3g}" if name else "as chosen on validation"
