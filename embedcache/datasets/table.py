"""`table`: any CSV or Parquet file with a column of paths, and optional ids, patients, splits, masks and labels."""

import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from embedcache.datasets.base import (
    SPLIT_WORDS,
    Columns,
    Dataset,
    DatasetOptions,
    adapter,
    check_samples,
    named,
)
from embedcache.datasets.columns import Table, TableColumns, is_missing, read_table
from embedcache.datasets.header_patients import HeaderPatients, header_patients
from embedcache.datasets.infer import ColumnFinding, find_tasks, said_of_columns
from embedcache.datasets.joining import OtherIds
from embedcache.datasets.labelling import all_rows, labels_from
from embedcache.datasets.second_table import JoinedLabels, join_labels
from embedcache.errors import InputError
from embedcache.images.files import place_of
from embedcache.types import DatasetInfo, Labels, Samples, StringArray, strings

PATH_COLUMNS = (
    "path", "file", "filename", "filepath", "image", "imagepath", "imagefile", "imageindex", "dicom", "dicompath",
    "series", "seriespath", "nifti", "niftipath", "png", "img", "imgpath",
)  # fmt: skip
ID_COLUMNS = ("id", "sampleid", "sample", "imageid")
PATIENT_COLUMNS = (
    "patient", "patientid", "patientno", "patientnr", "patientnumber", "patientcode", "patientuid", "patientkey", "patientmrn",
    "patientpseudonym", "casepatient", "anonpatientid", "deidpatientid", "subject", "subjectid", "subjectno", "subjectnumber",
    "subjectcode", "subjectkey", "participant", "participantid", "pid", "ptid", "mrn", "medicalrecordnumber", "medicalrecordno",
    "medicalrecordid", "empi", "empianon",
)  # fmt: skip
"""Of who was looked at; never of a study, an admission, an accession or a case, of which one patient has several."""
SPLIT_COLUMNS = ("split", "partition")
MASK_COLUMNS = ("mask", "maskpath", "segmentation", "segmentationpath")


@dataclass(frozen=True)
class Roles:
    """Which column of a table is what; None where there is none."""

    path: str | None
    id: str | None
    patient: str | None
    split: str | None
    mask: str | None

    def columns(self) -> list[str]:
        """The columns that are no labels."""
        return [name for name in (self.path, self.id, self.patient, self.split, self.mask) if name is not None]


@dataclass(frozen=True)
class TableDataset:
    """The rows of a table as samples, in the table's order."""

    info: DatasetInfo
    notices: tuple[str, ...]
    table: Table
    roles: Roles
    listed: Samples
    base: Path
    """What relative paths start from."""
    findings: list[ColumnFinding]
    """What became of each column of the table, or of the second table with labels."""
    joined: JoinedLabels | None

    def samples(self) -> Samples:
        """All samples, in the table's order."""
        return self.listed

    def labels(self) -> Labels:
        """The labels in the table's own columns, or in the second table if one was given."""
        if self.joined:
            parts = self.joined.parts
        else:
            parts = labels_from(self.table, self.findings, self.listed, np.arange(len(self.listed)))
        return all_rows(parts, self.listed)

    def columns(self) -> Columns:
        """All columns of the table."""
        return TableColumns(self.table, np.arange(len(self.listed)))

    def masks(self) -> StringArray | None:
        """The path of each sample's mask, "" where it has none; None without a column of masks."""
        if self.roles.mask is None:
            return None
        return _paths(self.table.column(self.roles.mask).text(), self.base)


@adapter(
    DatasetInfo(
        name="table", homepage="a CSV or Parquet file of your own: a column of paths, and what you know of each"
    )
)
def open_table(root: Path, options: DatasetOptions) -> Dataset:
    """The samples that the table at `root` lists.

    Raises InputError for a table that is empty or has no column of paths, a named column that is not there, a row
    without a path, id or patient, two rows with one id, a patient in two splits, an unknown split, and where not one
    of the files is there (a single missing file is a bad sample, which extraction sets aside).
    """
    options.only("table", *(field.name for field in fields(options) if field.name != "channel"))
    table = read_table(root)
    roles = find_roles(table, options)
    base = Path(options.root_dir).absolute() if options.root_dir else root.parent
    samples, notices, assumed = _samples(table, roles, base)
    joined = (
        join_labels(samples, options, lambda: _dicom_ids(samples)) if options.label_table or options.join_on else None
    )
    if joined:
        findings, notices = joined.findings, notices + joined.notices
    elif options.level == "slice":
        raise InputError("labels of slices are in a second table, one row per slice; name it with --labels FILE.")
    else:
        findings = find_tasks(table, roles.columns(), options)
        notices += said_of_columns(findings, table, options)
    info = named(DatasetInfo(name="table", patients_assumed=assumed), options, root.stem)
    return TableDataset(info, notices, table, roles, samples, base, findings, joined)


def _dicom_ids(samples: Samples) -> OtherIds:
    from embedcache.datasets.dicom_ids import read_dicom_ids  # pydicom takes 0.4 s

    return read_dicom_ids(samples)


def find_roles(table: Table, options: DatasetOptions) -> Roles:
    """Which column is what: as the user says, or by its name. Raises InputError if a named column is not there."""
    return Roles(
        path=table.find(options.path_column, PATH_COLUMNS),
        id=table.find(options.id_column, ID_COLUMNS),
        patient=table.find(options.patient_column, PATIENT_COLUMNS),
        split=table.find(options.split_column, SPLIT_COLUMNS),
        mask=table.find(options.mask_column, MASK_COLUMNS),
    )


def _samples(table: Table, roles: Roles, base: Path) -> tuple[Samples, tuple[str, ...], bool]:
    """The samples, what is to be said of them, and whether the patients of some are assumed."""
    if roles.path is None:
        raise InputError(
            f"{table.name} has no column of paths; name it with --path-column. It has: {', '.join(table.names)}."
        )
    written = _filled(table, roles.path, "path")
    ids = _filled(table, roles.id, "id") if roles.id else written
    notices: tuple[str, ...] = ()
    assumed = False
    if roles.patient:
        patients = _filled(table, roles.patient, "patient")
    else:
        found = header_patients(ids, _paths(written, base))
        patients, notices = found.patient, (_said_of_patients(table, found),)
        assumed = found.told < len(table)
    split = read_parts(table, roles.split) if roles.split else strings([""] * len(table))
    samples = Samples(ids, patients, _paths(written, base), split, np.arange(1, len(table) + 1), table.name)
    check_samples(samples)
    if not any(os.path.exists(place_of(path)) for path in samples.path.tolist()):
        raise InputError(
            f"not one of the {len(samples)} files in column {roles.path!r} of {table.name} is there; relative paths start "
            f"from the table's folder, or from --root-dir."
        )
    return samples, notices, assumed


def _said_of_patients(table: Table, found: HeaderPatients) -> str:
    told = found.told
    every = "every sample counts"
    if told:
        every = f"{told} of {len(table)} samples have theirs from PatientID in their DICOM headers"
        if told < len(table):
            every += ", and each of the others counts"
    own = "" if told == len(table) else " as a patient of its own"
    why = f" and {found.said}" if found.said else ""
    return (
        f"{table.name} has no column of patients{why}, so {every}{own}; if that is wrong, name the column with "
        "--patient-column, or test samples leak into training"
    )


def _filled(table: Table, name: str, what: str) -> StringArray:
    column = table.column(name)
    empty = [code for code, word in enumerate(column.words) if is_missing(word)]
    bare = np.flatnonzero(np.isin(column.codes, empty))
    if len(bare):
        raise InputError(
            f"{table.where(int(bare[0]))} has no {what} in column {name!r}; fill it, or leave the row out."
        )
    return column.text()


def read_parts(table: Table, name: str) -> StringArray:
    """The part of each row as the column `name` says it, "" where it says nothing. Raises InputError, naming the row."""
    column = table.column(name)
    canonical: list[str] = []
    for code, word in enumerate(column.words):
        if not is_missing(word) and word.lower() not in SPLIT_WORDS:
            row = int(np.flatnonzero(column.codes == code)[0])
            raise InputError(
                f"{table.where(row)} has split {word!r} in column {name!r}; a split is train, validation or test, or empty."
            )
        canonical.append(SPLIT_WORDS.get(word.lower(), ""))
    return strings(canonical)[column.codes]


def _paths(written: StringArray, base: Path) -> StringArray:
    """Absolute paths; an empty one stays empty."""
    start = os.path.normpath(base)
    # nearly all are plain, and a million of those are joined at once
    odd = (written == "") | np.strings.startswith(written, "/")
    for sign in ("/", "."):
        odd |= np.strings.endswith(written, sign) | (np.strings.find(written, f"{sign}/") >= 0)
    paths: StringArray = strings(start.rstrip("/") + "/") + written
    for i in np.flatnonzero(odd).tolist():
        paths[i] = written[i] and os.path.normpath(os.path.join(start, written[i]))
    return paths
