"""`subgroups RESULT --by COLUMN`: a result's figures for each value of a column (sex, age band, scanner, site, view).

A row that is pooled over samples (a patient, a study) has the value on which they agree; one whose samples differ is in no group.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, UnknownNameError, suggest
from embedcache.evaluation.label_files import find_labels
from embedcache.evaluation.measured import Measured, read_measured
from embedcache.evaluation.predictions import Predictions
from embedcache.evaluation.reading import unit_numbers, units_digest
from embedcache.evaluation.repeat import find_test_store
from embedcache.evaluation.results import kept_split
from embedcache.evaluation.splits import read_split
from embedcache.evaluation.subgroups import Difference, Subgroup, auroc_differences, subgroups
from embedcache.probes.base import Matrix
from embedcache.store.features import join
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import locate
from embedcache.types import IntArray, Labels, Task, strings


@dataclass(frozen=True)
class SubgroupTable:
    """A result by the values of a column."""

    result: str
    """Name of the result's JSON."""
    column: str
    groups: tuple[Subgroup, ...]
    differences: tuple[Difference, ...]
    """Whether AUROC differs between the groups, by label; () for numbers."""
    left_out: int = 0
    """Rows that are in no group: they are pooled over samples that differ in the column."""
    notes: tuple[str, ...] = ()
    """What is to be said of it."""


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
    file = Path(labels) if labels is not None else None
    known = find_labels(cache, file, join_on)
    test, before = read.test, read.before
    task, y = column_values(known, by, test)
    left_out = 0
    notes: tuple[str, ...] = ()
    pooled_by = read.result.inputs["config"].get("pool_by")
    if pooled_by not in (None, "sample"):
        y, differ = _agreed(read, cache, task, known, _units_of(read, cache, pooled_by, known, file, join_on))
        left_out, notes = int(differ.sum()), _told(differ, pooled_by, by)
        test, before, y = test.take(~differ), replace(before, test_scores=before.test_scores[~differ]), y[~differ]
    column = _named(task, y)
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
        before=before,
        resamples=resamples,
        seed=seed,
    )
    apart = () if read.kind == "numeric" else auroc_differences(
        test.label, test.score, test.patient, column, test.classes, edges=edges
    )  # fmt: skip
    return SubgroupTable(read.file, by, found, apart, left_out, notes)


def column_values(labels: Labels, by: str, rows: Predictions) -> tuple[Task, Matrix]:
    """The task `by`, and (n,) its number for each row, NaN where missing. Raises UnknownNameError where there is none."""
    usable = [task.name for task in labels.tasks if task.kind in ("binary", "multiclass", "numeric")]
    if by not in usable:
        raise suggest("column of the labels", by, usable)
    task = labels.get(by)
    return task, join(labels, task, rows.sample, rows.patient, rows.slice)


def _named(task: Task, y: Matrix) -> npt.NDArray[Any]:
    """(n,): the values themselves: text, "" where it is missing, or numbers, NaN where missing."""
    if task.kind == "numeric":
        return y
    names = (f"not {task.classes[0]}", task.classes[0]) if task.kind == "binary" else task.classes
    if np.isnan(y).all():
        raise InputError(
            f"no row of the test part has a value of {task.name!r}; give a table that has one with --labels FILE."
        )
    return np.array([names[int(v)] if v == v else "" for v in y.tolist()])


# --- rows that are pooled over samples --------------------------------------------------------------


def _units_of(
    read: Measured, cache: FeatureCache, pooled_by: str, known: Labels, table: Path | None, join_on: str | None
) -> IntArray:
    """(samples,): the unit of each sample of the store, as it was when the result was made.

    The labels that hold the column tell it, or those beside the store. Raises InputError where neither does.
    """
    if pooled_by == "patient":
        return unit_numbers(cache, known, pooled_by)
    recorded = read.result.inputs.get("elsewhere", read.result.inputs)["units"]
    beside = [cache.labels()] if table is not None and cache.dataset_folder is not None else []
    for labels, file, on in ((known, table, join_on), *((labels, None, None) for labels in beside)):
        try:
            units = unit_numbers(cache, labels, pooled_by, file, on)
        except UnknownNameError:  # these do not know that column
            continue
        if units_digest(units) == recorded:
            return units
    raise InputError(
        f"{read.file} was pooled by {pooled_by!r}, and no labels here say which samples were together then; give a table that "
        "has both columns with --labels FILE, or run the probe again."
    )


def _agreed(
    read: Measured, cache: FeatureCache, task: Task, known: Labels, units: IntArray
) -> tuple[Matrix, npt.NDArray[np.bool_]]:
    """(n,) each: the value of a test row's samples, NaN where none has one, and whether they have different ones."""
    samples, rows = cache.samples(), strings(read.test.sample.tolist())
    at = locate(rows, samples.id)
    if (at < 0).any():
        raise InputError(
            f"{int((at < 0).sum())} tested samples of {read.file} are not in {cache.path.name}; name their store with --store."
        )
    pooled = ~samples.superseded & (samples.ok_slices > 0)
    if "test_store" not in read.result.source:
        split = kept_split(Path(read.result.path).parent, read.result.inputs["split"])
        if split.exists():  # samples that it does not name are of no row
            pooled &= locate(samples.id, strings(read_split(split).sample.tolist())) >= 0
    pooled[at] = True
    row_of_unit = np.full(int(units.max()) + 1, -1, dtype=np.int64)
    row_of_unit[units[at]] = np.arange(len(at))
    of_row = np.where(pooled, row_of_unit[units], -1)
    order = np.argsort(of_row, kind="stable")
    order = order[of_row[order] >= 0]
    ids, patients = (np.array(column[order].tolist()) for column in (samples.id, samples.patient_id))
    y = join(known, task, ids, patients, np.full(len(order), -1, dtype=np.int32))
    first = np.unique(of_row[order], return_index=True)[1]
    low, high = (np.asarray(of.reduceat(y, first)) for of in (np.fmin, np.fmax))
    return low, np.asarray(low < high)


def _told(differ: npt.NDArray[np.bool_], pooled_by: str, by: str) -> tuple[str, ...]:
    """Raises InputError where nobody is left."""
    if not differ.any():
        return ()
    what = f"{int(differ.sum())} of {len(differ)} rows, pooled by {pooled_by}, have samples with different values of {by!r}"
    remedy = f"a table with one value for each {pooled_by} (--labels FILE)"
    if differ.all():
        raise InputError(f"{what}, so there is no group; give {remedy}.")
    return (f"{what}, so they are in no group; {remedy} puts them there.",)
