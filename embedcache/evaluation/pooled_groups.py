"""The value of a column for test rows that are pooled over samples: a patient's, a study's; where its samples agree on one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation.groupings import ColumnSource, Values, group_column, is_missing_value
from embedcache.evaluation.label_files import find_labels
from embedcache.evaluation.measured import Measured
from embedcache.evaluation.reading import patients_as_units, unit_numbers, units_digest
from embedcache.evaluation.results import kept_split
from embedcache.evaluation.splits import read_split
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import locate
from embedcache.types import IntArray, StringArray, strings

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Members:
    """Samples that rows were pooled over, as a column is joined to them."""

    sample: StringArray
    patient: StringArray
    slice: npt.NDArray[np.int32]


def pooled_column(
    read: Measured, cache: FeatureCache, by: str, source: ColumnSource
) -> tuple[Values, Flags, tuple[str, ...]]:
    """The values of the test rows whose samples do not differ; which rows (n,) do, and so are in no group; and what to say.

    Raises InputError where nobody is left, where a tested sample is not in `cache`, or where nothing tells any more which
    samples were together.
    """
    pooled_by = read.result.inputs["config"]["pool_by"]
    order, of_row = _members(read, cache, _units_of(read, cache, pooled_by, source))
    samples = cache.samples()
    ids, patients = (np.array(column[order].tolist()) for column in (samples.id, samples.patient_id))
    values = group_column(cache, by, source, _Members(ids, patients, np.full(len(order), -1, dtype=np.int32)))
    column, differ = _agreed(values, of_row, len(read.test.sample))
    notes: tuple[str, ...] = ()
    if differ.any():
        what = f"{int(differ.sum())} of {len(differ)} rows, pooled by {pooled_by}, have samples with different values of {by!r}"
        remedy = f"a table with one value for each {pooled_by} (--labels FILE)"
        if differ.all():
            raise InputError(f"{what}, so there is no group; give {remedy}.")
        notes = (f"{what}, so they are in no group; {remedy} puts them there.",)
    return column[~differ], differ, notes


def _agreed(values: Values, of_row: IntArray, n: int) -> tuple[Values, Flags]:
    """(n,) each: the value of a row's members, missing where none has one, and whether they have different ones."""
    known = np.flatnonzero(~is_missing_value(values))
    words, code = np.unique(values[known], return_inverse=True)
    least, most = np.full(n, len(words)), np.full(n, -1)
    np.minimum.at(least, of_row[known], code)
    np.maximum.at(most, of_row[known], code)
    column = np.full(n, np.nan) if values.dtype.kind == "f" else np.full(n, "", dtype=values.dtype)
    there = most >= 0
    column[there] = words[least[there]]
    return column, np.asarray(there & (least != most))


def _units_of(read: Measured, cache: FeatureCache, pooled_by: str, source: ColumnSource) -> IntArray:
    """(samples,): the unit of each sample of the store, as it was when the result was made.

    The labels that hold the column tell it, or those beside the store. Raises InputError where neither does.
    """
    if pooled_by == "patient":
        return patients_as_units(cache)
    recorded = read.result.inputs.get("elsewhere", read.result.inputs)["units"]
    tried: list[tuple[Path | None, str | None]] = [(source.labels, source.join_on)]
    if source.labels is not None and cache.dataset_folder is not None:
        tried.append((None, None))
    for file, join_on in tried:
        try:
            units = unit_numbers(cache, find_labels(cache, file, join_on), pooled_by, file, join_on)
        except (UnknownNameError, InputError):  # these do not know that column
            continue
        if units_digest(units) == recorded:
            return units
    raise InputError(
        f"{read.file} was pooled by {pooled_by!r}, and no labels here say which samples were together then; give a table that "
        "has both columns with --labels FILE, or run the probe again."
    )


def _members(read: Measured, cache: FeatureCache, units: IntArray) -> tuple[IntArray, IntArray]:
    """The samples of the store that a test row was pooled over, and the row of each."""
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
    order = np.flatnonzero(of_row >= 0)
    return order, of_row[order]
