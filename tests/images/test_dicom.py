import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_modality_lut, apply_windowing

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
    assert volume.calibration.voi == ((39.5, 399),)
    # LINEAR counts whole numbers: 400 values from black to white, both of them among these
    assert image.limits(parse_window("voi"), 0, 1).tolist() == [[[-160, 239]]]
    assert image.limits(parse_window("auto"), 0, 1).tolist() == [[[-160, 239]]]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
@pytest.mark.parametrize("window", [(40, 400), (-600, 1500), (3.5, 7), (0, 2)])
def test_a_linear_window_is_pydicoms(tmp_path, function, window):
    pixels = RNG.integers(-1500, 1500, (20, 20), dtype=np.int16)
    pixels[0, :9] = np.arange(-4, 5)
    path = write_dicom(tmp_path / "a.dcm", pixels, window=window, slope=1, intercept=0)
    dataset = pydicom.dcmread(path)
    dataset.VOILUTFunction = function
    dataset.save_as(path)
    image, volume = opened(path)
    ((low, high),) = image.limits(parse_window("voi"), 0, 1)[0]
    ours = np.clip((physical(volume.pixels, volume.calibration)[0] - low) / (high - low), 0, 1)
    shown = apply_windowing(pixels, dataset)  # over the range of the stored type
    theirs = (shown - shown.min()) / (shown.max() - shown.min())
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


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


def test_padding_is_found_before_a_modality_table_is_applied(tmp_path):
    """The table sends the padding 0 to 7, a value that real pixels have too; only those that were stored as 0 are padding."""
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", np.array([[0, 1, 2, 3]], np.uint16), padding=(0, 0)))
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [4, 0, 16])
    item.add_new("LUTData", "US", [7, 7, 100, 200])
    item.ModalityLUTType = "US"
    dataset.ModalityLUTSequence = [item]
    dataset.save_as(tmp_path / "a.dcm")
    image, volume = opened(tmp_path / "a.dcm")
    assert volume.calibration.padding is None
    np.testing.assert_array_equal(volume.pixels[0], [[np.nan, 7, 100, 200]])
    assert image.limits(parse_window("min-max"), 0, 1).tolist() == [[[7, 200]]]


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


LOSSLESS = {
    "693_UNCR.dcm": ["693_J2KR.dcm"],
    "693_UNCI.dcm": ["693_J2KI.dcm"],
    "MR2_UNCR.dcm": ["MR2_J2KR.dcm"],
    "RG1_UNCR.dcm": ["RG1_J2KR.dcm"],
    "RG3_UNCR.dcm": ["RG3_J2KR.dcm"],
    "US1_UNCR.dcm": ["US1_J2KR.dcm"],
    # irreversibly compressed, and what another decoder made of it
    "MR2_UNCI.dcm": ["MR2_J2KI.dcm"],
    "RG1_UNCI.dcm": ["RG1_J2KI.dcm"],
    "RG3_UNCI.dcm": ["RG3_J2KI.dcm"],
    "US1_UNCI.dcm": ["US1_J2KI.dcm"],
    "JPEG2000_UNC.dcm": ["JPEG2000.dcm"],
    "SC_rgb_gdcm2k_uncompressed.dcm": ["SC_rgb_gdcm_KY.dcm"],
    "emri_small.dcm": [
        "emri_small_RLE.dcm",
        "emri_small_big_endian.dcm",
        "emri_small_jpeg_2k_lossless.dcm",
        "emri_small_jpeg_ls_lossless.dcm",
    ],
    "MR_small.dcm": [
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
    "OBXXXX1A.dcm": ["OBXXXX1A_expb.dcm", "OBXXXX1A_rle.dcm"],
    "OBXXXX1A_2frame.dcm": ["OBXXXX1A_expb_2frame.dcm", "OBXXXX1A_rle_2frame.dcm"],
    "SC_rgb.dcm": ["SC_rgb_expb.dcm", "SC_rgb_rle.dcm", "SC_rgb_jpeg_gdcm.dcm"],
    "SC_rgb_2frame.dcm": ["SC_rgb_expb_2frame.dcm", "SC_rgb_rle_2frame.dcm"],
    "SC_rgb_16bit.dcm": ["SC_rgb_expb_16bit.dcm", "SC_rgb_rle_16bit.dcm"],
    "SC_rgb_16bit_2frame.dcm": ["SC_rgb_expb_16bit_2frame.dcm", "SC_rgb_rle_16bit_2frame.dcm"],
    "SC_rgb_32bit.dcm": ["SC_rgb_expb_32bit.dcm", "SC_rgb_rle_32bit.dcm"],
    "SC_rgb_32bit_2frame.dcm": ["SC_rgb_expb_32bit_2frame.dcm", "SC_rgb_rle_32bit_2frame.dcm"],
    "SC_rgb_small_odd.dcm": ["SC_rgb_small_odd_big_endian.dcm"],
    "color-pl.dcm": ["color-px.dcm"],
    "gdcm-US-ALOKA-16.dcm": ["gdcm-US-ALOKA-16_big.dcm"],
    "rtdose.dcm": ["rtdose_expb.dcm", "rtdose_rle.dcm"],
    "rtdose_1frame.dcm": ["rtdose_expb_1frame.dcm", "rtdose_rle_1frame.dcm"],
}
"""Files of pydicom and pydicom-data that hold the same pixels in another transfer syntax."""


@pytest.mark.parametrize(("one", "other"), [(one, other) for one, others in LOSSLESS.items() for other in others])
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
    assert image.limits(parse_window("auto"), 0, 1).tolist() == [[[0, 29999]]]


def test_enhanced_ct_has_its_rescale_in_functional_groups(pydicom_file):
    image, volume = opened(pydicom_file("eCT_Supplemental.dcm"))
    assert image.n_slices == count_slices(pydicom_file("eCT_Supplemental.dcm")) == 2
    np.testing.assert_array_equal(volume.calibration.intercept, -1024)
    assert volume.calibration.voi == ((48.5, 101.0), (48.5, 101.0))


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


def test_a_header_that_claims_more_frames_than_the_file_holds(tmp_path, pydicom_file):
    for name in ("MR_small.dcm", "MR_small_RLE.dcm", "image_dfl.dcm"):
        dataset = pydicom.dcmread(pydicom_file(name))
        dataset.NumberOfFrames = 2_000_000_000
        dataset.save_as(tmp_path / "a.dcm")
        for read in (count_slices, open_image):
            with pytest.raises(ImageError) as error:
                read(str(tmp_path / "a.dcm"))
            assert error.value.stage == "open"


def test_the_frames_of_a_file_with_one_position_keep_their_order(pydicom_file):
    image, volume = opened(pydicom_file("rtdose.dcm"))
    np.testing.assert_array_equal(volume.pixels, pydicom.dcmread(pydicom_file("rtdose.dcm")).pixel_array)
    assert image.n_slices == 15
    assert image.affine is None
    assert image.warnings == ()


def test_frames_of_colour_ultrasound_are_in_order(pydicom_file):
    image = open_image(pydicom_file("examples_ybr_color.dcm"))
    dataset = pydicom.dcmread(pydicom_file("examples_ybr_color.dcm"))
    assert image.n_slices == 30
    frames = pydicom.pixels.pixel_array(dataset)  # as RGB
    np.testing.assert_array_equal(image.read(7, 9).pixels, frames[7:9])
    np.testing.assert_array_equal(image.read(0, 1).pixels, frames[:1])


@pytest.mark.parametrize("syntax", ["DeflatedExplicitVRLittleEndian", "ExplicitVRBigEndian", "ImplicitVRLittleEndian"])
@pytest.mark.parametrize("name", ["CT_small.dcm", "SC_rgb.dcm", "eCT_Supplemental.dcm"])
def test_the_native_syntaxes_are_one(tmp_path, pydicom_file, name, syntax):
    dataset = pydicom.dcmread(pydicom_file(name))
    expected = opened(pydicom_file(name))[1]
    uid = getattr(pydicom.uid, syntax)
    if syntax == "ExplicitVRBigEndian":
        if dataset.BitsAllocated == 16:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
        for group in (0x0009, 0x0029, 0x0043):
            for element in [e.tag for e in dataset.group_dataset(group)]:
                del dataset[element]  # private bytes that pydicom can not turn
    pydicom.dcmwrite(
        tmp_path / "a.dcm",
        _with_syntax(dataset, uid),
        implicit_vr=uid.is_implicit_VR,
        little_endian=uid.is_little_endian,
        enforce_file_format=True,
    )
    got = opened(tmp_path / "a.dcm")[1]
    np.testing.assert_array_equal(got.pixels, expected.pixels)
    np.testing.assert_array_equal(got.calibration.intercept, expected.calibration.intercept)


def _with_syntax(dataset, uid):
    dataset.file_meta.TransferSyntaxUID = uid
    return dataset


def test_counting_is_what_opening_gives(pydicom_file):
    """Over every file of pydicom: from the headers alone, the same number or the same refusal."""
    cut_in_the_pixels = {"MR_truncated.dcm", "emri_small_jpeg_2k_lossless_too_short.dcm"}  # no header tells
    folder = Path(pydicom_file("CT_small.dcm")).parent
    others = Path(pydicom_file("eCT_Supplemental.dcm")).parent
    files = [f for f in sorted({*folder.glob("*.dcm"), *others.glob("*.dcm")}) if f.name not in cut_in_the_pixels]
    assert len(files) > 100
    for file in files:
        try:
            n = open_image(str(file)).n_slices
        except ImageError:
            with pytest.raises(ImageError):
                count_slices(str(file))
        else:
            assert count_slices(str(file)) == n


def test_twelve_bit_jpeg(pydicom_file):
    # no uncompressed twin is published: the range tells twelve bits from eight
    _, volume = opened(pydicom_file("JPGExtended.dcm"))
    assert volume.pixels.dtype == np.uint16
    assert 255 < volume.pixels.max() < 4096
