"""A tree of DICOM files: which series lie in it, and the files of one. A sample's path names a series that shares its folder
with other files as `FOLDER#series:UID`: all files at any depth below FOLDER with that SeriesInstanceUID.

A process looks through a folder once, when it is first asked for one of its series; `scan_tree` looks anew.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue

from embedcache.errors import ImageError
from embedcache.images.deflated import check_inflated
from embedcache.images.dicom import pydicom_reading, read_header
from embedcache.images.files import form_of, is_series, open_file, series_files
from embedcache.images.kinds import may_be_dicom
from embedcache.images.series import MASK_CLASSES, series_frames

_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "AccessionNumber", "Modality",
    "SeriesDescription", "BodyPartExamined", "Manufacturer", "ManufacturerModelName", "ImageType", "ViewPosition",
    "ImageLaterality", "Laterality", "PatientSex", "PatientAge", "SliceThickness", "ImagePositionPatient",
    "SharedFunctionalGroupsSequence", "Rows", "ReferencedSeriesSequence",
)  # fmt: skip
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""SOP class, and with a number after it those of its multi-frame kinds."""
_series_of: dict[str, dict[str, list[str]]] = {}
"""Folder → SeriesInstanceUID → files, sorted."""


@dataclass(frozen=True)
class DicomFile:
    """What the header of one file says. Private, all of it."""

    path: str
    instance: str
    series: str
    study: str
    patient: str
    accession: str
    modality: str
    description: str
    body_part: str
    manufacturer: str
    model: str
    image_type: str
    """The values of ImageType, with `\\` between them."""
    view: str
    laterality: str
    sex: str
    age: str
    """As DICOM writes it, `063Y`."""
    thickness: float
    """SliceThickness in mm, NaN where the file does not say."""
    is_placed: bool
    """Whether it says where it lies in the patient."""
    is_captured: bool
    """Whether it is a Secondary Capture: a picture of something, a dose sheet for one."""
    has_pixels: bool
    refers_to: frozenset[str]
    """SeriesInstanceUID and SOPInstanceUID of the images that it names as its own; of segmentations only."""


@dataclass(frozen=True)
class Tree:
    """The DICOM files below a folder, sorted by path."""

    files: list[DicomFile]
    unread: int
    """Files that are named or begin as DICOM files and can not be read as such."""
    others: int
    """Files of another kind."""


def scan_tree(folder: str) -> Tree:
    """Read the headers of all files below `folder`. Raises ImageError(stage="open") if there is no such folder."""
    if not os.path.isdir(folder):
        raise ImageError("there is no such folder.", "open")
    files, unread, others = [], 0, 0
    for path in _candidates(folder):
        if not may_be_dicom(Path(path).suffix) and not _begins_as_dicom(path):
            others += 1
            continue
        try:
            found = _read(path)
        except ImageError:
            if Path(path).suffix or _begins_as_dicom(path):
                unread += 1
            else:  # a README or LICENSE
                others += 1
            continue
        files.append(found)
    known: dict[str, list[str]] = {}
    for file in files:
        known.setdefault(file.series, []).append(file.path)
    _series_of[os.path.abspath(folder)] = known
    return Tree(files, unread, others)


def files_of_series(folder: str, uid: str) -> list[str]:
    """The files of one series below `folder`, sorted. Raises ImageError(stage="open") if there is none."""
    key = os.path.abspath(folder)
    if uid not in _series_of.get(key, {}):
        scan_tree(folder)
    found = _series_of[key].get(uid)
    if not found:
        raise ImageError("the folder holds no file of that DICOM series any more.", "open")
    return found


def files_of(path: str) -> list[DicomFile]:
    """What the headers of a sample's DICOM files say, by path; empty for a sample of another kind, or that can not be read."""
    try:
        if not is_series(path) and form_of(path) != "dicom":
            return []
        return [_read(file) for file in (series_files(path) if is_series(path) else [path])]
    except ImageError:
        return []


def first_file(path: str) -> DicomFile | None:
    """What the header of a sample's first DICOM file says; None for a sample of another kind, or that can not be read."""
    try:
        if not is_series(path) and form_of(path) != "dicom":
            return None
        files = series_files(path) if is_series(path) else [path]
        return _read(files[0]) if files else None
    except ImageError:
        return None


def slice_instances(path: str) -> list[str]:
    """The SOPInstanceUID of each slice of a DICOM sample, as `open_image` orders them. Raises ImageError(stage="open")."""
    datasets = [read_header(file) for file in (series_files(path) if is_series(path) else [path])]
    return [frame.instance for frame in series_frames(datasets).frames]


def _candidates(folder: str) -> Iterator[str]:
    """Links to folders are followed, and no folder is gone through twice: a link may lead back to one above it."""
    seen: set[tuple[int, int]] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        found = os.stat(here)
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name != "DICOMDIR":
                yield os.path.join(here, name)


def _begins_as_dicom(path: str) -> bool:
    try:
        with open_file(path) as file:
            return bool(file.read(132)[128:] == b"DICM")
    except (ImageError, OSError):
        return False


def _read(path: str) -> DicomFile:
    """Raises ImageError for a file that is not DICOM, or says no SeriesInstanceUID."""
    with pydicom_reading("the file is no DICOM file, or damaged.", "open"):
        try:
            with open_file(path) as file:
                check_inflated(file)
                dataset = dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS), force=True)
        except (InvalidDicomError, OSError) as error:
            raise ImageError("the file is no DICOM file.", "open") from error
        if not dataset.get("SeriesInstanceUID") or not dataset.get("SOPInstanceUID"):
            raise ImageError("the file says no series.", "open")

        def text(keyword: str) -> str:
            return str(dataset.get(keyword) or "").strip()

        return DicomFile(
            path,
            text("SOPInstanceUID"),
            text("SeriesInstanceUID"),
            text("StudyInstanceUID"),
            text("PatientID"),
            text("AccessionNumber"),
            text("Modality"),
            text("SeriesDescription"),
            text("BodyPartExamined"),
            text("Manufacturer"),
            text("ManufacturerModelName"),
            "\\".join(_values(dataset.get("ImageType"))),
            text("ViewPosition"),
            text("ImageLaterality") or text("Laterality"),
            text("PatientSex"),
            text("PatientAge"),
            _number(dataset.get("SliceThickness")),
            bool(dataset.get("ImagePositionPatient") or dataset.get("SharedFunctionalGroupsSequence")),
            str(dataset.get("SOPClassUID") or "").startswith(_SECONDARY_CAPTURE),
            bool(dataset.get("Rows")),
            _referred(dataset) if dataset.get("SOPClassUID") in MASK_CLASSES else frozenset(),
        )


def _values(value: Any) -> list[str]:
    """One value or several, as texts."""
    several = value if isinstance(value, MultiValue | list) else [value]
    return [str(v) for v in several if v is not None]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _referred(dataset: Dataset) -> frozenset[str]:
    """PS3.3 C.12.2: the series of the study that this object was made from, and their instances."""
    found = set()
    for series in dataset.get("ReferencedSeriesSequence") or ():
        instances = series.get("ReferencedInstanceSequence") or ()
        found |= {series.get("SeriesInstanceUID"), *(item.get("ReferencedSOPInstanceUID") for item in instances)}
    return frozenset(str(uid) for uid in found if uid)
