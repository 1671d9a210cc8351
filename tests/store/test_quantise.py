"""int8 patch tokens: what quantising may lose, that numpy and torch do it alike, and that others read the bytes."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embedcache.store.quantise import dequantise, float_arrays, int8_arrays, quantise
from embedcache.store.reader import FeatureCache
from embedcache.store.verify import verify_store
from embedcache.testing.stores import default_arrays, make_plan, make_store
from embedcache.types import ArraySpec

NORMAL = 2.0**-14
"""The least float16 that keeps 11 bits."""
TOKENS = arrays(np.float32, (5, 12), elements=st.floats(-1e4, 1e4, width=32))


@given(TOKENS)
def test_the_error_is_about_half_a_scale_at_most(tokens: npt.NDArray[np.float32]) -> None:
    codes, scale = quantise(tokens, np)
    assert (codes.dtype, codes.shape, scale.dtype, scale.shape) == (np.int8, (5, 12), np.float16, (5,))
    assert codes.min(initial=0) >= -127
    greatest = np.abs(tokens).max(axis=1)
    kept = scale >= NORMAL
    error = np.abs(dequantise(codes, scale).astype(np.float64) - tokens).max(axis=1)
    # half a step, and where float16 rounds the scale down by 2**-11 of itself, 127 steps of that at the greatest value
    assert (error[kept] <= scale[kept].astype(np.float64) * (0.5 + 127 * 2.0**-11) * (1 + 1e-6)).all()
    assert (np.abs(codes.astype(int)).max(axis=1)[kept] == 127).all()
    assert (error[~kept & (scale > 0)] <= scale[~kept & (scale > 0)].astype(np.float64) * (0.5 + 1e-6)).all()
    assert not codes[scale == 0].any()
    assert (scale[greatest == 0] == 0).all()
    assert (scale[greatest > 4e-6] > 0).all()


@given(arrays(np.float32, (5, 12), elements=st.floats(-(2.0**-10), 2.0**-10, width=32)))
def test_small_tokens_lose_no_more(tokens: npt.NDArray[np.float32]) -> None:
    codes, scale = quantise(tokens, np)
    error = np.abs(dequantise(codes, scale).astype(np.float64) - tokens).max(axis=1)
    assert (error <= np.maximum(scale.astype(np.float64) * (0.5 + 1e-6), 4e-6)).all()


@given(TOKENS, st.permutations(range(12)), st.integers(-3, 3))
def test_order_sign_and_powers_of_two_change_nothing_else(
    tokens: npt.NDArray[np.float32], order: list[int], power: int
) -> None:
    tokens = np.where(np.abs(tokens) < 0.1, 0, tokens).astype(np.float32)  # float16 scales stay normal at 2**-3
    codes, scale = quantise(tokens, np)
    turned, same = quantise(-tokens[:, order], np)
    np.testing.assert_array_equal(turned, -codes[:, order])
    np.testing.assert_array_equal(same, scale)
    again, scaled = quantise(tokens * np.float32(2.0**power), np)
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_array_equal(scaled, scale * np.float16(2.0**power))


@given(arrays(np.float32, (4, 9), elements=st.floats(width=32)))
def test_numpy_and_torch_give_the_same_bits(tokens: npt.NDArray[np.float32]) -> None:
    """NaN, infinities, the smallest and the greatest numbers among them."""
    codes, scale = quantise(tokens, np)
    theirs, their_scale = quantise(torch.from_numpy(tokens), torch)
    finite = np.isfinite(scale)  # else the caller refuses, and codes say nothing
    np.testing.assert_array_equal(np.isfinite(their_scale.numpy()), finite)
    np.testing.assert_array_equal(their_scale.numpy()[finite], scale[finite])
    np.testing.assert_array_equal(theirs.numpy()[finite], codes[finite])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 9e6])
def test_what_does_not_fit_shows_in_the_scale(value: float) -> None:
    tokens = np.ones((2, 3), dtype=np.float32)
    tokens[1, 2] = value
    _, scale = quantise(tokens, np)
    assert np.isfinite(scale).tolist() == [True, False]


def test_codes_times_scales_are_exact(tmp_path: Path) -> None:
    codes = np.arange(-127, 128, dtype=np.int8).reshape(1, 1, 255)
    scale = np.float16([[1 / 3], [65504], [2.0**-24]]).reshape(3, 1)
    exact = codes.astype(np.float64) * scale.astype(np.float64)[..., None]
    np.testing.assert_array_equal(dequantise(np.repeat(codes, 3, axis=0), scale).astype(np.float64), exact)
    out = np.empty((3, 1, 255), dtype=np.float32)
    assert dequantise(np.repeat(codes, 3, axis=0), scale, out) is out
    np.testing.assert_array_equal(out, exact)


def test_a_backbone_is_asked_for_floats() -> None:
    shape = (2, 2, 8)
    vector = ArraySpec(1, "cls_token", "float16", (8,))
    tokens = ArraySpec(3, "patch_tokens", "float32", shape)
    assert float_arrays((vector, *int8_arrays(3, shape))) == (vector, tokens)
    assert [a.path for a in int8_arrays(3, shape)] == ["layer_3/patch_tokens_int8", "layer_3/patch_scale"]
    assert [a.row_bytes for a in int8_arrays(3, shape)] == [32, 8]


def quantised(plan_rows: int) -> dict[str, npt.NDArray[np.generic]]:
    tokens = np.random.default_rng(0).normal(size=(plan_rows, 2, 2, 8)).astype(np.float32)
    tokens[1, 0, 0] = 0
    codes, scale = quantise(tokens, np)
    return {"patch_tokens_int8": codes, "patch_scale": scale}


def test_a_later_pass_adds_int8_and_zarr_and_xarray_read_it(tmp_path: Path) -> None:
    import xarray

    path = tmp_path / "x.zarr"
    plan = make_plan([1, 3, 1, 6, 2], quantum=4)
    make_store(path, plan, default_arrays(), 4)
    values = quantised(16)
    make_store(path, plan, int8_arrays(2, (2, 2, 8)), 4, values=lambda spec, _: values[spec.kind])
    values = {kind: np.where(np.arange(16).reshape(-1, *[1] * (v.ndim - 1)) < 13, v, 0) for kind, v in values.items()}

    group = zarr.open_group(path, mode="r", use_consolidated=False)
    for kind, dimensions in (
        ("patch_tokens_int8", ("slice", "y", "x", "feature")),
        ("patch_scale", ("slice", "y", "x")),
    ):
        array = group[f"layer_2/{kind}"]
        assert array.metadata.dimension_names == dimensions
        assert array.chunks == (1, *array.shape[1:])
        assert array.shards == (4, *array.shape[1:])
        np.testing.assert_array_equal(array[:], values[kind])
    assert verify_store(path).intact

    layer = xarray.open_zarr(path, group="layer_2", chunks=None)
    product = layer.patch_tokens_int8.astype("float32") * layer.patch_scale.astype("float32")
    only = tmp_path / "y.zarr"
    make_store(only, plan, int8_arrays(2, (2, 2, 8)), 4, values=lambda spec, _: values[spec.kind])
    cache = FeatureCache.open(only)
    np.testing.assert_array_equal(cache.layer(-1).patch_tokens.read(), product.transpose("slice", "y", "x", "feature"))
    assert repr(cache).count("patch_tokens_int8") == 1
    assert cache.to_xarray().layer_2_patch_scale.dims == ("slice", "y_2", "x_2")
    assert FeatureCache.open(path).layer(2).patch_tokens.dtype == np.float16
