"""A mask's voxels lie on those of its image, whatever order and direction either file stores its axes in."""

from pathlib import Path

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from embedcache.errors import ImageError
from embedcache.images import ImageOptions, open_image
from embedcache.images.grids import lay, read_grid
from embedcache.images.options import PLANES
from embedcache.testing.files import write_nifti, write_png, write_series

OBLIQUE = np.array([[1.4, 0.2, 0, -40], [-0.2, 1.4, 0, 30], [0, 0, 3, -60], [0, 0, 0, 1]])
SHAPE = (7, 5, 4)
STORED = ImageOptions()
AT = (2, 1, 3)
"""The one voxel (i, j, k) that is bright in the image and marked in the mask."""


def marked(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    values = np.zeros(shape, np.uint8)
    values[AT] = 1
    return values


def stored_anew(values: np.ndarray, affine: np.ndarray, turn: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The same volume with its axes in another order and direction, and the affine that says so."""
    ornt = np.array(turn, dtype=float)
    return apply_orientation(values, ornt), affine @ inv_ornt_aff(ornt, values.shape)


def laid(mask: Path, image: Path, options: ImageOptions = STORED) -> tuple[np.ndarray, np.ndarray, bool]:
    """(pixels of the image, the mask on them, whether by index)."""
    opened = open_image(str(mask))
    values, by_index = lay(opened.read(0, opened.n_slices).pixels, read_grid(str(mask)), read_grid(str(image), options))
    picture = open_image(str(image), options)
    return picture.read(0, picture.n_slices).pixels, values, by_index


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("turn", [[[0, 1], [1, 1], [2, 1]], [[0, -1], [1, -1], [2, 1]], [[2, -1], [0, 1], [1, -1]]])
def test_a_mask_is_turned_onto_its_image_by_the_affines(tmp_path: Path, turn: list[list[int]], plane) -> None:
    image = write_nifti(tmp_path / "image.nii.gz", 100 * marked(), OBLIQUE)
    mask = write_nifti(tmp_path / "mask.nii.gz", *stored_anew(marked(), OBLIQUE, turn))
    pixels, values, by_index = laid(mask, image, ImageOptions(plane))
    np.testing.assert_array_equal(values, pixels == 100)
    assert not by_index


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("says_nothing", [np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])
@pytest.mark.parametrize(
    "affine", [np.diag([-1.0, -1.0, 1.0, 1.0]), np.diag([0.7, -0.7, -3, 1]), OBLIQUE[[1, 0, 2, 3]]]
)
def test_a_header_that_says_nothing_lays_it_by_the_files_own_index(
    tmp_path: Path, affine: np.ndarray, says_nothing: np.ndarray, plane
) -> None:
    image = write_nifti(tmp_path / "image.nii", 100 * marked(), affine)
    mask = write_nifti(tmp_path / "mask.nii", marked(), says_nothing)
    pixels, values, by_index = laid(mask, image, ImageOptions(plane))
    np.testing.assert_array_equal(values, pixels == 100)
    assert by_index == (not np.array_equal(affine, says_nothing))


@pytest.mark.parametrize("orientation", [(-1, 0, 0, 0, -1, 0), (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1)])
def test_a_nifti_mask_on_a_dicom_series_lies_by_position(tmp_path: Path, orientation: tuple[int, ...]) -> None:
    volume = np.zeros((4, 8, 8), np.int16)
    volume[3, 1, 2] = 900
    write_series(tmp_path / "series", volume, orientation=orientation)
    image = open_image(str(tmp_path / "series"))
    at = image.read(0, 4).pixels == 900
    order = np.eye(4)[[2, 1, 0, 3]]  # (x, y, slice), as converters write it
    mask = write_nifti(tmp_path / "mask.nii.gz", at.astype(np.uint8).transpose(2, 1, 0), image.affine @ order)
    pixels, values, by_index = laid(mask, tmp_path / "series")
    np.testing.assert_array_equal(values, pixels == 900)
    assert not by_index


def test_a_grid_that_is_another_is_refused_with_both_affines(tmp_path: Path) -> None:
    image = write_nifti(tmp_path / "image.nii", marked(), OBLIQUE)
    moved = OBLIQUE.copy()
    moved[2, 3] += 1.6  # of 3 mm
    mask = write_nifti(tmp_path / "mask.nii", marked(), moved)
    with pytest.raises(
        ImageError, match=r"lays it elsewhere than its image: .*-58\.4\].*-60\].*copy the image's header"
    ):
        laid(mask, image)
    moved[2, 3] -= 0.2
    _, values, _ = laid(write_nifti(tmp_path / "near.nii", marked(), moved), image)
    assert values.sum() == 1
    with pytest.raises(
        ImageError, match=r"lays it elsewhere than its image: 5 x 5 x 7 voxels at .*, and the image 4 x 5 x 7"
    ):
        laid(write_nifti(tmp_path / "long.nii", marked((7, 5, 5)), OBLIQUE), image)


def test_pictures_are_laid_as_they_are(tmp_path: Path) -> None:
    picture = write_png(tmp_path / "a.png", marked((7, 5, 4))[2])
    assert read_grid(str(picture)) is None
    _, values, by_index = laid(picture, picture)
    assert values.sum() == 1
    assert not by_index
    image = write_nifti(tmp_path / "image.nii", marked()[:, :, :1], OBLIQUE)
    assert laid(write_png(tmp_path / "b.png", np.zeros((5, 7), np.uint8)), image)[2], "its image says how it lies"
