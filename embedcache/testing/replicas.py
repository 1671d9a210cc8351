"""Small replicas of the study's datasets: real layouts, file names and headers, random pixels. Tens of files each.

`make_replica("montgomery", folder)` lays one out and returns what `--root` is. What a maker writes is complete: as it stands
a replica lacks nothing but size.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedcache.errors import suggest
from embedcache.testing.files import write_nifti, write_png
from embedcache.testing.replicas_generic import GENERIC


def make_replica(name: str, folder: str | Path, seed: int = 0) -> Path:
    """A replica of the registered dataset `name` in `folder`: its root. Raises UnknownNameError for one without a replica."""
    makers = MAKERS | GENERIC
    if name not in makers:
        raise suggest("replica", name, makers)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    return makers[name](place, np.random.default_rng(seed))


def _nih(folder: Path, rng: np.random.Generator) -> Path:
    rows = [
        ("00000001_000.png", "Cardiomegaly|Emphysema", 1, "PA", "train"),
        ("00000001_001.png", "Hernia", 1, "AP", "train"),
        ("00000002_000.png", "No Finding", 2, "PA", "train"),
        ("00000003_000.png", "Mass", 3, "PA", "test"),
        ("00000004_000.png", "Effusion|Infiltration", 4, "AP", "test"),
        ("00000005_000.png", "No Finding", 5, "PA", "train"),
    ]
    head = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    )
    # the published header's brackets hold commas, so its last names come apart into two columns each
    lines = [
        f"{name},{found},0,{patient},5{patient},M,{view},2682,2749,0.143,0.143,"
        for name, found, patient, view, _ in rows
    ]
    (folder / "Data_Entry_2017.csv").write_text("\n".join([head, *lines]) + "\n")
    for i, (name, *_) in enumerate(rows):
        images = folder / f"images_{1 + i // 3:03}" / "images"
        images.mkdir(parents=True, exist_ok=True)
        write_png(images / name, _pixels(rng, 48, 48))
    for list_name, part in (("train_val_list.txt", "train"), ("test_list.txt", "test")):
        (folder / list_name).write_text("\n".join(row[0] for row in rows if row[4] == part))
    return folder


CHEXPERT_HEAD = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,"
    "Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def _chexpert(folder: Path, rng: np.random.Generator) -> Path:
    root = folder / "CheXpert-v1.0-small"
    values = ["1.0", "0.0", "-1.0", ""]
    for part, patients in (("train", range(1, 8)), ("valid", range(64_541, 64_545))):
        lines = [CHEXPERT_HEAD]
        for patient in patients:
            views = ["view1_frontal", "view2_lateral"] if patient % 2 else ["view1_frontal"]
            for view in views:
                place = f"{part}/patient{patient:05}/study1/{view}.jpg"
                (root / place).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(_pixels(rng, 39, 32)).save(root / place, format="JPEG")
                frontal = "frontal" in view
                labels = [values[(patient + k) % (4 if part == "train" else 2)] for k in range(14)]
                kind = ("Frontal", "AP") if frontal else ("Lateral", "")
                lines.append(",".join([f"CheXpert-v1.0-small/{place}", "Female", "68", *kind, *labels]))
        (root / f"{part}.csv").write_text("\n".join(lines) + "\n")
    return root


def _montgomery(folder: Path, rng: np.random.Generator) -> Path:
    root = folder / "MontgomerySet"
    for place in ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask", "ClinicalReadings"):
        (root / place).mkdir(parents=True)
    for i in range(1, 13):
        name = f"MCUCXR_{i:04}_{i % 2}"
        write_png(root / "CXR_png" / f"{name}.png", _pixels(rng, 40, 48))
        for side, columns in (("left", slice(26, 40)), ("right", slice(6, 20))):
            write_png(root / "ManualMask" / f"{side}Mask" / f"{name}.png", _blob(40, 48, slice(8, 32), columns))
        (root / "ClinicalReadings" / f"{name}.txt").write_text("Patient's Sex: F\nPatient's Age: 027Y\nnormal\n")
    return root


def _shenzhen(folder: Path, rng: np.random.Generator) -> Path:
    root = folder / "ChinaSet_AllFiles"
    for place in ("CXR_png", "mask", "ClinicalReadings"):
        (root / place).mkdir(parents=True)
    for i in range(1, 14):
        name = f"CHNCXR_{i:04}_{int(i > 6)}"
        write_png(root / "CXR_png" / f"{name}.png", np.repeat(_pixels(rng, 40, 44)[..., np.newaxis], 3, axis=2))
        if i % 6:  # some radiographs have no mask
            mask = _blob(40, 44, slice(6, 34), slice(5, 18)) | _blob(40, 44, slice(6, 34), slice(26, 39))
            write_png(root / "mask" / f"{name}_mask.png", mask)
        (root / "ClinicalReadings" / f"{name}.txt").write_text("male 45yrs\nnormal\n")
    return root


def _sars(folder: Path, rng: np.random.Generator) -> Path:
    root = folder / "New_Data_CoV2"
    for klass, prefix, patients in (("Covid", "Covid", 4), ("Healthy", "Normal", 3), ("Others", "Others", 3)):
        first = 1
        for patient in range(1, patients + 1):
            place = root / klass / f"Patient ({patient})"
            place.mkdir(parents=True)
            for _ in range(3):
                write_png(place / f"{prefix} ({first}).png", _pixels(rng, 30, 42))
                first += 1
    return root


AMOS_LABELS = (
    "background", "spleen", "right kidney", "left kidney", "gall bladder", "esophagus", "liver", "stomach", "arota",
    "postcava", "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder", "prostate/uterus",
)  # fmt: skip
"""As `dataset.json` spells them."""


def _amos(folder: Path, rng: np.random.Generator) -> Path:
    root = folder / "amos22"
    listed: dict[str, list[dict[str, str]]] = {"training": [], "validation": []}
    for key, part, ids in (("training", "Tr", [1, 4, 5, 6, 7, 9, 507, 508]), ("validation", "Va", [8, 13, 18, 510])):
        for kind in ("images", "labels"):
            (root / f"{kind}{part}").mkdir(parents=True)
        for i in ids:
            name = f"amos_{i:04}.nii.gz"
            write_nifti(
                root / f"images{part}" / name, rng.integers(-1000, 600, (12, 10, 6)).astype(np.int16), _spaced(0.7, 5)
            )
            write_nifti(
                root / f"labels{part}" / name, rng.integers(0, 16, (12, 10, 6)).astype(np.uint8), _spaced(0.7, 5)
            )
            listed[key].append({"image": f"./images{part}/{name}", "label": f"./labels{part}/{name}"})
    document = {
        "name": "AMOS", "tensorImageSize": "3D", "modality": {"0": "CT"},
        "labels": {str(k): name for k, name in enumerate(AMOS_LABELS)}, **listed, "test": [],
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(document))
    return root


def _msd_heart(folder: Path, rng: np.random.Generator) -> Path:
    return write_decathlon(
        folder / "Task02_Heart", rng, [f"la_{i:03}" for i in (3, 4, 5, 7, 9, 10, 11, 14)], ["la_001", "la_002"],
        {"0": "background", "1": "left atrium"}, {"0": "MRI"},
    )  # fmt: skip


def write_decathlon(
    root: Path,
    rng: np.random.Generator,
    training: Sequence[str],
    test: Sequence[str],
    labels: dict[str, str],
    modality: dict[str, str],
) -> Path:
    """A task of the Medical Segmentation Decathlon, with the `._` files that its archives hold."""
    for place in ("imagesTr", "labelsTr", "imagesTs"):
        (root / place).mkdir(parents=True)
    for name in training:
        write_nifti(
            root / "imagesTr" / f"{name}.nii.gz", rng.random((10, 12, 5), dtype=np.float32), _spaced(1.25, 1.37)
        )
        mask = rng.integers(0, len(labels), (10, 12, 5)).astype(np.uint8)
        write_nifti(root / "labelsTr" / f"{name}.nii.gz", mask, _spaced(1.25, 1.37))
        (root / "imagesTr" / f"._{name}.nii.gz").write_bytes(b"\0\5\26\7")
    for name in test:
        write_nifti(
            root / "imagesTs" / f"{name}.nii.gz", rng.random((10, 12, 5), dtype=np.float32), _spaced(1.25, 1.37)
        )
    document = {
        "name": root.name, "tensorImageSize": "3D", "modality": modality, "labels": labels, "numTraining": len(training),
        "numTest": len(test), "test": [f"./imagesTs/{name}.nii.gz" for name in test],
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in training],
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(document))
    return root


def _brain_tumor(folder: Path, rng: np.random.Generator) -> Path:
    root = folder / "1512427"
    for i in range(1, 16):
        place = root / f"brainTumorDataPublic_{1 + 8 * ((i - 1) // 8)}-{8 if i < 9 else 15}"
        place.mkdir(parents=True, exist_ok=True)
        patient = f"10{(i - 1) // 3:04}"
        mask = _blob(32, 32, slice(8, 20), slice(10, 24)) // 255
        write_brain_tumor(
            place / f"{i}.mat", rng.integers(0, 2000, (32, 32)).astype(np.int16), mask, 1 + (i - 1) % 3, patient
        )
    return root


def write_brain_tumor(
    path: str | Path, image: npt.NDArray[np.int16], mask: npt.NDArray[np.uint8], label: int, patient: str
) -> Path:
    """One file as figshare has it: MATLAB 7.3, that is HDF5 with a head of 512 bytes and the arrays' axes turned round."""
    import h5py  # an extra

    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("cjdata")
        for name, values, kind in (
            ("image", image.T, "int16"),
            ("tumorMask", mask.T.astype(np.uint8), "logical"),
            ("label", np.array([[float(label)]]), "double"),
            ("PID", np.array([[ord(letter)] for letter in patient], dtype=np.uint16), "char"),
            ("tumorBorder", _border(mask), "double"),
        ):
            group.create_dataset(name, data=values).attrs["MATLAB_class"] = np.bytes_(kind)
    with open(path, "r+b") as raw:
        head = b"MATLAB 7.3 MAT-file, Platform: PCWIN64, Created on: Mon Jan 01 00:00:00 2015 HDF5 schema 1.00 ."
        raw.write(head.ljust(124) + b"\x00\x02IM")
    return Path(path)


def _border(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The tumour's corners as figshare has the border: x and y in turn."""
    y, x = np.nonzero(mask)
    return np.array([[x.min()], [y.min()], [x.max()], [y.max()]], dtype=np.float64)


def _pixels(rng: np.random.Generator, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    return rng.integers(0, 255, (rows, columns)).astype(np.uint8)


def _blob(rows: int, columns: int, y: slice, x: slice) -> npt.NDArray[np.uint8]:
    mask = np.zeros((rows, columns), dtype=np.uint8)
    mask[y, x] = 255
    return mask


def _spaced(in_plane: float, between: float) -> npt.NDArray[np.float64]:
    return np.diag([in_plane, in_plane, between, 1.0])


MAKERS: dict[str, Callable[[Path, np.random.Generator], Path]] = {
    "nih-cxr14": _nih,
    "chexpert": _chexpert,
    "montgomery": _montgomery,
    "shenzhen": _shenzhen,
    "sars-cov-2-ct": _sars,
    "amos22": _amos,
    "msd-heart": _msd_heart,
    "brain-tumor": _brain_tumor,
}
"""The study's eight."""
