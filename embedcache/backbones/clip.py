"""CLIP's image towers, OpenAI's and those that OpenCLIP trained (in the format of transformers).

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021; Cherti et al.,
"Reproducible scaling laws for contrastive language-image learning", CVPR 2023. CLIP itself applies its final LayerNorm to
the CLS token alone, and then a projection: that is `pooled`. Here all tokens of all layers pass through the same norm.
"""

from typing import TYPE_CHECKING

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
    from embedcache.backbones import Backbone

RADFORD = (
    "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, arXiv:2103.00020"
)
CHERTI = (
    "Cherti et al., Reproducible scaling laws for contrastive language-image learning, 2022, arXiv:2212.07143; "
    f"architecture: {RADFORD}"
)
PUBLISHED = {"openai/clip-vit-": ("MIT", RADFORD), "laion/CLIP-ViT-": ("MIT", CHERTI)}
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `weights.config` (model_type `clip`, both towers, or `clip_vision_model`) says of the image tower."""
    family = str(weights.config["model_type"])
    tower = vision_tower(weights)
    config = tower.config
    check_channels(tower)
    native = int(config.get("image_size", 224))
    projected = projection_size(weights)
    pooled = ("pooled",) if projected else ()
    return BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family=family,
        model=model_recipe(weights, family, compute_dtype, attention, "transformers-bicubic"),
        stages=equal_stages(
            int(config.get("num_hidden_layers", 12)), int(config.get("hidden_size", 768)), square_patch(tower, 32)
        ),
        registers=0,
        **processor_numbers(weights, native, native, CLIP_MEAN, CLIP_STD),
        kinds=("cls_token", "patch_mean", "patch_tokens", *pooled),
        loader="embedcache.backbones.clip:load",
        norm="the model's final LayerNorm, which CLIP itself applies to the CLS token alone; pooled: and its projection",
        pooled_size=projected,
        **origin(weights, PUBLISHED, RADFORD),
    )


def projection_size(weights: Weights) -> int:
    """Length of the projected image embedding; 0 for an image tower that was saved without its projection."""
    part = vision_tower(weights).config
    if part is weights.config and "CLIPVisionModelWithProjection" not in weights.config.get("architectures", ()):
        return 0
    return int(weights.config.get("projection_dim", part.get("projection_dim", 512)))


def load(info: BackboneInfo, device: str = "cpu") -> "Backbone":
    """The CLIPVisionModelWithProjection of `info`, or its CLIPVisionModel where there is no projection."""
    from embedcache.backbones.captured import load_captured  # torch, which describing does without

    projected = "pooled" in info.kinds
    structure = Structure(
        "CLIPVisionModelWithProjection" if projected else "CLIPVisionModel",
        blocks=("vision_model.encoder.layers", "encoder.layers"),
        norm=("vision_model.post_layernorm", "post_layernorm"),
        pooled="image_embeds",
        options={"interpolate_pos_encoding": True},
        # the towers' own configuration may leave the length out that both share
        build={"projection_dim": info.pooled_size} if projected else {},
    )
    return load_captured(info, structure, device)
