"""`subgroups RESULT --by COLUMN`: a result's figures for each value of a column (sex, age band, scanner, site, view).

A row that is pooled over samples (a patient, a study) has the value on which they agree; one whose samples differ is in no group.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from embedcache.datasets.base import DatasetOptions
from embedcache.evaluation.groupings import ColumnSource, group_column
from embedcache.evaluation.measured import read_measured
from embedcache.evaluation.pooled_groups import pooled_column
from embedcache.evaluation.repeat import find_test_store
from embedcache.evaluation.subgroups import Difference, Subgroup, auroc_differences, subgroups
from embedcache.store.reader import FeatureCache

_DEFAULT_OPTIONS = DatasetOptions()


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
    dataset: str | None = None,
    root: str | None = None,
    options: DatasetOptions = _DEFAULT_OPTIONS,
    edges: tuple[float, ...] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> SubgroupTable:
    """Measure the test rows of a result (its JSON) apart for each value of the column `by`.

    The column is any of `labels` (a table of the user's own, joined on `join_on`) or of the dataset listed again at `root`
    (`dataset`, as it was extracted; the store's own unless given, or `table` for a file of the user's), else a binary,
    multiclass or numeric task of the labels beside the store. store: that of the test rows, None looks where the result lies.
    edges: where to cut a numeric column, else tens. Thresholds stay those of the whole result. Raises InputError, StoreError.
    """
    read = read_measured(result)
    cache = FeatureCache.open(store if store is not None else find_test_store(read.result))
    source = ColumnSource(Path(labels) if labels is not None else None, join_on, dataset, root, options)
    test, before = read.test, read.before
    left_out = 0
    notes: tuple[str, ...] = ()
    if read.result.inputs["config"].get("pool_by") is None:
        column = group_column(cache, by, source, test)
    else:
        column, differ, notes = pooled_column(read, cache, by, source)
        left_out = int(differ.sum())
        test, before = test.take(~differ), replace(before, test_scores=before.test_scores[~differ])
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
