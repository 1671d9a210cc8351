"""What a key column of a user's table names: samples or patients."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from embedcache.datasets.columns import Table, plain_name
from embedcache.errors import InputError
from embedcache.store.texts import locate
from embedcache.types import IntArray, StringArray, strings

SAMPLE_KEYS = ("id", "sampleid", "imageid", "sample", "image", "imageindex", "path", "file", "filename")
PATIENT_KEYS = ("patientid", "patient", "subjectid", "subject", "pid")


@dataclass(frozen=True)
class Link:
    """How the rows of a table and the samples belong together."""

    by: str
    """`sample`, `patient`, or a DICOM keyword."""
    found: IntArray
    """(rows,): a sample of each row, -1 for none."""
    row: IntArray
    """(samples,): the row of each sample, -1 for none."""

    @property
    def matched(self) -> int:
        """Rows that have a sample."""
        return int((self.found >= 0).sum())


def link_by(by: str, key: StringArray, values: StringArray) -> Link:
    """Rows whose key (rows,) is the value (samples,) of a sample; an empty cell names nobody."""
    found, row = locate(key, values), locate(values, key)
    blank = key == ""
    found[blank] = -1
    row[row >= 0] = np.where(blank[row[row >= 0]], -1, row[row >= 0])
    return Link(by, found, row)


def link_samples(table: Table, column: str, ids: StringArray, patients: StringArray) -> Link:
    """Rows of `table` and samples by the key `column`: of patients where its name says so, else of samples.

    A name that says neither decides nothing: then only one of the two may match. Raises InputError where both do.
    """
    key = table.column(column).text()
    sample, patient = link_by("sample", key, ids), link_by("patient", key, patients)
    while not sample.matched and not patient.matched and (shorter := _below_first_folder(key)) is not None:
        key = shorter  # CheXpert's tables name the archive's folder, which its ids do not
        sample = link_by("sample", key, ids)
    first, second = (patient, sample) if _names(column) == "patient" else (sample, patient)
    if not first.matched:
        return second
    alike = np.array_equal(sample.found, patient.found) and np.array_equal(sample.row, patient.row)
    if _names(column) is None and second.matched and not alike:
        raise InputError(
            f"column {column!r} of {table.name} matches ids of samples ({sample.matched} rows) and patients "
            f"({patient.matched} rows); call it `sample` or `patient`, whichever it holds."
        )
    return first


def _below_first_folder(key: StringArray) -> StringArray | None:
    """Paths without the folder that all begin with; None where they share none."""
    named = key[key != ""]
    folder = named[0].partition("/")[0] + "/" if len(named) else ""
    if len(folder) < 2 or not np.strings.startswith(named, folder).all():
        return None
    return strings([text.removeprefix(folder) for text in key.tolist()])


def _names(column: str) -> Literal["sample", "patient"] | None:
    plain = plain_name(column)
    return "patient" if plain in PATIENT_KEYS else "sample" if plain in SAMPLE_KEYS else None
