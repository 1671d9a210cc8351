"""Hiera, plain or as the encoder of a masked autoencoder (nothing is masked here).

Ryali et al., "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles", ICML 2023. The only norm behind the
last stage was trained on the mean of its tokens, so it is applied to that alone: `pooled`.
"""

from typing import TYPE_CHECKING

from embedcache.backbones.description import (
    check_channels,
    halving_stages,
    model_recipe,
    origin,
    processor_numbers,
)
from embedcache.backbones.structure import Structure
from embedcache.backbones.weights import Weights
from embedcache.errors import InputError
from embedcache.types import BackboneInfo

if TYPE_CHECKING:
    import torch

    from embedcache.backbones import Backbone

RYALI = "Ryali et al., Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles, 2023, arXiv:2306.00989"
PUBLISHED = {"facebook/hiera-": ("CC-BY-NC-4.0", RYALI)}


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `weights.config` (model_type `hiera`) says of the model, whose attention has one implementation.

    Raises InputError for a layout of stages that no published Hiera has.
    """
    config = weights.config
    check_channels(weights)
    depth = len(config.get("depths", (2, 3, 16, 3)))
    stride, halving = config.get("patch_stride", (4, 4)), config.get("query_stride", (2, 2))
    unit = config.get("masked_unit_size", (8, 8))
    if (
        len({*stride}) > 1
        or {*halving} != {2}
        or {*unit} != {2 ** (depth - 1)}
        or config.get("num_query_pool", 3) != depth - 1
    ):
        raise InputError(
            f"{weights.name} is a Hiera whose stages do not each halve the map before, within units of the last stage's "
            "patches; only that layout, which all published ones have, is supported."
        )
    grown = float(config.get("embed_dim_multiplier", 2.0))
    stages = halving_stages([int(config.get("embed_dim", 96) * grown**i) for i in range(depth)], int(stride[0]))
    masked = "HieraForPreTraining" in config.get("architectures", ())  # it has no norm of a pooled vector
    return BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family="hiera",
        model=model_recipe(weights, "hiera", compute_dtype, "eager", "transformers-bicubic"),
        stages=stages,
        registers=0,
        **processor_numbers(weights, size=256, crop=224),
        kinds=("patch_mean", "patch_tokens") if masked else ("patch_mean", "patch_tokens", "pooled"),
        loader="embedcache.backbones.hiera:load",
        norm="none" if masked else "none; pooled: the model's final LayerNorm over the mean of the last layer",
        pooled_size=0 if masked else stages[-1].width,
        **origin(weights, PUBLISHED, RYALI),
    )


def load(info: BackboneInfo, device: str = "cpu") -> "Backbone":
    """The HieraModel of `info`."""
    from embedcache.backbones.captured import load_captured  # torch, which describing does without

    step = info.stages[-1].stride
    structure = Structure(
        "HieraModel",
        blocks=("encoder.stages",),
        layout="grid",
        arrange=lambda tokens, size: rolled(tokens, (size[0] // step, size[1] // step)),
        pooled="pooler_output",
        options={"interpolate_pos_encoding": True},
        build={"add_pooling_layer": "pooled" in info.kinds},
    )
    return load_captured(info, structure, device)


def rolled(tokens: "torch.Tensor", units: tuple[int, int]) -> "torch.Tensor":
    """A stage's tokens (n, patches, E) as a map (n, y, x, E).

    Hiera keeps them so that what is pooled next lies furthest apart: by the place within a unit of 2x2 patches, then within a
    unit of 2x2 of these, and so on, and last by the unit of the last stage, of which there are `units` (y, x).
    """
    n, patches, width = tokens.shape
    halvings = (patches // (units[0] * units[1])).bit_length() // 2
    parts = tokens.reshape(n, *(2, 2) * halvings, *units, width)
    first_unit = 1 + 2 * halvings
    y = [first_unit, *range(first_unit - 2, 0, -2)]
    x = [first_unit + 1, *range(first_unit - 1, 0, -2)]
    return parts.permute(0, *y, *x, first_unit + 2).reshape(n, units[0] << halvings, units[1] << halvings, width)
