import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedcache.errors import InputError
from embedcache.images.geometry import Look, Placement, patch_shares, place, upsample_to_source

DINOV2 = {
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
}
lengths = st.integers(1, 3000)


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    """Any placement on a small input, crops and borders included."""
    source = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    size = draw(st.integers(1, 5)) * 4, draw(st.integers(1, 5)) * 4
    fit = draw(st.sampled_from(["squash", "pad", "free"]))
    if fit != "free":
        return place(*source, size, fit, {})
    resized = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    crop = tuple((r - s) // 2 for r, s in zip(resized, size, strict=True))
    return Placement(source, size, resized, crop)


def test_squash_is_the_whole_slice():
    placement = place(10, 30, (224, 224), "squash", {})
    assert (placement.resized, placement.crop) == ((224, 224), (0, 0))
    y, x = placement.to_input([0, 5, 10], [0, 15, 30])
    np.testing.assert_allclose([y, x], [[0, 112, 224], [0, 112, 224]])


def test_pad_keeps_the_aspect_between_equal_borders():
    placement = place(100, 50, (224, 224), "pad", {})
    assert placement.resized == (224, 112)
    assert placement.crop == (0, -56)
    y, x = placement.to_input([50], [25])
    np.testing.assert_allclose([y[0], x[0]], [112, 112])


@given(lengths, lengths, st.integers(1, 64), st.integers(1, 64))
@settings(deadline=None)
def test_pad_never_leaves_the_input(height, width, size_y, size_x):
    placement = place(height, width, (size_y, size_x), "pad", {})
    assert placement.resized[0] == size_y or placement.resized[1] == size_x
    assert all(1 <= r <= s for r, s in zip(placement.resized, placement.size, strict=True))
    assert all(c <= 0 for c in placement.crop)


@given(placements(), st.lists(st.floats(-100, 100), min_size=1, max_size=5))
@settings(deadline=None)
def test_forth_and_back_is_where_it_was(placement, values):
    y, x = placement.to_source(*placement.to_input(values, values))
    # two roundings of float64 at magnitudes up to a few thousand
    np.testing.assert_allclose(y, values, rtol=0, atol=1e-9)
    np.testing.assert_allclose(x, values, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "size_and_crop",
    [
        ({"shortest_edge": 256}, (224, 224)),
        ({"shortest_edge": 20}, (31, 24)),  # a crop larger than the image: zeros around it
        ({"shortest_edge": 100, "longest_edge": 150}, (90, 90)),
        ({"height": 61, "width": 50}, (61, 50)),
    ],
)
@pytest.mark.parametrize(("height", "width"), [(480, 640), (641, 479), (333, 1000), (256, 256), (37, 41), (5, 3)])
def test_processor_is_what_transformers_does(size_and_crop, height, width):
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    size, crop = size_and_crop
    processor = BitImageProcessorPil(
        size=size, crop_size={"height": crop[0], "width": crop[1]}, do_rescale=False, do_normalize=False, resample=0
    )
    placement = place(
        height, width, crop, "processor", {**DINOV2, "size": size, "crop_size": {"height": crop[0], "width": crop[1]}}
    )

    # An image whose pixels say where they are: with the nearest resampling the output tells the shape and the crop.
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 255
    theirs = processor(Image.fromarray(image), return_tensors="np")["pixel_values"][0]
    assert theirs.shape[1:] == placement.size
    inside = theirs[0] == 255
    y, x = placement.to_source(np.arange(crop[0]) + 0.5, np.arange(crop[1]) + 0.5)
    ours = ((y > 0) & (y < height))[:, np.newaxis] & ((x > 0) & (x < width))
    np.testing.assert_array_equal(inside, ours)

    resized = processor.resize(image.transpose(2, 0, 1), _size_dict(processor, size))
    assert resized.shape[1:] == placement.resized


def _size_dict(processor, size):
    from transformers.image_utils import SizeDict

    return SizeDict(**size)


def test_processor_without_a_crop_and_with_an_edge_as_a_number():
    assert place(100, 100, (64, 64), "processor", {"size": {"height": 64, "width": 64}}).resized == (64, 64)
    assert place(100, 200, (64, 64), "processor", {**DINOV2, "size": 70, "crop_size": 64}).resized == (70, 140)
    assert place(70, 80, (70, 80), "processor", {"do_resize": False}).crop == (0, 0)


def test_processor_that_makes_another_size_is_refused():
    with pytest.raises(InputError, match=r"224x224 .* 448x448"):
        place(300, 300, (448, 448), "processor", DINOV2)
    with pytest.raises(InputError, match="shortest_edge"):
        place(300, 300, (448, 448), "processor", {})
    with pytest.raises(InputError, match="at least one pixel"):
        place(0, 300, (448, 448), "squash", {})


# --- patch shares -----------------------------------------------------------------------------------


def shares_by_sampling(mask, n_classes, placement, grid, fine):
    """Each patch is looked at in fine x fine points; exact where the points divide every pixel evenly."""
    ys = (np.arange(grid[0] * fine) + 0.5) * placement.size[0] / (grid[0] * fine)
    xs = (np.arange(grid[1] * fine) + 0.5) * placement.size[1] / (grid[1] * fine)
    y, x = placement.to_source(ys, xs)
    iy, ix = np.floor(y).astype(int), np.floor(x).astype(int)
    inside = ((iy >= 0) & (iy < mask.shape[0]))[:, None] & ((ix >= 0) & (ix < mask.shape[1]))
    seen = mask[np.clip(iy, 0, mask.shape[0] - 1)[:, None], np.clip(ix, 0, mask.shape[1] - 1)]
    seen = np.where(inside, seen, 0)
    one_hot = seen[..., None] == np.arange(n_classes)
    return one_hot.reshape(grid[0], fine, grid[1], fine, n_classes).mean(axis=(1, 3))


@given(placements(), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_patch_shares_are_the_areas(placement, n_classes, seed):
    mask = np.random.default_rng(seed).integers(0, n_classes, placement.source)
    grid = (placement.size[0] // 4, placement.size[1] // 4)
    shares = patch_shares(mask, n_classes, placement, grid)
    assert shares.dtype == np.float32
    # float32 rounds each share to 6e-8
    np.testing.assert_allclose(shares.sum(axis=-1), 1, atol=1e-6)
    # 64 points along a patch: each of at most 42 pixel edges in it is off by half a point
    sampled = shares_by_sampling(mask, n_classes, placement, grid, 64)
    pixels = [4 * s / r for s, r in zip(placement.source, placement.resized, strict=True)]
    np.testing.assert_allclose(shares, sampled, atol=min(1.0, sum((p + 2) / 64 for p in pixels)))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_patch_shares_equal_counting_on_a_common_grid(height, width, gy, gx, seed):
    mask = np.random.default_rng(seed).integers(0, 3, (height, width))
    shares = patch_shares(mask, 3, place(height, width, (14 * gy, 14 * gx), "squash", {}), (gy, gx))
    # each pixel split in gy x gx equal parts: a patch is then height x width whole parts
    parts = np.kron(mask, np.ones((gy, gx), int)).reshape(gy, height, gx, width)
    counted = (parts[..., np.newaxis] == np.arange(3)).mean(axis=(1, 3))
    np.testing.assert_allclose(shares, counted, atol=1e-6)  # float32 rounds each share to 6e-8


def test_patch_shares_exact_in_a_case_by_hand():
    mask = np.zeros((4, 4), int)
    mask[:2, :3] = 1
    mask[3, 3] = 2
    shares = patch_shares(mask, 3, place(4, 4, (28, 28), "squash", {}), (2, 2))
    expected = [[[0, 1, 0], [0.5, 0.5, 0]], [[1, 0, 0], [0.75, 0, 0.25]]]
    np.testing.assert_allclose(shares, expected, atol=1e-7)


def test_patch_shares_exact_where_patches_cut_pixels():
    mask = np.array([[1, 0, 0]])
    shares = patch_shares(mask, 2, place(1, 3, (14, 28), "squash", {}), (1, 2))
    np.testing.assert_allclose(shares[0, :, 1], [1 / 1.5, 0], atol=1e-7)


def test_padding_counts_as_background():
    mask = np.ones((2, 1), int)
    shares = patch_shares(mask, 2, place(2, 1, (8, 8), "pad", {}), (1, 1))
    np.testing.assert_allclose(shares[0, 0], [0.5, 0.5])


def test_patch_shares_refuse_a_mask_of_another_image():
    placement = place(4, 5, (8, 8), "squash", {})
    with pytest.raises(InputError, match=r"\(4, 5\)"):
        patch_shares(np.zeros((5, 4), int), 2, placement, (2, 2))
    with pytest.raises(InputError, match="0 to 1"):
        patch_shares(np.full((4, 5), 2), 2, placement, (2, 2))


# --- back to the slice ------------------------------------------------------------------------------


@given(placements(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_upsampling_keeps_a_constant_and_stays_between_the_scores(placement, seed):
    grid = (placement.size[0] // 4, placement.size[1] // 4)
    scores = np.random.default_rng(seed).random((*grid, 3))
    back = upsample_to_source(scores, placement)
    assert back.shape == (*placement.source, 3)
    assert back.min() >= scores.min() - 1e-12
    assert back.max() <= scores.max() + 1e-12
    np.testing.assert_allclose(upsample_to_source(np.full((*grid, 1), 0.7), placement), 0.7)


def test_upsampling_is_torch_bilinear_on_the_whole_image():
    torch = pytest.importorskip("torch")
    scores = np.random.default_rng(0).random((5, 7, 2))
    back = upsample_to_source(scores, place(33, 20, (70, 98), "squash", {}))
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(scores.transpose(2, 0, 1))[None], size=(33, 20), mode="bilinear", align_corners=False
    )
    # float64 both: only the order of additions differs
    np.testing.assert_allclose(back, theirs[0].numpy().transpose(1, 2, 0), atol=1e-12)


def test_a_bright_patch_comes_back_where_it_was():
    placement = place(60, 40, (56, 56), "pad", {})
    scores = np.zeros((4, 4, 1))
    scores[1, 2] = 1
    back = upsample_to_source(scores, placement)[..., 0]
    y, x = placement.to_source([1.5 * 14], [2.5 * 14])
    peak = np.unravel_index(back.argmax(), back.shape)
    assert abs(peak[0] + 0.5 - y[0]) <= 1
    assert abs(peak[1] + 0.5 - x[0]) <= 1


def test_what_a_view_does_not_show_lies_under_no_border() -> None:
    """The look's border is black: pixels of the slice beyond it are not there."""
    placement = Placement((8, 8), (8, 8), (4, 8), (-2, 0), Look(4, 0, 4, 8, False))
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4] = 1  # just above what is shown
    assert patch_shares(mask, 2, placement, (4, 4))[..., 1].max() == 0
    mask[4:] = 1
    shares = patch_shares(mask, 2, placement, (4, 4))[..., 1]
    np.testing.assert_allclose(shares[:, 0], [0, 1, 1, 0])
