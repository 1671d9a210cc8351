"""Results as files: one JSON, named by the digest of what went in, with its predictions in Parquet beside it.

The JSON comes last, so a JSON that is there has its predictions. Timings and software are in the file and not in the
name: the same question asked again finds its answer.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from embedcache.errors import InputError, NewerFormatError
from embedcache.evaluation.predictions import Predictions, encode_predictions
from embedcache.evaluation.splits import encode_split
from embedcache.store.files import locked, replace_file
from embedcache.store.fingerprint import canonical, sha256
from embedcache.store.reader import FeatureCache
from embedcache.types import Metric, Result, Split, Task

FORMAT = "embedcache-result"
CURVE_FORMAT = "embedcache-few-shot"
"""Of a few-shot curve, which is a document of another kind beside the results."""
CURVES = "few-shot"
"""Folder of the curves below the results, and what stands for their probe where they are listed."""
VERSION = 2
"""2 adds `source` and `selection`, and patients and scores before refitting to the predictions; 1 is read."""
SPLITS = "splits"
"""Folder beside the results: each split that one was made with, by its digest, so that it can be made again."""
_DIGITS = 16
_NAME = re.compile(rf"[0-9a-f]{{{_DIGITS}}}(-[0-9]+)?\.json")


def result_digest(inputs: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of a result's inputs."""
    return sha256(canonical(dict(inputs)))


def encode_result(result: Result) -> str:
    """The canonical JSON text of a result; its path is left out."""
    document = {"format": FORMAT, "version": VERSION, **asdict(result), "task": result.task.document()}
    del document["path"]
    return json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def decode_result(text: str, name: str) -> Result:
    """The result in a JSON text; `name` is what messages call it. Raises InputError, NewerFormatError."""
    try:
        document = json.loads(text)
        stamp, version = document.pop("format"), int(document.pop("version"))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{name} is no result of embedcache: it names no format; run the probe again.") from error
    if stamp == CURVE_FORMAT:
        raise InputError(
            f"{name} is a few-shot curve, not the result of a probe: `embedcache results` lists curves, "
            "`embedcache few-shot STORES --figure FILE` draws them beside each other, `embedcache.read_curve` reads one."
        )
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


def source_of(cache: FeatureCache) -> dict[str, str]:
    """What a table calls the store: its dataset, its backbone, its name."""
    dataset = cache.root.dataset.name
    return {"dataset": dataset, "backbone": cache.path.parent.name, "store": cache.path.name}


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


def make_folder(folder: Path) -> None:
    """Make the folder of results. Raises InputError where there can be none; `writable.check_folder` asks before the fits."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        blocked = isinstance(error, FileExistsError | NotADirectoryError)
        why = "a file stands where a folder is needed" if blocked else error.strerror
        raise InputError(f"no results can be written to {folder} ({why}); give another folder.") from error


def write_result(
    result: Result, predictions: Predictions | bytes, folder: Path, force: bool = False, split: Split | None = None
) -> Result:
    """Write the split that it was made with, its predictions and the JSON, and return the result with its path.

    predictions: themselves, or as `encode_predictions` has them.
    If the result of these inputs is there it is returned as it stands; under `force` a new one is written as `-2`,
    `-3`… Nothing is ever overwritten.
    """
    make_folder(folder)
    with locked(folder / ".results.lock"):
        if not force and (there := find_result(result.inputs, folder)) is not None:
            return there
        stem = result_digest(result.inputs)[:_DIGITS]
        path, number = folder / f"{stem}.json", 1
        while path.exists():
            number += 1
            path = folder / f"{stem}-{number}.json"
        if split is not None and not (kept := kept_split(folder, result.inputs["split"])).exists():
            kept.parent.mkdir(exist_ok=True)
            replace_file(kept, encode_split(split))
        rows = predictions if isinstance(predictions, bytes) else encode_predictions(predictions)
        replace_file(path.with_suffix(".parquet"), rows)
        replace_file(path, encode_result(result).encode())
    return replace(result, path=str(path))


def kept_split(folder: Path, digest: str) -> Path:
    """Where the split of this digest lies beside the results of `folder`, if one was made with it."""
    return folder / SPLITS / f"{digest[:_DIGITS]}.csv"


def list_results(folder: str | Path) -> list[Result]:
    """All results in a folder, by name; [] if there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return [read_result(p) for p in sorted(folder.iterdir()) if is_result_name(p.name)]


def is_result_name(name: str) -> bool:
    """Whether a file of this name in a folder of results is a result."""
    return _NAME.fullmatch(name) is not None
