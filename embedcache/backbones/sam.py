"""The image encoder of SAM (Segment Anything) and of what has its format, such as MedSAM.

Kirillov et al., "Segment Anything", ICCV 2023; Ma et al., "Segment anything in medical images", Nature Communications 2024.
There is no CLS token and no norm behind the blocks: these are layers as they are, and the neck, which the decoder of masks
reads, is one more layer, the last.
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
from embedcache.types import BackboneInfo, Stage

if TYPE_CHECKING:
    from embedcache.backbones import Backbone

KIRILLOV = "Kirillov et al., Segment Anything, 2023, arXiv:2304.02643"
PUBLISHED = {
    "facebook/sam-vit-": ("Apache-2.0", KIRILLOV),
    "wanglab/medsam-": (
        "Apache-2.0",
        f"Ma et al., Segment anything in medical images, 2024, arXiv:2304.12306; {KIRILLOV}",
    ),
}
BILINEAR = 2


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `weights.config` (model_type `sam`, the whole model, or `sam_vision_model`) says of the image encoder."""
    family = str(weights.config["model_type"])
    tower = vision_tower(weights)
    config = tower.config
    check_channels(tower)
    native, patch = int(config.get("image_size", 1024)), square_patch(tower, 16)
    blocks = equal_stages(int(config.get("num_hidden_layers", 12)), int(config.get("hidden_size", 768)), patch)
    square = {"height": native, "width": native}
    return BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family=family,
        model=model_recipe(weights, family, compute_dtype, attention, "none: one size"),
        stages=(*blocks, Stage(int(config.get("output_channels", 256)), patch)),
        registers=0,
        **{**processor_numbers(weights, square, None, resample=BILINEAR), "size": (native, native)},
        kinds=("patch_mean", "patch_tokens"),
        loader="embedcache.backbones.sam:load",
        norm="last layer (the neck): its own LayerNorm; the blocks before it: none",
        fixed_size=True,
        **origin(weights, PUBLISHED, KIRILLOV),
    )


def load(info: BackboneInfo, device: str = "cpu") -> "Backbone":
    """The SamVisionModel of `info`, out of the whole model's weights or of its own."""
    from embedcache.backbones.captured import load_captured  # torch, which describing does without

    structure = Structure(
        "SamVisionModel", blocks=("vision_encoder.layers",), layout="grid", extra=("vision_encoder.neck",)
    )
    return load_captured(info, structure, device)
