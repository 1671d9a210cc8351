"""Volumes on an encoder's grid, held against scipy, nibabel and torch."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_from_to
from pydicom import dcmread
from scipy import ndimage

from embedcache.errors import ImageError, InputError
from embedcache.images import ImageOptions, open_image
from embedcache.images.resample import axis_weights, in_axial, input_weights, read_whole
from embedcache.testing.files import write_nifti, write_png, write_series
from embedcache.types import Calibration, ImageRecipe, Volume, VolumeInput, Window

RNG = np.random.default_rng(3)
ANY = Window("min-max")


def recipe(slices: int, size: tuple[int, int], spacing: tuple[float, float, float] | None = None) -> ImageRecipe:
    return ImageRecipe(Window("auto"), size, (0.0,), (1.0,), channels=1, volume=VolumeInput(slices, spacing))


def volume(pixels: np.ndarray, spacing: tuple[float, float, float] | None = None) -> Volume:
    n = len(pixels)
    return Volume(pixels, Calibration(np.ones(n), np.zeros(n)), "nifti", spacing=spacing)


def resampled(pixels: np.ndarray, image: ImageRecipe, spacing: tuple[float, float, float] | None = None) -> np.ndarray:
    z, y, x = input_weights(volume(pixels, spacing), image)
    return np.einsum("az,by,cx,zyx->abc", z, y, x, pixels.astype(np.float64))


@pytest.mark.parametrize(("n", "size", "step"), [(7, 7, 1.0), (9, 5, 1.0), (4, 11, 1.0), (5, 12, 0.4), (30, 9, 3.1)])
def test_a_row_of_weights_sums_to_one_or_is_black_border(n: int, size: int, step: float) -> None:
    total = axis_weights(n, size, step).sum(axis=1)
    shown = min(size, max(1, round(n / step)))
    np.testing.assert_allclose(np.sort(total)[-shown:], 1)
    assert np.count_nonzero(total) == shown


@pytest.mark.parametrize(("n", "size"), [(7, 7), (8, 5), (9, 4), (5, 8), (4, 9)])
def test_at_its_own_spacing_a_volume_is_cropped_or_bordered_and_nothing_else(n: int, size: int) -> None:
    weights = axis_weights(n, size, 1.0)
    start = (n - size) // 2  # as a slice under fit=pad: an odd voxel of border goes before
    wanted = np.zeros((size, n))
    for j in range(size):
        if 0 <= j + start < n:
            wanted[j, j + start] = 1
    np.testing.assert_array_equal(weights, wanted)


def test_stretching_is_linear_interpolation_of_scipy() -> None:
    pixels = RNG.random((4, 5, 3))
    shape = (9, 8, 10)
    at = [(np.arange(size) + 0.5) * n / size - 0.5 for n, size in zip(pixels.shape, shape, strict=True)]
    expected = ndimage.map_coordinates(pixels, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")
    np.testing.assert_allclose(resampled(pixels, recipe(9, (8, 10))), expected, atol=1e-12)


def test_a_finer_spacing_is_that_of_nibabel_on_the_same_grid() -> None:
    spacing, wanted, shape = (2.0, 1.5, 3.0), (1.25, 1.0, 2.0), (16, 12, 9)
    pixels = RNG.random((8, 7, 5))
    affine = np.diag([*spacing, 1.0])
    resampled_to = [round(n * own / mm) for n, own, mm in zip(pixels.shape, spacing, wanted, strict=True)]
    first = [
        ((n - 1) * own - (m - 1) * mm) / 2 + (m - size) // 2 * mm
        for n, own, m, mm, size in zip(pixels.shape, spacing, resampled_to, wanted, shape, strict=True)
    ]
    target = np.diag([*wanted, 1.0])
    target[:3, 3] = first
    expected = resample_from_to(nib.Nifti1Image(pixels, affine), (shape, target), order=1, mode="nearest").get_fdata()
    got = resampled(pixels, recipe(shape[0], shape[1:], wanted), spacing)
    seen = got != 0
    assert seen.mean() > 0.5
    np.testing.assert_allclose(got[seen], expected[seen], atol=1e-9)


def test_a_coarser_grid_is_antialiased_as_torch_does() -> None:
    import torch

    pixels = RNG.random((13, 21, 17))
    image = torch.from_numpy(pixels)[None]
    expected = torch.nn.functional.interpolate(image, size=(6, 7), mode="bilinear", antialias=True)[0].numpy()
    np.testing.assert_allclose(resampled(pixels, recipe(13, (6, 7))), expected, atol=1e-12)
    edge = torch.from_numpy(pixels).permute(1, 0, 2)[None]
    expected = torch.nn.functional.interpolate(edge, size=(4, 17), mode="bilinear", antialias=True)[0].numpy()
    np.testing.assert_allclose(resampled(pixels, recipe(4, (21, 17))), expected.transpose(1, 0, 2), atol=1e-12)


def test_a_flipped_or_permuted_file_of_the_same_anatomy_is_the_same_volume(tmp_path: Path) -> None:
    voxels = RNG.integers(0, 999, (6, 7, 8)).astype(np.int16)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = -4, 5, 6
    image = nib.Nifti1Image(voxels, affine)
    seen = []
    for axes in ("RAS", "LPS", "PIR", "SAL"):
        turn = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(axes))
        )
        turned = image.as_reoriented(turn)
        path = write_nifti(tmp_path / f"{axes}.nii.gz", np.asarray(turned.dataobj), turned.affine)
        whole = read_whole(in_axial(open_image(str(path))), ANY, spaced=True)
        assert whole.spacing == pytest.approx((3.0, 2.0, 1.0))
        seen.append(whole.pixels)
    np.testing.assert_array_equal(seen[0], voxels[::-1, ::-1].transpose(2, 1, 0))
    for other in seen[1:]:
        np.testing.assert_array_equal(other, seen[0])


def test_what_is_no_volume_is_refused_with_the_reason(tmp_path: Path) -> None:
    flat = write_png(tmp_path / "flat.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(ImageError, match="single 2-D image, and this backbone takes whole volumes"):
        in_axial(open_image(str(flat)))
    single = write_nifti(tmp_path / "single.nii", np.ones((9, 8, 1), np.int16))
    with pytest.raises(ImageError, match="single 2-D image"):
        in_axial(open_image(str(single)))
    np.save(tmp_path / "bare.npy", np.ones((4, 9, 8), np.int16))
    bare = in_axial(open_image(str(tmp_path / "bare.npy")))
    assert read_whole(bare, ANY, spaced=False).pixels.shape == (4, 9, 8)
    with pytest.raises(ImageError, match="--spacing none"):
        read_whole(bare, ANY, spaced=True)
    np.save(tmp_path / "colour.npy", np.ones((4, 9, 8, 3), np.uint8))
    with pytest.raises(ImageError, match="colour"):
        read_whole(in_axial(open_image(str(tmp_path / "colour.npy"))), ANY, spaced=False)
    with pytest.raises(InputError, match="without a spacing"):
        input_weights(volume(np.ones((2, 2, 2))), recipe(2, (2, 2), (1.0, 1.0, 1.0)))


SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def test_a_missing_slice_does_not_turn_a_sagittal_series(tmp_path: Path) -> None:
    """The axes are known however unevenly slices lie; only across them no plane is cut."""
    pixels = RNG.integers(0, 99, (7, 6, 5)).astype(np.int16)
    whole = write_series(tmp_path / "whole", pixels, orientation=SAGITTAL, spacing=(8.0, 0.65, 0.7))
    torn = write_series(tmp_path / "torn", pixels, orientation=SAGITTAL, spacing=(8.0, 0.65, 0.7))
    by_position = sorted(torn.iterdir(), key=lambda path: float(dcmread(path).ImagePositionPatient[0]))
    by_position[3].unlink()
    expected, found = (in_axial(open_image(str(folder))) for folder in (whole, torn))
    kept = np.delete(expected.read(0, 6).pixels, 3, axis=2)
    np.testing.assert_array_equal(found.read(0, 6).pixels, kept)
    assert found.spacing == expected.spacing
    assert found.affine is None
    assert any("missing" in line for line in found.read(0, 6).warnings)
    with pytest.raises(ImageError, match=r"do not lie on an even line.*use plane stored"):
        open_image(str(torn), ImageOptions(plane="axial"))
    assert open_image(str(torn), ImageOptions(plane="sagittal")).n_slices == 6
