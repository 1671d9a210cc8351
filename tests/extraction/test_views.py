"""Views in an extraction: one decode for all, bit-identical however it is batched and interrupted, view 0 as without them."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import embedcache
from embedcache import ExtractConfig, FeatureCache
from embedcache.backbones.preprocess import preprocess
from embedcache.errors import InputError, Interrupted
from embedcache.extraction.progress import Listener, Progress
from embedcache.images import open_image, parse_window
from embedcache.images.geometry import Look
from embedcache.images.views import PRESETS, draw
from embedcache.testing.stores import differences
from embedcache.types import Calibration, Volume

from .conftest import MakeTable, elsewhere


def stores(config: ExtractConfig) -> dict[int, Path]:
    """View → store."""
    return {FeatureCache.open(p).recipe.image.view: p for p in Path(config.cache).glob("*/*/*.zarr")}


@pytest.fixture
def mixed(config: ExtractConfig, make_table: MakeTable) -> ExtractConfig:
    """Radiographs and volumes, with two views, mirrored half the time."""
    root = str(make_table(5, volumes=3, folder="mixed"))
    return replace(config, root=root, views=2, view_preset="dinov2", ids="keep", dtype="float32")


def test_all_views_share_one_decode_and_view_0_is_byte_for_byte_what_it_was(config: ExtractConfig) -> None:
    # kept ids: pseudonyms are of a fresh key, which would draw other crops in every run of this test
    config = replace(config, views=2, ids="keep")
    report = embedcache.extract(config)
    assert report.decoded == 24
    assert [store.view for store in report.stores] == [0, 1, 2]
    found = stores(config)
    assert sorted(found) == [0, 1, 2]
    plain = replace(elsewhere(config, "plain"), views=0)
    embedcache.extract(plain)
    assert differences(stores(plain)[0], found[0]) == []
    tokens, looks = [], []
    for view in range(3):
        features = FeatureCache.open(found[view]).features("cls")
        tokens.append(features.X)
        whole = Look(0, 0, 60, 50, False)
        drawn = [draw(PRESETS["medical"], view, sample, 0, 60, 50) if view else whole for sample in features.sample_id]
        looks.append(drawn)
    assert len({look for drawn in looks for look in drawn}) > 40
    for a, b in ((0, 1), (0, 2), (1, 2)):
        # one crop in some 300 is the whole slice: then, and only then, are the tokens those of view 0
        shown_alike = [one == other for one, other in zip(looks[a], looks[b], strict=True)]
        np.testing.assert_array_equal(np.all(tokens[a] == tokens[b], axis=1), shown_alike)
    assert [s.view for s in embedcache.list_stores(config.cache)] == [
        FeatureCache.open(s.path).recipe.image.view for s in embedcache.list_stores(config.cache)
    ]
    assert embedcache.show_store(found[2]).recipe["image"]["augmentation"]["scale"] == [0.5, 1.0]


def test_a_view_is_a_literal_crop_resize_and_flip(mixed: ExtractConfig, tiny: Path) -> None:
    """Held against slicing and torch's own interpolation of the window's output, and transformers' own forward."""
    from transformers import AutoModel

    embedcache.extract(mixed)
    cache = FeatureCache.open(stores(mixed)[2])
    image, plan = cache.recipe.image, cache.index.plan
    model = AutoModel.from_pretrained(tiny, attn_implementation="sdpa").eval()
    owner = plan.owner()
    stored = cache.layer(-1).cls_token.read()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (image.mean, image.std))
    flips = 0
    for row in np.flatnonzero(owner >= 0):
        name = str(plan.sample_id[owner[row]])
        number, k = int(name[4:]), int(plan.slice_index[row])
        file = f"img{number:03}.png" if number < 5 else f"vol{number:03}.nii.gz"
        opened = open_image(str(Path(mixed.root).with_name(file)))
        low, high = opened.limits(parse_window("auto"), k, k + 1)[0, 0]
        pixels = torch.from_numpy(opened.read(k, k + 1).pixels.astype(np.float32))[None]
        shown = ((pixels - np.float32(low)) / np.float32(high - low)).clamp(0, 1)
        assert image.augmentation is not None
        look = draw(image.augmentation, 2, name, k, *shown.shape[-2:])
        part = shown[:, :, look.top : look.top + look.height, look.left : look.left + look.width]
        x = torch.nn.functional.interpolate(part, image.size, mode="bicubic", antialias=True).clamp(0, 1)
        flips += look.flipped
        x = ((torch.flip(x, [3]) if look.flipped else x).expand(1, 3, -1, -1) - mean) / std
        with torch.inference_mode():
            expected = model(pixel_values=x).last_hidden_state[0, 0].numpy()
        # float32: the bound of DESIGN for CLS tokens, since the batches differ
        assert np.linalg.norm(stored[row] - expected) <= 1e-5 * np.linalg.norm(expected)
    assert 0 < flips < (owner >= 0).sum()


def test_batches_workers_and_the_order_of_pieces_change_no_pixel(mixed: ExtractConfig) -> None:
    """The floor shows pixels themselves, so equal tokens are equal crops."""
    floor = replace(mixed, backbones=("pixels:16",), size=None)
    embedcache.extract(floor)
    other = elsewhere(replace(floor, batch_size=3, workers=2, rows_per_shard=4), "other")
    embedcache.extract(other)
    for view, path in stores(floor).items():
        a, b = FeatureCache.open(path), FeatureCache.open(stores(other)[view])
        np.testing.assert_array_equal(a.features("cls", pool=None).X, b.features("cls", pool=None).X)


def test_an_interrupted_run_ends_bit_identical(mixed: ExtractConfig) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done >= 9:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        embedcache.extract(mixed, Listener(progress=interrupt))
    embedcache.extract(mixed)
    whole = elsewhere(mixed, "whole")
    embedcache.extract(whole)
    for view, path in stores(whole).items():
        assert differences(path, stores(mixed)[view]) == []


def test_more_views_later_leave_the_first_ones_alone(config: ExtractConfig) -> None:
    embedcache.extract(replace(config, views=1))
    first = stores(config)
    before = {p: p.stat().st_mtime_ns for path in first.values() for p in path.rglob("*")}
    report = embedcache.extract(replace(config, views=2))
    assert report.decoded == 24
    assert before == {p: p.stat().st_mtime_ns for p in before}
    seeded = embedcache.extract(replace(config, views=1, view_seed=7))
    assert seeded.stores[0].path == str(first[0])
    assert seeded.stores[1].path not in {str(path) for path in first.values()}


def test_the_disk_of_views_is_in_the_plan(config: ExtractConfig) -> None:
    one, three = embedcache.plan(config), embedcache.plan(replace(config, views=2))
    assert [p.view for p in three.passes] == [0, 1, 2]
    assert three.bytes == 3 * one.bytes
    assert len({p.store for p in three.passes}) == 3


def test_a_view_is_repeated_verified_and_told(config: ExtractConfig, tiny: Path) -> None:
    asked = replace(config, views=1, view_preset="0.3,0.9,0.8,1.25,0.5", view_seed=4, dtype="float32")
    embedcache.extract(asked)
    store = stores(config)[1]
    like = embedcache.config_like(store, "table", config.root, config.options, backbones=(str(tiny),))
    assert like.view_numbers == (1,)
    assert like.augmentation == asked.augmentation
    assert embedcache.extract(like).decoded == 0
    found = embedcache.recompute(store, like, "8")
    assert found.trusted
    assert all(check.identical == check.tokens for check in found.arrays)
    more = embedcache.config_like(store, "table", config.root, config.options, backbones=(str(tiny),), views=2)
    assert more.view_numbers == (0, 1, 2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"views": -1}, "views and their seed must be at least 0"),
        ({"views": 1, "view_preset": "gentle"}, "unknown preset of views 'gentle'"),
        ({"views": 1, "fit": "processor", "size": None}, "use fit=squash or fit=pad"),
    ],
)
def test_what_is_no_view(config: ExtractConfig, changes: dict[str, Any], says: str) -> None:
    with pytest.raises((InputError, KeyError), match=says):
        embedcache.extract(replace(config, **changes))


def test_pad_keeps_the_aspect_of_the_part(config: ExtractConfig) -> None:
    embedcache.extract(
        replace(config, views=1, fit="pad", view_preset="0.5,0.5,1,1,0", backbones=("pixels:16",), size=None)
    )
    image = FeatureCache.open(stores(config)[1]).recipe.image
    white = Volume(np.full((1, 20, 40), 9, np.uint8), Calibration(np.ones(1), np.zeros(1)), "raster")
    shown = preprocess(white, np.array([[[0.0, 9.0]]]), image, "cpu", "case", 0)[0, 0]
    torch.testing.assert_close(shown[4:12], torch.ones(8, 16))
    assert not bool(shown[:4].any())
    assert not bool(shown[12:].any())


def test_masks_are_laid_under_each_slices_own_part(mixed: ExtractConfig) -> None:
    """Of a row, the placement has the part that was drawn for its sample and slice."""
    from embedcache.evaluation.patch_question import placement

    embedcache.extract(replace(mixed, limit=8))
    cache = FeatureCache.open(stores(mixed)[1])
    plan = cache.index.plan
    owner = plan.owner()
    for row in np.flatnonzero(owner >= 0).tolist():
        look = draw(PRESETS["dinov2"], 1, str(plan.sample_id[owner[row]]), int(plan.slice_index[row]), 31, 44)
        assert placement(cache, (31, 44), row).look == look
    assert placement(FeatureCache.open(stores(mixed)[0]), (31, 44), 0).look is None


def test_presets_are_written_down() -> None:
    """Stores are named by these numbers: changing one is another preset."""
    assert (PRESETS["medical"].scale, PRESETS["medical"].ratio, PRESETS["medical"].flip) == (
        (0.5, 1.0),
        (0.9, 1.1),
        0.0,
    )
    assert (PRESETS["dinov2"].scale, PRESETS["dinov2"].flip) == ((0.08, 1.0), 0.5)
