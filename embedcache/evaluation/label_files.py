"""The labels that a probe reads: those beside the store, a copied `labels.parquet`, or a table of the user's own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.datasets.base import DatasetOptions, check_samples
from embedcache.datasets.columns import Table, read_table
from embedcache.datasets.keys import link_samples
from embedcache.datasets.labelling import all_rows
from embedcache.datasets.second_table import JOIN_COLUMNS, join_labels
from embedcache.datasets.table import SPLIT_COLUMNS, read_parts
from embedcache.errors import InputError, suggest
from embedcache.store.fingerprint import canonical, sha256
from embedcache.store.labels import is_label_table
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import factorise, locate, rows_of
from embedcache.types import IntArray, Labels, Samples, Task, strings


def find_labels(cache: FeatureCache, file: Path | None = None, join_on: str | None = None) -> Labels:
    """The labels beside the store, or those of `file`: a `labels.parquet`, the folder of one, or a CSV or Parquet table.

    A table needs a column of the store's own sample ids or patients (`join_on` names it); its other columns are taken as
    labels as `labels show` says, and a column `split` as the parts. Raises InputError, StoreError.
    """
    if file is not None and not file.is_dir() and not is_label_table(file):
        return _join_table(cache, file, join_on)
    if join_on is not None:
        raise InputError("--join-on names a column of a table of your own; give that with --labels FILE.")
    return cache.labels(file)


def _join_table(cache: FeatureCache, file: Path, join_on: str | None) -> Labels:
    stored = cache.samples()
    current = ~stored.superseded  # a sample whose image changed is there once more
    n = int(current.sum())
    whose = ", which has pseudonyms in place of your ids" if cache.root.id_scheme == "pseudonym" else ""
    samples = Samples(
        id=stored.id[current],
        patient_id=stored.patient_id[current],
        path=strings([""] * n),
        split=strings([""] * n),
        row=np.arange(1, n + 1),
        listing=f"store {cache.path.name}{whose}",
    )
    samples = _with_parts(samples, file, join_on)
    joined = join_labels(samples, DatasetOptions(label_table=str(file), join_on=join_on))
    return all_rows(joined.parts, samples)


def _with_parts(samples: Samples, file: Path, join_on: str | None) -> Samples:
    """The samples with the parts that the table names, if it has a column of them."""
    table = read_table(file)
    split, key = table.find(None, SPLIT_COLUMNS), table.find(join_on, JOIN_COLUMNS)
    if split is None or key is None:
        return samples
    row = link_samples(table, key, samples.id, samples.patient_id).row
    told = replace(samples, split=np.where(row >= 0, read_parts(table, split)[row], ""))
    check_samples(told)
    return told


def table_rows(cache: FeatureCache, file: Path, join_on: str | None, column: str) -> tuple[Table, IntArray]:
    """The user's table, and the row of each of the store's samples in it, -1 for none.

    Raises InputError where it has no such column or no column of ids, or where two rows are of one sample and differ in it.
    """
    table = read_table(file)
    key = table.find(join_on, JOIN_COLUMNS)
    if column not in table.names:
        raise suggest(f"column of {table.name}", column, table.names)
    if key is None:
        raise InputError(f"{table.name} has no column of ids; name the column to join on with --join-on.")
    samples = cache.samples()
    link = link_samples(table, key, samples.id, samples.patient_id)
    values, matched = table.column(column).codes, np.flatnonzero(link.found >= 0)
    first = locate(table.column(key).text()[matched], table.column(key).text())
    torn = np.flatnonzero(values[first] != values[matched])
    if len(torn):
        i, j = int(first[torn[0]]), int(matched[torn[0]])
        raise InputError(
            f"{table.where(i)} and {table.where(j)} are of the same sample or patient and differ in column {column!r}; keep one "
            "of them."
        )
    return table, link.row


def labels_digest(labels: Labels, task: Task) -> str:
    """SHA-256 over the task and its labels, in whatever order; other tasks and the split column do not enter."""
    of_task = rows_of(labels.task == task.name)
    columns = [factorise(column[of_task]) for column in (labels.sample, labels.patient, labels.klass)]
    words = [names.tolist() for names, _ in columns]
    sample, patient, klass = (codes for _, codes in columns)
    value = labels.value[of_task]
    keys: list[npt.NDArray[Any]] = [sample, patient, labels.slice[of_task], klass]
    # whatever a NaN holds besides, it says: not known
    values = np.where(np.isnan(value), np.nan, value)
    if not _in_order(keys):  # as a table of ours has them
        order = np.lexsort(keys[::-1])
        keys, values = [key[order] for key in keys], values[order]
    columns_as_bytes = (
        np.ascontiguousarray(c, dtype=d).data for c, d in [*((key, "<i8") for key in keys), (values, "<f8")]
    )
    return sha256(canonical([task.document(), words]), *columns_as_bytes)


def _in_order(keys: list[npt.NDArray[Any]]) -> bool:
    """Whether the rows of (n,) columns ascend, the first column weighing most."""
    ascends = np.ones(max(len(keys[0]) - 1, 0), dtype=np.bool_)
    for key in keys[::-1]:
        ascends = (key[:-1] < key[1:]) | ((key[:-1] == key[1:]) & ascends)
    return bool(ascends.all())
