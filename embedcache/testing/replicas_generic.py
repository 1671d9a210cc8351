"""Small data in the generic layouts: a table, a folder per class, a DICOM tree, an nnU-Net dataset, a MedMNIST file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from embedcache.testing.files import write_dicom, write_nifti, write_png, write_series


def _table(folder: Path, rng: np.random.Generator) -> Path:
    lines = ["path,patient,split,finding,age"]
    for i in range(8):
        write_png(folder / f"image{i}.png", rng.integers(0, 255, (20, 24)).astype(np.uint8))
        lines.append(f"image{i}.png,P{i // 2},{'test' if i > 5 else 'train'},{('mass', 'normal')[i % 2]},{40 + i // 2}")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    return folder / "cases.csv"


def _folder(folder: Path, rng: np.random.Generator) -> Path:
    for part in ("train", "test"):
        for klass in ("normal", "tumour"):
            place = folder / "scans" / part / klass
            place.mkdir(parents=True)
            for i in range(3):
                write_png(place / f"{i}.png", rng.integers(0, 255, (20, 24)).astype(np.uint8))
    return folder / "scans"


def _dicom_tree(folder: Path, rng: np.random.Generator) -> Path:
    """Two CT series mixed in one folder, a third in a folder of its own, two radiographs of one series, and a README."""
    root = folder / "archive"
    mixed = root / "DICOM" / "0000"
    for name, slices in (("thorax", 5), ("abdomen", 4)):
        write_series(root / name, rng.integers(0, 2000, (slices, 16, 16)).astype(np.uint16), series=name)
        mixed.mkdir(parents=True, exist_ok=True)
        for i, file in enumerate(sorted((root / name).iterdir())):
            file.rename(mixed / f"{name[0]}{i:04}")
        (root / name).rmdir()
    write_series(root / "DICOM" / "0001", rng.integers(0, 2000, (3, 16, 16)).astype(np.uint16), series="head")
    for i, view in enumerate(("pa", "lat")):
        pixels = rng.integers(0, 4000, (24, 20 + i)).astype(np.uint16)
        write_dicom(root / f"{view}.dcm", pixels, modality="DX", series="chest", instance=i + 1)
    (root / "README").write_text("an export")
    return root


def _nnunet(folder: Path, rng: np.random.Generator) -> Path:
    root = folder / "Dataset042_Liver"
    for place in ("imagesTr", "labelsTr", "imagesTs"):
        (root / place).mkdir(parents=True)
    for i in range(5):
        for channel in range(2):
            voxels = rng.integers(0, 900, (10, 8, 4)).astype(np.int16)
            write_nifti(root / "imagesTr" / f"liver_{i:03}_{channel:04}.nii.gz", voxels)
        write_nifti(root / "labelsTr" / f"liver_{i:03}.nii.gz", rng.integers(0, 3, (10, 8, 4)).astype(np.uint8))
    write_nifti(root / "imagesTs" / "liver_900_0000.nii.gz", rng.integers(0, 900, (10, 8, 4)).astype(np.int16))
    document = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "liver": 1, "tumor": 2},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(document))
    return root


def _medmnist(folder: Path, rng: np.random.Generator) -> Path:
    arrays = {}
    for part, count in (("train", 12), ("val", 4), ("test", 6)):
        arrays[f"{part}_images"] = rng.integers(0, 255, (count, 28, 28)).astype(np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % 3).astype(np.uint8)[:, np.newaxis]
    np.savez_compressed(folder / "organamnist.npz", **arrays)  # type: ignore[arg-type]  # its stub takes any key for allow_pickle
    return folder / "organamnist.npz"


GENERIC: dict[str, Callable[[Path, np.random.Generator], Path]] = {
    "table": _table,
    "folder": _folder,
    "dicom-tree": _dicom_tree,
    "nnunet": _nnunet,
    "medmnist": _medmnist,
}
