"""NRRD and MetaImage (.nrrd, .nhdr, .mha, .mhd) through SimpleITK, an extra.

As in NIfTI, slices run from feet to head and are shown as a radiologist sees them, by the header's directions; nothing is
resampled. A header without a named space says no orientation: its slices come as they are stored.
"""

import math
import os
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import ImageError
from embedcache.images.files import detached_files
from embedcache.images.parsed import DEFLATE_RATIO, Parsed, plain_calibration, reading
from embedcache.images.planes import in_plane

_IO = {"nrrd": "NrrdImageIO", "metaimage": "MetaImageIO"}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def parse_itk(path: str, form: str, time: int = 0) -> Parsed:
    """One time point of the volume at `path`, whose values are read when they are decoded. Raises ImageError(stage="open").

    form: `nrrd` or `metaimage`.
    """
    reader = _headed(path, form)
    listed = _is_list(reader)
    size, dtype = reader.GetSize(), _dtype(reader, listed)
    _check_claim(path, math.prod(size) * dtype.itemsize * reader.GetNumberOfComponents())
    times = reader.GetNumberOfComponents() if listed else size[3] if len(size) == 4 else 1
    if time >= times:
        raise ImageError(f"it has {times} time points, and number {time} (from 0) was asked for.", "open")
    notes = [f"only the first of {times} time points is read"] if times > 1 and time == 0 else []
    affine = _affine(reader, form)
    if affine is None:
        notes.append("the header does not say how the volume is oriented")
    columns, rows, slices = (*size, 1)[:3]
    parsed = Parsed(
        "volume",
        slices,
        plain_calibration(slices),
        _decoder(reader, time, listed),
        spacing=_spacing(reader),
        affine=affine,
        grid=(rows, columns),
        time_point=time,
        warnings=tuple(notes),
    )
    return parsed if affine is None else in_plane(parsed, "axial", note_obliqueness=False)


def _headed(path: str, form: str) -> Any:
    """SimpleITK's reader of the file, its header read."""
    sitk = _simpleitk()
    reader = sitk.ImageFileReader()
    with reading("the header can not be read: the file is cut short or damaged.", "open"):
        reader.SetImageIO(_IO[form])
        reader.SetFileName(path)
        reader.ReadImageInformation()
        dimensions = reader.GetDimension()
    if dimensions not in (2, 3, 4):
        raise ImageError(f"it has {dimensions} dimensions; images, volumes and series of volumes are read.", "open")
    return reader


def _is_list(reader: Any) -> bool:
    """Whether what SimpleITK takes for components of a voxel is a list of volumes, as Slicer's sequences (`.seq.nrrd`) are."""
    kinds = {reader.GetMetaData(key) for key in reader.GetMetaDataKeys() if key.startswith("NRRD_kinds")}
    return reader.GetNumberOfComponents() > 1 and bool(kinds & {"list", "time"})


def _dtype(reader: Any, listed: bool) -> np.dtype[Any]:
    """Of one component. Raises ImageError for anything but real numbers, and RGB in 8 bits."""
    sitk = _simpleitk()
    name = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    found = re.fullmatch(r"(?:vector of )?(?:(8|16|32|64)-bit (signed|unsigned) integer|(32|64)-bit float)", name)
    components = reader.GetNumberOfComponents()
    if found is None or (components > 1 and not listed and (components, found[1], found[2]) != (3, "8", "unsigned")):
        raise ImageError(
            f"its voxels are {components} x {name}; only real numbers, and RGB in 8 bits, are read.", "open"
        )
    return np.dtype(f"f{int(found[3]) // 8}" if found[3] else f"{'iu'[found[2] == 'unsigned']}{int(found[1]) // 8}")


def _check_claim(path: str, size: int) -> None:
    """Raises ImageError if the files can not hold `size` bytes of values, however well they are packed."""
    there = sum(os.stat(name).st_size for name in [path, *detached_files(path)])
    if size > DEFLATE_RATIO * there:
        raise ImageError("its header says more values than the file can hold.", "open")


def _affine(reader: Any, form: str) -> npt.NDArray[np.float64] | None:
    """Voxel (slice, y, x) to RAS mm."""
    if reader.GetDimension() == 2:
        return None
    # SimpleITK turns every anatomical space of NRRD to this one, and leaves the others (scanner-xyz, none) as they are
    if form == "nrrd" and not (
        reader.HasMetaDataKey("NRRD_space") and reader.GetMetaData("NRRD_space") == "left-posterior-superior"
    ):
        return None
    n = reader.GetDimension()
    direction = np.array(reader.GetDirection()).reshape(n, n)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = (direction * np.array(reader.GetSpacing())[:3])[:, ::-1]
    affine[:3, 3] = reader.GetOrigin()[:3]
    return np.asarray(_LPS_TO_RAS @ affine)


def _spacing(reader: Any) -> tuple[float, float, float] | None:
    column, row, between = (*reader.GetSpacing(), 1.0)[:3]
    return (between, row, column) if reader.GetDimension() > 2 and min(between, row, column) > 0 else None


def _decoder(reader: Any, time: int, listed: bool) -> Callable[[int, int], npt.NDArray[Any]]:
    sitk = _simpleitk()

    @cache
    def whole() -> npt.NDArray[Any]:
        if reader.GetDimension() == 4:
            reader.SetExtractIndex([0, 0, 0, time])
            reader.SetExtractSize([*reader.GetSize()[:3], 0])
        with reading("its values are cut short or damaged.", "decode"):
            values = np.asarray(sitk.GetArrayFromImage(reader.Execute()))
        if listed:
            values = values[..., time].copy()  # the others are let go
        return values[np.newaxis] if reader.GetDimension() == 2 else values

    return lambda start, stop: whole()[start:stop].copy()


def _simpleitk() -> Any:
    try:
        import SimpleITK  # an extra
    except ImportError as error:
        raise ImageError(
            "reading NRRD and MetaImage needs SimpleITK: pip install 'embedcache[volumes]'.", "open"
        ) from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # its warnings name the file
    return SimpleITK
