"""What a written result was measured with, for those who measure its test rows again: subgroups and comparisons."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from embedcache.errors import InputError
from embedcache.evaluation.predictions import Predictions, read_predictions
from embedcache.evaluation.results import read_result
from embedcache.evaluation.thresholds import WITHOUT, BeforeRefit
from embedcache.probes.base import ProbeKind
from embedcache.types import Result


@dataclass(frozen=True)
class Tested:
    """A result with its test rows, in the order of sample and slice."""

    result: Result
    test: Predictions

    @property
    def file(self) -> str:
        """Name of the result's JSON."""
        return Path(self.result.path).name


@dataclass(frozen=True)
class Measured(Tested):
    """The same of classes or numbers, with what their scores mean."""

    kind: ProbeKind
    threshold: float
    """The probe's own, above which a score says positive."""
    score_name: str
    before: BeforeRefit
    """What thresholds came from."""


def read_measured(path: str | Path) -> Measured:
    """The result in a JSON and its predictions. Raises InputError where its rows can not be measured again."""
    result = read_result(Path(path))
    name = Path(result.path).name
    kinds = [kind for kind in get_args(ProbeKind) if kind == result.task.kind]
    if not kinds:
        raise InputError(
            f"{name} is of a {result.task.kind} task; only results of classes and of numbers are measured again."
        )
    lacking = [key for key in ("threshold", "scores_are") if key not in result.chosen]
    if lacking:
        raise InputError(
            f"{name} does not say what it chose as {' and '.join(lacking)}, so it can not be measured again; run the probe "
            "again with --force."
        )
    predictions = read_predictions(result)
    test, validation = _test_rows(predictions, name), predictions.of("validation")
    without = WITHOUT.get(result.inputs["config"].get("select", ""), "")
    before = BeforeRefit(validation.label, validation.score, test.before, without)
    return Measured(result, test, kinds[0], result.chosen["threshold"], result.chosen["scores_are"], before)


def read_tested(result: Result) -> Tested:
    """A result of any task that was read, with its test rows: of a segmentation the Dice of each sample and class."""
    if result.task.kind == "segmentation":
        return Tested(result, _test_rows(read_predictions(result), Path(result.path).name))
    return read_measured(result.path)


def _test_rows(predictions: Predictions, name: str) -> Predictions:
    test = predictions.of("test")
    if (test.patient == "").any():
        raise InputError(f"{name} does not say whose rows it tested; run the probe again with --force.")
    return test.take(np.lexsort((test.slice, np.array(test.sample.tolist()))).astype(np.int64))


def titles_of(results: list[Result]) -> tuple[str, ...]:
    """What tells results apart: backbone, probe, what it was fitted on, features, layers, split and file, as many of those that
    differ as it takes."""
    told = [
        (
            r.source.get("backbone", ""),
            r.probe,
            f"fitted on {r.source.get('dataset', '')}",
            r.chosen.get("features", ""),
            "layer " + ",".join(str(n) for n in r.chosen.get("layers", [])),
            f"split {r.inputs['split'][:8]}",
            Path(r.path).stem,
        )
        for r in results
    ]
    differing = [i for i in range(len(told[0])) if len({words[i] for words in told}) > 1]
    for count in range(1, len(differing) + 1):
        titles = tuple(", ".join(words[i] for i in differing[:count]) for words in told)
        if len(set(titles)) == len(results):
            return titles
    return tuple(Path(r.path).stem for r in results)
