"""`medmnist`: one `.npz` of MedMNIST: images and labels of the parts train, val and test, in one file."""

import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.datasets.base import Dataset, DatasetOptions, adapter
from embedcache.datasets.publishing import COMMON_OPTIONS, OwnTask, published_dataset
from embedcache.errors import InputError
from embedcache.types import DatasetInfo, Samples, Task, strings

PARTS = {"train": "train", "val": "validation", "test": "test"}
TASK = "label"
_OFFICIAL = re.compile(
    r"(path|chest|derma|oct|pneumonia|retina|breast|blood|tissue|organ[acs]|organ|nodule|adrenal|fracture|vessel|synapse)mnist"
    r"(3d)?(_64|_128|_224)?"
)
INFO = DatasetInfo(
    name="medmnist",
    licence="CC BY 4.0; CC BY-NC 4.0 for DermaMNIST",
    citation=(
        "Yang J, Shi R, Wei D, et al. MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical image "
        "classification. Sci Data 2023;10:41. doi:10.1038/s41597-022-01721-8"
    ),
    homepage="https://medmnist.com (a file NAME.npz; --root is the file)",
)


@adapter(INFO)
def open_medmnist(root: Path, options: DatasetOptions) -> Dataset:
    """The images of one file in its own order and parts; classes have the numbers that the file gives them.

    A file of MedMNIST's own names keeps its ids (`train/12`), one of another name gets pseudonyms. It knows no patients.
    Raises InputError if an array is missing, or labels do not fit their images.
    """
    options.only("medmnist", *COMMON_OPTIONS)
    arrays = _labels(root)
    ids = [f"{part}/{i}" for part, values in arrays.items() for i in range(len(values))]
    samples = Samples(
        id=strings(ids),
        patient_id=strings(ids),
        path=strings([f"{root}#{part}_images:{i}" for part, values in arrays.items() for i in range(len(values))]),
        split=strings([PARTS[part] for part, values in arrays.items() for _ in range(len(values))]),
        row=np.arange(1, len(ids) + 1),
        listing=root.name,
    )
    info = DatasetInfo(root.stem, patients_assumed=True)
    if _OFFICIAL.fullmatch(root.stem):
        info = replace(INFO, name=root.stem, public_ids=True, patients_assumed=True)
    own = _task(np.concatenate(list(arrays.values())), root.name)
    notices = ["MedMNIST says nothing of patients, so every image counts as a patient of its own"]
    return published_dataset(info, None, options, samples, [own], {}, notices=notices)


def _labels(root: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Part → its labels, (images, columns)."""
    if root.is_dir() or not root.is_file():
        raise InputError(f"there is no file {root.name}; --root is a .npz of MedMNIST.")
    try:
        with np.load(root) as file:
            return {part: _of_part(file, part, root.name) for part in PARTS}
    except InputError:
        raise
    except (ValueError, OSError, zipfile.BadZipFile, EOFError):
        raise InputError(f"{root.name} is no .npz file, or damaged; get it anew.") from None
    except KeyError as error:
        raise InputError(f"{root.name} has no array {error.args[0]}: it is none of MedMNIST's files.") from None


def _of_part(file: Any, part: str, name: str) -> npt.NDArray[np.float64]:
    for what in ("images", "labels"):
        if f"{part}_{what}" not in file.files:
            raise KeyError(f"{part}_{what}")
    labels = np.asarray(file[f"{part}_labels"])
    labels = labels.reshape(len(labels), -1)
    shape = _shape(file, f"{part}_images")
    if shape[0] != len(labels):
        raise InputError(f"{name} has {shape[0]} images and {len(labels)} labels in part {part}; get it anew.")
    bad = np.flatnonzero(((labels < 0) | (labels != np.floor(labels))).any(axis=1))
    if len(bad):
        raise InputError(f"label {int(bad[0]) + 1} of part {part} of {name} is no class number; get the file anew.")
    return labels.astype(np.float64)


def _shape(file: Any, key: str) -> tuple[int, ...]:
    """Of an array in the archive, from its header: the images need not be unpacked."""
    with file.zip.open(f"{key}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape: tuple[int, ...] = read(member)[0]
        return shape


def _task(values: npt.NDArray[np.float64], name: str) -> OwnTask:
    if values.shape[1] > 1:
        if (values > 1).any():
            raise InputError(f"{name} has a finding that is neither 0 nor 1; get the file anew.")
        classes = tuple(str(k) for k in range(values.shape[1]))
        return OwnTask(Task(TASK, "multilabel", classes, column="labels"), values)
    count = int(values.max()) + 1
    if count <= 2:
        return OwnTask(Task(TASK, "binary", ("1",), positive="1", column="labels"), values)
    return OwnTask(Task(TASK, "multiclass", tuple(str(k) for k in range(count)), column="labels"), values)
