from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from embedcache.backbones import windowed as module
from embedcache.backbones.preprocess import preprocess
from embedcache.errors import InputError
from embedcache.types import Calibration, Fit, ImageRecipe, Volume, Window

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def recipe(size: tuple[int, int], fit: Fit = "squash", plain: bool = True, processor: Any = None) -> ImageRecipe:
    """`plain`: no mean and std, so that the result is the picture in [0, 1]."""
    mean, std = ((0.0,) * 3, (1.0,) * 3) if plain else (MEAN, STD)
    return ImageRecipe(Window("range"), size, mean, std, fit, processor=processor or {})


def volume(pixels: npt.NDArray[Any], slope: float = 1, intercept: float = 0, **calibration: Any) -> Volume:
    n = len(pixels)
    return Volume(pixels, Calibration(np.full(n, slope), np.full(n, intercept), **calibration), "raster")


def limits(n: int, *channels: tuple[float, float]) -> npt.NDArray[np.float64]:
    return np.tile(np.array(channels, dtype=np.float64), (n, 1, 1)).reshape(n, len(channels), 2)


def noise(shape: tuple[int, ...], dtype: str = "u1", seed: int = 0) -> npt.NDArray[Any]:
    if np.dtype(dtype).kind == "f":
        return np.random.default_rng(seed).normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    native = np.dtype(dtype).newbyteorder("=")
    return np.random.default_rng(seed).integers(info.min, info.max, shape, dtype=native, endpoint=True).astype(dtype)


# --- values -----------------------------------------------------------------------------------------


def test_a_raster_of_the_inputs_size_passes_through_exactly() -> None:
    """Every value of uint8 comes out as x / 255 in float32, on all three channels: nothing is resampled or rounded."""
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    x = preprocess(volume(pixels), limits(1, (0, 255)), recipe((16, 16)), "cpu")
    expected = pixels.astype(np.float32) / np.float32(255)
    assert x.shape == (1, 3, 16, 16)
    assert x.dtype == torch.float32
    assert all(np.array_equal(x[:, c], expected) for c in range(3))


def test_mean_and_std_come_last() -> None:
    pixels = noise((2, 14, 14))
    shown = preprocess(volume(pixels), limits(2, (0, 255)), recipe((14, 14)), "cpu")
    x = preprocess(volume(pixels), limits(2, (0, 255)), recipe((14, 14), plain=False), "cpu")
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    assert torch.equal(x, (shown - mean) / std)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", ">u2", "i2", "<i4", "u4", "i8", "f2", "f4", ">f4", "f8"])
def test_every_stored_dtype_is_windowed_as_in_float64(dtype: str) -> None:
    pixels = noise((3, 9, 11), dtype)
    slope, intercept = 0.37, -12.0
    ends = np.percentile(pixels.astype(np.float64), [5, 95]) * slope + intercept
    expected = np.clip((pixels.astype(np.float64) * slope + intercept - ends[0]) / (ends[1] - ends[0]), 0, 1)
    x = preprocess(volume(pixels, slope, intercept), limits(3, (ends[0], ends[1])), recipe((9, 11)), "cpu")
    # four roundings of float32 (1.2e-7 each) on values of at most 1, the first ones relative to numbers up to
    # about twice the window's width
    np.testing.assert_allclose(x[:, 0], expected, atol=1e-6)


def test_a_narrow_window_far_from_zero_keeps_its_steps() -> None:
    """int32 counts around a billion differ by less than float32 resolves there (64)."""
    pixels = (10**9 + np.arange(16, dtype=np.int32)).reshape(1, 4, 4)
    x = preprocess(volume(pixels), limits(1, (1e9, 1e9 + 15)), recipe((4, 4)), "cpu")
    np.testing.assert_allclose(x[0, 0].ravel(), np.arange(16) / 15, atol=1e-7)


def test_each_slice_has_its_own_slope_and_limits() -> None:
    pixels = noise((3, 8, 8), "i2")
    slope, intercept = np.array([1.0, 2.0, 0.5]), np.array([0.0, -1000.0, 7.0])
    window = np.array([[[-100.0, 100.0]], [[0.0, 5000.0]], [[-9000.0, 9000.0]]])
    x = preprocess(Volume(pixels, Calibration(slope, intercept), "dicom"), window, recipe((8, 8)), "cpu")
    for i in range(3):
        alone = volume(pixels[i : i + 1], slope[i], intercept[i])
        assert torch.equal(x[i : i + 1], preprocess(alone, window[i : i + 1], recipe((8, 8)), "cpu"))


def test_three_windows_become_three_channels() -> None:
    hu = noise((2, 10, 10), "i2") % 2000
    windows = [(-1350.0, 150.0), (-160.0, 240.0), (-450.0, 1050.0)]
    x = preprocess(volume(hu), limits(2, *windows), recipe((14, 14)), "cpu")
    for c, window in enumerate(windows):
        assert torch.equal(x[:, c], preprocess(volume(hu), limits(2, window), recipe((14, 14)), "cpu")[:, 0])


def test_colour_keeps_its_channels() -> None:
    rgb = noise((2, 6, 8, 3))
    x = preprocess(volume(rgb), limits(2, (0, 255)), recipe((6, 8)), "cpu")
    assert np.array_equal(x, np.moveaxis(rgb, 3, 1).astype(np.float32) / np.float32(255))


def test_monochrome1_is_turned_over_and_its_padding_is_black() -> None:
    pixels = np.array([[[0, 100], [200, 4095]]], dtype=np.uint16)
    x = preprocess(volume(pixels, invert=True, padding=(4095, 4095)), limits(1, (0, 200)), recipe((2, 2)), "cpu")
    np.testing.assert_array_equal(x[0, 0], [[1.0, 0.5], [0.0, 0.0]])
    pixels[0, 0, 0] = 4095  # would be the darkest of a MONOCHROME1 image already; white without the rule
    pixels[0, 1, 1] = 0
    low_padding = volume(pixels, invert=True, padding=(0, 0))
    assert preprocess(low_padding, limits(1, (0, 200)), recipe((2, 2)), "cpu")[0, 0, 1, 1] == 0


@pytest.mark.parametrize("invert", [False, True])
def test_a_constant_slice_is_black_and_not_nan(invert: bool) -> None:
    pixels = np.full((1, 30, 20), 7, dtype=np.uint8)
    x = preprocess(volume(pixels, invert=invert), limits(1, (7, 7)), recipe((14, 14), plain=False), "cpu")
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    assert torch.equal(x, black.view(1, 3, 1, 1).expand(1, 3, 14, 14))


@pytest.mark.parametrize("invert", [False, True])
def test_values_that_are_not_finite_are_black_and_spoil_no_neighbour(invert: bool) -> None:
    pixels = np.linspace(0.25, 0.75, 28 * 28, dtype=np.float32).reshape(1, 28, 28)
    holes = pixels.copy()
    holes[0, :4, 0] = np.nan, np.inf, -np.inf, np.nan
    x = preprocess(volume(holes, invert=invert), limits(1, (0, 1)), recipe((28, 28)), "cpu")
    clean = preprocess(volume(pixels, invert=invert), limits(1, (0, 1)), recipe((28, 28)), "cpu")
    assert (x[0, :, :4, 0] == 0).all()
    assert torch.equal(x[..., 1:], clean[..., 1:])
    assert preprocess(volume(holes), limits(1, (0, 1)), recipe((14, 14)), "cpu").isfinite().all()


@settings(max_examples=40, deadline=None)
@example(height=6, width=7, dtype="u1", fit="squash", low=0.0, span=3.6e-78)  # 0 in float32: once 0 / 0
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    dtype=st.sampled_from(["u1", "i2", "u2", "f4"]),
    fit=st.sampled_from(["squash", "pad"]),
    low=st.floats(-1e4, 1e4),
    span=st.floats(0, 1e4),
)
def test_any_picture_ends_in_0_to_1(height: int, width: int, dtype: str, fit: Fit, low: float, span: float) -> None:
    x = preprocess(volume(noise((2, height, width), dtype)), limits(2, (low, low + span)), recipe((14, 28), fit), "cpu")
    assert x.shape == (2, 3, 14, 28)
    assert x.min() >= 0
    assert x.max() <= 1


def test_read_only_and_strided_pixels_are_read_as_they_are() -> None:
    pixels = noise((4, 20, 20))
    flipped = pixels[::-1, ::2, ::-1]
    expected = preprocess(volume(flipped.copy()), limits(4, (0, 255)), recipe((14, 14)), "cpu")
    flipped.setflags(write=False)
    assert torch.equal(preprocess(volume(flipped), limits(4, (0, 255)), recipe((14, 14)), "cpu"), expected)


def test_the_volume_is_left_as_it_was() -> None:
    pixels = noise((2, 14, 14), "f4")
    before = pixels.copy()
    preprocess(volume(pixels), limits(2, (0.1, 0.5)), recipe((14, 14)), "cpu")
    assert np.array_equal(pixels, before)


def test_limits_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"must have shape \(2, 1 or 3, 2\). Got \(1, 1, 2\)"):
        preprocess(volume(noise((2, 4, 4))), limits(1, (0, 255)), recipe((14, 14)), "cpu")


# --- geometry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("shape", [(97, 64), (14, 300), (224, 224)])
def test_a_slice_alone_equals_itself_within_a_volume(dtype: str, shape: tuple[int, int]) -> None:
    """Bit for bit: which rows share a batch, a lease or a resumed run must not show in any value."""
    pixels = noise((5, *shape), dtype)
    window = np.sort(np.random.default_rng(1).normal(size=(5, 1, 2)) * 200)
    together = preprocess(volume(pixels), window, recipe((42, 56), plain=False), "cpu")
    for i in range(5):
        alone = preprocess(volume(pixels[i : i + 1]), window[i : i + 1], recipe((42, 56), plain=False), "cpu")
        assert torch.equal(alone[0], together[i])


def test_long_volumes_are_taken_in_groups_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise((7, 30, 40))
    whole = preprocess(volume(pixels), limits(7, (0, 255)), recipe((14, 14)), "cpu")
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", 3 * 30 * 40)
    assert torch.equal(preprocess(volume(pixels), limits(7, (0, 255)), recipe((14, 14)), "cpu"), whole)


@pytest.mark.parametrize("shape", [(1024, 1024), (300, 500), (100, 90)])
def test_squash_is_pillows_bicubic(shape: tuple[int, int]) -> None:
    """Pillow in its float mode is the reference of an antialiased bicubic: the same filter, support and border rule.

    It places and sums its filter in float64; torch does both in float32, where a position near 100 is rounded by up
    to 4e-6 of a pixel, and noise has slopes of about 1 a pixel (4.7e-6 was the largest difference seen).
    """
    pixels = noise((1, *shape))
    x = preprocess(volume(pixels), limits(1, (0, 255)), recipe((98, 70)), "cpu")
    picture = Image.fromarray(pixels[0].astype(np.float32) / np.float32(255))
    reference = np.clip(np.asarray(picture.resize((70, 98), Image.Resampling.BICUBIC)), 0, 1)
    np.testing.assert_allclose(x[0, 0], reference, atol=2e-5)


def test_pad_keeps_the_aspect_between_black_borders() -> None:
    pixels = np.full((1, 40, 80), 255, dtype=np.uint8)
    x = preprocess(volume(pixels), limits(1, (0, 255)), recipe((56, 56), "pad"), "cpu")[0, 0]
    inside = torch.zeros(56, 56)
    inside[14:42] = 1
    # the antialias weights of a white row sum to 1 within one rounding
    torch.testing.assert_close(x, inside, atol=1e-6, rtol=0)
    assert (x[:14] == 0).all()
    assert (x[42:] == 0).all()


def test_processor_resizes_the_short_side_and_cuts_the_centre() -> None:
    pixels = noise((1, 300, 400))
    processor = {"size": {"shortest_edge": 64}, "do_center_crop": True, "crop_size": {"height": 56, "width": 56}}
    x = preprocess(volume(pixels), limits(1, (0, 255)), recipe((56, 56), "processor", processor=processor), "cpu")
    whole = preprocess(volume(pixels), limits(1, (0, 255)), recipe((64, 85)), "cpu")
    assert torch.equal(x, whole[..., 4:60, 14:70])


def test_turning_the_slice_over_turns_the_input_over() -> None:
    """Metamorphic: no half-pixel shift, no asymmetric border. Sums run in another order, hence not bit-equal."""
    pixels = noise((1, 123, 77))
    image = recipe((56, 42))
    x = preprocess(volume(pixels), limits(1, (0, 255)), image, "cpu")
    turned = preprocess(volume(pixels[:, ::-1, ::-1]), limits(1, (0, 255)), image, "cpu")
    torch.testing.assert_close(turned.flip(2, 3), x, atol=2e-6, rtol=0)


def test_the_recipe_decides_the_size() -> None:
    pixels = noise((1, 20, 20))
    for size in [(14, 14), (28, 70), (20, 20)]:
        x = preprocess(volume(pixels), limits(1, (0, 255)), replace(recipe((14, 14)), size=size), "cpu")
        assert x.shape[-2:] == size
