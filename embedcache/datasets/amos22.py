"""`amos22`: the CT volumes of AMOS22 with fifteen abdominal organs."""

from pathlib import Path

import numpy as np

from embedcache.datasets.base import Dataset, DatasetOptions, Published, adapter
from embedcache.datasets.case_lists import DOCUMENT, Case, cases, read_document, stem
from embedcache.datasets.publishing import COMMON_OPTIONS, Masks, absent, file_names, find_root, published_dataset
from embedcache.errors import InputError
from embedcache.types import DatasetInfo, Samples, StringArray, strings

ORGANS = (
    "spleen", "right kidney", "left kidney", "gall bladder", "esophagus", "liver", "stomach", "aorta", "postcava",
    "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder", "prostate or uterus",
)  # fmt: skip
"""Of the mask values 1 to 15."""
FIRST_MR = 500
"""Ids from here on are MR."""
TEST, VALIDATION, TRAIN = 50, 20, 80
"""The study's parts of 150 of the 300 CT volumes, drawn by systematic strides."""
FOLDERS = (("training", "Tr"), ("validation", "Va"))

INFO = DatasetInfo(
    name="amos22",
    version="22",
    licence="CC BY 4.0",
    citation=(
        "Ji Y, Bai H, Yang J, et al. AMOS: A Large-Scale Abdominal Multi-Organ Benchmark for Versatile Medical Image "
        "Segmentation. NeurIPS 2022 Datasets and Benchmarks. arXiv:2206.08023"
    ),
    homepage="https://zenodo.org/records/7262581",
    public_ids=True,
)
PUBLISHED = Published(
    300,
    "CT volumes with masks",
    300,
    'systematic: 50 test, 20 validate, 80 train as in the paper (`--where "paper_subset == 1"`); the other 150 are in no part',
)


@adapter(INFO, PUBLISHED)
def open_amos22(root: Path, options: DatasetOptions) -> Dataset:
    """The CT volumes of imagesTr and imagesVa that have a mask, sorted by id; a volume is a patient.

    Raises InputError if `dataset.json` or every volume is missing, and for a name that is none of AMOS's.
    """
    options.only(INFO.name, *COMMON_OPTIONS)
    folder = find_root(root, [DOCUMENT], ["amos22"], f"--root is the folder that holds {DOCUMENT} and imagesTr.")
    document = read_document(folder)
    found: list[Case] = []
    missing: list[str] = []
    for key, part in FOLDERS:
        images, masks = (set(file_names(folder / f"{kind}{part}", (".nii.gz",))) for kind in ("images", "labels"))
        listed = [case for case in cases(document, key) if _is_ct(case.name)]
        names = sorted({*images, *(case.image.rsplit("/", 1)[-1] for case in listed)})
        names = [name for name in names if _is_ct(stem(name))]
        missing += absent([f"images{part}/{n}" for n in names if n not in images], f"is missing: {DOCUMENT} lists it")
        missing += absent(
            [f"labels{part}/{n}" for n in names if n in images and n not in masks], "is missing: its image is there"
        )
        missing += absent(
            sorted(f"images{part}/{n}" for n in masks - set(names) if _is_ct(stem(n))), "is missing: its mask is there"
        )
        found += [Case(stem(n), f"images{part}/{n}", f"labels{part}/{n}") for n in names if n in images and n in masks]
    if not found:
        raise InputError(
            f"{folder.name} holds no CT volume of imagesTr or imagesVa with its mask; unpack AMOS22 there."
        )
    found.sort(key=lambda case: case.name)
    ids = strings([case.name for case in found])
    split = study_parts(len(found))
    samples = Samples(
        id=ids,
        patient_id=ids,
        path=strings([str(folder / case.image) for case in found]),
        split=split,
        row=np.arange(1, len(found) + 1),
        listing=DOCUMENT,
    )
    columns = {
        "paper_subset": (split != "").astype(np.float64),
        "folder": strings([case.image.split("/", 1)[0] for case in found]),
    }
    masks_of = Masks(strings([str(folder / case.mask) for case in found]), dict(enumerate(ORGANS, start=1)))
    return published_dataset(INFO, PUBLISHED, options, samples, [], columns, masks=masks_of, missing=missing)


def _is_ct(name: str) -> bool:
    number = name.removeprefix("amos_")
    if number == name or not number.isdecimal():
        raise InputError(f"{name!r} is no name of AMOS22, which are like amos_0001; take its own files.")
    return int(number) < FIRST_MR


def study_parts(n: int) -> StringArray:
    """The part of each of `n` sorted volumes: 50, 20 and 80 of 300, even strides of what is left each time; of fewer volumes
    in proportion.
    """
    part = np.full(n, "", dtype=strings([""]).dtype)
    whole = PUBLISHED.samples
    for name, wanted in (("test", TEST), ("validation", VALIDATION), ("train", TRAIN)):
        rest = np.flatnonzero(part == "")
        if not len(rest):
            break
        count = min(len(rest), max(1, round(wanted * n / whole)))
        part[rest[(np.arange(count) * len(rest)) // count + (len(rest) // count) - 1]] = name
    return part
