"""`montgomery`: the Montgomery County chest X-ray set, with a mask for each lung."""

from pathlib import Path

import numpy as np

from embedcache.datasets.base import MASK_SEPARATOR, Dataset, DatasetOptions, Published, adapter
from embedcache.datasets.lung_xrays import READINGS, clinical_columns, readings
from embedcache.datasets.publishing import COMMON_OPTIONS, Masks, absent, file_names, find_root, published_dataset
from embedcache.datasets.systematic import systematic_parts
from embedcache.errors import InputError
from embedcache.types import DatasetInfo, Samples, strings

IMAGES = "CXR_png"
MASKS = ("ManualMask/leftMask", "ManualMask/rightMask")
"""In the order of their classes, 1 and 2."""
NAMES = {1: "left lung", 2: "right lung"}
TEST_EVERY, VALIDATION_EVERY = 3, 4
"""The study's systematic sampling."""

INFO = DatasetInfo(
    name="montgomery",
    licence="Provided by the US National Library of Medicine for research; acknowledgement of source and authors is asked for",
    citation=(
        "Jaeger S, Candemir S, Antani S, Wang YX, Lu PX, Thoma G. Two public chest X-ray datasets for computer-aided screening "
        "of pulmonary diseases. Quant Imaging Med Surg 2014;4(6):475-477. doi:10.3978/j.issn.2223-4292.2014.11.20"
    ),
    homepage="https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html",
    public_ids=True,
)
PUBLISHED = Published(138, "images", 138, "systematic: every 3rd tests, every 4th of the rest validates")


@adapter(INFO, PUBLISHED)
def open_montgomery(root: Path, options: DatasetOptions) -> Dataset:
    """The images in `CXR_png`, sorted; the masks are the left lung (1) and the right (2), the task is the reading.

    Raises InputError if there is no image, and for a file name without a reading.
    """
    options.only(INFO.name, *COMMON_OPTIONS)
    folder = find_root(root, [IMAGES], ["MontgomerySet"], f"--root is the folder that holds {IMAGES} and ManualMask.")
    files = file_names(folder / IMAGES, (".png",))
    if not files:
        raise InputError(f"{folder.name}/{IMAGES} holds no PNG; unpack the Montgomery archive there.")
    names = [file.removesuffix(".png") for file in files]
    task = readings(names, r"MCUCXR_\d{4}_[01]")
    sides = [set(file_names(folder / side, (".png",))) for side in MASKS]
    paths = [
        MASK_SEPARATOR.join(str(folder / side / file) for side in MASKS) if all(file in side for side in sides) else ""
        for file in files
    ]
    samples = Samples(
        id=strings(names),
        patient_id=strings(names),
        path=strings([str(folder / IMAGES / file) for file in files]),
        split=systematic_parts(strings(names), TEST_EVERY, VALIDATION_EVERY),
        row=np.arange(1, len(files) + 1),
        listing=IMAGES,
    )
    missing: list[str] = []
    for side, present in zip(MASKS, sides, strict=True):
        missing += absent([f"{side}/{file}" for file in files if file not in present], "is missing: its image is there")
        missing += absent(
            sorted(f"{IMAGES}/{file}" for file in present - set(files)), f"is missing: its mask in {side} is there"
        )
    return published_dataset(
        INFO,
        PUBLISHED,
        options,
        samples,
        [task],
        clinical_columns(folder / READINGS, names),
        masks=Masks(strings(paths), NAMES),
        missing=dict.fromkeys(missing),
    )
