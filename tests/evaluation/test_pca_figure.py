from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.decomposition import PCA

from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation.inputs_seen import inputs_seen
from embedcache.evaluation.pca_figure import (
    otsu_threshold,
    parse_background,
    patch_colours,
    pca_figure,
    principal_scores,
)
from embedcache.evaluation.pca_of_store import draw_pca
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.job import extract
from embedcache.store.quantise import int8_arrays, quantise
from embedcache.store.reader import FeatureCache
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


def tokens_that_fill_the_image(seed: int = 0) -> Tokens:
    """Three 9x9 images of 12-wide tokens with a flat inner part, as lungs, and around it up to the border something varied."""
    random = np.random.default_rng(seed)
    tokens = random.normal(0, 1, (3, 9, 9, 12))
    tokens[:, 2:7, 2:7] = random.normal(0, 0.3, (3, 5, 5, 12))
    tokens[:, 2:7, 2:7, 0] += 6
    return tokens


def test_what_varies_at_the_border_is_no_background() -> None:
    tokens = tokens_that_fill_the_image()
    assert patch_colours(tokens).foreground.all()
    dropped = patch_colours(tokens, "drop").foreground
    assert dropped[:, 2:7, 2:7].all()
    assert dropped.mean() < 0.4
    kept = patch_colours(tokens_with_an_object()[0], "keep")
    assert kept.foreground.all()
    assert kept.rgb.min(axis=-1).max() < 1  # nothing is white


def test_a_border_on_both_sides_or_a_speck_is_no_reason_to_cut() -> None:
    tokens, inside = tokens_with_an_object()
    across = np.zeros_like(inside)
    across[:, :, 3:6] = True  # from the upper to the lower border
    assert patch_colours(np.where(across[..., None], tokens + 5, tokens)).foreground.all()
    speck = np.random.default_rng(0).normal(0, 0.05, (3, 9, 9, 12))
    speck[:, 4, 4:6] += np.random.default_rng(1).normal(5, 1, (3, 2, 12))
    assert patch_colours(speck).foreground.all()


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
    with pytest.raises(InputError, match=r"1 of 25 patches .*--background keep"):
        patch_colours(lone, "drop")
    with pytest.raises(InputError, match="2 patches are too few"):
        patch_colours(np.arange(6.0).reshape(1, 1, 2, 3))
    with pytest.raises(UnknownNameError, match="unknown background 'black'"):
        parse_background("black")


def test_the_figure_shows_images_and_colours(tmp_path: Path) -> None:
    tokens, _ = tokens_with_an_object()
    black = [np.zeros((30, 20), np.uint8)] * 3
    drawn: list[npt.NDArray[np.uint8]] = []
    for images in (black, [np.full((30, 20, 3), 200, np.uint8)] * 3):
        path = tmp_path / f"{len(drawn)}.png"
        pca_figure(tokens.astype(np.float16), images, ["a", "b", "c"], path)
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
    assert (report.background, report.images, report.grid, report.coarse) == ("dropped", 0, (9, 9), False)
    assert draw_pca(path, tmp_path / "out.png", background="keep").background == "kept"
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


def extracted(tmp_path: Path, **options: Any) -> Path:
    """A store of raw patches of two pictures: bright above and dark below, and the same a quarter turned."""
    bright_above = np.zeros((60, 40), np.uint8)
    bright_above[:30] = 200
    bright_above[0, 0] = 255
    Image.fromarray(bright_above).save(tmp_path / "a.png")
    Image.fromarray(np.rot90(bright_above).copy()).save(tmp_path / "b.png")
    (tmp_path / "cases.csv").write_text("path,patient\na.png,p\nb.png,q\n")
    report = extract(
        ExtractConfig(
            "table", str(tmp_path / "cases.csv"), ("patches:14",), cache=str(tmp_path / "cache"),
            tokens="patch", ids="keep", **options,
        )
    )  # fmt: skip
    return Path(report.stores[0].path)


def test_images_are_shown_as_the_backbone_saw_them(tmp_path: Path) -> None:
    cache = FeatureCache.open(extracted(tmp_path, size=112, fit="pad", window="range"))
    above, left = inputs_seen(cache, [("a.png", 0), ("b.png", 0)])
    assert above is not None
    assert left is not None
    assert above.shape == left.shape == (112, 112)
    assert np.unique(above[60:, :]).tolist() == [0]  # dark below, padded left and right
    assert above[20, [5, 56, 105]].tolist() == [0, 200, 0]
    assert left[[5, 56, 105], 20].tolist() == [0, 200, 0]


def test_the_picture_says_how_many_images_it_shows(tmp_path: Path) -> None:
    store = extracted(tmp_path, size=112)
    assert draw_pca(store, tmp_path / "both.png").images == 2
    assert draw_pca(store, tmp_path / "none.png", images=False).images == 0
    (tmp_path / "b.png").unlink()
    report = draw_pca(store, tmp_path / "one.png")
    assert (report.images, report.grid, report.coarse) == (1, (8, 8), False)
    sizes = []
    for name in ("both", "one", "none"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            sizes.append(picture.size)
    assert sizes[0] == sizes[1] != sizes[2]
    assert draw_pca(extracted(tmp_path, size=56), tmp_path / "coarse.png").coarse


def test_a_store_without_patch_tokens_says_how_to_add_them(tmp_path: Path) -> None:
    cls, patch = ArraySpec(2, "cls_token", "float32", (4,)), ArraySpec(1, "patch_tokens", "float32", (2, 2, 4))
    make_store(tmp_path / "vectors.zarr", make_plan([1, 1]), (cls,))
    with pytest.raises(InputError, match=r"holds no patch tokens; add them with `embedcache extract --tokens patch`"):
        draw_pca(tmp_path / "vectors.zarr", tmp_path / "out.png")
    make_store(tmp_path / "lower.zarr", make_plan([1, 1]), (cls, patch))
    with pytest.raises(InputError, match=r"layer 2 of .* has no patch tokens, and layers \[1\] have; .* --layer"):
        draw_pca(tmp_path / "lower.zarr", tmp_path / "out.png")
