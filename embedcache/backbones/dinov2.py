"""DINOv2, with and without registers, from its configuration files alone: no torch, no weights.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024; Darcet et al., "Vision
Transformers Need Registers", ICLR 2024. Where a folder has no `preprocessor_config.json` the published evaluation
numbers hold: ImageNet mean and standard deviation, the short side to 256, a centre crop of 224.
"""

from collections.abc import Mapping
from typing import Any

from embedcache.backbones.weights import Weights
from embedcache.errors import InputError
from embedcache.types import BackboneInfo, ModelRecipe

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BICUBIC = 3
"""PIL's number, as `resample` in a processor configuration gives it."""

PUBLISHED = "facebook/dinov2"
"""The hub names whose licence and origin are known; a local folder may hold anything in this format."""
LICENCE = "Apache-2.0"
CITATION = {
    "dinov2": "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, 2023, arXiv:2304.07193",
    "dinov2_with_registers": "Darcet et al., Vision Transformers Need Registers, 2023, arXiv:2309.16588; "
    "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, 2023, arXiv:2304.07193",
}
POSITIONS = {"dinov2": "transformers-bicubic", "dinov2_with_registers": "transformers-bicubic-antialias"}
"""How transformers fits position embeddings to another grid: the two classes differ in the antialias filter."""


def describe(weights: Weights, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What `weights.config` (model_type `dinov2` or `dinov2_with_registers`) says of the model."""
    config = weights.config
    family = str(config["model_type"])
    if config.get("num_channels", 3) != 3:
        raise InputError(f"{weights.name} takes {config['num_channels']} channels; only 3 are supported.")
    geometry = processor_geometry(weights.processor)
    crop = geometry["crop_size"]
    published = weights.source.startswith(PUBLISHED)
    return BackboneInfo(
        name=weights.name,
        folder=str(weights.folder),
        family=family,
        model=ModelRecipe(
            family=family,
            source=weights.source,
            revision=weights.revision,
            weights_digest=weights.digest,
            compute_dtype=compute_dtype,
            attention=attention,
            position_interpolation=POSITIONS[family],
        ),
        hidden_size=int(config.get("hidden_size", 768)),
        layers=int(config.get("num_hidden_layers", 12)),
        patch_size=_patch_size(weights),
        registers=int(config.get("num_register_tokens", 4)) if family == "dinov2_with_registers" else 0,
        size=(crop["height"], crop["width"]),
        mean=tuple(float(v) for v in weights.processor.get("image_mean", IMAGENET_MEAN)),
        std=tuple(float(v) for v in weights.processor.get("image_std", IMAGENET_STD)),
        processor=geometry,
        kinds=("cls_token", "patch_mean", "patch_tokens"),
        loader="embedcache.backbones.dinov2_torch:load",
        licence=LICENCE if published else "",
        citation=CITATION[family] if published else f"weights of an unstated origin; architecture: {CITATION[family]}",
    )


def processor_geometry(processor: Mapping[str, Any]) -> dict[str, Any]:
    """The resize and crop of a processor configuration, spelled out: every key there, every size two numbers.

    Keys: `do_resize`, `size` ({"shortest_edge": n} or {"height": h, "width": w}), `resample` (PIL's number),
    `do_center_crop`, `crop_size` ({"height", "width"}): the input's size, also where nothing is cropped.
    """
    size = processor.get("size", {"shortest_edge": 256})
    size = {"shortest_edge": size} if isinstance(size, int) else dict(size)
    cropped = bool(processor.get("do_center_crop", True))
    crop = processor.get("crop_size", 224) if cropped else size.get("shortest_edge", size)
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else dict(crop)
    return {
        "do_resize": bool(processor.get("do_resize", True)),
        "size": {key: int(size[key]) for key in sorted(size)},
        "resample": int(processor.get("resample", BICUBIC)),
        "do_center_crop": cropped,
        "crop_size": {"height": int(crop["height"]), "width": int(crop["width"])},
    }


def _patch_size(weights: Weights) -> int:
    value = weights.config.get("patch_size", 14)
    sides = {int(v) for v in value} if isinstance(value, list) else {int(value)}
    if len(sides) != 1:
        raise InputError(f"{weights.name} has patches of {value}; only square ones are supported.")
    return sides.pop()
