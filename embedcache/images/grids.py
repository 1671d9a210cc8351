"""Where the voxels of an image lie, from its headers alone; and a mask turned onto the voxels of its image.

A mask is laid by its affine where header and image say one. A header that says nothing lays it by index: voxel (i, j, k)
of the one file is voxel (i, j, k) of the other, whatever way they are shown. It says nothing where it has no affine, or the
identity (in RAS or in LPS) that writers put there when they were told nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import ImageError
from embedcache.images.files import form_of, is_series, open_file, series_files, split_path
from embedcache.images.options import ImageOptions
from embedcache.images.parsed import Parsed, plain_calibration
from embedcache.images.planes import in_plane, orientations
from embedcache.images.source import count_slices

HALF_A_VOXEL = 0.5
"""Two grids are one if no voxel of the one lies further from its place in the other, along any axis."""

_DEFAULTS = ImageOptions()
_IDENTITIES = (np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0]))

Affine = npt.NDArray[np.float64]
"""(4, 4)."""


@dataclass(frozen=True)
class Grid:
    """The voxels (slice, y, x) of an image as `open_image` gives them."""

    shape: tuple[int, int, int]
    affine: Affine | None
    """To RAS mm; None where the header does not say."""
    read: Affine
    """To the voxels of plane `stored`."""
    indexed: Affine | None
    """To the file's own (i, j, k); None in a format whose file is read in its own order."""

    @property
    def says_nothing(self) -> bool:
        """Whether the header holds no geometry, or what stands in for it."""
        if self.affine is None:
            return True
        # without an order of its own, i, j, k are x, y, slice
        order = np.eye(4)[[2, 1, 0, 3]] if self.indexed is None else self.indexed
        return any(np.allclose(self.affine @ np.linalg.inv(order), same, atol=1e-6) for same in _IDENTITIES)


def read_grid(path: str, options: ImageOptions = _DEFAULTS) -> Grid | None:
    """The grid of the image at `path`; None for a picture or an array, which has none. Raises ImageError(stage="open")."""
    found = _stored(path, options)
    if found is None:
        return None
    rows, columns = found.parsed.grid or (0, 0)
    shape = (found.parsed.n_slices, rows, columns)
    if options.plane == "stored" or found.parsed.affine is None:
        return Grid(shape, found.parsed.affine, np.eye(4), found.indexed)
    cut = in_plane(found.parsed, options.plane)
    assert cut.affine is not None
    assert cut.grid is not None
    read = np.rint(np.linalg.inv(found.parsed.affine) @ cut.affine)
    indexed = None if found.indexed is None else found.indexed @ read
    return Grid((cut.n_slices, *cut.grid), cut.affine, read, indexed)


def lay(values: npt.NDArray[Any], mask: Grid | None, image: Grid | None) -> tuple[npt.NDArray[Any], bool]:
    """A mask's `values` (slice, y, x, in plane `stored`) on the voxels of its image; and whether they were laid by index.

    Axes are permuted and flipped, nothing is resampled. By index is told where either of the two has an affine. Raises
    ImageError where both say how they lie, and do not lie on one grid.
    """
    if image is None:
        return values, False
    if mask is not None and mask.affine is not None and image.affine is not None:
        way = np.linalg.inv(mask.affine) @ image.affine
        if _is_one_grid(way, image.shape, values.shape):
            return _turned(values, way), False
        if not mask.says_nothing and not image.says_nothing:
            raise ImageError(_apart(values.shape, mask.affine, image), "open")
    if mask is not None and mask.indexed is not None and image.indexed is not None:
        way = np.linalg.inv(mask.indexed) @ image.indexed
    else:
        way = image.read
    return _turned(values, way), image.affine is not None or (mask is not None and mask.affine is not None)


def _turned(values: npt.NDArray[Any], way: Affine) -> npt.NDArray[Any]:
    """`values` in the order that `way` asks for: it maps a voxel of the result to one of `values`."""
    turn = orientations().io_orientation(np.linalg.inv(way))
    return np.ascontiguousarray(orientations().apply_orientation(values, turn))


def _is_one_grid(way: Affine, shape: tuple[int, ...], there: tuple[int, ...]) -> bool:
    """Whether `way` takes the voxels of `shape` to those of an array of shape `there`, each to within half a voxel."""
    turn = orientations().io_orientation(np.linalg.inv(way))
    if np.isnan(turn).any():
        return False
    exact = np.zeros((4, 4))
    exact[3, 3] = 1
    for axis, (becomes, sign) in enumerate(turn.tolist()):
        if there[axis] != shape[int(becomes)]:
            return False
        exact[axis, int(becomes)] = sign
        exact[axis, 3] = there[axis] - 1 if sign < 0 else 0
    corners = np.array(
        [[*(n * (size - 1) for n, size in zip(at, shape, strict=True)), 1] for at in np.ndindex(2, 2, 2)]
    )
    return bool(np.abs((way - exact) @ corners.T).max() <= HALF_A_VOXEL)


def _apart(shape: tuple[int, ...], mask: Affine, image: Grid) -> str:
    assert image.affine is not None
    return (
        f"its header lays it elsewhere than its image: {_size(shape)} voxels at {_written(mask)}, and the image "
        f"{_size(image.shape)} at {_written(image.affine)} (slices x rows x columns; voxel to RAS mm). Resample it onto the "
        "image, or, if it was drawn on the image's own voxels, copy the image's header."
    )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[:3]))


def _written(affine: Affine) -> str:
    return "[" + "; ".join(" ".join(f"{value + 0.0:.4g}" for value in row) for row in affine[:3].tolist()) + "]"


def file_slices(path: str) -> npt.NDArray[np.int64] | None:
    """(n,): of each slice, counted as the file stores them, its number as `open_image` counts in plane `stored`.

    None where a file has no slices of its own: a series of files, one whose third axis is not that of the slices, and
    NRRD and MetaImage. Raises ImageError(stage="open").
    """
    file, _ = split_path(path)
    form = None if is_series(path) else form_of(file)
    if form in ("dicom", "nrrd", "metaimage", None):
        return None
    if form != "nifti":
        return np.arange(count_slices(path), dtype=np.int64)
    found = read_grid(path)
    assert found is not None
    assert found.indexed is not None
    step, first = found.indexed[2, 0], found.indexed[2, 3]
    if step == 0:
        return None
    return np.asarray(np.rint((np.arange(found.shape[0]) - first) / step), dtype=np.int64)


# --- from the headers of each format ----------------------------------------------------------------


@dataclass(frozen=True)
class _Stored:
    """An image in plane `stored`, without its pixels."""

    parsed: Parsed
    indexed: Affine | None = None


def _stored(path: str, options: ImageOptions) -> _Stored | None:
    file, _ = split_path(path)
    form = "dicom" if is_series(path) else form_of(file)
    if form == "dicom":
        return _Stored(_of_dicom(path, options))
    if form == "nifti":
        from embedcache.images.nifti import read_geometry

        with open_file(file) as opened:
            shape, affine, indexed = read_geometry(opened)
        return _Stored(_without_pixels(shape, affine), indexed)
    if form in ("nrrd", "metaimage"):
        from embedcache.images.itk import parse_itk

        return _Stored(parse_itk(path, form, options.time))
    return None


def _of_dicom(path: str, options: ImageOptions) -> Parsed:
    from embedcache.images.dicom import read_header
    from embedcache.images.series import series_frames

    headers = [read_header(file) for file in (series_files(path) if is_series(path) else [path])]
    arranged = series_frames(headers, options)
    tile, first = arranged.frames[0].tile, headers[arranged.frames[0].file]
    rows, columns = (int(first.Rows), int(first.Columns)) if tile is None else (tile.height, tile.width)
    return _without_pixels((len(arranged.frames), rows, columns), arranged.affine)


def _without_pixels(shape: tuple[int, int, int], affine: Affine | None) -> Parsed:
    n, rows, columns = shape

    def blank(start: int, stop: int) -> npt.NDArray[np.uint8]:
        return np.zeros((stop - start, rows, columns), np.uint8)

    return Parsed("dicom", n, plain_calibration(n), blank, affine=affine, grid=(rows, columns))
