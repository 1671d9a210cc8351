from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.decomposition import PCA

from embedcache.errors import InputError
from embedcache.evaluation.pca_figure import otsu_threshold, patch_colours, pca_figure, principal_scores
from embedcache.evaluation.pca_of_store import draw_pca
from embedcache.store.quantise import int8_arrays, quantise
from embedcache.testing.stores import make_plan, make_store
from embedcache.types import ArraySpec

Tokens = npt.NDArray[np.float64]


def tokens_with_an_object(seed: int = 0) -> tuple[Tokens, npt.NDArray[np.bool_]]:
    """Three 9x9 images of 12-wide tokens: noise, and in the middle an object of two parts. Also where the object is."""
    random = np.random.default_rng(seed)
    tokens = random.normal(0, 0.05, (3, 9, 9, 12))
    inside = np.zeros((3, 9, 9), dtype=np.bool_)
    inside[0, 2:7, 3:6] = inside[1, 3:8, 2:7] = inside[2, 1:6, 1:5] = True
    tokens[inside, 0] += 5
    tokens[inside, 1:4] += random.normal(0, 1, (inside.sum(), 3)) ** 2
    return tokens, inside


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=40).filter(lambda v: len(set(v)) > 1))
def test_otsu_is_the_best_of_all_cuts(whole: list[int]) -> None:
    values = np.array(whole) / 7
    cut = otsu_threshold(values)

    def between(at: float) -> float:
        low, high = values[values <= at], values[values > at]
        return float(len(low) * len(high) * (low.mean() - high.mean()) ** 2) if len(low) and len(high) else 0.0

    # of cuts of equal variance either may win: only the variance is compared, up to rounding
    assert between(cut) >= max(between(v) for v in values) * (1 - 1e-9)


def test_scores_are_scikit_learns_up_to_sign() -> None:
    X = np.random.default_rng(1).normal(size=(50, 6)) * [5, 4, 3, 2, 1, 0.5]
    found, expected = principal_scores(X, 3), PCA(3, svd_solver="full").fit_transform(X)
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-10)
    assert ((found**3).sum(axis=0) > 0).all()


def test_fewer_features_than_colours_leave_a_colour_out() -> None:
    scores = principal_scores(np.random.default_rng(0).normal(size=(20, 2)), 3)
    assert scores.shape == (20, 3)
    assert not scores[:, 2].any()
    assert scores[:, 1].any()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_border_says_which_side_is_background(sign: int) -> None:
    tokens, inside = tokens_with_an_object()
    colours = patch_colours(sign * tokens)
    np.testing.assert_array_equal(colours.foreground, inside)
    assert (colours.rgb[~inside] == 1).all()
    assert colours.rgb.min() == 0
    assert colours.rgb.max() == 1
    assert colours.rgb[inside].std(axis=0).min() > 0.05  # every colour tells patches apart


def test_images_may_come_in_any_order() -> None:
    tokens, _ = tokens_with_an_object()
    one, other = patch_colours(tokens), patch_colours(tokens[[2, 0, 1]])
    np.testing.assert_allclose(one.rgb[[2, 0, 1]], other.rgb, atol=1e-6)  # sums in another order, then float32


def test_a_turned_and_shifted_feature_space_has_the_same_colours() -> None:
    tokens, _ = tokens_with_an_object()
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))
    one, other = patch_colours(tokens), patch_colours(3 * tokens @ turn + 7)
    np.testing.assert_array_equal(one.foreground, other.foreground)
    np.testing.assert_allclose(one.rgb, other.rgb, atol=1e-5)  # rounding of the rotation, then float32


def test_what_can_not_be_coloured_is_refused() -> None:
    tokens, _ = tokens_with_an_object()
    with pytest.raises(InputError, match="all alike"):
        patch_colours(np.full((2, 3, 3, 4), 0.1))
    with pytest.raises(InputError, match=r"shape \(image, y, x, feature\)"):
        patch_colours(tokens[0])
    with pytest.raises(InputError, match="NaN"):
        patch_colours(np.where(tokens > 4, np.nan, tokens))
    lone = np.zeros((1, 5, 5, 3))
    lone[0, 2, 2] = 1
    with pytest.raises(InputError, match="1 of 25 patches"):
        patch_colours(lone)


def test_the_figure_shows_images_and_colours(tmp_path: Path) -> None:
    tokens, _ = tokens_with_an_object()
    black = [np.zeros((30, 20), np.uint8)] * 3
    drawn: list[npt.NDArray[np.uint8]] = []
    for images in (black, [np.full((30, 20, 3), 200, np.uint8)] * 3):
        path = pca_figure(tokens.astype(np.float16), images, ["a", "b", "c"], tmp_path / f"{len(drawn)}.png")
        with Image.open(path) as image:
            drawn.append(np.asarray(image.convert("RGB")))
    saturation = np.ptp(drawn[0].astype(int), axis=-1)
    middle = len(saturation) // 2
    assert saturation[:middle].max() == 0  # grey images above
    assert saturation[middle:].max() > 100  # colours below
    assert not np.array_equal(drawn[0], drawn[1])
    with pytest.raises(InputError, match="Got 3, 2, 3"):
        pca_figure(tokens, black[:2], ["a", "b", "c"], tmp_path / "none.png")


def test_slices_of_a_store_are_drawn_by_name(tmp_path: Path) -> None:
    tokens, _ = tokens_with_an_object()
    spec = ArraySpec(3, "patch_tokens", "float32", tokens.shape[1:])
    path = tmp_path / "x.zarr"
    make_store(path, make_plan([1, 3]), (spec,), values=lambda _, rows: np.resize(tokens, (rows, *tokens.shape[1:])))
    report = draw_pca(path, tmp_path / "out.png")
    assert (report.layer, report.slices) == (3, ("s0", "s1:1"))
    assert draw_pca(path, tmp_path / "out.png", ["s1:2", "s0"]).slices == ("s1:2", "s0")
    assert (tmp_path / "out.png").stat().st_size > 500
    for wrong, message in (
        (["s9"], "no sample 's9'"),
        (["s1:3"], "slice 3 of sample s1"),
        (["s1:x"], "no sample 's1:x'"),
    ):
        with pytest.raises(InputError, match=message):
            draw_pca(path, tmp_path / "out.png", wrong)
    with pytest.raises(InputError, match=r"\.png, \.svg or \.pdf"):
        draw_pca(tmp_path / "before a store is opened.zarr", tmp_path / "out.xyz")
    with pytest.raises(InputError, match="make it first"):
        draw_pca(tmp_path / "before a store is opened.zarr", tmp_path / "none" / "out.png")


def test_slices_of_an_int8_store_are_drawn_as_those_of_a_float_one(tmp_path: Path) -> None:
    tokens, _ = tokens_with_an_object()
    values = dict(zip(("patch_tokens_int8", "patch_scale"), quantise(tokens.astype(np.float32), np), strict=True))
    spec = ArraySpec(3, "patch_tokens", "float32", tokens.shape[1:])
    pictures = []
    for name, arrays in (("float", (spec,)), ("int8", int8_arrays(3, tokens.shape[1:]))):
        store = tmp_path / f"{name}.zarr"
        make_store(
            store, make_plan([1, 2]), arrays,
            values=lambda s, rows: np.resize(values.get(s.kind, tokens), (rows, *s.shape)),
        )  # fmt: skip
        draw_pca(store, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            pictures.append(np.asarray(image.convert("RGB")).astype(int))
    assert np.abs(pictures[0] - pictures[1]).mean() < 2  # of 255


def test_a_store_without_patch_tokens_says_how_to_add_them(tmp_path: Path) -> None:
    cls, patch = ArraySpec(2, "cls_token", "float32", (4,)), ArraySpec(1, "patch_tokens", "float32", (2, 2, 4))
    make_store(tmp_path / "vectors.zarr", make_plan([1, 1]), (cls,))
    with pytest.raises(InputError, match=r"holds no patch tokens; add them with `embedcache extract --tokens patch`"):
        draw_pca(tmp_path / "vectors.zarr", tmp_path / "out.png")
    make_store(tmp_path / "lower.zarr", make_plan([1, 1]), (cls, patch))
    with pytest.raises(InputError, match=r"layer 2 of .* has no patch tokens, and layers \[1\] have; .* --layer"):
        draw_pca(tmp_path / "lower.zarr", tmp_path / "out.png")
