"""NRRD and MetaImage, written by SimpleITK, held against NIfTI files of the same volume that it wrote too."""

import sys

import numpy as np
import pytest

from embedcache.errors import ImageError
from embedcache.images import ImageOptions, count_slices, open_image, parse_window, stat_source

sitk = pytest.importorskip("SimpleITK")

RNG = np.random.default_rng(6)
VOXELS = RNG.integers(-500, 500, (4, 5, 6)).astype(np.int16)
FORMS = ["a.nrrd", "a.nhdr", "a.mha", "a.mhd"]


def image_of(voxels=VOXELS, flips=(1, 1, 1), axes=(0, 1, 2), tilt=0.0):
    image = sitk.GetImageFromArray(voxels, isVector=False)
    if image.GetDimension() == 3:
        turn = np.eye(3)[:, axes] * flips
        c, s = np.cos(tilt), np.sin(tilt)
        image.SetDirection((np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ turn).ravel().tolist())
        image.SetSpacing((0.5, 2.0, 3.0))
        image.SetOrigin((10.0, -20.0, 30.0))
    return image


def opened(path, **options):
    image = open_image(str(path), ImageOptions(**options))
    assert image.n_slices == count_slices(str(path), ImageOptions(**options))
    return image, image.read(0, image.n_slices)


@pytest.mark.parametrize("plane", ["stored", "coronal", "sagittal"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_the_same_volume_as_nifti(tmp_path, name, packed, plane):
    made = image_of(flips=(-1, 1, -1), axes=(1, 0, 2), tilt=0.2)
    sitk.WriteImage(made, tmp_path / name, useCompression=packed)
    sitk.WriteImage(made, tmp_path / "a.nii")
    image, volume = opened(tmp_path / name, plane=plane)
    _, expected = opened(tmp_path / "a.nii", plane=plane)
    assert image.kind == "volume"
    assert volume.pixels.dtype == np.int16
    np.testing.assert_array_equal(volume.pixels, expected.pixels)
    # NIfTI holds its affine as float32
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-4)
    np.testing.assert_allclose(volume.spacing, expected.spacing, atol=1e-6)
    window = parse_window("auto")
    reread = open_image(str(tmp_path / "a.nii"), ImageOptions(plane))
    np.testing.assert_allclose(image.limits(window, 0, 2), reread.limits(window, 0, 2))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "float32", "float64"])
def test_the_stored_type_is_kept(tmp_path, dtype):
    sitk.WriteImage(image_of(np.abs(VOXELS % 100).astype(dtype)), tmp_path / "a.nrrd")
    assert opened(tmp_path / "a.nrrd")[1].pixels.dtype == dtype


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_a_time_point_is_chosen(tmp_path, name):
    series = RNG.integers(-500, 500, (3, 2, 4, 5)).astype(np.int16)
    sitk.WriteImage(image_of(series), tmp_path / name)
    image, first = opened(tmp_path / name)
    # SimpleITK names no anatomical space in a NRRD file of four dimensions
    unsaid = ("the header does not say how the volume is oriented",) if name == "a.nrrd" else ()
    assert image.warnings == ("only the first of 3 time points is read", *unsaid)
    image, last = opened(tmp_path / name, time=2)
    assert (image.warnings, last.time_point) == (unsaid, 2)
    for volume, values in ((first, series[0]), (last, series[2])):
        np.testing.assert_array_equal(volume.pixels, values)  # identity directions in LPS are axial already
    with pytest.raises(ImageError, match=r"3 time points, and number 3 \(from 0\)"):
        open_image(str(tmp_path / name), ImageOptions(time=3))


def write_sequence(path, series, first, kind="list"):
    """A NRRD of (time, slice, y, x) as Slicer writes sequences: the axis that is none of space first, or last."""
    n, *shape = series.shape
    directions = ["(0.7,0,0)", "(0,0.7,0)", "(0,0,2)"]
    sizes = [str(size) for size in reversed(shape)]
    kinds = ["domain"] * 3
    for axes, own in ((sizes, str(n)), (kinds, kind), (directions, "none")):
        axes.insert(0 if first else 3, own)
    header = (
        f"NRRD0005\ntype: {series.dtype}\ndimension: 4\nspace: left-posterior-superior\nsizes: {' '.join(sizes)}\n"
        f"space directions: {' '.join(directions)}\nkinds: {' '.join(kinds)}\nendian: little\nencoding: raw\n"
        "space origin: (1,2,3)\n\n"
    )
    path.write_bytes(header.encode() + np.ascontiguousarray(np.moveaxis(series, 0, -1) if first else series).tobytes())
    return path


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_a_sequence_is_time_points_wherever_its_axis_is(tmp_path, first, dtype):
    """Three of eight bits are no colours."""
    series = RNG.integers(0, 200, (3, 2, 4, 5)).astype(dtype)
    path = write_sequence(tmp_path / "a.seq.nrrd", series, first)
    for time in range(3):
        image, volume = opened(path, time=time)
        np.testing.assert_array_equal(volume.pixels, series[time])
        assert image.warnings == (("only the first of 3 time points is read",) if time == 0 else ())
        assert count_slices(str(path), ImageOptions(time=time)) == 2
    np.testing.assert_allclose(volume.spacing, (2, 0.7, 0.7))
    np.testing.assert_allclose(volume.affine @ [1, 2, 3, 1], [-(1 + 3 * 0.7), -(2 + 2 * 0.7), 5, 1])
    with pytest.raises(ImageError, match=r"3 time points, and number 3 \(from 0\)"):
        open_image(str(path), ImageOptions(time=3))


def test_a_vector_is_no_sequence(tmp_path):
    series = RNG.integers(0, 200, (4, 2, 4, 5)).astype(np.int16)
    with pytest.raises(ImageError, match="4 x vector of 16-bit signed integer"):
        open_image(str(write_sequence(tmp_path / "a.nrrd", series, True, kind="vector")))


def test_colours_are_read_and_vectors_refused(tmp_path):
    colours = RNG.integers(0, 255, (2, 4, 5, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), tmp_path / "a.mha")
    np.testing.assert_array_equal(opened(tmp_path / "a.mha")[1].pixels, colours)
    sitk.WriteImage(sitk.GetImageFromArray(colours.astype(np.float32), isVector=True), tmp_path / "b.mha")
    with pytest.raises(ImageError, match="3 x vector of 32-bit float"):
        open_image(str(tmp_path / "b.mha"))


def test_a_header_without_a_space_comes_as_stored(tmp_path):
    sitk.WriteImage(image_of(flips=(-1, 1, -1)), tmp_path / "a.nrrd")
    lines = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "b.nrrd").write_bytes(lines.replace(b"space: left-posterior-superior", b"space: scanner-xyz"))
    image, volume = opened(tmp_path / "b.nrrd")
    np.testing.assert_array_equal(volume.pixels, VOXELS)
    assert image.affine is None
    assert image.warnings == ("the header does not say how the volume is oriented",)


@pytest.mark.parametrize("name", FORMS)
def test_a_cut_file_is_refused(tmp_path, name):
    sitk.WriteImage(image_of(), tmp_path / name, useCompression=False)
    largest = max(tmp_path.iterdir(), key=lambda p: p.stat().st_size)
    values = VOXELS.nbytes
    if name in ("a.nhdr", "a.mhd"):
        largest = next(p for p in tmp_path.iterdir() if p.suffix in (".raw", ".zraw"))
    largest.write_bytes(largest.read_bytes()[: -values // 2])
    with pytest.raises(ImageError, match="cut short or damaged") as error:
        opened(tmp_path / name)
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_a_header_that_claims_too_much_is_given_no_memory(tmp_path, name):
    sitk.WriteImage(image_of(), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    lie = data.replace(b"6 5 4", b"60000 50000 4")
    assert lie != data
    (tmp_path / name).write_bytes(lie)
    with pytest.raises(ImageError, match="more values than the file can hold"):
        open_image(str(tmp_path / name))


def test_the_values_beside_a_header_count(tmp_path):
    sitk.WriteImage(image_of(), tmp_path / "a.mhd")
    path = str(tmp_path / "a.mhd")
    before = open_image(path)
    assert before.state == stat_source(path)
    assert before.state.size == sum(p.stat().st_size for p in tmp_path.iterdir())
    raw = next(p for p in tmp_path.iterdir() if p.suffix == ".raw")
    raw.write_bytes(bytes(VOXELS.nbytes))
    assert open_image(path).digest != before.digest


@pytest.mark.parametrize("name", ["/etc/hostname", "../a.raw", "LIST", "slice%03d.raw 1 4 1"])
def test_a_header_leads_nowhere_else(tmp_path, name):
    sitk.WriteImage(image_of(), tmp_path / "a.mhd")
    header = (tmp_path / "a.mhd").read_text().replace("a.raw", name)
    (tmp_path / "a.mhd").write_text(header)
    for read in (open_image, count_slices, stat_source):
        with pytest.raises(ImageError, match="several data files, or one in another folder"):
            read(str(tmp_path / "a.mhd"))


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    sitk.WriteImage(image_of(), tmp_path / "a.mha")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    for read in (open_image, count_slices):
        with pytest.raises(ImageError, match=r"needs SimpleITK: pip install 'embedcache\[volumes\]'"):
            read(str(tmp_path / "a.mha"))
