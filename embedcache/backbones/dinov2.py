"""DINOv2, with and without registers, and what has its format, such as RAD-DINO.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024; Darcet et al., "Vision
Transformers Need Registers", ICLR 2024. Where a folder has no `preprocessor_config.json` the published evaluation
numbers hold: ImageNet mean and standard deviation, the short side to 256, a centre crop of 224.
"""

from typing import TYPE_CHECKING

from embedcache.backbones.description import (
    check_channels,
    equal_stages,
    model_recipe,
    origin,
    processor_numbers,
    square_patch,
)
from embedcache.backbones.paper import OFFSET
from embedcache.backbones.structure import Structure
from embedcache.backbones.weights import Weights
from embedcache.types import BackboneInfo

if TYPE_CHECKING:
    from embedcache.backbones import Backbone

OQUAB = "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, 2023, arXiv:2304.07193"
CITATION = {
    "dinov2": OQUAB,
    "dinov2_with_registers": f"Darcet et al., Vision Transformers Need Registers, 2023, arXiv:2309.16588; {OQUAB}",
}
PEREZ = (
    "Pérez-García et al., Exploring scalable medical image encoders beyond text supervision, 2025, arXiv:2401.10815; "
    f"architecture: {OQUAB}"
)
POSITIONS = {"dinov2": "transformers-bicubic", "dinov2_with_registers": "transformers-bicubic-antialias"}
"""How transformers fits position embeddings to another grid: the two classes differ in the antialias filter."""
CLASSES = {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `weights.config` (model_type `dinov2` or `dinov2_with_registers`) says of the model."""
    config = weights.config
    family = str(config["model_type"])
    check_channels(weights)
    return BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family=family,
        model=model_recipe(weights, family, compute_dtype, attention, POSITIONS[family]),
        stages=equal_stages(
            int(config.get("num_hidden_layers", 12)), int(config.get("hidden_size", 768)), square_patch(weights, 14)
        ),
        registers=int(config.get("num_register_tokens", 4)) if family == "dinov2_with_registers" else 0,
        **processor_numbers(weights, size=256, crop=224),
        kinds=("cls_token", "patch_mean", "patch_tokens"),
        loader="embedcache.backbones.dinov2:load",
        norm="the model's final LayerNorm",
        **origin(
            weights,
            {"facebook/dinov2": ("Apache-2.0", CITATION[family]), "microsoft/rad-dino": ("", PEREZ)},
            CITATION[family],
        ),
    )


def load(info: BackboneInfo, device: str = "cpu") -> "Backbone":
    """The Dinov2Model or Dinov2WithRegistersModel of `info`."""
    from embedcache.backbones.captured import load_captured  # torch, which describing does without

    structure = Structure(
        CLASSES[info.family],
        blocks=("encoder.layer", "layers"),
        norm=("layernorm",),
        # the only parameter that may be absent stands for masked patches in training, and no patch is masked here
        may_be_absent=("mask_token",),
    )
    backbone = load_captured(info, structure, device)
    if info.model.position_interpolation == OFFSET:
        from embedcache.backbones.dinov2_positions import fit_with_offset

        fit_with_offset(backbone.model)
    return backbone
