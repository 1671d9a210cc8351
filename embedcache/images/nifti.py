"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped.

Orientation: the voxel grid is turned to the closest canonical axes by the header's affine (axes permuted and flipped,
nothing is resampled; as `nibabel.as_closest_canonical`), so axes are Right, Anterior, Superior. Slices then run along
Superior, from feet to head; in a slice the top row is anterior and the left column is the patient's right, as a
radiologist sees an axial image. So volume[slice, y, x] is canonical[-1 - x, -1 - y, slice].
"""

import gzip
import math
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from embedcache.errors import ImageError
from embedcache.images import codecs
from embedcache.images.options import Plane
from embedcache.images.parsed import DEFLATE_RATIO, Parsed, reading
from embedcache.types import Calibration

_HEADER_BYTES = 540
"""The longer of the two headers; a NIfTI-1 file is never shorter either, but for a volume of a few voxels."""

_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres of the unit of length in xyzt_units: metre, mm, micron. Any other is taken as mm, as programs do."""

_RAS_AXIS: dict[Plane, int] = {"stored": 2, "axial": 2, "coronal": 1, "sagittal": 0}
"""The canonical axis along which slices run."""


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    affine: npt.NDArray[np.float64] | None
    """Stored voxel (i, j, k) to RAS mm; None where the header has neither sform nor qform."""
    orientation: npt.NDArray[np.float64]
    """nibabel's (3, 2) table that turns the stored axes to canonical ones."""
    zooms: tuple[float, ...]
    times: int
    notes: tuple[str, ...]

    def n_slices(self, plane: Plane) -> int:
        return self.shape[int(np.flatnonzero(self.orientation[:, 0] == _RAS_AXIS[plane])[0])]


def count_slices(file: BinaryIO, plane: Plane = "stored") -> int:
    """Slices of the NIfTI `file` in a plane, from its first bytes. Raises ImageError(stage="open")."""
    return _header(_head(file)).n_slices(plane)


def read_geometry(
    file: BinaryIO,
) -> tuple[tuple[int, int, int], npt.NDArray[np.float64] | None, npt.NDArray[np.float64]]:
    """Shape (slice, y, x), affine (None where the header says none), and the way from a voxel to the file's own (i, j, k).

    From the first bytes of the NIfTI `file`. Raises ImageError(stage="open").
    """
    header = _header(_head(file))
    slices, rows, columns = (header.shape[axis] for axis in _shown_axes(header))
    return (slices, rows, columns), _geometry(header)[0], _to_stored(header)


def _head(file: BinaryIO) -> bytes:
    head = file.read(1 << 16)
    if head.startswith(b"\x1f\x8b"):
        with reading("the gzip file is damaged.", "open"):
            head = zlib.decompressobj(wbits=31).decompress(head, _HEADER_BYTES)
    return head


def parse_nifti(data: bytes, time: int = 0) -> Parsed:
    """One time point of the volume in `data`. Raises ImageError(stage="open")."""
    if data.startswith(b"\x1f\x8b"):
        header = _header(_unzipped(data, _HEADER_BYTES, all_of_it=False))
        first, needed = _place(header, time)
        content = _unzipped(data, needed)
    else:
        header = _header(data[:_HEADER_BYTES])
        first, needed = _place(header, time)
        content = data
    if len(content) < needed:
        raise ImageError(
            f"its voxel data is cut short: {max(len(content) - header.offset, 0):,} of the "
            f"{needed - header.offset:,} bytes that its header says.",
            "open",
        )
    stored = np.frombuffer(content, header.dtype, math.prod(header.shape), first).reshape(header.shape, order="F")
    canonical = apply_orientation(stored, header.orientation)
    volume = canonical[::-1, ::-1].transpose(2, 1, 0)
    affine, spacing = _geometry(header)
    return Parsed(
        "nifti",
        volume.shape[0],
        Calibration(np.full(volume.shape[0], header.slope), np.full(volume.shape[0], header.intercept)),
        lambda start, stop: _native(volume[start:stop]),
        spacing=spacing,
        affine=affine,
        grid=volume.shape[1:3],
        time_point=time,
        warnings=_notes(header, time),
    )


def _native(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return pixels.astype(pixels.dtype.newbyteorder("="), order="C", copy=True)


def _unzipped(data: bytes, n: int, all_of_it: bool = True) -> bytes:
    """The first `n` bytes of a gzip file, and no more: a header decides how much memory is taken."""
    reason = "the gzip file is cut short or damaged."
    if n > DEFLATE_RATIO * len(data):
        raise ImageError(reason, "open")
    content = codecs.gunzip(data, n) if all_of_it else None
    if content is not None:
        return content
    with reading(reason, "open"), gzip.GzipFile(fileobj=BytesIO(data)) as file:
        content = file.read(n)
        if all_of_it:
            file.read(1)  # at the end of a member its checksum is verified
        return content


def _place(header: _Header, time: int) -> tuple[int, int]:
    """The bytes [first, stop) of the file that hold a time point. Raises ImageError if it has no such one."""
    if time >= header.times:
        raise ImageError(f"it has {header.times} time points, and number {time} (from 0) was asked for.", "open")
    size = math.prod(header.shape) * header.dtype.itemsize
    return header.offset + time * size, header.offset + (time + 1) * size


def _notes(header: _Header, time: int) -> tuple[str, ...]:
    if header.times > 1 and time == 0:  # another one was chosen by its reader
        return (f"only the first of {header.times} time points is read", *header.notes)
    return header.notes


def _header(head: bytes) -> _Header:
    with reading("the NIfTI header can not be read: the file is cut short or damaged.", "open"):
        return _understood(head)


def _understood(head: bytes) -> _Header:
    size = head[:4]
    kind: Any = Nifti2Header if 540 in (int.from_bytes(size, "little"), int.from_bytes(size, "big")) else Nifti1Header
    magic = head[4:8] if kind is Nifti2Header else head[344:348]
    if magic in (b"ni1\0", b"ni2\0"):
        raise ImageError("this is the header of a two-file NIfTI (.hdr and .img); save it as one .nii file.", "open")
    if magic not in (b"n+1\0", b"n+2\0"):
        raise ImageError("the file has no NIfTI header (Analyze 7.5, or another gzip file?); save it as .nii.", "open")
    # check=False: nibabel would print what it finds wrong to standard error
    header = kind(head[: kind.sizeof_hdr], check=False)
    dtype = header.get_data_dtype()
    if dtype.fields is not None or dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ImageError(
            "its voxels are colours or complex numbers; only real numbers of up to 64 bits are read from NIfTI.", "open"
        )
    shape = tuple(int(n) for n in header.get_data_shape())
    if not shape or min(shape) < 1:
        raise ImageError(f"the NIfTI header says the shape {shape}, which holds no voxel.", "open")
    if any(n > 1 for n in shape[4:]):
        raise ImageError(f"the NIfTI file holds vectors (shape {shape}); only series of volumes are read.", "open")
    offset = int(header.get_data_offset())
    if offset < kind.sizeof_hdr:
        raise ImageError(f"the NIfTI header says that its voxels begin inside itself, at byte {offset}.", "open")
    notes = []
    times = shape[3] if len(shape) > 3 else 1
    shape = (*shape, 1, 1)[:3]
    slope, intercept = header.get_slope_inter()
    mm = _MM.get(int(header["xyzt_units"]) % 8, 1.0)
    affine = np.diag([mm, mm, mm, 1.0]) @ np.asarray(header.get_best_affine(), dtype=np.float64)
    told = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    orientation = io_orientation(affine) if np.all(np.isfinite(affine)) else np.full((3, 2), np.nan)
    if np.any(np.isnan(orientation)):
        told, orientation = False, np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    if not told:
        notes.append("the header does not say how the volume is oriented")
    return _Header(
        shape=shape,
        dtype=dtype,
        offset=offset,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        affine=affine if told else None,
        orientation=orientation,
        zooms=tuple(mm * float(z) for z in (*header.get_zooms()[:3], 1.0, 1.0)[:3]),
        times=times,
        notes=tuple(notes),
    )


def _geometry(header: _Header) -> tuple[npt.NDArray[np.float64] | None, tuple[float, float, float] | None]:
    """Affine of voxel (slice, y, x), and spacing in mm in the same order."""
    axes = _shown_axes(header)
    if header.affine is None:
        zooms = [header.zooms[axis] for axis in axes]
        return None, (zooms[0], zooms[1], zooms[2]) if min(zooms) > 0 else None
    affine = header.affine @ _to_stored(header)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return affine, (float(lengths[0]), float(lengths[1]), float(lengths[2]))


def _shown_axes(header: _Header) -> list[int]:
    """The stored axes of slice, y and x."""
    return [int(np.flatnonzero(header.orientation[:, 0] == axis)[0]) for axis in (2, 1, 0)]


def _to_stored(header: _Header) -> npt.NDArray[np.float64]:
    """4x4, voxel (slice, y, x) to stored voxel (i, j, k)."""
    right, anterior, _ = (header.shape[axis] for axis in reversed(_shown_axes(header)))
    to_canonical = np.array(
        [[0, 0, -1, right - 1], [0, -1, 0, anterior - 1], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64
    )
    return np.asarray(inv_ornt_aff(header.orientation, header.shape) @ to_canonical)
