"""SigLIP's image towers: SigLIP, SigLIP 2 at fixed resolution (the same format), MedSigLIP, and SigLIP 2 NaFlex.

Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023; Tschannen et al., "SigLIP 2: Multilingual
Vision-Language Encoders with Improved Semantic Understanding, Localization, and Dense Features", 2025. There is no CLS
token: the model's own vector is that of its attention pooling head, `pooled`.
"""

import math
from typing import TYPE_CHECKING, Any

from embedcache.backbones.description import (
    check_channels,
    equal_stages,
    model_recipe,
    origin,
    processor_numbers,
    square_patch,
    vision_tower,
)
from embedcache.backbones.structure import Structure
from embedcache.backbones.weights import Weights
from embedcache.types import BackboneInfo

if TYPE_CHECKING:
    import torch

    from embedcache.backbones import Backbone

ZHAI = "Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023, arXiv:2303.15343"
TSCHANNEN = (
    "Tschannen et al., SigLIP 2: Multilingual Vision-Language Encoders with Improved Semantic Understanding, "
    "Localization, and Dense Features, 2025, arXiv:2502.14786"
)
PUBLISHED = {
    "google/siglip-": ("Apache-2.0", ZHAI),
    "google/siglip2-": ("Apache-2.0", TSCHANNEN),
    "google/medsiglip-": (
        "Health AI Developer Foundations terms of use",
        f"Sellergren et al., MedGemma Technical Report, 2025, arXiv:2507.05201; architecture: {ZHAI}",
    ),
}
HALF = (0.5, 0.5, 0.5)
NAFLEX = ("siglip2", "siglip2_vision_model")


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `weights.config` (model_type `siglip` or `siglip2`, both towers, or their `…_vision_model`) says."""
    family = str(weights.config["model_type"])
    tower = vision_tower(weights)
    config = tower.config
    check_channels(tower)
    patch, width = square_patch(tower, 16), int(config.get("hidden_size", 768))
    pooled = width if config.get("vision_use_head", True) else 0
    if family in NAFLEX:
        native, positions = patch * math.isqrt(int(config.get("num_patches", 256))), "transformers-bilinear-antialias"
    else:
        native, positions = int(config.get("image_size", 224)), "transformers-bicubic"
    return BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family=family,
        model=model_recipe(weights, family, compute_dtype, attention, positions),
        stages=equal_stages(int(config.get("num_hidden_layers", 12)), width, patch),
        registers=0,
        # NaFlex's processor names no size but a number of patches; the position embeddings are those of their square
        **processor_numbers(weights, {"height": native, "width": native}, None, HALF, HALF),
        kinds=("patch_mean", "patch_tokens", *(("pooled",) if pooled else ())),
        loader="embedcache.backbones.siglip:load",
        norm="the model's final LayerNorm; pooled: its attention pooling head behind it",
        pooled_size=pooled,
        **origin(weights, PUBLISHED, TSCHANNEN if family in NAFLEX else ZHAI),
    )


def load(info: BackboneInfo, device: str = "cpu") -> "Backbone":
    """The SiglipVisionModel or Siglip2VisionModel of `info`."""
    from embedcache.backbones.captured import load_captured  # torch, which describing does without

    naflex = info.family in NAFLEX
    structure = Structure(
        "Siglip2VisionModel" if naflex else "SiglipVisionModel",
        blocks=("encoder.layers", "vision_model.encoder.layers"),
        norm=("post_layernorm", "vision_model.post_layernorm"),
        pooled="pooler_output",
        inputs=(lambda x: cut_into_patches(x, info.patch_size)) if naflex else None,
        options={} if naflex else {"interpolate_pos_encoding": True},
    )
    return load_captured(info, structure, device)


def cut_into_patches(x: "torch.Tensor", side: int) -> dict[str, Any]:
    """Images (n, 3, H, W) as NaFlex takes them: (n, patches, side * side * 3), their grids, and a mask of all ones."""
    n, channels, height, width = x.shape
    grid = (height // side, width // side)
    patches = x.reshape(n, channels, grid[0], side, grid[1], side).permute(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": patches.reshape(n, grid[0] * grid[1], side * side * channels),
        "pixel_attention_mask": x.new_ones((n, grid[0] * grid[1])).long(),
        "spatial_shapes": x.new_tensor(grid).long().expand(n, 2),
    }
