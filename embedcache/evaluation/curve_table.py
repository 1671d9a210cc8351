"""The few-shot curves of a folder, one line each: what `embedcache results` lists below the results of probes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from embedcache.errors import EmbedcacheError
from embedcache.evaluation.few_shot_result import CurveFigure, FewShotResult, read_curve
from embedcache.evaluation.results import CURVES, is_result_name


@dataclass(frozen=True)
class CurveLine:
    """One curve in a table."""

    file: str
    """Name of the JSON, below the folder of results."""
    setting: str
    """`few-shot`; or `not few-shot: …`."""
    dataset: str
    backbone: str
    task: str
    features: str
    C: str
    """How it came about: `fixed at 1`."""
    label: str
    """The class whose figures these are, or `macro`."""
    draws: int
    """Of each size."""
    test_samples: int
    test_patients: int
    figures: Mapping[str, CurveFigure]
    """AUROC by patients of each class (`1`, `2`, …), and of `all` training patients."""
    warnings: tuple[str, ...]


def read_curves(folder: Path) -> tuple[list[FewShotResult], list[str]]:
    """The curves below a folder of results, by name; and what is wrong with those that can not be read."""
    found, unreadable = [], []
    for path in sorted((folder / CURVES).glob("*.json")):
        if is_result_name(path.name):
            try:
                found.append(read_curve(path))
            except EmbedcacheError as error:
                unreadable.append(str(error))
    return found, unreadable


def curve_lines(curves: Iterable[FewShotResult], label: str) -> tuple[CurveLine, ...]:
    """A line for each curve that has a figure of the class `label`, in the order of dataset, task, backbone and features."""
    lines = [
        CurveLine(
            file=f"{CURVES}/{Path(curve.path).name}",
            setting=curve.setting,
            dataset=curve.source.get("dataset", ""),
            backbone=curve.source.get("backbone", ""),
            task=curve.task.name,
            features=_features(curve),
            C=str(curve.chosen["C"]),
            label=label,
            draws=max(len(point.seeds) for point in curve.points),
            test_samples=curve.counts["test_samples"],
            test_patients=curve.counts["test_patients"],
            figures=figures,
            warnings=curve.warnings,
        )
        for curve in curves
        if (figures := _figures(curve, label))
    ]
    return tuple(sorted(lines, key=lambda x: (x.dataset, x.task, x.backbone, x.features, x.file)))


def _figures(curve: FewShotResult, label: str) -> dict[str, CurveFigure]:
    return {
        "all" if point.shots is None else str(point.shots): figure
        for point in curve.points
        for figure in point.figures
        if figure.label == label
    }


def _features(curve: FewShotResult) -> str:
    layers = curve.chosen["layers"]
    return str(curve.chosen["features"]) + (f" of layer {','.join(str(n) for n in layers)}" if layers else "")
