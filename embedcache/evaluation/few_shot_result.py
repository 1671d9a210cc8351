"""What a few-shot curve found, as a file: one JSON, named by the digest of what went in, and the draws in a CSV beside it.

They lie in `few-shot` below the results. The CSV has the columns of a split file (sample, patient, split, draw, seed), a row for
each sample that a seed draws for training: `draw` is the fewest shots that include it, so that the draw of n shots is all rows of
its seed with a `draw` of n or less. The test part is that of the split, which lies among the results' splits.
"""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embedcache.errors import InputError, NewerFormatError
from embedcache.evaluation.results import CURVE_FORMAT, CURVES, kept_split, make_folder, result_digest
from embedcache.evaluation.splits import COLUMNS, encode_split, split_digest
from embedcache.store.files import locked, replace_file
from embedcache.types import Split, Task

VERSION = 1
NOT_FEW_SHOT = "not few-shot"
"""What is said of a curve whose C was chosen on the whole validation part."""
_DIGITS = 16
DrawnSample = tuple[str, str, int, int | None]
"""Sample, patient, fewest shots, seed."""


@dataclass(frozen=True)
class CurveFigure:
    """Mean AUROC over the draws of one size, of one class or of all."""

    label: str
    """A class, or `macro`."""
    value: float | None
    """None where no draw defines it."""
    draws: int
    """Draws that define it."""
    draws_low: float | None
    """95% t interval of the mean over draws: how far other draws might move it. None of a single draw."""
    draws_high: float | None
    test_low: float | None
    """95% interval of the same mean over test patients, these draws given."""
    test_high: float | None
    note: str = ""


@dataclass(frozen=True)
class CurvePoint:
    """All draws of one size."""

    shots: int | None
    """Patients of each class; None is the whole training part."""
    seeds: tuple[int | None, ...]
    """Of each draw, and so is the order of what follows; None is a draw without chance."""
    patients: tuple[int, ...]
    """Who was drawn, each counted once."""
    rows: tuple[int, ...]
    overlaps: tuple[int, ...]
    """How often a patient was taken for a further class."""
    C: tuple[float, ...]
    auroc: tuple[float | None, ...]
    """Macro AUROC of each draw."""
    by_class: Mapping[str, tuple[float | None, ...]]
    """AUROC of each draw, by class."""
    figures: tuple[CurveFigure, ...]
    """`macro` first."""
    too_few: Mapping[str, int]
    """Classes with fewer patients than asked for, and how many were taken."""
    notes: tuple[str, ...]

    @property
    def macro(self) -> CurveFigure:
        """The figure of all classes."""
        return self.figures[0]


@dataclass(frozen=True)
class FewShotResult:
    """A curve, and all that is needed to find it again."""

    setting: str
    """`few-shot`; or `not few-shot: …`, where C was chosen on the whole validation part."""
    inputs: Mapping[str, Any]
    task: Task
    classes: tuple[str, ...]
    points: tuple[CurvePoint, ...]
    chosen: Mapping[str, Any]
    """Features, layers, how C came about, the split's name and seed, the preset."""
    counts: Mapping[str, int]
    warnings: tuple[str, ...]
    source: Mapping[str, str]
    timings: Mapping[str, float]
    software: Mapping[str, str]
    path: str = ""
    """Where it was written; not part of the file."""

    @property
    def is_few_shot(self) -> bool:
        """Whether nothing but the draws was fitted to."""
        return not self.setting.startswith(NOT_FEW_SHOT)


def encode_curve(result: FewShotResult) -> str:
    """The JSON text; its path is left out."""
    document = {"format": CURVE_FORMAT, "version": VERSION, **asdict(result), "task": result.task.document()}
    del document["path"]
    return json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def decode_curve(text: str, name: str) -> FewShotResult:
    """The curve in a JSON text; `name` is what messages call it. Raises InputError, NewerFormatError."""
    try:
        document = json.loads(text)
        stamp, version = document.pop("format"), document.pop("version")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{name} is no few-shot result of embedcache: it names no format.") from error
    if stamp != CURVE_FORMAT:
        raise InputError(f"{name} is no few-shot result of embedcache: its format is {stamp!r}.")
    if version > VERSION:
        raise NewerFormatError(
            f"{name} has version {version}, this embedcache reads up to {VERSION}; install a newer one."
        )
    try:
        task, points = document.pop("task"), document.pop("points")
        return FewShotResult(
            task=Task(**{**task, "classes": tuple(task["classes"]), "missing": tuple(task["missing"])}),
            classes=tuple(document.pop("classes")),
            points=tuple(_point(point) for point in points),
            warnings=tuple(document.pop("warnings")),
            **document,
        )
    except (TypeError, KeyError) as error:
        raise InputError(f"{name} is damaged: {error}; run `embedcache few-shot` again with --force.") from error


def _point(document: dict[str, Any]) -> CurvePoint:
    figures = tuple(CurveFigure(**figure) for figure in document.pop("figures"))
    by_class = {name: tuple(values) for name, values in document.pop("by_class").items()}
    kept: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
    }
    return CurvePoint(figures=figures, by_class=by_class, **kept)


def find_curve(inputs: Mapping[str, Any], folder: Path) -> FewShotResult | None:
    """The curve of these inputs below a folder of results; None if there is none."""
    digest = result_digest(inputs)
    path = folder / CURVES / f"{digest[:_DIGITS]}.json"
    if not path.exists():
        return None
    result = read_curve(path)
    if result_digest(result.inputs) != digest:
        raise InputError(f"{path.name} is the curve of other inputs than its name says; remove it, or use --force.")
    return result


def read_curve(path: Path) -> FewShotResult:
    """Read a curve's JSON. Raises InputError if it is none."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise InputError(f"there is no few-shot result {path.name}; `embedcache few-shot` writes one.") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise InputError(f"{path.name} is no few-shot result of embedcache: it is not a text file.") from error
    return replace(decode_curve(text, path.name), path=str(path))


def write_curve(
    result: FewShotResult, drawn: list[DrawnSample], folder: Path, split: Split, force: bool = False
) -> FewShotResult:
    """Write the split, the draws and last the JSON below `folder`; under `force` beside what is there, as `-2`, `-3`…"""
    place = folder / CURVES
    make_folder(place)
    with locked(folder / ".results.lock"):
        if not force and (there := find_curve(result.inputs, folder)) is not None:
            return there
        stem = result_digest(result.inputs)[:_DIGITS]
        path, number = place / f"{stem}.json", 1
        while path.exists():
            number += 1
            path = place / f"{stem}-{number}.json"
        if not (kept := kept_split(folder, split_digest(split))).exists():
            kept.parent.mkdir(exist_ok=True)
            replace_file(kept, encode_split(split))
        replace_file(path.with_suffix(".csv"), _encode_draws(drawn))
        replace_file(path, encode_curve(result).encode())
    return replace(result, path=str(path))


def _encode_draws(drawn: list[DrawnSample]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for sample, patient, shots, seed in drawn:
        writer.writerow([sample, patient, "train", shots, "" if seed is None else seed])
    return text.getvalue().encode()
