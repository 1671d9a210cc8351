"""The file's own display, held against pydicom's functions: modality LUT, then VOI, then MONOCHROME1."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from embedcache.backbones.preprocess import preprocess
from embedcache.errors import ImageError
from embedcache.images import open_image, parse_window
from embedcache.images.options import ImageOptions
from embedcache.images.voi import presented, shows_curve
from embedcache.testing.files import write_dicom, write_series
from embedcache.types import Calibration, ImageRecipe, VoiSigmoid, VoiTable, Volume
from tests.images.dicom_makers import write_enhanced

RNG = np.random.default_rng(5)
TABLE = np.concatenate([np.zeros(30), np.linspace(0, 4095, 400) ** 1.0, np.full(20, 4095)]).astype(np.uint16)
WAVY = (2000 + 2000 * np.sin(np.arange(300) / 20)).astype(np.uint16)
"""Rises and falls: no window can stand for it."""


def voi_item(table, first, bits=12):
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(table) % 65536, first, bits])
    item.add_new("LUTData", "US", table.tolist())
    return item


def with_table(path, table=TABLE, first=0, bits=12, **elements):
    """The file with a VOI lookup table, and other elements."""
    dataset = pydicom.dcmread(path)
    dataset.VOILUTSequence = [voi_item(table, first, bits)]
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


def rendered(path, window="voi", options=None):
    """What a backbone of the image's own size would see, (n, y, x)."""
    image = open_image(str(path), options or ImageOptions())
    asked = parse_window(window)
    volume = image.read(0, image.n_slices, asked)
    recipe = ImageRecipe(asked, volume.pixels.shape[1:3], (0.0,) * 3, (1.0,) * 3)
    return preprocess(volume, image.limits(asked, 0, image.n_slices), recipe, "cpu")[:, 0].numpy()


def reference(path, white=None):
    """As pydicom displays it, from 0 to 1; `white` of a lookup table's output, else the range of the rescaled stored type."""
    dataset = pydicom.dcmread(path)
    values = apply_modality_lut(dataset.pixel_array, dataset)
    if white is not None:
        with pytest.warns(UserWarning, match="float input") if values.dtype.kind == "f" else nullcontext():
            shown = apply_voi_lut(values, dataset) / white
    else:
        info = np.iinfo(dataset.pixel_array.dtype)
        ends = np.array([info.min, info.max]) * float(dataset.get("RescaleSlope", 1)) + float(
            dataset.get("RescaleIntercept", 0)
        )
        with np.errstate(over="ignore"):  # in pydicom's sigmoid
            shown = (apply_voi_lut(values, dataset) - ends[0]) / (ends[1] - ends[0])
    return 1 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


@pytest.mark.parametrize("window", ["voi", "auto"])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(
    ("dtype", "slope", "intercept", "first"),
    [
        ("uint16", None, None, 0),
        ("uint16", 1, -100, -60),
        ("int16", 1, 0, -200),
        ("int16", 0.5, 3, 10),
        ("uint8", 2, -5, 4),
    ],
)
@pytest.mark.parametrize("table", [TABLE, WAVY], ids=["rising", "wavy"])
def test_a_table_is_applied_as_pydicom_applies_it(tmp_path, window, photometric, dtype, slope, intercept, first, table):
    low, high = max(np.iinfo(dtype).min, -600), min(np.iinfo(dtype).max, 900)
    pixels = RNG.integers(low, high, (24, 30)).astype(dtype)
    path = write_dicom(tmp_path / "a.dcm", pixels, photometric=photometric, slope=slope, intercept=intercept)
    with_table(path, table, first)
    # float32 of a fraction, and its inversion
    np.testing.assert_allclose(rendered(path, window)[0], reference(path, white=4095), atol=2e-7)
    assert open_image(str(path)).warnings == ()


@pytest.mark.parametrize("name", ["vlut_04.dcm"])
def test_the_tables_of_pydicoms_files(pydicom_file, name):
    path = pydicom_file(name)
    np.testing.assert_allclose(rendered(path)[0], reference(path, white=65535), atol=2e-7)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("function", ["SIGMOID", "LINEAR_EXACT", "LINEAR"])
@pytest.mark.parametrize("window", [(40, 400), (-600.5, 1500), (3.5, 7), (0, 1)])
def test_functions_are_pydicoms(tmp_path, photometric, function, window):
    pixels = RNG.integers(-1500, 1500, (20, 20)).astype(np.int16)
    pixels[0, :9] = np.arange(-4, 5)
    path = write_dicom(tmp_path / "a.dcm", pixels, window=window, slope=1, intercept=-1, photometric=photometric)
    dataset = pydicom.dcmread(path)
    dataset.VOILUTFunction = function
    dataset.save_as(path)
    # in float32: a window of width 1 keeps its steps to about 1e-4 at a thousand
    np.testing.assert_allclose(rendered(path)[0], reference(path), atol=2e-4 if window[1] == 1 else 2e-6)
    assert open_image(str(path)).warnings == ()


def test_other_windows_do_not_see_it(tmp_path):
    pixels = RNG.integers(0, 900, (8, 8)).astype(np.uint16)
    path = with_table(write_dicom(tmp_path / "a.dcm", pixels), first=20)
    plain = write_dicom(tmp_path / "b.dcm", pixels)
    for window in ("min-max", "40/400", "percentile", "range"):
        np.testing.assert_array_equal(rendered(path, window), rendered(plain, window))
        asked = parse_window(window)
        image = open_image(str(path))
        assert image.read(0, 1, asked).pixels.dtype == np.uint16


def test_a_table_wins_over_a_window_as_in_pydicom(tmp_path):
    pixels = RNG.integers(0, 500, (8, 8)).astype(np.uint16)
    path = with_table(write_dicom(tmp_path / "a.dcm", pixels, window=(40, 100)), WAVY, 5)
    np.testing.assert_allclose(rendered(path)[0], reference(path, white=4095), atol=2e-7)


@pytest.mark.parametrize("descriptor", [[100, 0, 12], [0, 0, 12], [3, 0], [450, 0, 12]])
def test_a_broken_table_leaves_the_window(tmp_path, descriptor):
    pixels = RNG.integers(0, 500, (8, 8)).astype(np.uint16)
    path = with_table(write_dicom(tmp_path / "a.dcm", pixels, window=(40, 100)), np.full(100, 7, np.uint16))
    dataset = pydicom.dcmread(path)
    dataset.VOILUTSequence[0].LUTDescriptor = descriptor
    dataset.save_as(path)
    plain = write_dicom(tmp_path / "b.dcm", pixels, window=(40, 100))
    np.testing.assert_array_equal(rendered(path), rendered(plain))


def test_eight_bit_entries_may_be_two_in_a_word(tmp_path):
    pixels = RNG.integers(0, 300, (8, 8)).astype(np.uint16)
    table = (255 - np.arange(256)).astype(np.uint8)
    path = with_table(write_dicom(tmp_path / "a.dcm", pixels))
    dataset = pydicom.dcmread(path)
    item = dataset.VOILUTSequence[0]
    item.LUTDescriptor = [256, 10, 8]
    item.add_new("LUTData", "OW", table.tobytes())
    dataset.save_as(path)
    expected = table[np.clip(pixels.astype(int) - 10, 0, 255)] / 255
    np.testing.assert_allclose(rendered(path)[0], expected, atol=1e-7)


def test_more_than_its_bits_can_say_is_white(tmp_path):
    """A writer's descriptor that says 8 bits of entries of 12."""
    pixels = np.array([[0, 449]], np.uint16)
    path = with_table(write_dicom(tmp_path / "a.dcm", pixels), bits=8)
    np.testing.assert_allclose(rendered(path), [[[0, 1]]])


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_padding_is_black_whatever_the_table_says(tmp_path, photometric):
    pixels = RNG.integers(0, 500, (8, 8)).astype(np.uint16)
    pixels[0] = 450
    path = with_table(write_dicom(tmp_path / "a.dcm", pixels, padding=(450, 450), photometric=photometric))
    shown = rendered(path)[0]
    assert not shown[0].any()
    keep = pixels != 450
    np.testing.assert_allclose(shown[keep], reference(path, white=4095)[keep], atol=2e-7)


def test_each_slice_of_a_series_has_its_own(tmp_path):
    """A table, a sigmoid, a window and none, in one series; slopes differ too."""
    pixels = RNG.integers(0, 600, (4, 9, 7)).astype(np.int16)
    folder = write_series(tmp_path / "s", pixels, slopes=[1, 2, 1, 3], intercepts=[0, -5, 4, 1])
    files = sorted(folder.iterdir(), key=lambda f: pydicom.dcmread(f).ImagePositionPatient[2])
    with_table(files[0], WAVY, 30)
    for path, function in ((files[1], "SIGMOID"), (files[2], "LINEAR")):
        dataset = pydicom.dcmread(path)
        dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 300, 250, function
        dataset.save_as(path)
    shown = rendered(folder, "auto")
    np.testing.assert_allclose(shown[0], reference(files[0], white=4095), atol=2e-7)
    for i in (1, 2):
        np.testing.assert_allclose(shown[i], reference(files[i]), atol=2e-6)
    last = pixels[3].astype(float)
    np.testing.assert_allclose(shown[3], (last - last.min()) / np.ptp(last), atol=2e-6)
    with pytest.raises(ImageError, match="no window of its own"):
        rendered(folder, "voi")
    # what is read in parts is what is read at once
    image, auto = open_image(str(folder)), parse_window("auto")
    whole = image.read(0, 4, auto)
    for i in range(4):
        part = open_image(str(folder)).read(i, i + 1, auto)
        np.testing.assert_array_equal(part.pixels[0], whole.pixels[i])


def test_frames_share_the_table_of_an_enhanced_object(tmp_path):
    pixels = RNG.integers(0, 500, (1, 3, 8, 8)).astype(np.int16)
    path = write_enhanced(tmp_path / "e.dcm", pixels, slopes=[1, 2, 1], intercepts=[0, 0, 7])
    dataset = pydicom.dcmread(path)
    display = Dataset()
    display.VOILUTSequence = [voi_item(TABLE, 10)]
    dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence = [display]
    dataset.save_as(path)
    values = pixels[0] * np.array([1, 2, 1])[:, None, None] + np.array([0, 0, 7])[:, None, None]
    expected = TABLE[np.clip(values - 10, 0, len(TABLE) - 1)] / 4095
    np.testing.assert_allclose(rendered(path), expected, atol=1e-7)
    # across the frames, which one line of calibration does not do: rows from head to feet, slices from back to front
    coronal = rendered(path, options=ImageOptions(plane="coronal"))
    np.testing.assert_allclose(coronal, expected[::-1, ::-1].transpose(1, 0, 2), atol=1e-7)


def test_colour_has_no_window(tmp_path):
    pixels = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = write_dicom(tmp_path / "a.dcm", pixels, window=(40, 20))
    assert open_image(str(path)).read(0, 1).calibration.voi == ()
    np.testing.assert_allclose(rendered(path, "auto")[0], pixels[..., 0] / 255, atol=1e-7)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["uint8", "int8", "uint16", "int16", "int32", "float32"]))
@settings(deadline=None, max_examples=30)
def test_metamorphic_shifting_values_and_table_together(seed, dtype):
    """One table for stored values, or the same further on for values with an intercept; wide types as narrow ones."""
    rng = np.random.default_rng(seed)
    entries = rng.integers(0, 1000, 50).astype(np.uint16)
    pixels = rng.integers(0, 100, (2, 4, 5)).astype(dtype)
    shift = int(rng.integers(-500, 500))

    def shown(values, intercept, first):
        n = len(values)
        table = VoiTable(first, entries.tobytes(), 1023)
        calibration = Calibration(
            np.ones(n), np.full(n, float(intercept)), voi=(table, VoiSigmoid(50.0 + intercept, 30.0))
        )
        return presented(Volume(values, calibration, "dicom"))

    plain = shown(pixels, 0, 20)
    np.testing.assert_array_equal(
        plain.pixels[0], (entries[np.clip(pixels[0].astype(int) - 20, 0, 49)] / 1023).astype("f4")
    )
    np.testing.assert_allclose(shown(pixels, shift, 20 + shift).pixels, plain.pixels, atol=1e-7)
    np.testing.assert_array_equal(shown(pixels.astype("int32"), 0, 20).pixels, plain.pixels)
    assert plain.pixels.dtype == np.float32
    assert plain.calibration.padding is None
    assert (plain.calibration.slope == 1).all()


def test_values_that_are_no_numbers_stay_none():
    pixels = np.array([[[np.nan, np.inf, 3.7]]], np.float32)
    table = VoiTable(0, np.arange(10, dtype=np.uint16).tobytes(), 9)
    calibration = Calibration(np.ones(1), np.zeros(1), voi=(table,))
    np.testing.assert_allclose(
        presented(Volume(pixels, calibration, "dicom")).pixels, [[[np.nan, np.nan, 3 / 9]]], rtol=1e-6
    )


def test_which_windows_show_a_curve():
    calibration = Calibration(np.ones(2), np.zeros(2), voi=((1.0, 2.0), VoiSigmoid(1.0, 2.0)))
    assert shows_curve(parse_window("auto"), "dicom", calibration)
    assert shows_curve(parse_window("voi"), "dicom", calibration)
    assert not shows_curve(parse_window("min-max"), "dicom", calibration)
    assert not shows_curve(parse_window("auto"), "dicom", replace(calibration, voi=((1.0, 2.0), None)))
