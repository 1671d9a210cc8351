"""Results as files: one JSON, named by the digest of what went in, with its predictions in Parquet beside it.

The JSON comes last, so a JSON that is there has its predictions. Timings and software are in the file and not in the
name: the same question asked again finds its answer.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedcache.errors import InputError, NewerFormatError
from embedcache.probes.base import Matrix
from embedcache.store.files import locked, replace_file
from embedcache.store.fingerprint import canonical, sha256
from embedcache.store.reader import FeatureCache
from embedcache.types import Metric, Result, StringArray, Task, strings

FORMAT = "embedcache-result"
VERSION = 1
_DIGITS = 16
_NAME = re.compile(rf"[0-9a-f]{{{_DIGITS}}}(-[0-9]+)?\.json")


@dataclass(frozen=True)
class Predictions:
    """Scores per row and class. Validation rows are scored by the model before refitting, test rows by the one after."""

    sample: StringArray
    """(n,): store ids."""
    slice: npt.NDArray[np.int32]
    """(n,): slice index, -1 where slices were pooled."""
    part: StringArray
    """(n,): `validation` or `test`."""
    classes: tuple[str, ...]
    label: Matrix
    """(n, n_classes) of 0, 1 and NaN for missing; one-hot for multiclass."""
    score: Matrix
    """(n, n_classes), NaN for a label that could not be fitted."""

    def take(self, mask: npt.NDArray[np.bool_]) -> "Predictions":
        """The rows of `mask`."""
        return Predictions(
            self.sample[mask], self.slice[mask], self.part[mask], self.classes, self.label[mask], self.score[mask]
        )


def result_digest(inputs: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of a result's inputs."""
    return sha256(canonical(dict(inputs)))


def encode_result(result: Result) -> str:
    """The canonical JSON text of a result; its path is left out."""
    document = {"format": FORMAT, "version": VERSION, **asdict(result)}
    del document["path"]
    return json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def decode_result(text: str, name: str) -> Result:
    """The result in a JSON text; `name` is what messages call it. Raises InputError, NewerFormatError."""
    try:
        document = json.loads(text)
        stamp, version = document.pop("format"), document.pop("version")
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{name} is no result of embedcache: it names no format; run the probe again.") from error
    if stamp != FORMAT:
        raise InputError(f"{name} is no result of embedcache: its format is {stamp!r}.")
    if version > VERSION:
        raise NewerFormatError(
            f"{name} has version {version}, this embedcache reads up to {VERSION}; install a newer one."
        )
    try:
        task = document.pop("task")
        return Result(
            task=Task(**{**task, "classes": tuple(task["classes"]), "missing": tuple(task["missing"])}),
            metrics=tuple(Metric(**m) for m in document.pop("metrics")),
            warnings=tuple(document.pop("warnings")),
            **document,
        )
    except (TypeError, KeyError) as error:
        raise InputError(f"{name} is damaged: {error}; run the probe again with --force.") from error


def read_result(path: Path) -> Result:
    """Read a result's JSON. Raises InputError if it is none."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise InputError(f"there is no result {path.name}; `embedcache probe` writes one.") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise InputError(f"{path.name} is no result of embedcache: it is not a text file.") from error
    return replace(decode_result(text, path.name), path=str(path))


def results_folder(cache: FeatureCache) -> Path:
    """`<cache>/results`, or `results` beside a store that lies in no cache."""
    return (cache.dataset_folder.parent if cache.dataset_folder is not None else cache.path.parent) / "results"


def find_result(inputs: Mapping[str, Any], folder: Path) -> Result | None:
    """The result of these inputs that `folder` holds, the first one if it was forced again; None if there is none."""
    digest = result_digest(inputs)
    path = folder / f"{digest[:_DIGITS]}.json"
    if not path.exists():
        return None
    result = read_result(path)
    if result_digest(result.inputs) != digest:
        raise InputError(f"{path.name} is the result of other inputs than its name says; remove it, or use --force.")
    return result


def write_result(result: Result, predictions: Predictions, folder: Path, force: bool = False) -> Result:
    """Write the JSON and its predictions, and return the result with its path.

    If the result of these inputs is there it is returned as it stands; under `force` a new one is written as `-2`,
    `-3`… Nothing is ever overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".results.lock"):
        if not force and (there := find_result(result.inputs, folder)) is not None:
            return there
        stem = result_digest(result.inputs)[:_DIGITS]
        path, number = folder / f"{stem}.json", 1
        while path.exists():
            number += 1
            path = folder / f"{stem}-{number}.json"
        replace_file(path.with_suffix(".parquet"), _encode_predictions(predictions))
        replace_file(path, encode_result(result).encode())
    return replace(result, path=str(path))


def list_results(folder: Path) -> list[Result]:
    """All results in a folder, by name; [] if there is no such folder."""
    if not folder.is_dir():
        return []
    return [read_result(p) for p in sorted(folder.iterdir()) if _NAME.fullmatch(p.name)]


def read_predictions(result: Result) -> Predictions:
    """The predictions beside a result that was written or read."""
    path = Path(result.path).with_suffix(".parquet")
    if not result.path or not path.exists():
        raise InputError(
            f"there are no predictions beside {Path(result.path).name or 'this result'}; run it with --force."
        )
    table = pq.ParquetFile(path).read()
    classes = tuple(dict.fromkeys(table["class"].to_pylist()))
    shape = (-1, len(classes))

    def matrix(column: str) -> Matrix:
        values = table[column].to_numpy(zero_copy_only=False).astype(np.float64)
        result: Matrix = values.reshape(shape)
        return result

    rows = table.take(np.arange(0, len(table), len(classes)))
    return Predictions(
        strings(rows["sample"].to_pylist()),
        rows["slice"].to_numpy().astype(np.int32),
        strings(rows["part"].to_pylist()),
        classes,
        matrix("label"),
        matrix("score"),
    )


def _encode_predictions(predictions: Predictions) -> bytes:
    """Long rows: one per prediction and class, in order."""
    n, wide = predictions.score.shape
    each = np.repeat(np.arange(n), wide)
    label, score = predictions.label.ravel(), predictions.score.ravel()
    table = pa.table(
        {
            "sample": pa.array(predictions.sample[each].tolist(), pa.string()),
            "slice": pa.array(predictions.slice[each], pa.int32()),
            "part": pa.array(predictions.part[each].tolist(), pa.string()),
            "class": pa.array(list(predictions.classes) * n, pa.string()),
            "label": pa.array(label, pa.float64(), mask=np.isnan(label)),
            "score": pa.array(score, pa.float64(), mask=np.isnan(score)),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data
