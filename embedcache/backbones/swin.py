"""Swin and Swin V2: a layer is a stage, as it is before its patches are merged for the next one.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021; Liu et al., "Swin
Transformer V2: Scaling Up Capacity and Resolution", CVPR 2022. The model's own vector is the mean of its last normed
tokens: `patch_mean`.
"""

from typing import TYPE_CHECKING, Any

from embedcache.backbones.description import (
    check_channels,
    halving_stages,
    model_recipe,
    origin,
    processor_numbers,
    square_patch,
)
from embedcache.backbones.structure import Structure
from embedcache.backbones.weights import Weights
from embedcache.errors import InputError
from embedcache.types import BackboneInfo

if TYPE_CHECKING:
    from embedcache.backbones import Backbone

CITATION = {
    "swin": "Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, 2021, arXiv:2103.14030",
    "swinv2": "Liu et al., Swin Transformer V2: Scaling Up Capacity and Resolution, 2021, arXiv:2111.09883",
}
PUBLISHED = {
    "microsoft/swin-": ("Apache-2.0", CITATION["swin"]),
    "microsoft/swinv2-": ("Apache-2.0", CITATION["swinv2"]),
}
CLASSES = {"swin": "SwinModel", "swinv2": "Swinv2Model"}


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `weights.config` (model_type `swin` or `swinv2`) says of the model.

    Swin V2 has one implementation of attention, whatever is asked. Raises InputError for a Swin V2 with absolute positions,
    which transformers can not run.
    """
    config = weights.config
    family = str(config["model_type"])
    check_channels(weights)
    absolute = bool(config.get("use_absolute_embeddings", False))
    if absolute and family == "swinv2":
        raise InputError(
            f"{weights.name} has absolute position embeddings, which no published Swin V2 has; not supported."
        )
    width, depth = int(config.get("embed_dim", 96)), len(config.get("depths", (2, 2, 6, 2)))
    stages = halving_stages([width * 2**i for i in range(depth)], square_patch(weights, 4))
    native = int(config.get("image_size", 224))
    positions = "transformers-bicubic" if absolute else "none: relative to a window"
    return BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family=family,
        model=model_recipe(weights, family, compute_dtype, attention if family == "swin" else "eager", positions),
        stages=stages,
        registers=0,
        **processor_numbers(weights, {"height": native, "width": native}, None),
        kinds=("patch_mean", "patch_tokens"),
        loader="embedcache.backbones.swin:load",
        norm="last layer: the model's final LayerNorm; earlier ones, of other widths: none",
        # transformers' Swin shrinks a window to a smaller map, and then lacks the position biases of that window
        smallest_side=int(config.get("window_size", 7)) * stages[-1].stride if family == "swin" else 0,
        **origin(weights, PUBLISHED, CITATION[family]),
    )


def load(info: BackboneInfo, device: str = "cpu") -> "Backbone":
    """The SwinModel or Swinv2Model of `info`."""
    from embedcache.backbones.captured import load_captured  # torch, which describing does without

    structure = Structure(
        CLASSES[info.family],
        blocks=("encoder.layers",),
        last_of="blocks",
        norm=("layernorm",),
        options={"interpolate_pos_encoding": True},
        build={"add_pooling_layer": False},
        may_be_absent=("relative_position_index", "relative_coords_table", "mask_token"),  # made from the window's size
    )
    backbone = load_captured(info, structure, device)
    if info.family == "swin":
        for stage in backbone.model.get_submodule("encoder.layers").children():
            for block in stage.get_submodule("blocks").children():
                keep_window(block)
    return backbone


def keep_window(block: Any) -> None:
    """Give a block its window and shift back before each pass.

    transformers' Swin clamps both to the map that it sees and never undoes it: after an image of one size the tokens of a
    larger one would not be what they are in a model that was just loaded.
    """
    window, shift = block.window_size, block.shift_size

    def restore(*_: Any) -> None:
        block.window_size, block.shift_size = window, shift

    block.register_forward_pre_hook(restore)
