"""The door of the room: a path → its state, its slice count, or an opened image that decodes on request."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedcache.errors import ImageError
from embedcache.images.kinds import HEAD_BYTES, may_be_dicom, sniff
from embedcache.images.parsed import Kind, Parsed
from embedcache.images.windows import needs_pixels, resolve_limits, whole_volume
from embedcache.types import Calibration, Volume, Window


class SourceState(NamedTuple):
    """What the private index keeps of a source to suspect a change cheaply; it never enters a store."""

    size: int
    """Bytes of all its files."""
    mtime_ns: int
    """Of its newest file."""


def stat_source(path: str) -> SourceState:
    """Size and time of a file, or of the files of a folder that holds one series. No file is opened.

    Raises ImageError(stage="open") if there is no such file, or no file in the folder that could be an image.
    """
    found = _stat(path)
    if S_ISREG(found.st_mode):
        return SourceState(found.st_size, found.st_mtime_ns)
    return _state([_stat(f) for f in _files(path)])


def count_slices(path: str) -> int:
    """Slices of an image, from its headers only.

    1 for a raster; the frames of a DICOM file, summed over a series; the axis nearest to feet-to-head of a NIfTI
    volume (its first time point). Raises ImageError(stage="open").
    """
    if os.path.isdir(path):
        from embedcache.images.dicom import count_frames  # pydicom takes 0.4 s: only where a DICOM file is

        return sum(count_frames(f) for f in _series_files(path))
    match _kind(path):
        case "raster":
            return 1
        case "dicom":
            from embedcache.images.dicom import count_frames

            return count_frames(path)
        case "nifti":
            from embedcache.images.nifti import count_slices as count_nifti  # as above: nibabel

            with _opened(path) as file:
                return count_nifti(file)


def open_image(path: str) -> "OpenedImage":
    """Read a file or a series once, and understand its headers. Pixels are decoded by `OpenedImage.read`.

    A folder holds one DICOM series (one SeriesInstanceUID), whose slices are ordered along their normal.
    Raises ImageError: stage "open" where the bytes or headers can not be read, "decode" where pixels are wrong.
    """
    folder = os.path.isdir(path)
    blobs, stats = [], []
    for file_path in _series_files(path) if folder else [path]:
        with _opened(file_path) as file:
            stats.append(os.fstat(file.fileno()))
            blobs.append(file.read())
    digests = sorted(hashlib.sha256(blob).hexdigest() for blob in blobs)
    digest = hashlib.sha256("".join(digests).encode()).hexdigest() if folder else digests[0]
    kind: Kind = "dicom" if folder else sniff(blobs[0][:HEAD_BYTES], Path(path).suffix)
    return OpenedImage(_state(stats), digest, _parse(kind, blobs))


def _parse(kind: Kind, blobs: list[bytes]) -> Parsed:
    # Imported here, so that a worker that reads only PNG never loads pydicom (0.4 s) or nibabel, which loads it too.
    match kind:
        case "raster":
            from embedcache.images.raster import parse_raster

            return parse_raster(blobs[0])
        case "dicom":
            from embedcache.images.series import parse_dicom

            return parse_dicom(blobs)
        case "nifti":
            from embedcache.images.nifti import parse_nifti

            return parse_nifti(blobs[0])


@dataclass(eq=False)
class OpenedImage:
    """One sample's image: headers understood, slices decoded on request. Not for several threads at once."""

    state: SourceState
    digest: str
    """SHA-256 (hex) of the file's bytes; of a series, over the sorted hex digests of its files."""
    parsed: Parsed = field(repr=False)
    _last: tuple[int, Volume] | None = field(default=None, repr=False)
    _whole: dict[Window, npt.NDArray[np.float64]] = field(default_factory=dict, repr=False)

    @property
    def kind(self) -> Kind:
        """`raster`, `dicom` or `nifti`."""
        return self.parsed.kind

    @property
    def modality(self) -> str:
        """DICOM Modality, "" where the file does not say."""
        return self.parsed.modality

    @property
    def n_slices(self) -> int:
        """Slices that `read` can give."""
        return self.parsed.n_slices

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """(between slices, row, column) in mm."""
        return self.parsed.spacing

    @property
    def affine(self) -> npt.NDArray[np.float64] | None:
        """4x4, voxel (slice, y, x) of the whole image to RAS mm."""
        return self.parsed.affine

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of this image should know; no path and no identifier in it."""
        return self.parsed.warnings

    def read(self, start: int, stop: int) -> Volume:
        """Slices [start, stop) in anatomical order, stored dtype, with their calibration and affine.

        The last volume read is kept, and a request inside it decodes nothing: do not modify the pixels.
        Raises ImageError(stage="decode"), and IndexError if the image has no such slices.
        """
        if not 0 <= start < stop <= self.n_slices:
            raise IndexError(f"slices [{start}, {stop}) of an image of {self.n_slices}.")
        if self._last is None or not (self._last[0] <= start and stop <= self._last[0] + len(self._last[1].pixels)):
            self._last = (start, self._volume(start, stop))
        first, volume = self._last
        if (start, stop) == (first, first + len(volume.pixels)):
            return volume
        return replace(
            volume,
            pixels=volume.pixels[start - first : stop - first],
            calibration=_calibration(self.parsed.calibration, start, stop),
            affine=_shifted(self.parsed.affine, start),
        )

    def limits(self, window: Window, start: int, stop: int) -> npt.NDArray[np.float64]:
        """(n, channels, 2): the physical low and high of slices [start, stop) that map to 0 and 1.

        Before the inversion of MONOCHROME1. Low equals high where an image is constant: it is rendered black.
        Statistics of scope `volume` are over all slices, computed once and kept.
        Raises ImageError where the file has not got what the window asks for.
        """
        if not 0 <= start < stop <= self.n_slices:
            raise IndexError(f"slices [{start}, {stop}) of an image of {self.n_slices}.")
        calibration = _calibration(self.parsed.calibration, start, stop)
        if not needs_pixels(window, self.kind, calibration):
            return resolve_limits(window, self.kind, calibration)
        if not whole_volume(window, self.kind):
            return resolve_limits(window, self.kind, calibration, self.read(start, stop).pixels)
        if window not in self._whole:
            everything = self.read(0, self.n_slices)
            self._whole[window] = resolve_limits(window, self.kind, everything.calibration, everything.pixels)
        return self._whole[window][start:stop]

    def _volume(self, start: int, stop: int) -> Volume:
        return Volume(
            pixels=self.parsed.decode(start, stop),
            calibration=_calibration(self.parsed.calibration, start, stop),
            kind=self.kind,
            modality=self.modality,
            spacing=self.spacing,
            affine=_shifted(self.affine, start),
            time_point=self.parsed.time_point,
            warnings=self.warnings,
        )


def _calibration(whole: Calibration, start: int, stop: int) -> Calibration:
    part = slice(start, stop)
    return replace(whole, slope=whole.slope[part], intercept=whole.intercept[part], voi=whole.voi[part])


def _shifted(affine: npt.NDArray[np.float64] | None, start: int) -> npt.NDArray[np.float64] | None:
    """The affine of the part of an image that begins at slice `start`."""
    if affine is None:
        return None
    shifted = affine.copy()
    shifted[:, 3] += start * affine[:, 0]
    return shifted


# --- files ----------------------------------------------------------------------------------------


def _opened(path: str) -> Any:
    try:
        return open(path, "rb")
    except OSError as error:
        raise _unreadable(error) from error


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> ImageError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ImageError("there is no such file.", "open")
    # strerror alone: str(error) would carry the path
    return ImageError(f"the file can not be opened ({os.strerror(error.errno or 0)}).", "open")


def _state(stats: Sequence[os.stat_result]) -> SourceState:
    return SourceState(sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats))


def _kind(path: str) -> Kind:
    with _opened(path) as file:
        return sniff(file.read(HEAD_BYTES), Path(path).suffix)


def _files(path: str) -> list[str]:
    """A file itself, or the files of a folder that could belong to a series by their names, sorted."""
    mode = _stat(path).st_mode
    if S_ISREG(mode):
        return [path]
    if not S_ISDIR(mode):
        raise ImageError("this is neither a file nor a folder.", "open")
    try:
        with os.scandir(path) as entries:
            names = sorted(e.name for e in entries if e.is_file() and _may_belong(e.name))
    except OSError as error:
        raise _unreadable(error) from error
    if not names:
        raise ImageError("the folder holds no DICOM file; a folder as a sample is one DICOM series.", "open")
    return [os.path.join(path, name) for name in names]


def _may_belong(name: str) -> bool:
    return not name.startswith(".") and name != "DICOMDIR" and may_be_dicom(Path(name).suffix)


def _series_files(folder: str) -> list[str]:
    """The DICOM files of `folder`. A file without a suffix that is something else (LICENSE) is no part of it."""
    files = []
    for path in _files(folder):
        try:
            kind = _kind(path)
        except ImageError:
            if Path(path).suffix:
                raise
            continue
        if kind == "dicom":
            files.append(path)
    if not files:
        raise ImageError("the folder holds no DICOM file; a folder as a sample is one DICOM series.", "open")
    return files
