"""`subgroups RESULT --by COLUMN`: a result's figures for each value of a column (sex, age band, scanner, site, view)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, suggest
from embedcache.evaluation.label_files import find_labels
from embedcache.evaluation.measured import read_measured
from embedcache.evaluation.predictions import Predictions
from embedcache.evaluation.repeat import find_test_store
from embedcache.evaluation.subgroups import Difference, Subgroup, auroc_differences, subgroups
from embedcache.store.features import join
from embedcache.store.reader import FeatureCache
from embedcache.types import Labels


@dataclass(frozen=True)
class SubgroupTable:
    """A result by the values of a column."""

    result: str
    """Name of the result's JSON."""
    column: str
    groups: tuple[Subgroup, ...]
    differences: tuple[Difference, ...]
    """Whether AUROC differs between the groups, by label; () for numbers."""


def measure_subgroups(
    result: str | Path,
    by: str,
    *,
    store: str | Path | None = None,
    labels: str | Path | None = None,
    join_on: str | None = None,
    edges: tuple[float, ...] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> SubgroupTable:
    """Measure the test rows of a result (its JSON) apart for each value of the column `by`.

    The column is a binary, multiclass or numeric task of the labels beside the store, or of `labels` (a table of the user's own,
    joined on `join_on`); store: that of the test rows, None looks where the result lies. edges: where to cut a numeric column,
    else tens. Thresholds stay those of the whole result. Raises InputError, StoreError.
    """
    read = read_measured(result)
    cache = FeatureCache.open(store if store is not None else find_test_store(read.result))
    known = find_labels(cache, Path(labels) if labels is not None else None, join_on)
    test = read.test
    column = column_values(known, by, test)
    found = subgroups(
        test.label,
        test.score,
        test.patient,
        column,
        read.kind,
        test.classes,
        read.threshold,
        edges=edges,
        score_name=read.score_name,
        before=read.before,
        resamples=resamples,
        seed=seed,
    )
    apart = () if read.kind == "numeric" else auroc_differences(
        test.label, test.score, test.patient, column, test.classes, edges=edges
    )  # fmt: skip
    return SubgroupTable(read.file, by, found, apart)


def columns_of(labels: Labels) -> list[str]:
    """By which rows may stand apart: the tasks with one value for each."""
    return [task.name for task in labels.tasks if task.kind in ("binary", "multiclass", "numeric")]


def column_values(labels: Labels, by: str, rows: Predictions) -> npt.NDArray[Any]:
    """(n,): the value of task `by` for each row: text, "" where it is missing, or numbers, NaN where missing."""
    usable = columns_of(labels)
    if by not in usable:
        raise suggest("column of the labels", by, usable)
    task = labels.get(by)
    y = join(labels, task, rows.sample, rows.patient, rows.slice)
    if task.kind == "numeric":
        return y
    names = (f"not {task.classes[0]}", task.classes[0]) if task.kind == "binary" else task.classes
    if np.isnan(y).all():
        raise InputError(
            f"no row of the test part has a value of {by!r}; give a table that has one with --labels FILE."
        )
    return np.array([names[int(v)] if v == v else "" for v in y.tolist()])
