"""`probe --like RESULT`: a recorded probe as a configuration, run again, and what differs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.errors import InputError
from embedcache.evaluation.clock import Progress
from embedcache.evaluation.patch_question import PROBE as PATCH_PROBE
from embedcache.evaluation.planes import find_planes
from embedcache.evaluation.predictions import Predictions, read_predictions
from embedcache.evaluation.probe import answer
from embedcache.evaluation.question import ProbeConfig, ask
from embedcache.evaluation.results import kept_split, read_result, result_digest, results_folder, write_result
from embedcache.evaluation.writable import check_folder
from embedcache.store.reader import FeatureCache
from embedcache.types import Result

_DIGEST_SHOWN = 12


@dataclass(frozen=True)
class ResultDifference:
    """One thing in which a repetition is not the recorded result."""

    name: str
    """`labels`, `config.C`, `auroc of Effusion`, `numpy`."""
    recorded: str
    now: str


@dataclass(frozen=True)
class Repetition:
    """A recorded result, the one made now, and what differs between them."""

    recorded: Result
    now: Result
    """With the path of its file; the recorded one's, where the same was asked and nothing was written."""
    inputs: tuple[ResultDifference, ...]
    """What went in: (), if the same was asked of the same."""
    figures: tuple[ResultDifference, ...]
    """What came out: the choice, the figures and their intervals, to the last digit."""
    software: tuple[ResultDifference, ...]
    largest_change: float | None
    """Of any score of a test row; None where the rows are not the same."""


def repeat_probe(
    recorded: str | Path,
    store: str | Path | None = None,
    *,
    labels: str | Path | None = None,
    split: str | Path | None = None,
    test_store: str | Path | None = None,
    test_labels: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Repetition:
    """Ask again what the result in the file `recorded` was asked, on the same store or on another one.

    store: None looks for the recorded store in the cache that the results lie in; `test_store` likewise, of a result that was
    tested elsewhere. labels, split: files in place of those that
    were used; the recorded split lies beside the results. The answer is computed anew; it is written if something else went
    in, or under `force`. Raises InputError, StoreError.
    """
    then = read_result(Path(recorded))
    config = config_of(then, store, labels, split, test_store, test_labels)
    question = ask(config)
    folder = results_folder(question.cache)
    if writes := force or result_digest(question.inputs) != result_digest(then.inputs):
        check_folder(folder, "make it writable, or repeat what was asked without --force, which writes nothing.")
    found = answer(question, config, progress)
    now = found.result
    predictions = read_predictions(then)  # before anything is written
    if writes:
        now = write_result(now, found.encoded, folder, force, question.split)
    return Repetition(
        then,
        now,
        tuple(_differences(_flat(then.inputs), _flat(now.inputs))),
        tuple(_differences(_figures(then), _figures(now))),
        tuple(_differences(dict(then.software), dict(now.software))),
        _largest_change(predictions, found.predictions),
    )


def config_of(
    result: Result,
    store: str | Path | None = None,
    labels: str | Path | None = None,
    split: str | Path | None = None,
    test_store: str | Path | None = None,
    test_labels: str | Path | None = None,
) -> ProbeConfig:
    """The configuration that a result records. Raises InputError where it can not be told from the result."""
    if test_store is None and "test_store" in result.source:
        test_store = find_test_store(result)
    name = Path(result.path).name
    if result.probe == PATCH_PROBE:
        raise InputError(f"{name} is of {PATCH_PROBE}, whose masks a result does not name; run that command again.")
    asked = result.inputs["config"]
    choices, layers = asked["features"], asked["layers"]
    several = any(isinstance(of_choice, list) for of_choice in layers)
    kept = kept_split(Path(result.path).parent, result.inputs["split"])
    if split is None and not kept.exists():
        raise InputError(f"the split of {name} does not lie beside it; give it with --split FILE.")
    fitted = Path(store) if store is not None else find_store(result)
    return ProbeConfig(
        probe=result.probe,
        store=fitted,
        task=asked["task"],
        features=choices[0] if len(choices) == 1 else "auto",
        layers="auto" if several else "last" if choices == ["pooled"] else tuple(layers) or "last",
        views=len(result.inputs.get("views", ())),
        pool=asked["pool"],
        pool_by=asked.get("pool_by"),
        planes=find_planes(result, fitted),
        strict_volumes=asked["strict_volumes"],
        standardize=asked["standardize"],
        labels=Path(labels) if labels is not None else None,
        split=Path(split) if split is not None else kept,
        seed=asked["seed"],
        test_store=test_store,
        test_labels=Path(test_labels) if test_labels is not None else None,
        classes=tuple(asked["classes"]) if result.task.kind == "multilabel" else None,
        options={name: tuple(v) if isinstance(v, list) else v for name, v in asked["options"].items()},
        select=asked.get("select", "validation"),
        resamples=asked["resamples"],
    )


def find_store(result: Result) -> Path:
    """The store of a result: in the cache whose folder of results it lies in, or beside that folder."""
    name = result.source.get("store") or f"{result.inputs['store'][:_DIGEST_SHOWN]}.zarr"
    return _find(result, name, result.source.get("dataset"), "--store")


def find_test_store(result: Result) -> Path:
    """The store whose rows a result tested: another one than the fitted, if it was tested elsewhere."""
    if "test_store" not in result.source:
        return find_store(result)
    return _find(result, result.source["test_store"], result.source["test_dataset"], "--test")


def _find(result: Result, name: str, dataset: str | None, switch: str) -> Path:
    above = Path(result.path).absolute().parent.parent
    found = sorted([*above.glob(name), *above.glob(f"*/*/{name}")])
    if len(found) > 1 and dataset:  # stores of one recipe bear one name, each in the folder of its dataset
        of_backbone = [path for path in found if path.parent.name == result.source["backbone"]]
        # an unfinished one of another dataset stands in nobody's way
        stores = [(path, FeatureCache.open(path, allow_partial=True)) for path in of_backbone]
        found = [path for path, store in stores if store.root.dataset.name == dataset]
    if len(found) != 1:
        raise InputError(
            f"{len(found)} stores called {name} lie beside {Path(result.path).name} or in its cache; name one with {switch}."
        )
    return found[0]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    pairs: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs |= _flat(value, f"{prefix}{name}.")
        else:
            is_digest = isinstance(value, str) and len(value) == 64
            pairs[prefix + name] = str(value)[:_DIGEST_SHOWN] if is_digest else str(value)
    return pairs


def _figures(result: Result) -> dict[str, str]:
    """Choices and figures as text; how well validation judged the choice is one of them."""
    # how a split came about is not found, and the same split may be given as a file; its digest is among the inputs
    chosen = {f"chosen {name}": str(v) for name, v in result.chosen.items() if name not in ("split", "split_seed")}
    figures = {f"{m.name} of {m.label}": _interval(m.value, m.low, m.high) for m in result.metrics}
    counts = {f"count {name}": str(value) for name, value in result.counts.items()}
    return chosen | figures | counts


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    """To the digit at which two computers may differ without meaning it: nine places."""
    if value is None:
        return "undefined"
    return f"{value:.9f}" + (f" ({low:.9f} to {high:.9f})" if low is not None and high is not None else "")


def _differences(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[ResultDifference]:
    for name in dict.fromkeys((*then, *now)):
        if then.get(name) != now.get(name):
            yield ResultDifference(name, then.get(name, "absent"), now.get(name, "absent"))


def _largest_change(then: Predictions, now: Predictions) -> float | None:
    """Over the test rows; None where they are others."""
    a, b = then.of("test"), now.of("test")
    same = a.classes == b.classes and len(a.sample) == len(b.sample)
    if not (same and (a.sample == b.sample).all() and (a.slice == b.slice).all()):
        return None
    change = np.abs(a.score - b.score)
    return float(np.nanmax(change)) if np.isfinite(change).any() else 0.0
