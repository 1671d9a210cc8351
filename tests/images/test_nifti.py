import gzip

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import inv_ornt_aff

from embedcache.errors import ImageError
from embedcache.images import ImageOptions, count_slices, open_image, parse_window
from embedcache.images.nifti import parse_nifti
from embedcache.images.windows import physical
from embedcache.testing.files import write_nifti

RNG = np.random.default_rng(3)


def shown(canonical):
    """(R, A, S) as (slice, y, x) with anterior at the top and the patient's right on the left."""
    return np.asarray(canonical)[::-1, ::-1].transpose(2, 1, 0)


def opened(path):
    image = open_image(str(path))
    return image, image.read(0, image.n_slices)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "float32", "float64"])
def test_write_and_read_back(tmp_path, suffix, dtype):
    voxels = RNG.integers(0, 100, (4, 5, 6)).astype(dtype)
    path = write_nifti(tmp_path / f"a{suffix}", voxels, np.diag([2, 3, 4, 1]))
    image, volume = opened(path)
    assert volume.pixels.dtype == dtype
    np.testing.assert_array_equal(volume.pixels, shown(voxels))
    assert image.n_slices == count_slices(str(path)) == 6
    assert image.spacing == (4, 3, 2)
    np.testing.assert_array_equal(volume.calibration.slope, 1)


def test_the_scale_is_calibration(tmp_path):
    voxels = RNG.integers(-100, 100, (4, 5, 6)).astype(np.int16)
    path = write_nifti(tmp_path / "a.nii", voxels, slope=0.5, intercept=-3)
    _, volume = opened(path)
    np.testing.assert_array_equal(volume.pixels, shown(voxels))
    np.testing.assert_array_equal(physical(volume.pixels, volume.calibration), shown(nib.load(path).get_fdata()))


def test_big_endian_becomes_native(tmp_path):
    voxels = RNG.integers(-100, 100, (4, 5, 6)).astype(">i2")
    nib.save(nib.Nifti1Image(voxels, np.eye(4), nib.Nifti1Header(endianness=">")), tmp_path / "a.nii")
    _, volume = opened(tmp_path / "a.nii")
    assert volume.pixels.dtype.isnative
    np.testing.assert_array_equal(volume.pixels, shown(voxels))


@given(st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([1, -1])] * 3), st.floats(-0.3, 0.3))
@settings(deadline=None, max_examples=48)
def test_any_orientation_is_the_same_anatomy(axes, signs, tilt):
    """One grid stored in any of 48 ways, a little oblique: the volume, its affine and its slice count stay the same."""
    canonical = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([1.5, 2.0, 3.0]), (7, -8, 9)
    to_stored = np.column_stack([np.argsort(axes), np.array(signs)[axes]])
    stored = nib.orientations.apply_orientation(canonical, to_stored)
    image = nib.Nifti1Image(stored, affine @ inv_ornt_aff(to_stored, canonical.shape))
    parsed = parse_nifti(image.to_bytes())
    np.testing.assert_array_equal(parsed.decode(0, 5), shown(canonical))
    assert parsed.n_slices == 5
    # float32 of the stored affine at positions of some ten millimetres
    np.testing.assert_allclose(parsed.affine @ [4, 3, 2, 1], affine @ [0, 0, 4, 1], atol=1e-5)
    np.testing.assert_allclose(parsed.spacing, (3, 2, 1.5), atol=1e-5)


def test_the_first_time_point_with_a_warning(tmp_path):
    voxels = RNG.integers(0, 9, (3, 4, 5, 2)).astype(np.uint8)
    image, volume = opened(write_nifti(tmp_path / "a.nii", voxels))
    np.testing.assert_array_equal(volume.pixels, shown(voxels[..., 0]))
    assert image.warnings == ("only the first of 2 time points is read",)
    assert volume.time_point == 0


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("form", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_time_point_is_chosen(tmp_path, suffix, form):
    voxels = RNG.integers(-9, 9, (3, 4, 5, 6)).astype(">i2")
    header = form.header_class(endianness=">")
    path = tmp_path / f"a{suffix}"
    nib.save(form(voxels, np.diag([-2, 2, 3, 1]), header), path)
    for plane in ("stored", "coronal"):
        for time in range(6):
            image = open_image(str(path), ImageOptions(plane, time))
            volume = image.read(0, image.n_slices)
            single = form(voxels[..., time], np.diag([-2, 2, 3, 1]), header)
            nib.save(single, tmp_path / "single.nii")
            expected = open_image(str(tmp_path / "single.nii"), ImageOptions(plane))
            np.testing.assert_array_equal(volume.pixels, expected.read(0, expected.n_slices).pixels)
            assert volume.time_point == time
            assert bool(image.warnings) == (time == 0)
    with pytest.raises(ImageError, match=r"6 time points, and number 6 \(from 0\)"):
        open_image(str(path), ImageOptions(time=6))


def test_a_later_time_point_of_a_cut_file(tmp_path):
    path = write_nifti(tmp_path / "a.nii", RNG.integers(0, 9, (4, 5, 6, 3)).astype(np.int16))
    path.write_bytes(path.read_bytes()[:-50])
    assert open_image(str(path), ImageOptions(time=1)).read(0, 6).time_point == 1
    with pytest.raises(ImageError, match="cut short"):
        open_image(str(path), ImageOptions(time=2))


def test_a_header_without_orientation_says_so(tmp_path):
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), None)
    image.header["pixdim"][1:4] = 2, 3, 4
    nib.save(image, tmp_path / "a.nii")
    got, _ = opened(tmp_path / "a.nii")
    assert got.warnings == ("the header does not say how the volume is oriented",)
    assert got.affine is None
    assert got.spacing == (4, 3, 2)


def test_one_image_of_two_dimensions(tmp_path):
    image, volume = opened(write_nifti(tmp_path / "a.nii", np.arange(12, dtype=np.uint8).reshape(3, 4)))
    assert image.n_slices == 1
    np.testing.assert_array_equal(volume.pixels, shown(np.arange(12).reshape(3, 4, 1)))


def test_auto_is_a_percentile_of_the_volume(tmp_path):
    voxels = RNG.normal(size=(8, 9, 10)).astype(np.float32)
    voxels[0, 0, 0] = np.nan
    image, _ = opened(write_nifti(tmp_path / "a.nii", voxels))
    expected = np.nanpercentile(voxels.astype(np.float64), [0.5, 99.5])
    np.testing.assert_allclose(image.limits(parse_window("auto"), 3, 4), [[expected]])


# --- what is wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_cut_file_fails(tmp_path, suffix):
    path = write_nifti(tmp_path / f"a{suffix}", RNG.integers(0, 255, (9, 9, 9)).astype(np.uint8))
    whole = path.read_bytes()
    for n in [*range(1, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:n])
        with pytest.raises(ImageError):
            open_image(str(path))


def test_a_damaged_gzip_fails_by_its_checksum(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", np.zeros((5, 5, 5), np.uint8))
    data = bytearray(path.read_bytes())
    data[-8] ^= 1  # in the CRC-32
    path.write_bytes(data)
    with pytest.raises(ImageError, match="gzip file is cut short or damaged"):
        open_image(str(path))


def test_a_gzip_of_something_else(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(b"words " * 200))
    for read in (open_image, count_slices):
        with pytest.raises(ImageError, match="no NIfTI header"):
            read(str(path))


def test_headers_that_lie(tmp_path):
    path = write_nifti(tmp_path / "a.nii", np.zeros((5, 5, 5), np.uint8))
    whole = path.read_bytes()

    def with_field(offset, dtype, value):
        data = bytearray(whole)
        data[offset : offset + np.dtype(dtype).itemsize] = np.array(value, dtype).tobytes()
        return bytes(data)

    # NIfTI-1: dim[1..3] are int16 at 42, vox_offset is a float32 at 108
    for data, says in (
        (with_field(42, "<i2", -5), "no voxel"),
        (with_field(108, "<f4", 8), "inside itself"),
        (with_field(108, "<f4", -1e9), "inside itself"),
        (with_field(42, "<i2", 30000), "cut short: 125 of the 750,000 bytes"),
        (gzip.compress(with_field(108, "<f4", 1e15)), "cut short"),  # no petabyte is asked for
    ):
        path.write_bytes(data)
        with pytest.raises(ImageError, match=says):
            open_image(str(path))


@pytest.mark.parametrize(
    "dtype", [np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), np.dtype("complex64")], ids=["rgb", "complex"]
)
def test_voxels_that_are_no_numbers(tmp_path, dtype):
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), dtype), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ImageError, match="colours or complex"):
        open_image(str(tmp_path / "a.nii"))


def test_other_files_of_the_family(nibabel_data):
    with pytest.raises(ImageError, match="two-file NIfTI"):
        open_image(str(nibabel_data / "nifti1.hdr"))
    with pytest.raises(ImageError, match="Analyze"):
        open_image(str(nibabel_data / "analyze.hdr"))
    with pytest.raises(ImageError, match="vectors"):
        open_image(str(nibabel_data / "row_major.dconn.nii"))


# --- real files ---------------------------------------------------------------------------------------


def assert_as_nibabel(path):
    theirs = nib.as_closest_canonical(nib.load(path))
    image, volume = opened(path)
    values = np.asarray(theirs.dataobj, dtype=np.float64)
    values = values[..., 0] if values.ndim == 4 else values
    assert image.n_slices == count_slices(str(path)) == values.shape[2]
    # nibabel scales in the dtype it finds fit, we in float64
    np.testing.assert_allclose(physical(volume.pixels, volume.calibration), shown(values), rtol=1e-6, atol=1e-6)
    right, anterior, _ = values.shape
    np.testing.assert_allclose(image.affine @ [1, 2, 0, 1], theirs.affine @ [right - 1, anterior - 3, 1, 1], atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "example4d.nii.gz",
        "anatomical.nii",
        "functional.nii",
        "example_nifti2.nii.gz",
        "standard.nii.gz",
        "reoriented_anat_moved.nii",
    ],
)
def test_nibabels_own_files(nibabel_data, name):
    assert_as_nibabel(nibabel_data / name)


def test_the_shared_hippocampi_and_their_masks(shared_data):
    folder = shared_data / "msd_hippocampus"
    images = sorted((folder / "images").glob("*.nii.gz"))[:5]
    assert len(images) == 5
    for path in images:
        assert_as_nibabel(path)
        image, mask = opened(path)[1], opened(folder / "labels" / path.name)[1]
        assert image.pixels.shape == mask.pixels.shape
        np.testing.assert_array_equal(image.affine, mask.affine)
        assert set(np.unique(mask.pixels)) == {0, 1, 2}


def test_the_average_brain_lies_as_a_radiologist_sees_it(nilearn_data):
    path = nilearn_data / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    image, volume = opened(path)
    assert volume.pixels.shape == (189, 233, 197)
    top, bottom = image.affine @ [90, 0, 98, 1], image.affine @ [90, 232, 98, 1]
    assert top[1] > bottom[1]  # anterior above
    left, right = image.affine @ [90, 116, 0, 1], image.affine @ [90, 116, 196, 1]
    assert left[0] > right[0]  # the patient's right on the left
    assert (image.affine @ [188, 0, 0, 1])[2] > (image.affine @ [0, 0, 0, 1])[2]  # feet to head


@pytest.mark.parametrize(("unit", "mm"), [("micron", 0.001), ("meter", 1000.0), ("mm", 1.0), ("unknown", 1.0)])
@pytest.mark.parametrize("told", [True, False])
def test_lengths_are_in_the_headers_own_unit(tmp_path, unit, mm, told):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([50, 60, 70, 1.0]))
    if not told:
        image.set_sform(None, 0)
        image.set_qform(None, 0)
        image.header["pixdim"][1:4] = (50, 60, 70)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(open_image(str(tmp_path / "a.nii")).spacing, np.array([70, 60, 50]) * mm)
