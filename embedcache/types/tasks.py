"""What is asked: tasks, their labels, and who trains and who tests."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, UnknownNameError, suggest
from embedcache.types.columns import StringArray, Texts

TaskKind = Literal["binary", "multilabel", "multiclass", "numeric", "segmentation"]
Level = Literal["patient", "study", "sample", "slice"]
Part = Literal["train", "validation", "test"]

PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class Task:
    """A question with labels."""

    name: str
    kind: TaskKind
    classes: tuple[str, ...]
    """Binary: (the positive's name,). Multilabel: one per finding. Multiclass: all. Numeric: ()."""
    level: Level = "sample"
    positive: str | None = None
    """Binary: which value of the column counts as 1."""
    missing: tuple[str, ...] = ("",)
    """Values of the column that mean: not known."""
    column: str = ""
    """Where it came from, for `labels show`."""
    negative: str | None = field(default=None, compare=False)
    """Binary: the one other value of the column, as groups are named by; None where there are several, or none but no. A task
    is the same with and without it, and no digest knows it."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(TaskKind):
            raise InputError(f"task {self.name!r}: kind must be one of {get_args(TaskKind)}. Got {self.kind!r}.")
        if self.kind == "binary" and len(self.classes) != 1:
            raise InputError(f"task {self.name!r}: a binary task has one class, its positive. Got {self.classes}.")
        if self.kind == "multiclass" and len(self.classes) < 2:
            raise InputError(f"task {self.name!r}: a multiclass task needs two classes. Got {self.classes}.")

    @property
    def values(self) -> tuple[str, ...]:
        """What its labels are called, by their numbers: of a binary task the negative first."""
        if self.kind != "binary":
            return self.classes
        return (self.negative if self.negative is not None else f"not {self.classes[0]}", self.classes[0])

    def document(self) -> dict[str, Any]:
        """Its definition as files and digests have it."""
        return {name: value for name, value in asdict(self).items() if name != "negative"}


@dataclass(frozen=True)
class Labels:
    """What a dataset says of its samples, one row per (task, sample or slice or patient, class).

    `value`: 1 or 0 for binary and multilabel, NaN for missing; 1 on the row of the true class for multiclass; the
    number itself for numeric. A sample without any label has one row whose task is "", for its split.
    """

    tasks: tuple[Task, ...]
    task: Texts
    sample: Texts
    """Store ids; "" in the rows of a patient-level task."""
    patient: Texts
    slice: npt.NDArray[np.int32]
    """slice_index for a slice-level task, -1 elsewhere."""
    klass: Texts
    value: npt.NDArray[np.float64]
    split: Texts

    def get(self, name: str) -> Task:
        """The task called `name`."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise unknown_task(name, [t.name for t in self.tasks])


def unknown_task(name: str, known: Iterable[str], kind: str = "task") -> UnknownNameError:
    """The error for a task that is not in `known`, and where a user reads why a column of a table became none."""
    return UnknownNameError(f"{suggest(kind, name, known)} Why a column is no label: `embedcache labels show TABLE`.")


@dataclass(frozen=True)
class Split:
    """Which samples train, validate and test. A patient is in one part only."""

    sample: StringArray
    patient: StringArray
    part: StringArray
    draw: int = 0
    seed: int | None = None
    name: str = ""
    drawn: tuple[str, ...] = ()
    """Parts that a draw for this job decided, training among them; () where all are given, by a file or by the labels."""
