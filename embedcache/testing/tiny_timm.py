"""A tiny model of each kind of architecture that timm has, as a folder in timm's own format, weights drawn under a seed.

`make_tiny_timm("vit", folder)` writes `config.json` and `model.safetensors` with timm's own exporter; `make_tiny_open_clip`
writes the files of a checkpoint of open_clip with such a model as its vision tower.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedcache.errors import suggest
from embedcache.testing.tiny_backbones import draw_all

VIT = {"img_size": 48, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 5}
SMALL = {"num_classes": 5}
ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, Any], int]] = {
    "vit": ("vit_tiny_patch16_224", VIT, 48),
    "vit-registers": ("vit_small_patch14_reg4_dinov2", VIT, 48),
    "siglip": ("vit_base_patch16_siglip_224", VIT, 48),
    "dinov3": ("vit_small_patch16_dinov3", VIT, 48),
    "beit": ("beit_base_patch16_224", VIT, 48),
    "sam": (
        "samvit_base_patch16",
        {**VIT, "img_size": 64, "window_size": 3, "global_attn_indexes": [1], "neck_chans": 24},
        64,
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {**SMALL, "img_size": 64, "window_size": 4, "embed_dim": 16, "depths": [2, 2, 2], "num_heads": [2, 2, 4]},
        64,
    ),
    "hiera": ("hiera_tiny_224", {**SMALL, "embed_dim": 16, "num_heads": 1, "stages": [1, 1, 1, 1]}, 224),
    "convnext": ("convnext_atto", {**SMALL, "depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]}, 64),
    "resnet": ("resnet18", {**SMALL, "layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32]}, 64),
    "densenet": ("densenet121", {**SMALL, "growth_rate": 8, "block_config": [2, 2, 2, 2]}, 64),
    "vgg": ("vgg11", {**SMALL, "mlp_ratio": 0.01}, 64),
    "efficientnet-lite": ("tf_efficientnet_lite0", SMALL, 64),
}
"""Kind → architecture, arguments that make it tiny, and the side of its input."""
OPEN_CLIP_TRUNK, OPEN_CLIP_SIDE, OPEN_CLIP_WIDTH = "test_vit", 96, 24
"""timm's own small ViT for tests: such a configuration has no place for arguments that would make another one tiny."""


def tiny_timm_kinds() -> list[str]:
    """Every kind of which a tiny model can be made."""
    return sorted(ARCHITECTURES)


def make_tiny_timm(kind: str, folder: str | os.PathLike[str], seed: int = 0) -> str:
    """A tiny model of `kind` in `folder`; returns the name by which `describe_backbone` finds it.

    The same weights for the same seed and versions of torch and timm. Raises UnknownNameError for a kind that there is not.
    """
    if kind not in ARCHITECTURES:
        raise suggest("kind of tiny models of timm", kind, ARCHITECTURES)
    architecture, arguments, side = ARCHITECTURES[kind]
    model = _drawn(architecture, arguments, side, seed)
    from timm.models import save_for_hf  # behind _drawn, which makes timm importable beside a torch without CUDA

    save_for_hf(model, folder, safe_serialization=True)
    return str(folder)


def make_tiny_open_clip(folder: str | os.PathLike[str], seed: int = 0, *, projection: str = "linear") -> str:
    """A tiny ViT of timm as the vision tower of an open_clip checkpoint, with a stranger's tensor for the text tower.

    projection: `linear`, `mlp` or "" (`timm_proj`).
    """
    import torch  # like timm, for those who make models only
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    trunk = _drawn(OPEN_CLIP_TRUNK, {"num_classes": 0}, OPEN_CLIP_SIDE, seed)
    generator = torch.Generator().manual_seed(seed)
    width = OPEN_CLIP_WIDTH if projection else trunk.num_features
    inputs = trunk.num_features
    heads: dict[str, dict[str, tuple[int, ...]]] = {
        "": {},
        "linear": {"proj.weight": (width, inputs)},
        "mlp": {
            "mlp.fc1.weight": (2 * width, inputs),
            "mlp.fc1.bias": (2 * width,),
            "mlp.fc2.weight": (width, 2 * width),
            "mlp.fc2.bias": (width,),
        },
    }
    head = {name: torch.randn(shape, generator=generator) for name, shape in heads[projection].items()}
    tensors = {f"visual.trunk.{key}": value for key, value in trunk.state_dict().items()}
    tensors |= {f"visual.head.{key}": value for key, value in head.items()}
    save_file({**tensors, "text.token": torch.zeros(3)}, folder / "open_clip_model.safetensors")
    vision = {
        "timm_model_name": OPEN_CLIP_TRUNK,
        "timm_pool": "",
        "timm_proj": projection,
        "image_size": OPEN_CLIP_SIDE,
    }
    document = {
        "model_cfg": {"embed_dim": width, "vision_cfg": vision, "text_cfg": {"context_length": 16}},
        "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(document, indent=1))
    return str(folder)


def _drawn(architecture: str, arguments: Mapping[str, Any], side: int, seed: int) -> Any:
    import torch

    from embedcache.backbones.torchvision_pair import complete_torchvision

    complete_torchvision()
    import timm

    overlay = {"input_size": (3, side, side), "num_classes": arguments["num_classes"]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(architecture, pretrained_cfg_overlay=overlay, **arguments)
        draw_all(model)
    return model.eval()
