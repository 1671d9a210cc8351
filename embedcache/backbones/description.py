"""What every family reads from a checkpoint's configuration files in the same way. No torch, no weights."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from embedcache.backbones.known import find_known
from embedcache.backbones.weights import Weights
from embedcache.errors import InputError
from embedcache.types import ModelRecipe, Stage

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BICUBIC = 3
"""PIL's number, as `resample` in a processor configuration gives it."""


def vision_tower(weights: Weights) -> Weights:
    """The same files, with the configuration of the vision part where `config.json` is that of a larger model."""
    part = weights.config.get("vision_config")
    return replace(weights, config=part) if isinstance(part, Mapping) else weights


def equal_stages(layers: int, width: int, stride: int) -> tuple[Stage, ...]:
    """The layers of a plain ViT: all alike."""
    return (Stage(width, stride),) * layers


def halving_stages(widths: Sequence[int], stride: int) -> tuple[Stage, ...]:
    """The stages of a hierarchical model: the first at `stride`, each further one at twice that of the one before."""
    return tuple(Stage(int(width), stride * 2**i) for i, width in enumerate(widths))


def model_recipe(
    weights: Weights, family: str, compute_dtype: str, attention: str, position_interpolation: str
) -> ModelRecipe:
    """The part of a recipe that says which weights ran, and how."""
    return ModelRecipe(
        family=family,
        source=weights.source,
        revision=weights.revision,
        weights_digest=weights.digest,
        compute_dtype=compute_dtype,
        attention=attention,
        position_interpolation=position_interpolation,
    )


def processor_numbers(
    weights: Weights,
    size: int | Mapping[str, int],
    crop: int | None,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    resample: int = BICUBIC,
) -> dict[str, Any]:
    """`size`, `mean`, `std` and `processor` of a BackboneInfo: the checkpoint's own, else what its publication used.

    The defaults stand for a folder without `preprocessor_config.json`: resize to `size` (an int is the short side), crop
    to `crop` (None: no crop).
    """
    geometry = processor_geometry(weights.processor, size, crop, resample)
    return {
        "size": (geometry["crop_size"]["height"], geometry["crop_size"]["width"]),
        "mean": tuple(float(v) for v in weights.processor.get("image_mean") or mean),
        "std": tuple(float(v) for v in weights.processor.get("image_std") or std),
        "processor": geometry,
    }


def processor_geometry(
    processor: Mapping[str, Any],
    size: int | Mapping[str, int] = 256,
    crop: int | None = 224,
    resample: int = BICUBIC,
) -> dict[str, Any]:
    """The resize and crop of a processor configuration, spelled out: every key there, every size two numbers.

    Keys: `do_resize`, `size` ({"shortest_edge": n} or {"height": h, "width": w}), `resample` (PIL's number),
    `do_center_crop`, `crop_size` ({"height", "width"}): the input's size, also where nothing is cropped. The defaults are
    what a configuration that leaves a key out means.
    """
    processor = {
        key: value for key, value in processor.items() if value is not None
    }  # newer ones spell out what is unset
    resized, cropped = processor.get("size", size), bool(processor.get("do_center_crop", crop is not None))
    if "size" in processor and _is_convnexts(processor):
        resized, crop = _convnext_resize(resized, float(processor.get("crop_pct", 224 / 256)))
        cropped, processor = crop is not None, {**processor, "crop_size": crop}
    if isinstance(resized, int):
        resized = {"shortest_edge": resized} if cropped else {"height": resized, "width": resized}
    whole = resized.get("shortest_edge", processor.get("pad_size", resized))
    shown: Any = processor.get("crop_size", crop) if cropped else whole
    shown = {"height": shown, "width": shown} if isinstance(shown, int) else dict(shown)
    return {
        "do_resize": bool(processor.get("do_resize", True)),
        "size": {key: int(resized[key]) for key in sorted(resized) if resized[key] is not None},
        "resample": int(processor.get("resample", resample)),
        "do_center_crop": cropped,
        "crop_size": {"height": int(shown["height"]), "width": int(shown["width"])},
    }


def _is_convnexts(processor: Mapping[str, Any]) -> bool:
    kind = processor.get("image_processor_type", processor.get("feature_extractor_type", ""))
    return "crop_pct" in processor or str(kind).startswith("ConvNext")


def _convnext_resize(size: int | Mapping[str, int], crop_pct: float) -> tuple[Mapping[str, int], int | None]:
    """Size and crop as ConvNeXt's processor means them: from 384 on the image is squashed, below it is cropped."""
    shortest = int(size if isinstance(size, int) else size["shortest_edge"])
    if shortest >= 384:
        return {"height": shortest, "width": shortest}, None
    return {"shortest_edge": int(shortest / crop_pct)}, shortest


def square_patch(weights: Weights, default: int) -> int:
    """`patch_size` of the configuration. Raises InputError for patches that are not square."""
    value = weights.config.get("patch_size", default)
    sides = {int(v) for v in value} if isinstance(value, list) else {int(value)}
    if len(sides) != 1:
        raise InputError(f"{weights.name} has patches of {value}; only square ones are supported.")
    return sides.pop()


def check_channels(weights: Weights) -> None:
    """Raises InputError for a model that takes anything but three channels."""
    if weights.config.get("num_channels", 3) != 3:
        raise InputError(f"{weights.name} takes {weights.config['num_channels']} channels; only 3 are supported.")


def origin(weights: Weights, published: Mapping[str, tuple[str, str]], architecture: str) -> dict[str, Any]:
    """`licence` and `citation` of a BackboneInfo.

    A checkpoint of the catalogue has the licence that stands there. published: prefix of a hub name → (licence, citation),
    for others whose origin is known; a local folder may hold anything in this format, and is cited by its architecture.
    """
    known = find_known(weights.source)
    for prefix, (licence, citation) in published.items():
        if weights.source.startswith(prefix):
            return {"licence": (known.licence if known else "") or licence, "citation": citation}
    return {"licence": "", "citation": f"weights of an unstated origin; architecture: {architecture}"}
