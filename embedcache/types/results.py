"""What a probe found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embedcache.errors import InputError
from embedcache.types.tasks import Level, Task


@dataclass(frozen=True)
class Metric:
    """One figure with its 95% interval."""

    name: str
    """`auroc`, `r2`, `dice`: each figure, and what it means, stands in `docs/figures.md`."""
    label: str
    """The class it speaks of, or `macro`."""
    value: float | None
    """None where undefined (a class without both labels), which is left out of the macro average by name."""
    low: float | None
    high: float | None
    method: str
    """How the interval was made: `logit, clustered by patient`, `BCa over patients`."""
    n: int
    positives: int
    patients: int
    note: str = ""
    """`few patients`, `undefined: no positive`, …"""


@dataclass(frozen=True)
class Result:
    """What a probe found, and all that is needed to find it again."""

    probe: str
    inputs: Mapping[str, Any]
    """Store fingerprint, passes, plan, labels, split, configuration, version: their digest names the result."""
    task: Task
    level: Level
    chosen: Mapping[str, Any]
    """Hyper-parameters that validation chose."""
    metrics: tuple[Metric, ...]
    counts: Mapping[str, int]
    """Samples and patients in each part, and what was left out."""
    timings: Mapping[str, float]
    software: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)
    """`dataset`, `backbone` and `store`, for tables; {} in a result of version 1."""
    selection: Mapping[str, Any] = field(default_factory=dict)
    """The path of the hyper-parameter, by choice of features and of the refit: values, what validation scored each at, and
    what the solver tells of each."""
    path: str = ""
    """Where it was written; not part of the file."""

    def metric(self, name: str, label: str = "macro") -> Metric:
        """The figure called `name` for `label`."""
        for m in self.metrics:
            if m.name == name and m.label == label:
                return m
        raise InputError(f"the result has no {name} for {label!r}.")
