"""`nih-cxr14`: ChestX-ray14 in the layout in which the NIH Clinical Center distributes it."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedcache.datasets.base import Dataset, DatasetOptions, ListedDataset, Published, adapter, check_samples, named
from embedcache.datasets.columns import Table, TableColumns, read_table
from embedcache.datasets.labelling import all_rows, long_rows
from embedcache.datasets.publishing import COMMON_OPTIONS
from embedcache.datasets.second_table import join_labels
from embedcache.errors import InputError
from embedcache.store.texts import locate
from embedcache.types import DatasetInfo, IntArray, Labels, Samples, StringArray, Task, strings

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
"""In the published order."""
NO_FINDING = "No Finding"
PUBLISHED_IMAGES = 112_120
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}
TASK = "findings"

INFO = DatasetInfo(
    name="nih-cxr14",
    version="2017",
    licence="Provided by the NIH Clinical Center, no restriction on use; link, citation and acknowledgement are asked for",
    citation=(
        "Wang X, Peng Y, Lu L, Lu Z, Bagheri M, Summers RM. ChestX-ray8: Hospital-scale Chest X-ray Database and "
        "Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases. CVPR 2017. "
        "doi:10.1109/CVPR.2017.369"
    ),
    homepage="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    public_ids=True,
)


PUBLISHED = Published(
    PUBLISHED_IMAGES, "images", 30_805, "official lists; validation is drawn by patient from train_val"
)


@adapter(INFO, PUBLISHED)
def open_nih_cxr14(root: Path, options: DatasetOptions) -> Dataset:
    """The images that are at `root`, in the order of NIH's table; `train_val_list.txt` is `train`.

    Ids are file names. Raises InputError if the table or every image is missing, and for a finding that is not among
    the 14, an image in both lists, or a patient in both.
    """
    options.only("nih-cxr14", *COMMON_OPTIONS)
    table = _table(root)
    listed = _column(table, "Image Index")
    files = _files(root)
    present = np.flatnonzero(locate(listed, strings(list(files))) >= 0)
    if not len(present):
        raise InputError(
            f"none of the {len(table):,} images in {table.name} is in {root.name}/images or {root.name}/images_*/images; "
            f"unpack NIH's image archives there."
        )
    ids = listed[present]
    split, missing_lists = _split(root, ids)
    samples = Samples(
        id=ids,
        patient_id=_column(table, "Patient ID")[present],
        path=strings([files[name] for name in ids.tolist()]),
        split=split,
        row=present + 1,
        listing=table.name,
    )
    check_samples(samples)
    values = _findings(table)[present]
    joined = join_labels(samples, options) if options.label_table or options.join_on else None
    missing = (*_absent(table, listed, present), *missing_lists)
    notices = (*_sizes(table, samples, files), *missing, *(joined.notices if joined else ()))
    task = Task(TASK, "multilabel", FINDINGS, column="Finding Labels")

    def labels() -> Labels:
        own = long_rows(task, values, samples.id, samples.patient_id, samples.split)
        return all_rows([own, *(joined.parts if joined else [])], samples)

    version = "2017, table of 2020" if table.name == TABLES[0] else "2017"
    info = replace(INFO, version=version)
    info = named(info, options, INFO.name)
    origins = joined.origins if joined else {}
    return ListedDataset(info, notices, samples, labels, TableColumns(table, present), missing, origins=origins)


def _table(root: Path) -> Table:
    if not root.is_dir():
        raise InputError(f"there is no folder {root.name}; --root is the folder that holds {TABLES[1]} and images.")
    for name in TABLES:
        if (root / name).is_file():
            return read_table(root / name)
    raise InputError(f"{root.name} has neither {TABLES[0]} nor {TABLES[1]}; put NIH's table there.")


def _column(table: Table, name: str) -> StringArray:
    if name not in table.names:
        raise InputError(f"{table.name} has no column {name!r}; it is not NIH's table.")
    return table.column(name).text()


def _files(root: Path) -> dict[str, str]:
    """Base name → path of every PNG in the folders where NIH puts images."""
    folders = [root / "images", *sorted(root.glob("images_*/images")), *sorted(root.glob("images_*")), root]
    files: dict[str, str] = {}
    for folder in folders:
        if folder.is_dir():
            for name in sorted(os.listdir(folder)):
                if name.lower().endswith(".png"):
                    files.setdefault(name, str(folder / name))
    return files


def _split(root: Path, ids: StringArray) -> tuple[StringArray, tuple[str, ...]]:
    """The part of each image, and a notice for each list that is not there."""
    part: dict[str, str] = {}
    notices = []
    for name, value in LISTS.items():
        if not (root / name).is_file():
            notices.append(f"{name} is missing: its images have no split of their own")
            continue
        listed = (root / name).read_text(encoding="utf-8").split()
        both = next((image for image in listed if part.get(image, value) != value), None)
        if both is not None:
            raise InputError(f"image {both} is in train_val_list.txt and in test_list.txt; take NIH's own lists.")
        part.update(dict.fromkeys(listed, value))
    split = strings([part.get(image, "") for image in ids.tolist()])
    unlisted = int((split == "").sum())
    if unlisted and not notices:
        notices.append(f"{unlisted:,} images are in neither list, and have no split")
    return split, tuple(notices)


def _findings(table: Table) -> npt.NDArray[np.float64]:
    """Shape (rows, 14), 1 where the table names the finding."""
    _column(table, "Finding Labels")
    column = table.column("Finding Labels")
    place = {name: k for k, name in enumerate(FINDINGS)}
    values = np.zeros((len(column.words), len(FINDINGS)))
    for code, word in enumerate(column.words):
        for name in word.split("|"):
            if name in place:
                values[code, place[name]] = 1
            elif name != NO_FINDING:
                row = int(np.flatnonzero(column.codes == code)[0])
                raise InputError(
                    f"{table.where(row)} has the finding {name!r}, which is none of the 14; take NIH's own table."
                )
    return values[column.codes]


def _sizes(table: Table, samples: Samples, files: dict[str, str]) -> tuple[str, ...]:
    notices = []
    if len(samples) != PUBLISHED_IMAGES:
        notices.append(f"{len(samples):,} of the {PUBLISHED_IMAGES:,} published images are here: a subset")
    if len(samples) < len(files):
        notices.append(f"{len(files) - len(samples):,} images have no row in {table.name}, and are left out")
    return tuple(notices)


def _absent(table: Table, listed: StringArray, present: IntArray) -> tuple[str, ...]:
    absent = np.delete(listed, present)
    if not len(absent):
        return ()
    return (f"{len(absent):,} of the {len(table):,} images in {table.name} have no file, the first is {absent[0]}",)
