"""`brain-tumor`: the figshare set of contrast-enhanced MR slices with a tumour, MATLAB files of version 7.3 (HDF5)."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.datasets.base import Dataset, DatasetOptions, Published, adapter
from embedcache.datasets.publishing import COMMON_OPTIONS, Masks, OwnTask, absent, published_dataset
from embedcache.datasets.systematic import systematic_parts
from embedcache.errors import InputError, MissingPackageError
from embedcache.types import DatasetInfo, Samples, Task, strings

TUMOURS = ("meningioma", "glioma", "pituitary tumor")
"""Of the labels 1, 2 and 3."""
IMAGE, MASK = "cjdata/image", "cjdata/tumorMask"
TEST_EVERY, VALIDATION_EVERY = 5, 5
"""The study samples systematically by patient and does not print its strides."""

INFO = DatasetInfo(
    name="brain-tumor",
    version="5",
    licence="CC BY 4.0",
    citation=(
        "Cheng J, Huang W, Cao S, et al. Enhanced Performance of Brain Tumor Classification via Tumor Region Augmentation and "
        "Partition. PLoS ONE 2015;10(10):e0140381. doi:10.6084/m9.figshare.1512427"
    ),
    homepage="https://figshare.com/articles/dataset/brain_tumor_dataset/1512427",
    public_ids=True,
)
PUBLISHED = Published(3_064, "slices", 233, "systematic by patient: every 5th tests, every 5th of the rest validates")
TASK = Task("tumour", "multiclass", TUMOURS, column="cjdata/label")


@dataclass(frozen=True)
class _Slice:
    number: int
    path: str
    label: int
    patient: str


@adapter(INFO, PUBLISHED)
def open_brain_tumor(root: Path, options: DatasetOptions) -> Dataset:
    """The slices below `root`, by the number in their names; the task is the kind of tumour, the mask is the tumour.

    Opens every file for its label and patient (`cjdata/PID`). Raises InputError for a file that is not of this dataset or
    a label that is none of 1, 2 and 3, and MissingPackageError without h5py.
    """
    options.only(INFO.name, *COMMON_OPTIONS)
    if not root.is_dir():
        raise InputError(f"there is no folder {root.name}; --root is the folder that holds 1.mat to 3064.mat.")
    slices = sorted(_slices(root), key=lambda s: s.number)
    if not slices:
        raise InputError(f"{root.name} holds no N.mat; unpack the four archives of the brain tumour dataset there.")
    patients = strings([s.patient for s in slices])
    samples = Samples(
        id=strings([str(s.number) for s in slices]),
        patient_id=patients,
        path=strings([f"{s.path}#{IMAGE}" for s in slices]),
        split=systematic_parts(patients, TEST_EVERY, VALIDATION_EVERY),
        row=np.arange(1, len(slices) + 1),
        listing="the folder",
    )
    numbers = {s.number for s in slices}
    gaps = [f"{n}.mat" for n in range(min(numbers), max(numbers)) if n not in numbers]
    return published_dataset(
        INFO,
        PUBLISHED,
        options,
        samples,
        [OwnTask(TASK, np.array([[float(s.label - 1)] for s in slices]))],
        {"tumour": strings([TUMOURS[s.label - 1] for s in slices])},
        masks=Masks(strings([f"{s.path}#{MASK}" for s in slices]), {1: "tumour"}),
        missing=absent(gaps, "is missing: the numbers around it are there"),
    )


def _slices(root: Path) -> Iterator[_Slice]:
    hdf5 = _h5py()
    for here, folders, files in os.walk(root):
        folders.sort()
        for name in files:
            if name.endswith(".mat") and name.removesuffix(".mat").isdecimal():
                path = os.path.join(here, name)
                label, patient = _read(hdf5, path, name)
                yield _Slice(int(name.removesuffix(".mat")), path, label, patient)


def _read(hdf5: Any, path: str, name: str) -> tuple[int, str]:
    """The label and the patient of one file."""
    try:
        with hdf5.File(path, "r") as file:
            label = float(np.asarray(file["cjdata/label"]).reshape(-1)[0])
            letters = np.asarray(file["cjdata/PID"]).reshape(-1)  # MATLAB keeps a text as the codes of its letters
            patient = "".join(chr(int(code)) for code in letters)
            shapes = [file[key].shape for key in (IMAGE, MASK)]
    except (OSError, KeyError, IndexError, ValueError, TypeError):
        raise InputError(
            f"{name} is no file of the brain tumour dataset: it has no cjdata with image, label, PID and tumorMask, or is "
            "damaged; unpack it anew."
        ) from None
    if label not in (1, 2, 3):
        raise InputError(f"{name} has label {label:g}, which is none of 1, 2 and 3; take the dataset's own file.")
    if any(len(shape) != 2 for shape in shapes):
        raise InputError(f"{name} holds an image or a mask that is no picture; take the dataset's own file.")
    return int(label), patient


def _h5py() -> Any:
    try:
        import h5py  # an extra: only this dataset and MATLAB 7.3 files need it
    except ImportError:
        raise MissingPackageError(
            "the brain tumour dataset is MATLAB 7.3 files, which h5py reads; install it with `pip install 'embedcache[volumes]'`."
        ) from None
    return h5py
