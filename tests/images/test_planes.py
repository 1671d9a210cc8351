import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import inv_ornt_aff

from embedcache.errors import ImageError, InputError, UnknownNameError
from embedcache.images import ImageOptions, count_slices, open_image
from embedcache.images.nifti import parse_nifti
from embedcache.images.parsed import Parsed
from embedcache.images.planes import in_plane
from embedcache.images.windows import physical
from embedcache.testing.files import write_dicom, write_nifti, write_png, write_series
from embedcache.types import Calibration

RNG = np.random.default_rng(5)
CANONICAL = RNG.integers(0, 1000, (4, 5, 6)).astype(np.int16)
"""(right, anterior, superior)"""
TO_CANONICAL = {
    # what a radiologist sees: (slice, y, x) of each plane out of (right, anterior, superior)
    "axial": lambda v: v[::-1, ::-1, :].transpose(2, 1, 0),
    "coronal": lambda v: v[::-1, :, ::-1].transpose(1, 2, 0),
    "sagittal": lambda v: v[:, ::-1, ::-1].transpose(0, 2, 1),
}
PLANES = list(TO_CANONICAL)


def cut(path, plane):
    image = open_image(str(path), ImageOptions(plane))
    assert image.n_slices == count_slices(str(path), ImageOptions(plane))
    return image, image.read(0, image.n_slices)


def world(affine, index):
    return affine[:3, :3] @ index + affine[:3, 3]


@pytest.mark.parametrize("plane", PLANES)
def test_each_plane_of_a_nifti_is_as_a_radiologist_sees_it(tmp_path, plane):
    _, volume = cut(write_nifti(tmp_path / "a.nii", CANONICAL, np.diag([2, 3, 4, 1])), plane)
    np.testing.assert_array_equal(volume.pixels, TO_CANONICAL[plane](CANONICAL))
    assert volume.spacing == {"axial": (4, 3, 2), "coronal": (3, 4, 2), "sagittal": (2, 4, 3)}[plane]


def test_stored_is_axial_in_nifti(tmp_path):
    path = write_nifti(tmp_path / "a.nii", CANONICAL, np.diag([2, 3, 4, 1]))
    np.testing.assert_array_equal(cut(path, "stored")[1].pixels, cut(path, "axial")[1].pixels)


@given(
    st.permutations([0, 1, 2]),
    st.tuples(*[st.sampled_from([1, -1])] * 3),
    st.floats(-0.3, 0.3),
    st.sampled_from(PLANES),
)
@settings(deadline=None, max_examples=60)
def test_any_orientation_gives_the_same_plane_and_the_same_place_of_a_voxel(axes, signs, tilt, plane):
    """As `nibabel.as_closest_canonical`, and a marked voxel keeps its world coordinates."""
    turn = np.column_stack([axes, signs]).astype(float)
    c, s = np.cos(tilt), np.sin(tilt)
    affine = np.array([[c, -s, 0, 5], [s, c, 0, -7], [0, 0, 1, 9], [0, 0, 0, 1.0]]) @ np.diag([2, 3, 4, 1])
    stored = nib.orientations.apply_orientation(CANONICAL, turn)
    image = nib.Nifti1Image(stored, affine @ inv_ornt_aff(turn, CANONICAL.shape))
    canonical = nib.as_closest_canonical(image)
    parsed = in_plane(parse_nifti(image.to_bytes()), plane)
    pixels = parsed.decode(0, parsed.n_slices)
    np.testing.assert_array_equal(pixels, TO_CANONICAL[plane](np.asarray(canonical.dataobj)))
    marked = np.argwhere(CANONICAL.max() == CANONICAL)[0]
    found = np.argwhere(pixels == CANONICAL.max())[0]
    # the header stores the affine as float32
    np.testing.assert_allclose(world(parsed.affine, found), world(canonical.affine, marked), atol=1e-4)


@pytest.mark.parametrize("plane", PLANES)
def test_a_dicom_series_is_cut_too(tmp_path, plane):
    volume = RNG.integers(-100, 100, (4, 5, 6)).astype(np.int16)
    write_series(tmp_path / "s", volume, spacing=(2.0, 0.7, 0.5), origin=(1, 2, 3))
    stored = open_image(str(tmp_path / "s"))
    image, found = cut(tmp_path / "s", plane)
    canonical = stored.read(0, 4).pixels.transpose(2, 1, 0)[
        ::-1, ::-1
    ]  # a usual axial series: x to the left, y to posterior
    np.testing.assert_array_equal(found.pixels, TO_CANONICAL[plane](canonical))
    marked, here = (np.argwhere(v == volume.max())[0] for v in (volume, found.pixels))
    np.testing.assert_allclose(world(image.affine, here), world(stored.affine, marked), atol=1e-9)


def test_parts_are_those_of_the_whole(tmp_path):
    path = write_nifti(tmp_path / "a.nii", CANONICAL, np.diag([-2, 3, -4, 1]))
    for plane in PLANES:
        image, whole = cut(path, plane)
        fresh = open_image(str(path), ImageOptions(plane))
        part = fresh.read(1, 3)
        np.testing.assert_array_equal(part.pixels, whole.pixels[1:3])
        assert part.pixels.flags.c_contiguous
        np.testing.assert_allclose(world(part.affine, np.zeros(3)), world(image.affine, np.array([1.0, 0, 0])))


def test_slices_of_several_slopes_become_physical_where_they_are_cut_across():
    stored = RNG.integers(0, 50, (3, 4, 5)).astype(np.int16)
    stored[1, 2, 3] = -1
    calibration = Calibration(
        np.array([1.0, 2, 3]), np.array([0.0, 0, 5]), voi=((1, 2), (1, 2), (3, 4)), padding=(-1, -1)
    )
    affine = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    parsed = Parsed("dicom", 3, calibration, lambda start, stop: stored[start:stop].copy(), affine=affine)
    cut_across = in_plane(parsed, "coronal")
    pixels = cut_across.decode(0, 4)
    assert pixels.dtype == np.float32
    expected = physical(stored, calibration)
    expected[1, 2, 3] = np.nan
    np.testing.assert_array_equal(pixels, expected[::-1, :, ::-1].transpose(1, 0, 2))
    assert cut_across.calibration.voi == ()
    assert cut_across.calibration.padding is None
    np.testing.assert_array_equal(cut_across.calibration.slope, np.ones(4))
    turned = in_plane(parsed, "axial")  # only flipped: every slice keeps its own numbers
    np.testing.assert_array_equal(turned.calibration.slope, calibration.slope)


def test_slices_that_are_only_turned_round_take_their_numbers_along():
    stored = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    calibration = Calibration(np.array([1.0, 2, 3]), np.array([4.0, 5, 6]), voi=((1, 2), None, (3, 4)))
    affine = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1.0]])  # head to feet
    parsed = Parsed("dicom", 3, calibration, lambda start, stop: stored[start:stop].copy(), affine=affine)
    axial = in_plane(parsed, "axial")
    np.testing.assert_array_equal(axial.decode(0, 3), stored[::-1])
    np.testing.assert_array_equal(axial.decode(0, 1), stored[2:])
    assert axial.calibration.slope.tolist() == [3, 2, 1]
    assert axial.calibration.voi == ((3, 4), None, (1, 2))


def test_what_does_not_say_how_it_lies_has_no_plane(tmp_path):
    png = write_png(tmp_path / "a.png", np.zeros((4, 5), np.uint8))
    image = nib.Nifti1Image(CANONICAL, None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(image, tmp_path / "a.nii")
    for path in (png, tmp_path / "a.nii"):
        with pytest.raises(ImageError, match="does not say how the image lies"):
            open_image(str(path), ImageOptions("axial"))


def test_a_single_slice_can_not_be_cut_across(tmp_path):
    pixels = np.zeros((4, 5), np.int16)
    path = str(write_dicom(tmp_path / "a.dcm", pixels, modality="CT", spacing=(1, 1), thickness=2, position=(0, 0, 0)))
    assert open_image(path, ImageOptions("axial")).n_slices == 1
    with pytest.raises(ImageError, match="single slice of another plane than coronal"):
        open_image(path, ImageOptions("coronal"))


def test_an_oblique_volume_is_told_and_refused_under_strict(tmp_path):
    c, s = np.cos(0.5), np.sin(0.5)
    path = str(write_nifti(tmp_path / "a.nii", CANONICAL, [[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    assert open_image(path).warnings == ()
    assert open_image(path, ImageOptions("sagittal")).warnings == (
        "the volume is oblique: its sagittal slices are up to 29 degrees off the plane",
    )
    with pytest.raises(ImageError, match="strict: the volume is oblique"):
        open_image(path, ImageOptions("sagittal", strict=True))


def test_options_are_checked():
    with pytest.raises(UnknownNameError, match="did you mean 'sagittal'"):
        ImageOptions("sagital")
    with pytest.raises(InputError, match="counted from 0"):
        ImageOptions(time=-1)
