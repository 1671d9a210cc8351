"""`msd-heart`: Task02_Heart of the Medical Segmentation Decathlon, MR volumes with the left atrium."""

from pathlib import Path

import numpy as np

from embedcache.datasets.base import Dataset, DatasetOptions, Published, adapter
from embedcache.datasets.case_lists import DOCUMENT, cases, read_document
from embedcache.datasets.publishing import COMMON_OPTIONS, Masks, absent, file_names, find_root, published_dataset
from embedcache.datasets.systematic import systematic_parts
from embedcache.errors import InputError
from embedcache.types import DatasetInfo, Samples, strings

TEST_EVERY, VALIDATION_EVERY = 4, 5
"""The study samples systematically and does not print its strides: these make 5, 3 and 12 of the 20."""

INFO = DatasetInfo(
    name="msd-heart",
    licence="CC BY-SA 4.0",
    citation=(
        "Antonelli M, Reinke A, Bakas S, et al. The Medical Segmentation Decathlon. Nat Commun 2022;13:4128. "
        "doi:10.1038/s41467-022-30695-9"
    ),
    homepage="http://medicaldecathlon.com",
    public_ids=True,
)
PUBLISHED = Published(20, "labelled volumes", 20, "systematic: every 4th tests, every 5th of the rest validates")


@adapter(INFO, PUBLISHED)
def open_msd_heart(root: Path, options: DatasetOptions) -> Dataset:
    """The labelled volumes of `imagesTr`, sorted by name; the ten of `imagesTs` have no public mask and are left out.

    Raises InputError if `dataset.json` or every labelled volume is missing.
    """
    options.only(INFO.name, *COMMON_OPTIONS)
    folder = find_root(root, [DOCUMENT], ["Task02_Heart"], f"--root is Task02_Heart, with {DOCUMENT} and imagesTr.")
    document = read_document(folder)
    listed = sorted(cases(document, "training"), key=lambda case: case.name)
    images, masks = (set(file_names(folder / kind, (".nii.gz",))) for kind in ("imagesTr", "labelsTr"))
    whole = [c for c in listed if c.image.split("/")[-1] in images and c.mask.split("/")[-1] in masks]
    if not whole:
        raise InputError(
            f"none of the volumes that {DOCUMENT} lists is there with its mask; unpack imagesTr and labelsTr there."
        )
    ids = strings([case.name for case in whole])
    samples = Samples(
        id=ids,
        patient_id=ids,
        path=strings([str(folder / case.image) for case in whole]),
        split=systematic_parts(ids, TEST_EVERY, VALIDATION_EVERY),
        row=np.arange(1, len(whole) + 1),
        listing=DOCUMENT,
    )
    missing = [
        *absent([c.image for c in listed if c.image.split("/")[-1] not in images], f"is missing: {DOCUMENT} lists it"),
        *absent([c.mask for c in listed if c.mask.split("/")[-1] not in masks], f"is missing: {DOCUMENT} lists it"),
    ]
    held_out = len(cases(document, "test"))
    return published_dataset(
        INFO,
        PUBLISHED,
        options,
        samples,
        [],
        {},
        masks=Masks(strings([str(folder / case.mask) for case in whole]), {1: "left atrium"}),
        missing=missing,
        notices=[f"{held_out} volumes of imagesTs have no public mask, and are left out"] if held_out else [],
    )
