"""Plain vision transformers of transformers' ViT class: supervised ViT, MSN, I-JEPA, and MAE's encoder.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; Assran et al., "Masked Siamese Networks for
Label-Efficient Learning", ECCV 2022; Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding
Predictive Architecture", CVPR 2023; He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022.

MAE's own class in transformers masks three quarters of the patches at random and shuffles the rest, so its encoder goes
into the plain ViT, which has the same parameters.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from embedcache.backbones.description import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    check_channels,
    equal_stages,
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

CITATION = {
    "vit": "Dosovitskiy et al., An Image is Worth 16x16 Words, 2021, arXiv:2010.11929",
    "vit_msn": "Assran et al., Masked Siamese Networks for Label-Efficient Learning, 2022, arXiv:2204.07141",
    "ijepa": "Assran et al., Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture, 2023, "
    "arXiv:2301.08243",
    "vit_mae": "He et al., Masked Autoencoders Are Scalable Vision Learners, 2021, arXiv:2111.06377",
}
LICENCES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "vit": {"google/vit-": "Apache-2.0"},
        "vit_msn": {"facebook/vit-msn": "Apache-2.0"},
        "ijepa": {"facebook/ijepa": "CC-BY-NC-4.0"},
        "vit_mae": {"facebook/vit-mae": "CC-BY-NC-4.0"},
    }
)
CLASSES = {"vit": "ViTModel", "vit_msn": "ViTMSNModel", "ijepa": "IJepaModel", "vit_mae": "ViTModel"}
HALF = (0.5, 0.5, 0.5)


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `weights.config` (model_type `vit`, `vit_msn`, `ijepa` or `vit_mae`) says of the model."""
    config = weights.config
    family = str(config["model_type"])
    check_channels(weights)
    native = int(config.get("image_size", 224))
    mean, std = (HALF, HALF) if family == "vit" else (IMAGENET_MEAN, IMAGENET_STD)
    return BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family=family,
        model=model_recipe(weights, family, compute_dtype, attention, "transformers-bicubic"),
        stages=equal_stages(
            int(config.get("num_hidden_layers", 12)), int(config.get("hidden_size", 768)), square_patch(weights, 16)
        ),
        registers=0,
        **processor_numbers(weights, {"height": native, "width": native}, None, mean, std),
        kinds=("patch_mean", "patch_tokens") if family == "ijepa" else ("cls_token", "patch_mean", "patch_tokens"),
        loader="embedcache.backbones.vit:load",
        norm="the model's final LayerNorm",
        **origin(
            weights,
            {prefix: (licence, CITATION[family]) for prefix, licence in LICENCES[family].items()},
            CITATION[family],
        ),
    )


def load(info: BackboneInfo, device: str = "cpu") -> "Backbone":
    """The ViTModel, ViTMSNModel or IJepaModel of `info`; MAE's encoder as a ViTModel."""
    from embedcache.backbones.captured import load_captured  # torch, which describing does without

    plain = CLASSES[info.family] in ("ViTModel", "IJepaModel")
    structure = Structure(
        CLASSES[info.family],
        blocks=("layers", "encoder.layer"),
        norm=("layernorm",),
        options={"interpolate_pos_encoding": True},
        build={"add_pooling_layer": False} if plain else {},
        may_be_absent=("mask_token",),
    )
    return load_captured(info, structure, device)
