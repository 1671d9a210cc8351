"""Tiny random encoders of volumes in MONAI's own classes, as folders. Needs the extra `monai`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedcache.testing.tiny_backbones import draw_all

VIT: Mapping[str, Any] = {
    "img_size": [16, 24, 32], "patch_size": [4, 8, 8], "hidden_size": 24, "mlp_dim": 48, "num_layers": 3, "num_heads": 2,
    "classification": True,
}  # fmt: skip
"""Along right, anterior and superior: so 4, 3 and 4 patches along z, y and x."""
SWIN: Mapping[str, Any] = {
    "img_size": 32, "patch_size": 2, "feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 3,
}  # fmt: skip


def make_monai_vit(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A MONAI ViT of 16 x 24 x 32 voxels (right, anterior, superior) with a CLS token; `config` adds to its `config.json`."""
    _importable()
    from monai.networks.nets.vit import ViT

    arguments = {**VIT, **{name: config[name] for name in VIT if name in config}}
    return _save(folder, "monai_vit", ViT(in_channels=1, **arguments), {**arguments, **config}, seed)


def make_monai_swin_unetr(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A whole MONAI SwinUNETR of 32 voxels a side under a seed: four stages, 24 to 192 wide."""
    _importable()
    from monai.networks.nets.swin_unetr import SwinUNETR

    arguments = {**SWIN, **{name: config[name] for name in SWIN if name in config}}
    sizes = {name: value for name, value in arguments.items() if name != "img_size"}
    model = SwinUNETR(in_channels=1, out_channels=2, **sizes)
    return _save(folder, "monai_swin_unetr", model, {**arguments, **config}, seed)


def _importable() -> None:
    """MONAI imports torchvision where it is installed."""
    from embedcache.backbones.torchvision_pair import complete_torchvision

    complete_torchvision()


def _save(folder: Path, model_type: str, model: Any, config: Mapping[str, Any], seed: int) -> Path:
    import torch
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        draw_all(model)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **config}, indent=1))
    return folder
