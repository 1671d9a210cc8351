"""Fitted here, tested elsewhere: a second store of the same recipe, all of whose labelled samples are the test part.

Only what is needed to refuse or to go on is read before the choice is made: the second store's recipe, arrays, ids and
which classes its task has. Its labels and features are joined after the choice; see `probe.answer`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, StoreError
from embedcache.evaluation.label_files import find_labels
from embedcache.probes.base import Matrix
from embedcache.store.catalog import find_stores
from embedcache.store.fingerprint import recipe_document
from embedcache.store.reader import FeatureCache
from embedcache.types import Labels, Split, StringArray, Task

_SHOWN = 60
"""Characters of a value that a message shows."""


@dataclass(frozen=True)
class Elsewhere:
    """Where the test rows come from, settled before any feature was read."""

    cache: FeatureCache
    labels: Labels
    task: Task
    """As the second store's labels have it: its classes may be others, in another order."""
    samples: StringArray
    """Those that may test: current ones, of no patient that trains or validates."""
    asked: npt.NDArray[np.int64]
    """Columns of the first store's task that are asked for: of a multilabel task those that both have."""
    trained_samples: int
    """Left out, since their patients train or validate."""
    trained_patients: int
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the second dataset."""
        return self.cache.root.dataset.name

    def y(self, y: Matrix, trained: Task) -> Matrix:
        """The second store's y in the columns (multilabel) or class numbers (multiclass) of the `trained` task.

        NaN for a class that was not trained.
        """
        if trained.kind == "multilabel":
            place = [self.task.classes.index(trained.classes[j]) for j in self.asked.tolist()]
            columns: Matrix = y[:, place]
            return columns
        if trained.kind == "multiclass":
            number = [trained.classes.index(c) if c in trained.classes else np.nan for c in self.task.classes]
            known = ~np.isnan(y)
            renumbered = np.full(len(y), np.nan)
            renumbered[known] = np.array(number)[y[known].astype(np.int64)]
            return renumbered
        return y


def meet(
    cache: FeatureCache,
    task: Task,
    columns: npt.NDArray[np.int64],
    split: Split,
    store: Path | str,
    labels: Path | None,
) -> Elsewhere:
    """Open the second store and hold it against the first: same recipe, a task of the same name, kind, level and classes.

    columns: of the task's classes, those that are asked for. labels: of the second store, if not those beside it. Raises
    InputError that says what differs, field by field.
    """
    other = open_alike(cache, store)
    known = find_labels(other, labels)
    theirs = _task_alike(task, known, other)
    asked, notes = _shared_classes(task, theirs, columns, other)
    samples, trained, patients, told = _apart(cache, other, split)
    return Elsewhere(other, known, theirs, samples, asked, trained, patients, (*notes, *told))


def open_alike(cache: FeatureCache, store: Path | str) -> FeatureCache:
    """The second store: `store` itself, or the one below it (a dataset's folder) that has the recipe of `cache`."""
    paths = find_stores(store)
    if not paths:
        raise InputError(f"there is no store at or below {store}; `embedcache ls CACHE` lists the stores of a cache.")
    if len(paths) > 1:
        alike = [path for path in paths if _fingerprint(path) == cache.fingerprint]
        if len(alike) != 1:
            raise InputError(
                f"{len(alike)} of the {len(paths)} stores below {store} have the recipe of {cache.path.name}; name one store."
            )
        paths = alike
    other = FeatureCache.open(paths[0])
    if other.fingerprint != cache.fingerprint:
        apart = "; ".join(_differences(recipe_document(cache.recipe), recipe_document(other.recipe)))
        raise InputError(
            f"{other.path.name} has another recipe than {cache.path.name}, so its tokens are no test of what is fitted there: "
            f"{apart}; extract it with the same options."
        )
    return other


def _fingerprint(path: Path) -> str:
    """Of a store that can be read; "" of another."""
    try:
        return FeatureCache.open(path).fingerprint
    except StoreError:
        return ""


def _differences(here: Mapping[str, Any], there: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`image.size is [224, 224] here and [112, 112] there`, for each field that differs."""
    found = []
    for name in sorted({*here, *there}):
        a, b = here.get(name), there.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append(f"{prefix}{name} is {_shown(a)} in the first and {_shown(b)} in the second")
    return found


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:12]}…"


def _task_alike(task: Task, labels: Labels, other: FeatureCache) -> Task:
    names = [t.name for t in labels.tasks]
    if task.name not in names:
        raise InputError(
            f"the labels of {other.root.dataset.name} hold no task {task.name!r}, which is fitted; "
            f"there is: {', '.join(names) or 'nothing'}."
        )
    theirs = labels.get(task.name)
    for what, a, b in (("kind", task.kind, theirs.kind), ("level", task.level, theirs.level)):
        if a != b:
            raise InputError(
                f"task {task.name!r} has {what} {a} where it is fitted and {what} {b} in {other.root.dataset.name}, "
                "so one can not test the other."
            )
    return theirs


def _shared_classes(
    task: Task, theirs: Task, columns: npt.NDArray[np.int64], other: FeatureCache
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The columns that both have (multilabel) or all that are asked for; and what is to be said of those that one lacks."""
    asked = [task.classes[j] for j in columns.tolist()] if task.classes else []
    shared = [c for c in asked if c in theirs.classes]
    fewest = 2 if task.kind == "multiclass" else 1
    if task.kind != "numeric" and len(shared) < fewest:
        raise InputError(
            f"task {task.name!r} has classes {', '.join(asked)} where it is fitted and {', '.join(theirs.classes)} in "
            f"{other.root.dataset.name}: {len(shared)} in both, and it takes {fewest} at least."
        )
    notes = []
    if missing := [c for c in asked if c not in shared]:
        fate = "left out" if task.kind == "multilabel" else "fitted, and undefined in the test"
        notes.append(f"not among the classes of {other.root.dataset.name}, so {fate}: {', '.join(missing)}.")
    if task.kind == "multiclass" and (unknown := [c for c in theirs.classes if c not in asked]):
        notes.append(f"classes of {other.root.dataset.name} that were not fitted, rows left out: {', '.join(unknown)}.")
    if task.kind == "multilabel":
        columns = np.array([j for j in columns.tolist() if task.classes[j] in shared], dtype=np.int64)
    return columns, notes


def _apart(cache: FeatureCache, other: FeatureCache, split: Split) -> tuple[StringArray, int, int, list[str]]:
    """Samples of no patient that trains or validates; how many samples and patients that leaves out; what is to be said."""
    samples = other.samples()
    usable = ~samples.superseded
    if not _same_names(cache, other):
        return samples.id[usable], 0, 0, [
            f"{cache.root.dataset.name} and {other.root.dataset.name} name patients each in its own way, so whether one is in "
            "both can not be seen."
        ]  # fmt: skip
    fitted = set(split.patient[split.part != "test"].tolist())
    trained = np.fromiter((p in fitted for p in samples.patient_id.tolist()), np.bool_, len(samples)) & usable
    patients = len(set(samples.patient_id[trained].tolist()))
    if not (usable & ~trained).any():
        raise InputError(
            f"each patient of {other.path.name} ({other.root.dataset.name}) trains or validates too, so nobody is left to test."
        )
    return samples.id[usable & ~trained], int(trained.sum()), patients, []


def _same_names(cache: FeatureCache, other: FeatureCache) -> bool:
    """Whether equal ids of patients mean one patient, and unequal ones two.

    A pseudonym is made of the dataset's name too, and a public dataset has ids of its own; ids that were kept are the user's.
    """
    a, b = cache.root, other.root
    if a.id_scheme != b.id_scheme:
        return False
    if a.id_scheme == "kept":
        return True
    return a.dataset.name == b.dataset.name and a.key_id == b.key_id
