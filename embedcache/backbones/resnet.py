"""ResNets in the format of transformers.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. The model's own vector is the mean of its last map:
`patch_mean`.
"""

from typing import TYPE_CHECKING

from embedcache.backbones.description import check_channels, halving_stages, model_recipe, origin, processor_numbers
from embedcache.backbones.structure import Structure
from embedcache.backbones.weights import Weights
from embedcache.types import BackboneInfo

if TYPE_CHECKING:
    from embedcache.backbones import Backbone

HE = "He et al., Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385"
PUBLISHED = {"microsoft/resnet-": ("Apache-2.0", HE)}
WIDTHS = (256, 512, 1024, 2048)
"""Of the ResNets with bottlenecks, where a configuration leaves them out."""


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `weights.config` (model_type `resnet`) says of the model. attention decides nothing here."""
    config = weights.config
    check_channels(weights)
    first = 8 if config.get("downsample_in_first_stage", False) else 4
    return BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family="resnet",
        model=model_recipe(weights, "resnet", compute_dtype, "none", "none"),
        stages=halving_stages(config.get("hidden_sizes") or WIDTHS, first),
        registers=0,
        **processor_numbers(weights, size=256, crop=224),
        kinds=("patch_mean", "patch_tokens"),
        loader="embedcache.backbones.resnet:load",
        norm="none behind a stage: its last block ends with batch norm, residual and ReLU",
        **origin(weights, PUBLISHED, HE),
    )


def load(info: BackboneInfo, device: str = "cpu") -> "Backbone":
    """The ResNetModel of `info`."""
    from embedcache.backbones.captured import load_captured  # torch, which describing does without

    structure = Structure(
        "ResNetModel",
        blocks=("encoder.stages",),
        layout="map",
        may_be_absent=("num_batches_tracked",),  # counts training steps
        channels_last=True,
    )
    return load_captured(info, structure, device)
