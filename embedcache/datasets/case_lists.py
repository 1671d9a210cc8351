"""`dataset.json` of the Medical Segmentation Decathlon, of AMOS and of nnU-Net: which cases there should be, and labels."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcache.errors import InputError

DOCUMENT = "dataset.json"
VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif", ".tiff")


@dataclass(frozen=True)
class Case:
    """An image and its mask, as paths below the dataset's folder."""

    name: str
    """The image's base name without its ending."""
    image: str
    mask: str
    """"" where it has none."""


def read_document(root: Path) -> dict[str, Any]:
    """The `dataset.json` at `root`. Raises InputError if it is not there or no JSON object."""
    path = root / DOCUMENT
    if not path.is_file():
        raise InputError(f"{root.name} has no {DOCUMENT}; --root is the folder that holds it, imagesTr and labelsTr.")
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{DOCUMENT} of {root.name} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{DOCUMENT} of {root.name} is no JSON object; take the dataset's own.")
    return found


def cases(document: Mapping[str, Any], key: str) -> list[Case]:
    """The cases that the document lists under `key` (`training`, `validation`, `test`); none if it does not list them.

    Raises InputError for an entry that is none, or that leads out of the dataset's folder.
    """
    listed = document.get(key, [])
    if not isinstance(listed, list):
        raise InputError(f"{key!r} in {DOCUMENT} is no list of cases; take the dataset's own.")
    found = []
    for i, entry in enumerate(listed, start=1):
        image, mask = (entry.get("image"), entry.get("label") or "") if isinstance(entry, dict) else (entry, "")
        if not isinstance(image, str) or not isinstance(mask, str):
            raise InputError(f"entry {i} of {key!r} in {DOCUMENT} names no image; take the dataset's own.")
        image, mask = (path.removeprefix("./") for path in (image, mask))
        if any(path.startswith("/") or ".." in path.split("/") for path in (image, mask)):
            raise InputError(
                f"entry {i} of {key!r} in {DOCUMENT} leads out of the dataset's folder; take the dataset's own."
            )
        found.append(Case(stem(image), image, mask))
    return found


def stem(path: str) -> str:
    """The base name of a volume without its ending."""
    name = path.rsplit("/", 1)[-1]
    return next((name[: -len(ending)] for ending in VOLUMES if name.lower().endswith(ending)), name)


def label_names(document: Mapping[str, Any]) -> dict[int, str]:
    """Value → name of each class but 0, whichever way round the document says it. Raises InputError.

    A region of nnU-Net (a name for several values) is left out: masks hold the values.
    """
    labels = document.get("labels")
    if not isinstance(labels, dict):
        raise InputError(f"{DOCUMENT} has no 'labels'; take the dataset's own.")
    found = {}
    for key, value in labels.items():
        if isinstance(value, list):
            continue
        number, name = (key, value) if str(key).isdecimal() else (value, key)
        if not str(number).isdecimal():
            raise InputError(f"label {key!r} in {DOCUMENT} is neither a value's name nor a name's value.")
        if int(number):
            found[int(number)] = str(name)
    return dict(sorted(found.items()))
