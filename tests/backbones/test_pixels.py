import numpy as np
import pytest
import torch

from embedcache.backbones import describe_backbone, image_recipe, load_backbone
from embedcache.backbones.preprocess import preprocess
from embedcache.errors import InputError
from embedcache.types import ArraySpec, Calibration, Volume, Window


def test_pixels_of_an_image_of_its_own_size_are_its_grey_values() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8), dtype=np.uint8)
    volume = Volume(image, Calibration(np.ones(1), np.zeros(1)), "raster")
    info = describe_backbone("pixels:8")
    x = preprocess(volume, np.array([[[0.0, 255.0]]]), image_recipe(info, Window("range")), "cpu")
    (spec,) = specs = (ArraySpec(1, "cls_token", "float32", (64,)),)
    got = load_backbone(info).tokens(x, specs)[spec.path]
    # the mean of three equal channels rounds twice
    torch.testing.assert_close(got, torch.from_numpy(image.reshape(1, 64) / 255).float(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["pixels:", "pixels:x", "pixels:0", "pixels:1000"])
def test_a_side_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="side from 1 to 256"):
        describe_backbone(name)


def test_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="takes 8x8 only"):
        image_recipe(describe_backbone("pixels:8"), Window("range"), size=(16, 16))
