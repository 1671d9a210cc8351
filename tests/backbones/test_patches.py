import numpy as np
import pytest
import torch

from embedcache.backbones import describe_backbone, image_recipe, load_backbone
from embedcache.backbones.preprocess import preprocess
from embedcache.errors import InputError
from embedcache.types import ArraySpec, Calibration, Volume, Window


def test_a_patch_token_is_the_pixels_under_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 12), dtype=np.uint8)
    volume = Volume(image, Calibration(np.ones(1), np.zeros(1)), "raster")
    info = describe_backbone("patches:4")
    x = preprocess(volume, np.array([[[0.0, 255.0]]]), image_recipe(info, Window("range"), size=(8, 12)), "cpu")
    (spec,) = specs = (ArraySpec(1, "patch_tokens", "float32", (2, 3, 16)),)
    got = load_backbone(info).tokens(x, specs)[spec.path]
    assert got.shape == (1, 2, 3, 16)
    under = torch.from_numpy(image[0, 4:8, 8:12] / 255).float().flatten()
    # the mean of three equal channels rounds twice
    torch.testing.assert_close(got[0, 1, 2], under, rtol=1e-6, atol=1e-7)


def test_its_own_size_is_that_of_segmentation() -> None:
    info = describe_backbone("patches:14")
    assert info.size == (448, 448)
    assert info.grid(info.size) == (32, 32)


@pytest.mark.parametrize("name", ["patches:", "patches:x", "patches:0", "patches:65"])
def test_a_side_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="side from 1 to 64"):
        describe_backbone(name)
