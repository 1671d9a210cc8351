"""`shenzhen`: the Shenzhen chest X-ray set, those of its radiographs that have a lung mask."""

from pathlib import Path

import numpy as np

from embedcache.datasets.base import Dataset, DatasetOptions, Published, adapter
from embedcache.datasets.lung_xrays import READINGS, clinical_columns, readings
from embedcache.datasets.publishing import COMMON_OPTIONS, Masks, absent, file_names, find_root, published_dataset
from embedcache.datasets.systematic import systematic_parts
from embedcache.errors import InputError
from embedcache.types import DatasetInfo, Samples, strings

IMAGES, MASKS = "CXR_png", "mask"
MASK_SUFFIX = "_mask.png"
PUBLISHED_MASKS = 566
"""Of 662 radiographs; the masks were published later (Stirenko et al. 2018)."""
TEST_EVERY, VALIDATION_EVERY = 5, 5
"""The study's systematic sampling."""

INFO = DatasetInfo(
    name="shenzhen",
    licence="Provided by the US National Library of Medicine for research; acknowledgement of source and authors is asked for",
    citation=(
        "Jaeger S, Candemir S, Antani S, Wang YX, Lu PX, Thoma G. Two public chest X-ray datasets for computer-aided screening "
        "of pulmonary diseases. Quant Imaging Med Surg 2014;4(6):475-477. doi:10.3978/j.issn.2223-4292.2014.11.20. Masks: "
        "Stirenko S, et al. Chest X-Ray Analysis of Tuberculosis by Deep Learning with Segmentation and Augmentation. "
        "ELNANO 2018. doi:10.1109/ELNANO.2018.8477564"
    ),
    homepage="https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html",
    public_ids=True,
)
PUBLISHED = Published(
    PUBLISHED_MASKS, "images with a mask", 566, "systematic: every 5th tests, every 5th of the rest validates"
)


@adapter(INFO, PUBLISHED)
def open_shenzhen(root: Path, options: DatasetOptions) -> Dataset:
    """The images in `CXR_png` that have a mask in `mask`, sorted; the masks are the lungs, the task is the reading.

    Raises InputError if there is no such image, and for a file name without a reading.
    """
    options.only(INFO.name, *COMMON_OPTIONS)
    folder = find_root(root, [IMAGES], ["ChinaSet_AllFiles"], f"--root is the folder that holds {IMAGES} and {MASKS}.")
    images = [name.removesuffix(".png") for name in file_names(folder / IMAGES, (".png",))]
    masked = {name.removesuffix(MASK_SUFFIX) for name in file_names(folder / MASKS, (MASK_SUFFIX,))}
    names = [name for name in images if name in masked]
    if not names:
        raise InputError(
            f"{folder.name} holds no image in {IMAGES} with a mask in {MASKS}; the masks are an archive of their own."
        )
    task = readings(names, r"CHNCXR_\d{4}_[01]")
    samples = Samples(
        id=strings(names),
        patient_id=strings(names),
        path=strings([str(folder / IMAGES / f"{name}.png") for name in names]),
        split=systematic_parts(strings(names), TEST_EVERY, VALIDATION_EVERY),
        row=np.arange(1, len(names) + 1),
        listing=IMAGES,
    )
    read = {name.removesuffix(".txt") for name in file_names(folder / READINGS, (".txt",))}
    lacking = sorted((masked | read) - set(images))
    unmasked = len(images) - len(names)
    return published_dataset(
        INFO,
        PUBLISHED,
        options,
        samples,
        [task],
        clinical_columns(folder / READINGS, names),
        masks=Masks(strings([str(folder / MASKS / f"{name}{MASK_SUFFIX}") for name in names]), {255: "lung"}),
        missing=absent([f"{IMAGES}/{name}.png" for name in lacking], "is missing: its mask or its reading is there"),
        notices=[f"{unmasked} images without a mask are left out"] if unmasked else [],
    )
