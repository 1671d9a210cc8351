"""`sars-cov-2-ct`: CT slices of patients with COVID-19, with other lung disease, and without, a folder per patient."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedcache.datasets.base import Dataset, DatasetOptions, Published, adapter
from embedcache.datasets.publishing import COMMON_OPTIONS, OwnTask, absent, file_names, published_dataset
from embedcache.datasets.systematic import systematic_parts
from embedcache.errors import InputError
from embedcache.types import DatasetInfo, Samples, Task, strings

CLASSES = {"covid": 1, "healthy": 0, "others": 0}
"""Folder, in lower case → whether its patients have COVID-19."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
TEST_EVERY = 3
"""The study's systematic sampling, per patient."""
_LAST_NUMBER = re.compile(r"(\d+)(?=\D*$)")

INFO = DatasetInfo(
    name="sars-cov-2-ct",
    licence="see the homepage: it differs between the copies that are passed on",
    citation=(
        "Soares E, Angelov P, Biaso S, Froes MH, Abe DK. SARS-CoV-2 CT-scan dataset: A large dataset of real patients CT scans "
        "for SARS-CoV-2 identification. medRxiv 2020. doi:10.1101/2020.04.24.20078584"
    ),
    homepage="https://www.kaggle.com/datasets/plameneduardo/a-covid-multiclass-dataset-of-ct-scans",
    public_ids=True,
)
PUBLISHED = Published(4_173, "slices", 210, "systematic by patient: every 3rd tests; validation is drawn by patient")
TASK = Task("covid-19", "binary", ("COVID-19",), level="patient", positive="COVID", column="folder")


@dataclass(frozen=True)
class _Slice:
    """One slice, by its path below the dataset's folder."""

    path: str
    patient: str
    positive: int


@adapter(INFO, PUBLISHED)
def open_sars_cov_2_ct(root: Path, options: DatasetOptions) -> Dataset:
    """The slices in `<class>/<patient>`, positives first, then by patient and by number; the task is per patient.

    A slice is a sample: these are chosen pictures, not whole series. Raises InputError for a folder that is no class, and
    if there is no slice.
    """
    options.only(INFO.name, *COMMON_OPTIONS)
    folder = root / "New_Data_CoV2" if (root / "New_Data_CoV2").is_dir() else root
    if not folder.is_dir():
        raise InputError(f"there is no folder {root.name}; --root is the folder that holds COVID, Healthy and Others.")
    missing: list[str] = []
    slices = list(_slices(folder, missing))
    if len(slices) == PUBLISHED.samples:
        missing.clear()  # all are here, so a number that is left out was never there
    if not slices:
        raise InputError(
            f"{folder.name} holds no slice in <class>/<patient>/; its classes are COVID, Healthy and Others."
        )
    patients = strings([s.patient for s in slices])
    samples = Samples(
        id=strings([s.path for s in slices]),
        patient_id=patients,
        path=strings([str(folder / s.path) for s in slices]),
        split=systematic_parts(patients, TEST_EVERY),
        row=np.arange(1, len(slices) + 1),
        listing="the folder",
    )
    task = OwnTask(TASK, np.array([[float(s.positive)] for s in slices]))
    count = len(set(patients.tolist()))
    notices = (
        [f"{count} of the {PUBLISHED.patients} published patients are here"] if count != PUBLISHED.patients else []
    )
    columns = {"class": strings([s.path.split("/")[0] for s in slices])}
    return published_dataset(INFO, PUBLISHED, options, samples, [task], columns, missing=missing, notices=notices)


def _slices(folder: Path, missing: list[str]) -> Iterator[_Slice]:
    """All slices in order; `missing` gets a line for each number that is left out."""
    classes = [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    for name in classes:
        if name.lower() not in CLASSES:
            raise InputError(
                f"{folder.name} holds the folder {name!r}, which is no class; they are COVID, Healthy and Others."
            )
    missing += absent(
        [c for c in CLASSES if c not in {n.lower() for n in classes}], "is missing: a class without a folder"
    )
    for klass in sorted(classes, key=lambda name: (-CLASSES[name.lower()], name)):
        patients = [entry.name for entry in (folder / klass).iterdir() if entry.is_dir()]
        missing += _gaps(patients, klass)
        for patient in sorted(patients, key=_numbered):
            names = file_names(folder / klass / patient, IMAGE_SUFFIXES)
            missing += _gaps(names, f"{klass}/{patient}")
            for name in sorted(names, key=_numbered):
                yield _Slice(f"{klass}/{patient}/{name}", f"{klass}/{patient}", CLASSES[klass.lower()])


def _numbered(name: str) -> tuple[int, str]:
    found = _LAST_NUMBER.search(name.rsplit(".", 1)[0])
    return (int(found[1]) if found else -1, name)


def _gaps(names: list[str], where: str) -> tuple[str, ...]:
    """A line if numbered names leave one out."""
    by_number = {_numbered(name)[0]: name for name in names}
    if len(by_number) < len(names) or not names or min(by_number) < 0:
        return ()
    gaps = [n for n in range(min(by_number), max(by_number)) if n not in by_number]
    pattern = by_number[max(by_number)]
    expected = [
        _LAST_NUMBER.sub(str(n), pattern.rsplit(".", 1)[0]) + pattern[len(pattern.rsplit(".", 1)[0]) :] for n in gaps
    ]
    return absent([f"{where}/{name}" for name in expected], "is missing: the numbers around it are there")
