import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embedcache.errors import ImageError, InputError, UnknownNameError
from embedcache.images import open_image
from embedcache.images.parsed import plain_calibration
from embedcache.images.windows import WINDOWS, doubts, parse_window, physical, resolve_limits
from embedcache.testing.files import write_dicom, write_png
from embedcache.types import Calibration, Window


def limits(text, pixels, kind="dicom", calibration=None):
    pixels = np.asarray(pixels)
    return resolve_limits(parse_window(text), kind, calibration or plain_calibration(len(pixels)), pixels)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("ct-lung", Window("ct-lung", numbers=((-600, 1500),))),
        ("ct-three", Window("ct-three", numbers=((-600, 1500), (40, 400), (300, 1500)))),
        ("40/400", Window("40/400", numbers=((40, 400),))),
        ("-600/1500", Window("-600/1500", numbers=((-600, 1500),))),
        ("percentile", Window("percentile", numbers=((0.5, 99.5),))),
        ("percentile:1,99", Window("percentile", numbers=((1, 99),))),
        ("percentile:1,99@volume", Window("percentile", "volume", ((1, 99),))),
        ("min-max@volume", Window("min-max", "volume")),
        ("min-max@slice", Window("min-max", "slice")),
        ("auto", Window("auto")),
    ],
)
def test_what_a_user_writes(text, window):
    assert parse_window(text) == window


def test_every_name_is_known_under_itself():
    assert all(parse_window(name) == window for name, window in WINDOWS.items())


def test_two_ways_to_write_numbers_are_one_window():
    assert parse_window("40/400") == parse_window(" 40.0/4e2 ")


def test_the_suffix_wins_over_the_scope_given():
    assert parse_window("min-max@slice", "volume").scope == "slice"
    assert parse_window("min-max", "volume").scope == "volume"


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'ct-lung'"):
        parse_window("ct-lungs")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("40/0", "width must be above 0"),
        ("40/-3", "width must be above 0"),
        ("40/400/2", "two numbers"),
        ("a/b", "two numbers"),
        ("nan/400", "finite"),
        ("percentile:99,1", "low < high"),
        ("percentile:1", "two numbers"),
        ("min-max@patient", "@slice or @volume"),
        ("ct-lung@volume", "takes no statistics"),
    ],
)
def test_numbers_that_make_no_window(text, says):
    with pytest.raises(InputError, match=says):
        parse_window(text)


# --- numbers --------------------------------------------------------------------------------------


def test_width_windows_are_centre_and_half_width():
    got = limits("ct-three", np.zeros((2, 3, 3), np.int16))
    assert got.shape == (2, 3, 2)
    np.testing.assert_array_equal(got[1], [[-1350, 150], [-160, 240], [-450, 1050]])


def test_physical_has_a_line_per_slice():
    calibration = Calibration(np.array([2.0, -1.0]), np.array([-5.0, 3.0]))
    np.testing.assert_array_equal(physical(np.full((2, 1, 2), 4, np.uint8), calibration), [[[3, 3]], [[-1, -1]]])
    assert physical(np.zeros((2, 1, 2, 3)), calibration).shape == (2, 1, 2, 3)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("bool", (0, 1)), ("uint8", (0, 255)), ("uint16", (0, 65535)), ("int16", (-32768, 32767))]
)
def test_range_is_the_dtype(dtype, expected):
    np.testing.assert_array_equal(limits("range", np.zeros((1, 2, 2), dtype))[0, 0], expected)


def test_range_is_calibrated_too():
    calibration = Calibration(np.array([-2.0]), np.array([10.0]))
    np.testing.assert_array_equal(
        limits("range", np.zeros((1, 2, 2), np.uint8), calibration=calibration)[0, 0], [-500, 10]
    )


def test_range_of_floats_is_min_max():
    np.testing.assert_array_equal(limits("range", np.array([[[0.25, -3.5]]]))[0, 0], [-3.5, 0.25])


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int8, np.int16, np.uint16, np.float32]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=6),
        elements=st.integers(0, 100),
    ),
    st.floats(0, 50),
    st.floats(51, 100),
    st.sampled_from([1.0, 0.3, -2.0]),
)
@settings(deadline=None)
def test_percentiles_are_numpys_of_physical_values(pixels, low, high, slope):
    calibration = Calibration(np.full(len(pixels), slope), np.full(len(pixels), -7.0))
    window = Window("percentile", "volume", ((low, high),))
    got = resolve_limits(window, "dicom", calibration, pixels)
    expected = np.percentile(physical(pixels, calibration), [low, high])
    # the same interpolation before or after the line: float64 rounding
    np.testing.assert_allclose(got[0, 0], expected, atol=1e-9)


def test_percentiles_do_not_wrap_in_small_integers():
    got = limits("percentile:25,75", np.array([[[-128, 127]]], np.int8))
    np.testing.assert_allclose(got[0, 0], [-128 + 255 / 4, 127 - 255 / 4])


def test_scope_slice_and_volume():
    pixels = np.array([[[0, 4]], [[2, 10]]], np.int16)
    np.testing.assert_array_equal(limits("min-max", pixels)[:, 0], [[0, 4], [2, 10]])
    np.testing.assert_array_equal(limits("min-max@volume", pixels)[:, 0], [[0, 10], [0, 10]])


def test_scope_volume_uses_the_line_of_each_slice():
    pixels = np.array([[[0, 4]], [[2, 10]]], np.int16)
    calibration = Calibration(np.array([1.0, 0.1]), np.array([0.0, -1.0]))
    np.testing.assert_array_equal(limits("min-max@volume", pixels, calibration=calibration)[:, 0], [[-0.8, 4]] * 2)


def test_padding_and_non_numbers_are_no_statistics():
    calibration = Calibration(np.ones(1), np.zeros(1), padding=(-2000, -1990))
    np.testing.assert_array_equal(
        limits("min-max", np.array([[[-2000, -1995, -10, 7]]], np.int16), calibration=calibration)[0, 0], [-10, 7]
    )
    got = limits("percentile:0,100", np.array([[[np.nan, np.inf, -np.inf, 1.0, 2.0]]], np.float32))
    np.testing.assert_array_equal(got[0, 0], [1, 2])


def test_a_slice_of_nothing_but_padding_has_equal_limits():
    calibration = Calibration(np.ones(1), np.zeros(1), padding=(0, 0))
    np.testing.assert_array_equal(limits("min-max", np.zeros((1, 2, 2)), calibration=calibration)[0, 0], [0, 0])


def test_a_constant_slice_has_equal_limits():
    np.testing.assert_array_equal(limits("percentile", np.full((1, 2, 2), 5, np.uint8))[0, 0], [5, 5])


def test_colour_channels_share_their_limits():
    pixels = np.zeros((1, 2, 2, 3), np.uint8)
    pixels[..., 2] = 90
    assert limits("min-max", pixels, "raster").tolist() == [[[0, 90]]]


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_metamorphic_scaling_and_shuffling(seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(-1000, 1000, (3, 5, 4)).astype(np.int16)
    plain = limits("percentile:3,88@volume", pixels)
    shuffled = rng.permutation(pixels.ravel()).reshape(pixels.shape)
    np.testing.assert_array_equal(limits("percentile:3,88@volume", shuffled), plain)
    calibration = Calibration(np.full(3, 2.0), np.full(3, 5.0))
    np.testing.assert_allclose(limits("percentile:3,88@volume", pixels, calibration=calibration), 2 * plain + 5)


# --- auto and voi ---------------------------------------------------------------------------------


def test_auto_of_a_raster():
    assert limits("auto", np.zeros((1, 2, 2), np.uint16), "raster").tolist() == [[[0, 65535]]]
    assert limits("auto", np.zeros((1, 2, 2, 3), np.uint8), "raster").tolist() == [[[0, 255]]]
    assert limits("auto", np.array([[[3, 70000]]], np.int32), "raster").tolist() == [[[3, 70000]]]
    assert limits("auto", np.array([[[0.5, 2]]], np.float32), "raster").tolist() == [[[0.5, 2]]]


def test_auto_of_dicom_is_a_slices_own_window_or_its_min_max():
    pixels = np.array([[[1, 3]], [[4, 9]]], np.int16)
    calibration = Calibration(np.ones(2), np.zeros(2), voi=((40.0, 400.0), None))
    assert limits("auto", pixels, calibration=calibration)[:, 0].tolist() == [[-160, 240], [4, 9]]
    assert limits("auto", pixels)[:, 0].tolist() == [[1, 3], [4, 9]]
    assert limits("auto", np.zeros((1, 2, 2, 3), np.uint8)).tolist() == [[[0, 255]]]


def test_auto_of_nifti_is_a_percentile_of_the_volume():
    pixels = np.arange(2000).reshape(2, 20, 50)
    assert limits("auto", pixels, "nifti").tolist() == limits("percentile@volume", pixels).tolist()


def test_voi_wants_a_window_in_every_slice():
    pixels = np.zeros((2, 1, 1), np.int16)
    calibration = Calibration(np.ones(2), np.zeros(2), voi=((40.0, 400.0), (10.0, 2.0)))
    assert limits("voi", pixels, calibration=calibration).tolist() == [[[-160, 240]], [[9, 11]]]
    with pytest.raises(ImageError, match="no window of its own"):
        limits("voi", pixels)


def test_doubts_name_a_window_that_shows_little(tmp_path):
    twelve_bits = np.random.default_rng(0).integers(0, 4096, (20, 20)).astype(np.uint16)
    cases = [
        (write_png(tmp_path / "dark.png", twelve_bits), "auto", "less than a tenth"),
        (write_png(tmp_path / "dark.png", twelve_bits), "min-max", None),
        (write_png(tmp_path / "wide.png", twelve_bits * np.uint16(16)), "auto", None),
        (write_png(tmp_path / "eight.png", (twelve_bits // 512).astype(np.uint8)), "auto", None),
        (write_png(tmp_path / "ct.png", (twelve_bits // 16).astype(np.uint8)), "ct-lung", "no CT"),
        (write_dicom(tmp_path / "mr.dcm", twelve_bits, modality="MR"), "ct-bone", "no CT"),
        (write_dicom(tmp_path / "ct.dcm", twelve_bits, modality="CT"), "ct-bone", None),
        (write_dicom(tmp_path / "mr.dcm", twelve_bits, modality="MR"), "auto", None),
    ]
    for path, name, said in cases:
        image = open_image(str(path))
        window = parse_window(name)
        volume = image.read(0, 1, window)
        limits = image.limits(window, 0, 1)
        found = doubts(window, volume.kind, volume.modality, volume.calibration, volume.pixels, limits)
        assert (said is None and not found) or (said is not None and said in " ".join(found)), (path.name, name, found)
