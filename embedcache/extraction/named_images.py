"""Images as a user names them on a command line: files, folders, globs, arrays; each found one under the name that was given."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.datasets import DatasetOptions, open_dataset
from embedcache.errors import InputError
from embedcache.images.files import split_path

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".npy",
)  # fmt: skip
"""What is taken of a folder beside the DICOM files in it; a file that is named itself may have any suffix."""
Given: TypeAlias = str | Path | npt.NDArray[Any]


@dataclass(frozen=True)
class NamedImage:
    """One image: a picture, or a volume."""

    name: str
    """As the user gave it, or below what the user gave."""
    path: str


def find_images(given: Sequence[Given], scratch: Path) -> list[NamedImage]:
    """What was named, in that order: a file, an array (y, x) or (slice, y, x), all files that match a glob, or all images
    below a folder, where the DICOM files of a series are one volume, and of a radiograph each is one.

    Arrays are written into `scratch`. Raises InputError for a name that is nothing.
    """
    found: list[NamedImage] = []
    for i, one in enumerate(given):
        if isinstance(one, np.ndarray):
            path = scratch / f"{i}.npy"
            np.save(path, one, allow_pickle=False)
            found.append(NamedImage(f"array {i}", str(path)))
        else:
            found += _named(str(one))
    return found


def _named(text: str) -> list[NamedImage]:
    place = os.path.expanduser(text)
    if os.path.isdir(place):
        return _in_folder(text, place)
    if os.path.exists(split_path(place)[0]):
        return [NamedImage(text, os.path.abspath(place))]
    matches = sorted(glob.glob(place, recursive=True)) if glob.has_magic(place) else []
    if not matches:
        raise InputError(f"there is no file, folder or match for {text!r}; look for a slip in the name.")
    return [image for match in matches for image in _named(match)]


def _in_folder(text: str, folder: str) -> list[NamedImage]:
    """The images below a folder, by name."""
    top = os.path.abspath(folder)
    paths: list[str] = []
    for here, folders, files in os.walk(top):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [
            os.path.join(here, name) for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    try:
        paths += open_dataset("dicom-tree", top, DatasetOptions()).samples().path.tolist()
    except InputError:  # no DICOM image at any depth
        if not paths:
            raise InputError(f"folder {text} holds no image at any depth.") from None
    return [NamedImage(text.rstrip(os.sep) + path[len(top.rstrip(os.sep)) :], path) for path in sorted(paths)]
