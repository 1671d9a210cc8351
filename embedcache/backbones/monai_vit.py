"""MONAI's vision transformer of volumes (`monai.networks.nets.ViT`), and so the encoder of a UNETR.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; Hatamizadeh et al., "UNETR: Transformers for 3D Medical
Image Segmentation", WACV 2022. `config.json` holds the constructor's arguments and what monai_config.py lists. Its position
embeddings are those of one `img_size`, so it takes no other; larger inputs are seen in sliding windows.
"""

from typing import TYPE_CHECKING

from embedcache.backbones.description import model_recipe
from embedcache.backbones.monai_config import axes_of, check_volume_model, per_axis, volume_numbers
from embedcache.backbones.weights import Weights, find_weights
from embedcache.errors import InputError
from embedcache.types import BackboneInfo, Stage, TokenKind

if TYPE_CHECKING:
    from embedcache.backbones import Backbone

CITATION = (
    "Dosovitskiy et al., An Image is Worth 16x16 Words, 2021, arXiv:2010.11929; Hatamizadeh et al., UNETR: Transformers for "
    "3D Medical Image Segmentation, 2021, arXiv:2103.10504"
)
ARGUMENTS = (
    "hidden_size", "mlp_dim", "num_layers", "num_heads", "proj_type", "pos_embed_type", "classification", "num_classes",
    "post_activation", "qkv_bias",
)  # fmt: skip
"""Of the constructor, beside sizes: what decides the architecture. Dropout is off in a frozen model."""


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `weights.config` (model_type `monai_vit`) says of the model. attention decides nothing: MONAI's has one."""
    config = weights.config
    check_volume_model(weights)
    axes = axes_of(weights)
    size, patch = per_axis(weights, "img_size"), per_axis(weights, "patch_size", 16)
    if any(n % step for n, step in zip(size, patch, strict=True)):
        raise InputError(f"{weights.name}: img_size {list(size)} is no multiple of patch_size {list(patch)}.")
    z, y, x = axes.of_input(patch)
    cls: tuple[TokenKind, ...] = ("cls_token",) if config.get("classification", False) else ()
    return BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family="monai_vit",
        model=model_recipe(weights, "monai_vit", compute_dtype, "built-in", "none"),
        stages=(Stage(int(config.get("hidden_size", 768)), y, (z, y, x)),) * int(config.get("num_layers", 12)),
        registers=0,
        kinds=(*cls, "patch_mean", "patch_tokens"),
        loader="embedcache.backbones.monai_vit:load",
        norm="the model's final LayerNorm",
        fixed_size=True,
        **volume_numbers(weights, CITATION),
    )


def load(info: BackboneInfo, device: str = "cpu") -> "Backbone":
    """MONAI's ViT of `info`, its weights alone or within a UNETR's."""
    from embedcache.backbones.monai_encoder import vit_layers  # torch, which describing does without
    from embedcache.backbones.monai_weights import load_encoder

    weights = find_weights(info.folder)
    arguments = {name: weights.config[name] for name in ARGUMENTS if name in weights.config}
    arguments |= {"img_size": per_axis(weights, "img_size"), "patch_size": per_axis(weights, "patch_size", 16)}
    return load_encoder(
        info,
        weights,
        ("monai.networks.nets.vit", "ViT"),
        {"in_channels": 1, **arguments},
        vit_layers,
        # an embedding that only cross-attention would use; older versions of MONAI do not have it
        may_be_absent=("norm_cross_attn.weight", "norm_cross_attn.bias"),
        device=device,
    )
