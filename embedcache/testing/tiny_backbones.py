"""A tiny model of every family as a local folder: the real class, its own configuration, weights drawn under a seed.

`make_tiny_backbone("swin", folder)` writes `config.json`, `model.safetensors` and `preprocessor_config.json` as the family's
checkpoints come: those that hold two towers (CLIP, SigLIP) or a decoder (SAM, MAE) hold them here too.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from embedcache.errors import suggest

SQUARE, CROP = "height and width", "shortest edge, then a crop"

TOWER = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
CLIP_VISION = {**TOWER, "image_size": 32, "patch_size": 8, "projection_dim": 24}
SIGLIP_VISION = {**TOWER, "image_size": 32, "patch_size": 8}
CLIP_TEXT = {**TOWER, "num_hidden_layers": 1, "vocab_size": 64, "projection_dim": 24, "max_position_embeddings": 8}
SIGLIP_TEXT = {**TOWER, "num_hidden_layers": 1, "vocab_size": 64, "projection_size": 32, "max_position_embeddings": 8}
SAM_VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "mlp_dim": 48,
    "image_size": 64,
    "patch_size": 16,
    "output_channels": 24,
    "window_size": 3,
    "global_attn_indexes": [1],
}
SAM_DECODER = {
    "hidden_size": 24,
    "num_attention_heads": 2,
    "mlp_dim": 32,
    "num_hidden_layers": 1,
    "iou_head_hidden_dim": 16,
}
VIT = {**TOWER, "image_size": 32, "patch_size": 8}
DINOV2 = {**TOWER, "image_size": 56, "patch_size": 14, "mlp_ratio": 2}
CONVNEXT = {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 2, 1], "image_size": 64}
SWIN = {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [2, 2, 2], "num_heads": [2, 2, 4]}
HIERA = {
    "image_size": [64, 64],
    "embed_dim": 16,
    "depths": [1, 2, 2, 1],
    "num_heads": [1, 2, 2, 4],
    "mlp_ratio": 2.0,
    "decoder_hidden_size": 16,
    "decoder_depth": 1,
    "decoder_num_heads": 2,
}
RESNET = {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 2, 1], "layer_type": "bottleneck"}

FAMILIES: Mapping[str, tuple[str, str, Mapping[str, Any], str, int]] = {
    "clip": (
        "CLIPModel",
        "CLIPConfig",
        {"vision_config": CLIP_VISION, "text_config": CLIP_TEXT, "projection_dim": 24},
        CROP,
        32,
    ),
    "clip_vision_model": ("CLIPVisionModel", "CLIPVisionConfig", CLIP_VISION, CROP, 32),
    "convnext": ("ConvNextForImageClassification", "ConvNextConfig", CONVNEXT, CROP, 64),
    "convnextv2": ("ConvNextV2ForImageClassification", "ConvNextV2Config", CONVNEXT, CROP, 64),
    "dinov2": ("Dinov2Model", "Dinov2Config", DINOV2, CROP, 56),
    "dinov2_with_registers": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        {**DINOV2, "num_register_tokens": 3},
        CROP,
        56,
    ),
    "dinov3_convnext": ("DINOv3ConvNextModel", "DINOv3ConvNextConfig", CONVNEXT, SQUARE, 64),
    "dinov3_vit": ("DINOv3ViTModel", "DINOv3ViTConfig", {**VIT, "num_register_tokens": 3}, SQUARE, 32),
    "hiera": ("HieraForImageClassification", "HieraConfig", HIERA, CROP, 64),
    "ijepa": ("IJepaModel", "IJepaConfig", VIT, SQUARE, 32),
    "resnet": ("ResNetForImageClassification", "ResNetConfig", RESNET, CROP, 64),
    "sam": (
        "SamModel",
        "SamConfig",
        {
            "vision_config": SAM_VISION,
            "mask_decoder_config": SAM_DECODER,
            "prompt_encoder_config": {"hidden_size": 24, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        },
        SQUARE,
        64,
    ),
    "sam_vision_model": ("SamVisionModel", "SamVisionConfig", SAM_VISION, SQUARE, 64),
    "siglip": ("SiglipModel", "SiglipConfig", {"vision_config": SIGLIP_VISION, "text_config": SIGLIP_TEXT}, SQUARE, 32),
    "siglip_vision_model": ("SiglipVisionModel", "SiglipVisionConfig", SIGLIP_VISION, SQUARE, 32),
    "siglip2": (
        "Siglip2Model",
        "Siglip2Config",
        {"vision_config": {**TOWER, "patch_size": 8, "num_patches": 16}, "text_config": SIGLIP_TEXT},
        SQUARE,
        32,
    ),
    "siglip2_vision_model": (
        "Siglip2VisionModel",
        "Siglip2VisionConfig",
        {**TOWER, "patch_size": 8, "num_patches": 16},
        SQUARE,
        32,
    ),
    "swin": ("SwinForImageClassification", "SwinConfig", {**SWIN, "window_size": 3}, SQUARE, 64),
    "swinv2": ("Swinv2ForImageClassification", "Swinv2Config", {**SWIN, "window_size": 4}, SQUARE, 64),
    "vit": ("ViTForImageClassification", "ViTConfig", VIT, SQUARE, 32),
    "vit_mae": (
        "ViTMAEForPreTraining",
        "ViTMAEConfig",
        {
            **VIT,
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 16,
        },
        SQUARE,
        32,
    ),
    "vit_msn": ("ViTMSNModel", "ViTMSNConfig", VIT, SQUARE, 32),
}
"""Family → class, configuration class and arguments, what its processor does, and to which size."""

Maker = Callable[[Path], str]
MAKERS: dict[str, Maker] = {}
"""Family → a function that writes a tiny model into a folder and returns its name for `describe_backbone`: families whose
models are no folders of transformers, and other packages' own, are added here."""


def tiny_families() -> list[str]:
    """Every family of which a tiny model can be made."""
    return sorted({*FAMILIES, *MAKERS})


def make_tiny_backbone(family: str, folder: str | os.PathLike[str], seed: int = 0) -> str:
    """A tiny model of `family` in `folder`; returns the name by which `describe_backbone` finds it.

    The same weights for the same seed and version of torch. Raises UnknownNameError for a family that has none.
    """
    folder = Path(folder)
    if family in MAKERS:
        return MAKERS[family](folder)
    if family not in FAMILIES:
        raise suggest("family of tiny backbones", family, tiny_families())
    _save_transformers_model(family, folder, seed)
    return str(folder)


def _save_transformers_model(family: str, folder: Path, seed: int) -> None:
    import torch  # torch and transformers are asked for by those who make models only

    from embedcache.backbones.torchvision_pair import complete_torchvision

    complete_torchvision()
    import transformers

    from embedcache.backbones.quiet import quiet_transformers

    architecture, configuration, numbers, resize, size = FAMILIES[family]
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        model = getattr(transformers, architecture)(getattr(transformers, configuration)(**numbers))
        draw_all(model)
        model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_processor(resize, size), indent=1, sort_keys=True))


def draw_all(model: Any) -> None:
    """Draw every number of `model` anew, also those that its class starts at zero or one.

    Position biases of zero, a layer scale of 1e-6 or a batch norm that does nothing would hide a layer that is run wrongly.
    """
    import torch

    with torch.no_grad():
        for name, values in [*model.named_parameters(), *model.named_buffers()]:
            if not values.is_floating_point() or name.endswith(("inv_freq", "coords_table")):
                continue  # made from the configuration, not learned
            drawn = torch.randn(values.shape)
            if name.endswith("running_var"):
                values.copy_(0.5 + drawn.abs())
            elif name.endswith("weight") and values.ndim > 1 and "position" not in name:
                values.copy_(drawn / values[0].numel() ** 0.5)
            else:
                values.add_(0.2 * drawn)


def _processor(resize: str, size: int) -> dict[str, Any]:
    square = {"height": size, "width": size}
    geometry: dict[str, Any] = {"size": square}
    if resize == CROP:
        geometry = {"size": {"shortest_edge": size * 8 // 7}, "do_center_crop": True, "crop_size": square}
    return {
        "do_resize": True,
        **geometry,
        "resample": 3,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.48, 0.46, 0.41],
        "image_std": [0.27, 0.26, 0.28],
    }
