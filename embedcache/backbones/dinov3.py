"""DINOv3: vision transformers with rotary positions and registers, and the ConvNeXts distilled from them.

Siméoni et al., "DINOv3", 2025. The ConvNeXts' class token is the mean of their last map: it is `pooled` here.
"""

from typing import TYPE_CHECKING

from embedcache.backbones.description import (
    check_channels,
    equal_stages,
    halving_stages,
    model_recipe,
    origin,
    processor_numbers,
    square_patch,
)
from embedcache.backbones.structure import Structure
from embedcache.backbones.weights import Weights
from embedcache.types import BackboneInfo

if TYPE_CHECKING:
    from embedcache.backbones import Backbone

SIMEONI = "Siméoni et al., DINOv3, 2025, arXiv:2508.10104"
PUBLISHED = {"facebook/dinov3-": ("DINOv3 License", SIMEONI)}
WIDTHS = (96, 192, 384, 768)
"""Of the smallest ConvNeXt, where a configuration leaves them out."""


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `weights.config` (model_type `dinov3_vit`) says of the model: any size, since its positions are rotary."""
    config = weights.config
    check_channels(weights)
    native = int(config.get("image_size", 224))
    return BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family="dinov3_vit",
        model=model_recipe(weights, "dinov3_vit", compute_dtype, attention, "rotary"),
        stages=equal_stages(
            int(config.get("num_hidden_layers", 12)), int(config.get("hidden_size", 384)), square_patch(weights, 16)
        ),
        registers=int(config.get("num_register_tokens", 0)),
        **processor_numbers(weights, {"height": native, "width": native}, None),
        kinds=("cls_token", "patch_mean", "patch_tokens"),
        loader="embedcache.backbones.dinov3:load",
        norm="the model's final LayerNorm",
        **origin(weights, PUBLISHED, SIMEONI),
    )


def load(info: BackboneInfo, device: str = "cpu") -> "Backbone":
    """The DINOv3ViTModel of `info`."""
    from embedcache.backbones.captured import load_captured  # torch, which describing does without

    structure = Structure(
        "DINOv3ViTModel",
        blocks=("model.layer", "layer"),
        norm=("norm",),
        # the only parameter that may be absent stands for masked patches in training, and no patch is masked here
        may_be_absent=("mask_token",),
    )
    return load_captured(info, structure, device)


def describe_convnext(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `weights.config` (model_type `dinov3_convnext`) says of the model. attention decides nothing here."""
    check_channels(weights)
    stages = halving_stages(weights.config.get("hidden_sizes", WIDTHS), stride=4)
    native = int(weights.config.get("image_size", 224))
    return BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family="dinov3_convnext",
        model=model_recipe(weights, "dinov3_convnext", compute_dtype, "none", "none"),
        stages=stages,
        registers=0,
        **processor_numbers(weights, {"height": native, "width": native}, None),
        kinds=("patch_mean", "patch_tokens", "pooled"),
        loader="embedcache.backbones.dinov3:load_convnext",
        norm="last layer: the model's final LayerNorm; earlier ones, of other widths: none; pooled: the same norm over the mean",
        pooled_size=stages[-1].width,
        **origin(weights, PUBLISHED, SIMEONI),
    )


def load_convnext(info: BackboneInfo, device: str = "cpu") -> "Backbone":
    """The DINOv3ConvNextModel of `info`."""
    from embedcache.backbones.captured import load_captured  # torch, which describing does without

    structure = Structure(
        "DINOv3ConvNextModel",
        blocks=("model.stages", "stages"),
        layout="map",
        norm=("layer_norm",),
        pooled="pooler_output",
        channels_last=True,
    )
    return load_captured(info, structure, device)
