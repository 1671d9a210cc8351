"""`folder`: a folder per class, and above them, where there is a split, one folder per part (`train`, `val`, `test`)."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedcache.datasets.base import (
    SPLIT_WORDS,
    Dataset,
    DatasetOptions,
    ListedDataset,
    adapter,
    check_samples,
    named,
)
from embedcache.datasets.header_patients import header_patients
from embedcache.datasets.labelling import all_rows, long_rows
from embedcache.datasets.publishing import COMMON_OPTIONS
from embedcache.datasets.second_table import join_labels
from embedcache.datasets.tasks import parse_positive
from embedcache.errors import InputError
from embedcache.types import DatasetInfo, Labels, Samples, Task, strings

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom", ".ima", ".nii", ".nii.gz", ".nrrd",
    ".nhdr", ".mha", ".mhd", ".npy", ".npz", ".mat",
)  # fmt: skip
"""A file of another name is an image if it begins as DICOM does: exports name files by number or UID."""
TASK = "class"


@dataclass(frozen=True, order=True)
class _Found:
    """One image, sorted by its part, class and path."""

    split: str
    klass: str
    relative: str


@adapter(
    DatasetInfo(name="folder", homepage="a folder of your own: <class>/<image>, or <train|val|test>/<class>/<image>")
)
def open_folder(root: Path, options: DatasetOptions) -> Dataset:
    """The images below `root`; the task `class` is multiclass, or binary with `--positive class=NAME`.

    Raises InputError if there is no such folder or no image in a folder of a class, if folders of parts and of classes
    lie side by side, and for a `--positive` that is no class.
    """
    options.only("folder", *COMMON_OPTIONS)
    if not root.is_dir():
        raise InputError(f"there is no folder {root.name}; give the folder that holds a folder per class.")
    found, skipped = _images(root)
    if not found:
        raise InputError(f"folder {root.name} holds no image in a folder per class: <class>/<image>.")
    ids, paths = strings([f.relative for f in found]), strings([str(root / f.relative) for f in found])
    headers = header_patients(ids, paths)
    patients, told = headers.patient, headers.told
    parts: dict[str, set[str]] = {}
    for patient, f in zip(patients.tolist(), found, strict=True):
        parts.setdefault(patient, set()).add(f.split)
    torn = sum(len(of) > 1 for of in parts.values())
    if torn:  # its own parts stand; a folder can not say that the headers are wrong
        patients, told = ids, 0
    samples = Samples(
        id=ids,
        patient_id=patients,
        path=paths,
        split=strings([f.split for f in found]),
        row=np.arange(1, len(found) + 1),
        listing="the folder",
    )
    check_samples(samples)
    why = headers.said or "a folder says nothing of patients"
    if torn:
        why = "the parts of the folder stand, whatever the DICOM headers say of patients"
    own = f"{why}, so every image counts as a patient of its own"
    otherwise = "; if that is wrong, list the images in a table with a column of patients (--dataset table)"
    notices: tuple[str, ...] = (own + otherwise if headers.said else own,)
    if told:
        notices = (
            f"{told} of {len(found)} images have their patient from PatientID in their DICOM headers, the others are one each",
        )
    if torn:
        notices += (
            f"the DICOM headers name {torn} patients who are in several parts: test samples leak into training",
        )
    if skipped:
        notices += (f"{skipped} files were left out: hidden, not in a folder of a class, or no image",)
    joined = join_labels(samples, options) if options.label_table or options.join_on else None
    task = _task([f.klass for f in found], replace(options, positive=()) if joined else options)
    if task is None:
        notices += ("there is one class only, so there is no task",)

    def labels() -> Labels:
        own = [_labels(task, [f.klass for f in found], samples)] if task else []
        return all_rows(own + (joined.parts if joined else []), samples)

    columns = {"class": strings([f.klass for f in found]), "split": samples.split}
    info = named(DatasetInfo(name="folder", patients_assumed=told < len(found)), options, root.name)
    said = notices + (joined.notices if joined else ())
    return ListedDataset(info, said, samples, labels, columns, origins=joined.origins if joined else {})


def _images(root: Path) -> tuple[list[_Found], int]:
    """All images below the folders of classes, sorted, and how many files were left out."""
    top = _folders(root)
    parts = [name for name in top if name.lower() in SPLIT_WORDS]
    if parts and len(parts) < len(top):
        other = next(name for name in top if name not in parts)
        raise InputError(
            f"folder {root.name} holds the part {parts[0]!r} beside {other!r}; put every class below train, val or test, "
            f"or none."
        )
    found: list[_Found] = []
    skipped = _files(root)
    for name in top:
        if not parts:
            skipped += _collect(root, root / name, "", name, found)
            continue
        skipped += _files(root / name)
        for klass in _folders(root / name):
            skipped += _collect(root, root / name / klass, SPLIT_WORDS[name.lower()], klass, found)
    return sorted(found), skipped


def _collect(root: Path, folder: Path, split: str, klass: str, found: list[_Found]) -> int:
    """Add the images below `folder` to `found`; the number of other files."""
    skipped = 0
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or not _is_image(os.path.join(here, name)):
                skipped += 1
                continue
            relative = os.path.relpath(os.path.join(here, name), root).replace(os.sep, "/")
            if not relative.isprintable():
                raise InputError(f"a file of class {klass!r} has a name that is no valid text; rename it.")
            found.append(_Found(split, klass, relative))
    return skipped


def _is_image(path: str) -> bool:
    if path.lower().endswith(IMAGE_SUFFIXES):
        return True
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path) -> int:
    return sum(not entry.is_dir() for entry in os.scandir(folder))


def _task(classes: list[str], options: DatasetOptions) -> Task | None:
    names = tuple(sorted(set(classes)))
    positive = parse_positive(options.positive)
    for name, value in positive.items():
        if name != TASK or value not in names:
            raise InputError(
                f"--positive {name}={value}: the task of a folder is `{TASK}`, and its classes are {', '.join(names)}."
            )
    if TASK in positive:
        chosen = positive[TASK]
        other = next(name for name in names if name != chosen) if len(names) == 2 else None
        return Task(TASK, "binary", (chosen,), positive=chosen, column="folder", negative=other)
    return Task(TASK, "multiclass", names, column="folder") if len(names) > 1 else None


def _labels(task: Task, classes: list[str], samples: Samples) -> Labels:
    if task.kind == "binary":
        values = np.array([[float(name == task.positive)] for name in classes])
    else:
        place = {name: float(k) for k, name in enumerate(task.classes)}
        values = np.array([[place[name]] for name in classes])
    return long_rows(task, values, samples.id, samples.patient_id, samples.split)
