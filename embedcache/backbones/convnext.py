"""ConvNeXt and ConvNeXt V2.

Liu et al., "A ConvNet for the 2020s", CVPR 2022; Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked
Autoencoders", CVPR 2023. The only norm behind the last stage was trained on the mean of its map, so it is applied to that
alone: `pooled`. Maps, and their plain means, are as they leave the stages.
"""

from typing import TYPE_CHECKING

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
from embedcache.types import BackboneInfo

if TYPE_CHECKING:
    from embedcache.backbones import Backbone

LIU = "Liu et al., A ConvNet for the 2020s, 2022, arXiv:2201.03545"
WOO = "Woo et al., ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders, 2023, arXiv:2301.00808"
CITATION = {"convnext": LIU, "convnextv2": WOO}
PUBLISHED = {"facebook/convnext-": ("Apache-2.0", LIU), "facebook/convnextv2-": ("", WOO)}
CLASSES = {"convnext": "ConvNextModel", "convnextv2": "ConvNextV2Model"}
WIDTHS = (96, 192, 384, 768)
"""Of the smallest, where a configuration leaves them out."""


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `weights.config` (model_type `convnext` or `convnextv2`) says of the model. attention decides nothing here."""
    config = weights.config
    family = str(config["model_type"])
    check_channels(weights)
    stages = halving_stages(config.get("hidden_sizes") or WIDTHS, square_patch(weights, 4))
    return BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family=family,
        model=model_recipe(weights, family, compute_dtype, "none", "none"),
        stages=stages,
        registers=0,
        **processor_numbers(weights, size=256, crop=224),
        kinds=("patch_mean", "patch_tokens", "pooled"),
        loader="embedcache.backbones.convnext:load",
        norm="none; pooled: the model's final LayerNorm over the mean of the last layer",
        pooled_size=stages[-1].width,
        **origin(weights, PUBLISHED, CITATION[family]),
    )


def load(info: BackboneInfo, device: str = "cpu") -> "Backbone":
    """The ConvNextModel or ConvNextV2Model of `info`."""
    from embedcache.backbones.captured import load_captured  # torch, which describing does without

    structure = Structure(
        CLASSES[info.family], blocks=("encoder.stages",), layout="map", pooled="pooler_output", channels_last=True
    )
    return load_captured(info, structure, device)
