"""`dicom-tree`: any tree of DICOM files, grouped by SeriesInstanceUID into samples."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedcache.datasets.base import Columns, Dataset, DatasetOptions, ListedDataset, adapter, check_samples, named
from embedcache.datasets.dicom_ids import dicom_ids
from embedcache.datasets.labelling import all_rows
from embedcache.datasets.publishing import COMMON_OPTIONS
from embedcache.datasets.second_table import join_labels
from embedcache.errors import ImageError, InputError
from embedcache.images.files import SERIES
from embedcache.images.tree import DicomFile, Tree, scan_tree
from embedcache.types import DatasetInfo, Labels, Samples, strings

NO_IMAGES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "KO", "PR", "REG", "DOC")
"""Modalities whose objects are no images, though some hold pixels."""
SINGLE = ("CR", "DX", "MG", "RF", "XA", "US", "IO", "PX", "ES", "XC", "OP", "SM", "GM")
"""Modalities whose images stand alone: several in one series are no slices of one volume, so each is a sample."""
STACKED = ("CT", "MR", "PT", "NM")
"""Modalities whose series are volumes even where no file says where it lies."""
_AGE = re.compile(r"(\d{3})([DWMY])")
_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}


@dataclass(frozen=True)
class _Found:
    """One sample: the files of a series, or one file of it."""

    files: list[DicomFile]
    alone: bool
    """Whether it is one image of those that stand alone: further images of its series leave it what it is."""

    @property
    def id(self) -> str:
        return self.files[0].instance if self.alone else self.files[0].series


@adapter(
    DatasetInfo(
        name="dicom-tree", homepage="a folder of your own with DICOM files at any depth, named and mixed in any way"
    )
)
def open_dicom_tree(root: Path, options: DatasetOptions) -> Dataset:
    """The series below `root`, by patient, study and series; a radiograph of a series with several is a sample of its own.

    Reads every header. The ids are UIDs and the patients PatientID, which become pseudonyms in a store. Labels are a second
    table, joined by AccessionNumber, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID (of slices) or patient. A
    segmentation anywhere in the tree that names one of the series is its mask. Raises InputError if there is no DICOM image.
    """
    options.only("dicom-tree", *COMMON_OPTIONS)
    try:
        tree = scan_tree(str(root))
    except ImageError as error:
        raise InputError(f"{root.name} is no folder of DICOM files: {error.reason}") from error
    pictures = [f for f in tree.files if f.has_pixels and f.modality not in NO_IMAGES]
    images, aside = _without_scouts_and_sheets(pictures)
    if not images:
        raise InputError(f"folder {root.name} holds no DICOM image at any depth.")
    found = _samples_of(images)
    patients = [f.files[0].patient or f"study {f.files[0].study}" for f in found]
    samples = Samples(
        id=strings([f.id for f in found]),
        patient_id=strings(patients),
        path=strings(_paths(found, tree)),
        split=strings([""] * len(found)),
        row=np.arange(1, len(found) + 1),
        listing="the tree",
    )
    check_samples(samples)
    joined = None
    if options.label_table or options.join_on:
        joined = join_labels(samples, options, dicom_ids(samples, [f.files for f in found]))

    def labels() -> Labels:
        return all_rows(joined.parts if joined else [], samples)

    masks = _masks(tree, found)
    notices = (*_notices(tree, found, masks, aside), *(joined.notices if joined else ()))
    info = named(DatasetInfo(name="dicom-tree"), options, root.name)
    paths = strings([of[0].path if len(of) == 1 else "" for of in masks])
    return ListedDataset(
        info,
        notices,
        samples,
        labels,
        _columns(found),
        mask_paths=paths if np.any(paths != "") else None,
        origins=joined.origins if joined else {},
    )


def _samples_of(images: list[DicomFile]) -> list[_Found]:
    series: dict[str, list[DicomFile]] = {}
    for file in images:
        series.setdefault(file.series, []).append(file)
    found = []
    for files in series.values():
        if _stand_alone(files):
            # of a file that is there twice, the first by path
            copies = {file.instance: file for file in reversed(files)}
            found += [_Found([file], alone=True) for file in copies.values()]
        else:
            found.append(_Found(files, alone=False))
    return sorted(found, key=lambda f: (f.files[0].patient, f.files[0].study, f.files[0].series, f.id))


def _stand_alone(files: list[DicomFile]) -> bool:
    modality = files[0].modality
    return modality in SINGLE or (modality not in STACKED and not any(file.is_placed for file in files))


def _without_scouts_and_sheets(pictures: list[DicomFile]) -> tuple[list[DicomFile], Counter[str]]:
    """The images, without series of localisers alone, and without Secondary Captures (dose sheets, screenshots) of studies
    that hold true images of the modality; and how many files were left out for either.

    A radiograph may be a Secondary Capture, as those of the RSNA's challenge are, and stays.
    """
    series: dict[str, list[DicomFile]] = {}
    for file in pictures:
        series.setdefault(file.series, []).append(file)
    scouts = {uid for uid, files in series.items() if all("LOCALIZER" in f.image_type.split("\\") for f in files)}
    true = {(f.study, f.modality) for f in pictures if not f.is_captured and f.series not in scouts}
    aside: Counter[str] = Counter()
    images = []
    for file in pictures:
        if file.series in scouts:
            aside["localisers"] += 1
        elif file.is_captured and file.modality not in SINGLE and (file.study, file.modality) in true:
            aside["Secondary Captures beside the images of their study"] += 1
        else:
            images.append(file)
    return images, aside


def _paths(found: list[_Found], tree: Tree) -> list[str]:
    """A file; a folder that holds nothing but the series; or the series by its UID below the folder that its files share."""
    series_in: dict[str, set[str]] = {}
    for file in tree.files:
        series_in.setdefault(os.path.dirname(file.path), set()).add(file.series)
    paths = []
    for f in found:
        folders = {os.path.dirname(file.path) for file in f.files}
        shared = os.path.commonpath(folders)
        if len(f.files) == 1:
            paths.append(f.files[0].path)
        elif len(folders) == 1 and series_in[shared] == {f.files[0].series}:
            paths.append(shared)
        else:
            paths.append(f"{shared}{SERIES}{f.files[0].series}")
    return paths


def _masks(tree: Tree, found: list[_Found]) -> list[list[DicomFile]]:
    """The segmentations of each sample."""
    by_uid: dict[str, dict[str, DicomFile]] = {}
    for file in tree.files:
        for uid in file.refers_to:
            by_uid.setdefault(uid, {}).setdefault(file.instance, file)  # a copy is no second one
    series = Counter(f.files[0].series for f in found)
    masks = []
    for f in found:
        of = by_uid.get(f.id, {})
        if f.alone and not of and series[f.files[0].series] == 1:  # it may name the series alone
            of = by_uid.get(f.files[0].series, {})
        masks.append(list(of.values()))
    return masks


def _columns(found: list[_Found]) -> Columns:
    first = [f.files[0] for f in found]
    return {
        "modality": strings([file.modality for file in first]),
        "description": strings([file.description for file in first]),
        "body_part": strings([file.body_part for file in first]),
        "manufacturer": strings([file.manufacturer for file in first]),
        "model": strings([file.model for file in first]),
        "view": strings([file.view for file in first]),
        "laterality": strings([file.laterality for file in first]),
        "image_type": strings([file.image_type for file in first]),
        "sex": strings([file.sex for file in first]),
        "age": np.array([years(file.age) for file in first]),
        "slice_thickness": np.array([file.thickness for file in first]),
        "files": np.array([float(len(f.files)) for f in found]),
    }


def years(age: str) -> float:
    """An Age String of DICOM (PS3.5 6.2; `063Y`, `006M`, `010W`, `003D`) in years; NaN where it is none."""
    found = _AGE.fullmatch(age)
    return float(found[1]) / _PER_YEAR[found[2]] if found else float("nan")


def _notices(tree: Tree, found: list[_Found], masks: list[list[DicomFile]], aside: Counter[str]) -> tuple[str, ...]:
    notices = []
    used = {of[0].path for of in masks if len(of) == 1}
    others = [f for f in tree.files if (not f.has_pixels or f.modality in NO_IMAGES) and f.path not in used]
    left_out = Counter(f.modality or "no image" for f in others)
    if left_out:
        said = ", ".join(f"{n} {word}" for word, n in sorted(left_out.items()))
        notices.append(f"{len(others)} DICOM files that are no images were left out ({said})")
    notices += [f"{n} {what} were left out" for what, n in sorted(aside.items())]
    masked, torn = sum(len(of) == 1 for of in masks), sum(len(of) > 1 for of in masks)
    if masked:
        notices.append(f"{masked} of {len(found)} samples have a DICOM segmentation as their mask")
    if torn:
        notices.append(
            f"{torn} of {len(found)} samples have several DICOM segmentations, and so no mask: say which one it is in the "
            "mask column of a table"
        )
    if tree.unread:
        notices.append(f"{tree.unread} files could not be read as DICOM, and were left out")
    if tree.others:
        notices.append(f"{tree.others} files of another kind were left out")
    nameless = sum(not f.files[0].patient for f in found)
    if nameless:
        notices.append(
            f"{nameless} of {len(found)} series name no patient, so each of their studies counts as a patient"
        )
    return tuple(notices)
