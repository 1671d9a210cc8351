import io

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_modality_lut

from embedcache.errors import ImageError
from embedcache.images import count_slices, open_image, parse_window
from embedcache.images.series import parse_dicom
from embedcache.images.windows import physical
from embedcache.testing.files import write_dicom

RNG = np.random.default_rng(1)


def opened(path):
    image = open_image(str(path))
    return image, image.read(0, image.n_slices)


# --- round trips ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 5)])
def test_write_and_read_back(tmp_path, dtype, shape):
    info = np.iinfo(dtype)
    pixels = RNG.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    path = write_dicom(tmp_path / "a.dcm", pixels, slope=2.5, intercept=-7)
    image, volume = opened(path)
    assert volume.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(volume.pixels, pixels.reshape(-1, *shape[-2:]))
    assert image.n_slices == count_slices(str(path)) == len(volume.pixels)
    np.testing.assert_array_equal(volume.calibration.slope, 2.5)
    np.testing.assert_array_equal(volume.calibration.intercept, -7)
    assert volume.modality == "DX"


def test_colour_round_trip(tmp_path):
    pixels = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    _, volume = opened(write_dicom(tmp_path / "a.dcm", pixels))
    np.testing.assert_array_equal(volume.pixels, pixels[np.newaxis])


def test_monochrome1_is_turned_over_by_the_calibration_only(tmp_path):
    pixels = RNG.integers(0, 4096, (5, 7), dtype=np.uint16)
    _, volume = opened(write_dicom(tmp_path / "a.dcm", pixels, photometric="MONOCHROME1"))
    assert volume.calibration.invert
    np.testing.assert_array_equal(volume.pixels[0], pixels)


def test_the_files_own_window(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((2, 2), np.int16), window=(40, 400))
    image, volume = opened(path)
    assert volume.calibration.voi == ((40, 400),)
    assert image.limits(parse_window("voi"), 0, 1).tolist() == [[[-160, 240]]]
    assert image.limits(parse_window("auto"), 0, 1).tolist() == [[[-160, 240]]]


def test_a_window_of_no_width_is_none(tmp_path):
    image, volume = opened(write_dicom(tmp_path / "a.dcm", np.array([[3, 9]], np.int16), window=(40, 0)))
    assert volume.calibration.voi == ()
    assert image.limits(parse_window("auto"), 0, 1).tolist() == [[[3, 9]]]


def test_padding_is_a_range_and_no_statistic(tmp_path):
    pixels = np.array([[-2000, -1995, -100, 50]], np.int16)
    image, volume = opened(write_dicom(tmp_path / "a.dcm", pixels, slope=2, padding=(-1990, -2000)))
    assert volume.calibration.padding == (-2000, -1990)
    assert image.limits(parse_window("min-max"), 0, 1).tolist() == [[[-200, 100]]]


def test_padding_written_as_unsigned_is_the_pixels_own_value(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.array([[-2000, 5]], np.int16))
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    dataset.save_as(path)
    assert opened(path)[1].calibration.padding == (-2000, -2000)


def test_spacing_and_affine_of_one_slice(tmp_path):
    path = write_dicom(
        tmp_path / "a.dcm",
        np.zeros((4, 6), np.int16),
        modality="CT",
        spacing=(0.5, 0.25),
        thickness=3,
        position=(10, 20, 30),
    )
    image, volume = opened(path)
    assert volume.spacing == (3, 0.5, 0.25)
    # LPS to RAS: x and y change sign
    np.testing.assert_allclose(image.affine @ [1, 2, 3, 1], [-(10 + 3 * 0.25), -(20 + 2 * 0.5), 33, 1])


# --- pydicom's own files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("RG1_J2KR.dcm", "RG1_UNCR.dcm"),
        ("RG3_J2KI.dcm", "RG3_UNCI.dcm"),
        ("RG3_J2KR.dcm", "RG3_UNCR.dcm"),
        ("MR2_J2KR.dcm", "MR2_UNCR.dcm"),
        ("US1_J2KR.dcm", "US1_UNCR.dcm"),
        ("693_J2KR.dcm", "693_UNCR.dcm"),
        ("emri_small.dcm", "emri_small_RLE.dcm"),
        ("emri_small.dcm", "emri_small_jpeg_ls_lossless.dcm"),
        ("emri_small.dcm", "emri_small_jpeg_2k_lossless.dcm"),
        ("emri_small.dcm", "emri_small_big_endian.dcm"),
        ("MR_small.dcm", "MR_small_RLE.dcm"),
        ("MR_small.dcm", "MR_small_bigendian.dcm"),
        ("MR_small.dcm", "MR_small_implicit.dcm"),
        ("MR_small.dcm", "MR_small_jp2klossless.dcm"),
        ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm"),
        ("MR_small.dcm", "MR_small_padded.dcm"),
    ],
)
def test_lossless_pairs_are_equal(pydicom_file, one, other):
    a, b = opened(pydicom_file(one))[1], opened(pydicom_file(other))[1]
    assert a.pixels.dtype == b.pixels.dtype
    assert a.pixels.dtype.isnative
    np.testing.assert_array_equal(a.pixels, b.pixels)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "693_UNCR.dcm", "MR2_UNCR.dcm", "RG3_UNCR.dcm"])
def test_physical_values_are_pydicoms(pydicom_file, name):
    _, volume = opened(pydicom_file(name))
    dataset = pydicom.dcmread(pydicom_file(name))
    np.testing.assert_array_equal(volume.pixels[0], dataset.pixel_array)
    ours = physical(volume.pixels, volume.calibration)[0]
    np.testing.assert_array_equal(ours, apply_modality_lut(dataset.pixel_array, dataset))


def test_the_chest_radiograph_is_monochrome1(pydicom_file):
    image, volume = opened(pydicom_file("RG1_UNCR.dcm"))
    assert (volume.modality, volume.pixels.shape, volume.calibration.invert) == ("CR", (1, 1955, 1841), True)
    assert image.limits(parse_window("auto"), 0, 1).tolist() == [[[0, 30000]]]


def test_enhanced_ct_has_its_rescale_in_functional_groups(pydicom_file):
    image, volume = opened(pydicom_file("eCT_Supplemental.dcm"))
    assert image.n_slices == count_slices(pydicom_file("eCT_Supplemental.dcm")) == 2
    np.testing.assert_array_equal(volume.calibration.intercept, -1024)
    assert volume.calibration.voi == ((49.0, 102.0), (49.0, 102.0))


@pytest.mark.parametrize(
    "name",
    ["SC_rgb.dcm", "SC_rgb_16bit.dcm", "SC_rgb_32bit.dcm", "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_jpeg_dcmtk.dcm"],
)
def test_colour_is_eight_bit_rgb(pydicom_file, name):
    image, volume = opened(pydicom_file(name))
    assert volume.pixels.dtype == np.uint8
    # the same bars in all of them; two colour transforms in 8 bits and JPEG are off by a few levels
    reference = opened(pydicom_file("SC_rgb.dcm"))[1].pixels.astype(int)
    assert np.abs(volume.pixels - reference).max() <= 8
    assert image.limits(parse_window("auto"), 0, 1).tolist() == [[[0, 255]]]


def test_palette_colour(pydicom_file):
    _, volume = opened(pydicom_file("examples_palette.dcm"))
    assert volume.pixels.shape == (1, 350, 800, 3)
    assert volume.pixels.dtype == np.uint8
    assert volume.pixels.max() > 200


def test_a_modality_table_is_applied(pydicom_file):
    _, volume = opened(pydicom_file("mlut_18.dcm"))
    dataset = pydicom.dcmread(pydicom_file("mlut_18.dcm"))
    np.testing.assert_array_equal(volume.pixels[0], apply_modality_lut(dataset.pixel_array, dataset))
    np.testing.assert_array_equal(volume.calibration.slope, 1)


def test_frames_can_be_read_apart(pydicom_file):
    image, whole = opened(pydicom_file("emri_small_RLE.dcm"))
    part = open_image(pydicom_file("emri_small_RLE.dcm")).read(3, 5)
    np.testing.assert_array_equal(part.pixels, whole.pixels[3:5])
    assert len(part.calibration.slope) == 2
    assert image.n_slices == 10


def test_a_file_without_preamble(tmp_path, pydicom_file):
    dataset = pydicom.dcmread(pydicom_file("CT_small.dcm"))
    buffer = io.BytesIO()
    bare = pydicom.Dataset(dataset)
    pydicom.dcmwrite(buffer, bare, implicit_vr=False, little_endian=True, enforce_file_format=False)
    (tmp_path / "1.2.840.77").write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(opened(tmp_path / "1.2.840.77")[1].pixels[0], dataset.pixel_array)


# --- what is wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rtplan.dcm", "reportsi.dcm", "test-SR.dcm", "waveform_ecg.dcm", "rtstruct.dcm"])
def test_no_image_object(pydicom_file, name):
    for read in (open_image, count_slices):
        with pytest.raises(ImageError, match="no pixel data") as error:
            read(pydicom_file(name))
        assert error.value.stage == "open"


def test_pixel_data_shorter_than_the_header_says(pydicom_file):
    with pytest.raises(ImageError, match="8,130 of the 8,192 bytes"):
        open_image(pydicom_file("MR_truncated.dcm"))


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "MR_small_RLE.dcm"]
)
def test_a_cut_file_is_never_half_an_image(tmp_path, pydicom_file, name):
    with open(pydicom_file(name), "rb") as file:
        whole = file.read()
    expected = parse_dicom([whole]).decode(0, 1)
    path = tmp_path / "secret-name.dcm"
    reasons = []
    for n in range(140, len(whole), len(whole) // 40):
        path.write_bytes(whole[:n])
        try:
            got = opened(path)[1].pixels
        except ImageError as error:
            reasons.append(error.reason)
        else:
            np.testing.assert_array_equal(got, expected)
    assert len(reasons) > 30
    assert not any("secret" in reason for reason in reasons)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "JPEG-LL.dcm",
        "JPGExtended.dcm",
    ],
)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_cut_codestream_is_never_half_an_image(pydicom_file, name, part):
    dataset = pydicom.dcmread(pydicom_file(name))
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: int(len(frame) * part)]])
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    with pytest.raises(ImageError, match="cut short"):
        parse_dicom([buffer.getvalue()]).decode(0, 1)


def test_a_compression_that_nobody_reads(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((2, 2), np.uint8))
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([b"\0\0\0\0"])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    dataset.save_as(path)
    with pytest.raises(ImageError, match="compression"):
        opened(path)


def test_warnings_of_pydicom_stay_inside(pydicom_file, recwarn, caplog):
    for name in ("MR_small_padded.dcm", "J2K_pixelrep_mismatch.dcm", "explicit_VR-UN.dcm"):
        opened(pydicom_file(name))
    assert not recwarn.list
    assert not caplog.records
