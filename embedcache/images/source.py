"""The door of the room: a path → its slice count, or an opened image that decodes on request."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedcache.errors import ImageError
from embedcache.images.files import (
    SourceState,
    detached_files,
    form_of,
    is_series,
    open_file,
    series_files,
    split_path,
    state_of,
)
from embedcache.images.kinds import HEAD_BYTES, TIFF_MAGIC, Form, sniff
from embedcache.images.options import ImageOptions
from embedcache.images.parsed import Kind, Parsed
from embedcache.images.voi import presented, shows_curve
from embedcache.images.windows import needs_pixels, resolve_limits, whole_volume
from embedcache.types import Calibration, Volume, Window

_DEFAULTS = ImageOptions()

# Each format's reader is imported where a file of it is opened, so that a worker that reads only PNG never loads pydicom
# (0.4 s), nibabel (which loads it too), SimpleITK or h5py.


def count_slices(path: str, options: ImageOptions = _DEFAULTS) -> int:
    """Slices of an image, from its headers only.

    1 for a raster, or the pages of a TIFF; the frames of a DICOM file or series; the axis of a volume that the plane's
    slices run along (feet to head where it is `stored`). A DICOM series in another plane is read whole for it, and so is a
    MATLAB file. Raises ImageError(stage="open").
    """
    counted = count_in_python(path, options)
    if counted is not None:
        return counted
    form = None if is_series(path) else form_of(split_path(path)[0])
    if form in ("nrrd", "metaimage"):
        from embedcache.images.itk import parse_itk
        from embedcache.images.planes import in_plane

        return in_plane(parse_itk(path, form, options.time), options.plane).n_slices
    return open_image(path, options).n_slices


def count_in_python(path: str, options: ImageOptions = _DEFAULTS) -> int | None:
    """As `count_slices`, and None where a library written in C parses the file: on a spoilt one it may end the process."""
    file, fragment = split_path(path)
    folder = is_series(file)
    match "dicom" if folder else form_of(file):
        case "raster":
            with open_file(file) as opened:
                if opened.read(4) not in TIFF_MAGIC:
                    return 1
                from embedcache.images.tiff import count_pages

                opened.seek(0)
                return count_pages(opened)
        case "dicom" if options.plane == "stored":
            from embedcache.images.series import count_dicom

            return count_dicom(series_files(file) if folder else [file], options)
        case "nifti":
            from embedcache.images.nifti import count_slices as count_nifti

            with open_file(file) as opened:
                return count_nifti(opened, options.plane)
        case "npy":
            from embedcache.images.arrays import array_header
            from embedcache.images.arrays import count_slices as count_array

            with open_file(file) as opened:
                header = array_header(opened)
                return count_array(header.shape, header.dtype)
        case "npz":
            from embedcache.images.arrays import count_slices as count_array
            from embedcache.images.npz import npz_shape

            return count_array(*npz_shape(file, fragment))
        case _:
            return None


def open_image(path: str, options: ImageOptions = _DEFAULTS) -> "OpenedImage":
    """Read a file or a series once, and understand its headers. Pixels are decoded by `OpenedImage.read`.

    A folder holds one DICOM series (one SeriesInstanceUID), whose slices are ordered along their normal; `FOLDER#series:UID`
    is one of several. `FILE.npz#KEY:INDEX` is one image of a `.npz`, `FILE.mat#VARIABLE` one of a MATLAB file.
    Raises ImageError: stage "open" where the bytes or headers can not be read, or where the file has no such plane or time
    point, "decode" where pixels are wrong.
    """
    file, fragment = split_path(path)
    folder = is_series(file)
    loaded = _load_series(file, options) if folder else _load(file, fragment, options)
    parsed = loaded.parsed
    if options.time != parsed.time_point:
        raise ImageError(f"it has 1 time point, and number {options.time} (from 0) was asked for.", "open")
    if options.plane != "stored":
        from embedcache.images.planes import in_plane

        parsed = in_plane(parsed, options.plane)
    if options.strict and parsed.kind != "dicom" and parsed.warnings:  # a DICOM series tells faults from remarks itself
        raise ImageError(f"strict: {'; '.join(parsed.warnings)}.", "open")
    return OpenedImage(loaded.state, loaded.digest, parsed)


@dataclass(frozen=True)
class _Loaded:
    state: SourceState
    digest: str
    parsed: Parsed


def _load(file: str, fragment: str, options: ImageOptions) -> _Loaded:
    with open_file(file) as opened:
        stats = [os.fstat(opened.fileno())]
        form = sniff(opened.read(HEAD_BYTES), Path(file).suffix)
        opened.seek(0)
        if form == "npz":
            from embedcache.images.arrays import array_image
            from embedcache.images.npz import read_npz

            values, digest = read_npz(file, fragment)
            return _Loaded(state_of(stats), digest, array_image(values))
        if form in ("nrrd", "metaimage"):
            from embedcache.images.itk import parse_itk

            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            for detached in detached_files(file):
                with open_file(detached) as values_file:
                    stats.append(os.fstat(values_file.fileno()))
                    digest += hashlib.file_digest(values_file, "sha256").hexdigest()
            if len(stats) > 1:
                digest = hashlib.sha256(digest.encode()).hexdigest()
            return _Loaded(state_of(stats), digest, parse_itk(file, form, options.time))
        opened.raw.seek(0)  # past the buffer: what it holds would be joined with the rest, a copy
        data = opened.raw.readall()
    return _Loaded(state_of(stats), hashlib.sha256(data).hexdigest(), _parse(form, data, fragment, options))


def _load_series(folder: str, options: ImageOptions) -> _Loaded:
    from embedcache.images.series import parse_dicom

    stats: list[os.stat_result] = []
    digests: list[str] = []

    def blobs() -> Iterator[bytes]:
        for path in series_files(folder):
            with open_file(path) as file:
                stats.append(os.fstat(file.fileno()))
                blob = file.read()
            digests.append(hashlib.sha256(blob).hexdigest())
            yield blob

    parsed = parse_dicom(blobs(), options)
    return _Loaded(state_of(stats), hashlib.sha256("".join(sorted(digests)).encode()).hexdigest(), parsed)


def _parse(form: Form, data: bytes, fragment: str, options: ImageOptions) -> Parsed:
    match form:
        case "raster":
            from embedcache.images.raster import parse_raster

            return parse_raster(data)
        case "dicom":
            from embedcache.images.series import parse_dicom

            return parse_dicom([data], options)
        case "nifti":
            from embedcache.images.nifti import parse_nifti

            return parse_nifti(data, options.time)
        case "mat5":
            from embedcache.images.mat import parse_mat5

            return parse_mat5(data, fragment)
        case "mat73":
            from embedcache.images.mat import parse_mat73

            return parse_mat73(data, fragment)
        case _:
            from embedcache.images.arrays import parse_npy

            return parse_npy(data)


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
        """`raster`, `dicom`, `nifti`, `volume` or `array`."""
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

    def read(self, start: int, stop: int, window: Window | None = None) -> Volume:
        """Slices [start, stop) in anatomical order, stored dtype, with their calibration and affine.

        With a `window`, the values that the limits for it speak of: others only where it shows the file's own display, and
        that is a curve (see `voi.presented`). The last volume read is kept, and a request inside it decodes nothing: do not
        modify the pixels.
        Raises ImageError(stage="decode"), and IndexError if the image has no such slices.
        """
        if not 0 <= start < stop <= self.n_slices:
            raise IndexError(f"slices [{start}, {stop}) of an image of {self.n_slices}.")
        if window is not None and shows_curve(window, self.kind, self.parsed.calibration):
            return presented(self.read(start, stop))
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

    def know(self, window: Window, limits: npt.NDArray[np.float64]) -> None:
        """Take what `known` gave for the same content and options before, so that the whole image is not read for it."""
        self._whole[window] = np.broadcast_to(limits, (self.n_slices, *limits.shape[1:]))

    def known(self, window: Window) -> npt.NDArray[np.float64] | None:
        """(n or 1, channels, 2): the limits of all slices, one row where all are equal; None unless `limits` read them all."""
        whole = self._whole.get(window)
        return whole if whole is None or (whole != whole[:1]).any() else whole[:1]

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
