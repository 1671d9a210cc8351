"""The encoder of MONAI's Swin UNETR (`SwinUNETR.swinViT`), alone or within the whole network.

Hatamizadeh et al., "Swin UNETR", 2022; Tang et al., "Self-Supervised Pre-Training of Swin Transformers for 3D Medical Image
Analysis", CVPR 2022. `config.json` holds the arguments of `SwinUNETR` and what monai_config.py lists. A layer is a stage as the
decoder gets it: behind its patch merging, through a LayerNorm without weights (`normalize`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedcache.backbones.description import model_recipe
from embedcache.backbones.monai_config import axes_of, check_volume_model, per_axis, volume_numbers
from embedcache.backbones.weights import Weights, find_weights
from embedcache.errors import InputError
from embedcache.types import BackboneInfo, Stage

if TYPE_CHECKING:
    from embedcache.backbones import Backbone

CITATION = (
    "Hatamizadeh et al., Swin UNETR: Swin Transformers for Semantic Segmentation of Brain Tumors in MRI Images, 2022, "
    "arXiv:2201.01266; Tang et al., Self-Supervised Pre-Training of Swin Transformers for 3D Medical Image Analysis, 2021, "
    "arXiv:2111.14791"
)
STAGES = 4
DEPTHS, HEADS = (2, 2, 2, 2), (3, 6, 12, 24)
OPTIONAL = ("qkv_bias", "mlp_ratio", "patch_norm", "downsample", "use_v2")


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `weights.config` (model_type `monai_swin_unetr`) says. attention decides nothing: its plain one runs."""
    config = weights.config
    check_volume_model(weights)
    width = int(config.get("feature_size", 24))
    for key, standard in (("depths", DEPTHS), ("num_heads", HEADS)):
        _four(weights, key, standard)
    z, y, x = axes_of(weights).of_input(per_axis(weights, "patch_size", 2))
    if config.get("normalize", True) is not True:
        raise InputError(f"{weights.name}: normalize must be true: maps without it are of no fixed scale.")
    info = BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family="monai_swin_unetr",
        model=model_recipe(weights, "monai_swin_unetr", compute_dtype, "built-in", "none"),
        stages=tuple(Stage(width * 2**k, y * 2**k, (z * 2**k, y * 2**k, x * 2**k)) for k in range(1, STAGES + 1)),
        registers=0,
        kinds=("patch_mean", "patch_tokens"),
        loader="embedcache.backbones.monai_swin_unetr:load",
        norm="a LayerNorm without weights, as the decoder gets every stage",
        **volume_numbers(weights, CITATION),
    )
    info.grid(info.shape)  # img_size must hold whole patches of the last stage
    return info


def _four(weights: Weights, key: str, standard: Sequence[int]) -> tuple[int, ...]:
    value = weights.config.get(key, list(standard))
    if not isinstance(value, list) or len(value) != STAGES or not all(type(n) is int and n > 0 for n in value):
        raise InputError(f"{weights.name}: {key} must be {STAGES} whole numbers. Got {value!r}.")
    return tuple(value)


def load(info: BackboneInfo, device: str = "cpu") -> "Backbone":
    """MONAI's SwinTransformer of `info`: a SwinUNETR's, or a self-supervised checkpoint's."""
    from embedcache.backbones.monai_encoder import swin_layers  # torch, which describing does without
    from embedcache.backbones.monai_weights import load_encoder

    weights = find_weights(info.folder)
    config = weights.config
    arguments: dict[str, Any] = {name: config[name] for name in OPTIONAL if name in config}
    arguments |= {
        "in_chans": 1,
        "embed_dim": int(config.get("feature_size", 24)),
        "window_size": per_axis(weights, "window_size", 7),
        "patch_size": per_axis(weights, "patch_size", 2),
        "depths": _four(weights, "depths", DEPTHS),
        "num_heads": _four(weights, "num_heads", HEADS),
    }
    return load_encoder(
        info,
        weights,
        ("monai.networks.nets.swin_unetr", "SwinTransformer"),
        arguments,
        swin_layers,
        # computed from the window's size
        may_be_absent=("relative_position_index",),
        device=device,
    )
