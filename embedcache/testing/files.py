"""Makers of small image files in their real formats, for tests, demos and conformance checks.

What a maker is given is what is stored: pixel values are never scaled.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""ImageOrientationPatient of the usual axial slice: x to the patient's left, y to posterior."""

_STORAGE_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def write_png(path: str | Path, pixels: npt.NDArray[Any]) -> Path:
    """A PNG of (y, x) bool, uint8 or uint16, or of (y, x, 2 | 3 | 4) uint8: grey+alpha, RGB, RGBA."""
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, format="PNG")
    return Path(path)


def write_dicom(
    path: str | Path,
    pixels: npt.NDArray[Any],
    *,
    modality: str = "DX",
    slope: float | None = None,
    intercept: float | None = None,
    photometric: str | None = None,
    window: tuple[float, float] | None = None,
    padding: tuple[int, int] | None = None,
    bits_stored: int | None = None,
    spacing: tuple[float, float] | None = None,
    thickness: float | None = None,
    position: Sequence[float] | None = None,
    orientation: Sequence[float] | None = None,
    instance: int = 1,
    series: str = "series",
    patient_id: str = "made-up",
) -> Path:
    """An uncompressed DICOM file: (y, x) or (frame, y, x) integers, or (y, x, 3) uint8 RGB.

    `window` is (centre, width); `padding` (PixelPaddingValue, PixelPaddingRangeLimit); `spacing` (row, column) mm;
    `position` and `orientation` are ImagePositionPatient and ImageOrientationPatient (LPS, mm). `series` names the
    series: the same word gives the same SeriesInstanceUID.
    """
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.dtype == np.uint8
    dataset = Dataset()
    dataset.SOPClassUID = _STORAGE_CLASSES.get(modality, _SECONDARY_CAPTURE)
    dataset.SOPInstanceUID = _uid(series, str(instance), Path(path).name)
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = _uid(series), _uid("study", series)
    dataset.Modality, dataset.PatientID, dataset.InstanceNumber = modality, patient_id, instance
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = photometric or ("RGB" if colour else "MONOCHROME2")
    if colour:
        dataset.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if slope is not None or intercept is not None:
        dataset.RescaleSlope = 1.0 if slope is None else slope
        dataset.RescaleIntercept = 0.0 if intercept is None else intercept
    if window is not None:
        dataset.WindowCenter, dataset.WindowWidth = window
    if padding is not None:
        vr = "SS" if dataset.PixelRepresentation else "US"
        dataset.add_new("PixelPaddingValue", vr, padding[0])
        dataset.add_new("PixelPaddingRangeLimit", vr, padding[1])
    if spacing is not None:
        dataset.PixelSpacing = list(spacing)
    if thickness is not None:
        dataset.SliceThickness = thickness
    if position is not None:
        dataset.ImagePositionPatient = [float(v) for v in position]
        dataset.ImageOrientationPatient = [float(v) for v in (AXIAL if orientation is None else orientation)]
    little = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset.add_new("PixelData", "OB" if pixels.dtype.itemsize == 1 else "OW", little + b"\0" * (len(little) % 2))
    return _save(dataset, path)


def write_series(
    folder: str | Path,
    volume: npt.NDArray[Any],
    *,
    modality: str = "CT",
    spacing: tuple[float, float, float] = (2.0, 0.7, 0.7),
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    orientation: Sequence[float] = AXIAL,
    slopes: Sequence[float] | None = None,
    intercepts: Sequence[float] | None = None,
    windows: Sequence[tuple[float, float]] | None = None,
    padding: tuple[int, int] | None = None,
    instances: Sequence[int] | None = None,
    positions: bool = True,
    series: str = "series",
    seed: int = 0,
) -> Path:
    """A folder with one DICOM file per slice of `volume` (slice, y, x), the slices ascending along their normal.

    File names are shuffled by `seed`, and so is InstanceNumber unless `instances` gives it; `spacing` is (between
    slices, row, column) mm; `slopes`, `intercepts` and `windows` have a value per slice.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    n = len(volume)
    names = rng.permutation(n).tolist()
    numbers = (rng.permutation(n) + 1).tolist() if instances is None else list(instances)
    normal = np.cross(np.asarray(orientation)[:3], np.asarray(orientation)[3:])
    for i in range(n):
        write_dicom(
            folder / f"IM{names[i]:04d}.dcm",
            volume[i],
            modality=modality,
            slope=None if slopes is None else slopes[i],
            intercept=None if intercepts is None else intercepts[i],
            window=None if windows is None else windows[i],
            padding=padding,
            spacing=spacing[1:],
            thickness=spacing[0],
            position=(np.asarray(origin) + i * spacing[0] * normal).tolist() if positions else None,
            orientation=orientation,
            instance=numbers[i],
            series=series,
        )
    return folder


def write_nifti(
    path: str | Path,
    voxels: npt.NDArray[Any],
    affine: npt.ArrayLike | None = None,
    *,
    slope: float | None = None,
    intercept: float | None = None,
) -> Path:
    """A .nii or .nii.gz of voxels (i, j, k[, t]) as they are; `affine` (default: 1 mm, RAS) is stored as the sform."""
    matrix = np.eye(4) if affine is None else np.asarray(affine, dtype=np.float64)
    image = nib.Nifti1Image(voxels, matrix, dtype=voxels.dtype)
    # With numbers in the header, nibabel writes the array as it is; without, it would choose a scale of its own.
    image.header.set_slope_inter(1.0 if slope is None else slope, 0.0 if intercept is None else intercept)
    nib.save(image, path)
    return Path(path)


def _uid(*words: str) -> UID:
    return generate_uid(entropy_srcs=["embedcache", *words])


def _save(dataset: Dataset, path: str | Path) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)
    return Path(path)


def write_mixture(
    folder: Path, rng: np.random.Generator, rasters: int, dicoms: int, volumes: int, slices: int
) -> list[str]:
    """Small radiographs (PNG and 12-bit DICOM) and volumes (NIfTI) of random pixels; returns their file names."""
    names = []
    for i in range(rasters):
        names.append(f"raster{i:02}.png")
        write_png(folder / names[-1], rng.integers(0, 256, (60, 50)).astype(np.uint8))
    for i in range(dicoms):
        names.append(f"radiograph{i:02}.dcm")
        write_dicom(folder / names[-1], rng.integers(0, 4096, (60, 50)).astype(np.uint16), bits_stored=12)
    for i in range(volumes):
        names.append(f"volume{i}.nii.gz")
        write_nifti(folder / names[-1], rng.normal(size=(40, 30, slices)).astype(np.float32))
    return names
