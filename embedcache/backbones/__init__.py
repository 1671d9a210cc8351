"""Frozen backbones, one file per family: described from their configuration without torch, loaded when they must run.

A family registers one function, `describe(weights, *, compute_dtype, attention) -> BackboneInfo`, under its
`model_type`; the info's `loader` names the function that makes the torch model. Other packages add families through
the entry-point group `embedcache.backbones`.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from embedcache.backbones.carried import weights_in
from embedcache.backbones.hub import OF_FAMILY
from embedcache.backbones.paper import PRESETS, as_in_paper
from embedcache.backbones.unreadable import why_unreadable
from embedcache.backbones.volume_recipe import volume_recipe
from embedcache.backbones.weights import find_weights
from embedcache.errors import InputError, MissingPackageError, suggest
from embedcache.images.options import VolumeOptions
from embedcache.registry import Registry
from embedcache.types import ArraySpec, Augmentation, BackboneInfo, Fit, ImageRecipe, ModelRecipe, Window

if TYPE_CHECKING:
    import torch

FAMILIES = Registry(
    "backbone family",
    "embedcache.backbones",
    {
        "clip": "embedcache.backbones.clip:describe",
        "clip_vision_model": "embedcache.backbones.clip:describe",
        "convnext": "embedcache.backbones.convnext:describe",
        "convnextv2": "embedcache.backbones.convnext:describe",
        "dinov2": "embedcache.backbones.dinov2:describe",
        "dinov2_with_registers": "embedcache.backbones.dinov2:describe",
        "dinov3_convnext": "embedcache.backbones.dinov3:describe_convnext",
        "dinov3_vit": "embedcache.backbones.dinov3:describe",
        "hiera": "embedcache.backbones.hiera:describe",
        "ijepa": "embedcache.backbones.vit:describe",
        "open_clip": "embedcache.backbones.open_clip:describe",
        "monai_swin_unetr": "embedcache.backbones.monai_swin_unetr:describe",
        "monai_vit": "embedcache.backbones.monai_vit:describe",
        "patches": "embedcache.backbones.patches:describe",
        "pixels": "embedcache.backbones.pixels:describe",
        "resnet": "embedcache.backbones.resnet:describe",
        "sam": "embedcache.backbones.sam:describe",
        "sam_vision_model": "embedcache.backbones.sam:describe",
        "siglip": "embedcache.backbones.siglip:describe",
        "siglip2": "embedcache.backbones.siglip:describe",
        "siglip2_vision_model": "embedcache.backbones.siglip:describe",
        "siglip_vision_model": "embedcache.backbones.siglip:describe",
        "swin": "embedcache.backbones.swin:describe",
        "swinv2": "embedcache.backbones.swin:describe",
        "timm": "embedcache.backbones.timm_models:describe",
        "vit": "embedcache.backbones.vit:describe",
        "vit_mae": "embedcache.backbones.vit:describe",
        "vit_msn": "embedcache.backbones.vit:describe",
    },
)
AS_TRAINED = VolumeOptions()
COMPUTE_DTYPES = ("float32", "bfloat16", "float16", "bfloat16-cast", "float16-cast")
"""bfloat16 and float16 are autocast over float32 weights: norms and softmax stay in float32. With `-cast` the weights
themselves have 16 bits, and so has everything else: half the memory, less exact."""
SHORT_DTYPES = MappingProxyType({"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"})
"""What users type for them; `bf16-cast` too."""
ATTENTIONS = ("sdpa", "eager")


class Backbone(Protocol):
    """A loaded frozen model."""

    @property
    def info(self) -> BackboneInfo:
        """What it was loaded from."""
        ...

    def tokens(self, x: "torch.Tensor", arrays: Sequence[ArraySpec]) -> "dict[str, torch.Tensor]":
        """The asked tokens of a batch `x` (n, 3, H, W) float32, by ArraySpec.path, each float32 on x's device.

        An encoder of whole volumes (`info.volume`) takes (n, 1, z, y, x), and its patch_tokens are (n, z, y, x, E).

        Shapes: (n, E) for cls_token, patch_mean and pooled, (n, y, x, E) for patch_tokens. Every layer, counted from 1,
        has passed through the model's own final norm (`info.norm` says where that can not be).
        """
        ...


def list_backbones() -> list[str]:
    """The families that there are, by the `model_type` of their `config.json`."""
    return FAMILIES.names()


def describe_backbone(
    name: str,
    *,
    revision: str | None = None,
    compute_dtype: str = "float32",
    attention: str = "sdpa",
    weights: str | None = None,
    tf32: bool = False,
    compiled: bool = False,
    preset: str = "default",
) -> BackboneInfo:
    """What is known of backbone `name` before its weights are loaded: a local folder, a hub name, `timm:` and the name of
    a model of timm, or `family:argument` for a family that has no files of its own (`pixels:32`).

    weights: a folder of carried weights (`weights pull`), where hub names are looked for first; None is
    `$EMBEDCACHE_WEIGHTS`, if that is set. preset: `paper` for what the study gave it.
    Imports no torch. Reads the weights once for their digest, which is then remembered beside them. Raises
    InputError for files that are absent or not reachable, UnknownNameError for a family that is not registered.
    """
    compute_dtype = compute_dtype_named(compute_dtype)
    if attention not in ATTENTIONS:
        raise suggest("attention implementation", attention, ATTENTIONS)
    if preset not in PRESETS:
        raise suggest("preset", preset, PRESETS)
    family, colon, argument = name.partition(":")
    with weights_in(weights):
        if colon and family not in OF_FAMILY and family in FAMILIES.names():
            info: BackboneInfo = FAMILIES.load(family)(argument, compute_dtype=compute_dtype, attention=attention)
        else:
            files = find_weights(name, revision)
            describe = FAMILIES.load(family_of(files.config))
            info = describe(files, compute_dtype=compute_dtype, attention=attention)
    if preset == "paper":
        info = as_in_paper(info)
    if not info.model.weights_digest:  # the floors have no weights, and compute nothing that these would change
        return info
    return replace(info, model=replace(info.model, tf32=tf32, compiled=compiled))


def family_of(config: Mapping[str, Any]) -> str:
    """The family of a configuration: its `model_type`, or whose form it has: timm's and open_clip's name no type."""
    if "model_type" not in config:
        return "timm" if "architecture" in config else "open_clip" if "model_cfg" in config else ""
    return str(config["model_type"])


def compute_dtype_named(text: str) -> str:
    """The compute dtype that a user named, as a recipe spells it: `bf16-cast` is `bfloat16-cast`. Raises UnknownNameError."""
    short, dash, rest = text.partition("-")
    name = SHORT_DTYPES.get(short, short) + dash + rest
    if name not in COMPUTE_DTYPES:
        raise suggest("compute dtype", text, COMPUTE_DTYPES)
    return name


def load_backbone(info: BackboneInfo, device: str = "cpu") -> Backbone:
    """The model of `info` in evaluation mode on `device` (`cpu`, `cuda`, `cuda:1`); imports torch here."""
    module, function = info.loader.split(":")
    try:
        load = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as e:
        raise MissingPackageError(
            f"running a backbone needs {e.name}: pip install 'embedcache[cpu]', or 'embedcache[gpu]' with a GPU."
        ) from e
    try:
        backbone: Backbone = load(info, device)
    except Exception as error:
        if why := why_unreadable(error):
            raise InputError(f"the weights of {info.name} {why}.") from None
        raise
    if is_adapted(info):
        from embedcache.backbones.precision import adapt  # torch, which the loader has imported

        adapt(backbone)
    return backbone


def asked_attention(model: ModelRecipe) -> str:
    """What a user asks for so that the recorded attention runs again; a family that has its own has no choice."""
    return model.attention if model.attention in ATTENTIONS else ATTENTIONS[0]


def recorded_name(model: ModelRecipe) -> str:
    """What a user types for a recorded backbone: its source, but `pixels:8` for `pixels-8`, a family that has no files."""
    family, dash, argument = model.source.partition(f"{model.family}-")
    if model.weights_digest or family or not dash:
        return model.source
    return f"{model.family}:{argument}"


def is_adapted(info: BackboneInfo) -> bool:
    """Whether the recipe asks for weights of 16 bits or compiled blocks, which `load_backbone` sees to for every family."""
    return info.model.compiled or info.model.compute_dtype.endswith("-cast")


def image_recipe(
    info: BackboneInfo,
    window: Window,
    fit: Fit = "squash",
    size: tuple[int, int] | None = None,
    plane: str = "stored",
    time: int = 0,
    view: int = 0,
    augmentation: Augmentation | None = None,
    volume: VolumeOptions = AS_TRAINED,
) -> ImageRecipe:
    """How stored pixels become the input of `info`: its own mean, standard deviation and, if none is given, size.

    augmentation: how `view` is drawn; of view 0, which is the whole slice, it is no part. volume: how a whole one is seen, by a
    backbone that takes those (`volume_recipe`); size, plane and augmentation are of slices.

    Raises InputError for a size that the patches do not divide, and under `fit=processor` for a size other than the
    processor's own crop, or a processor that does not resize bicubically.
    """
    if info.volume is not None:
        return volume_recipe(info, window, volume, fit, time, view)
    wanted = info.size if size is None else size
    if info.fixed_size and wanted != info.size:
        raise InputError(
            f"{info.name} takes {info.size[0]}x{info.size[1]} only. Got size {wanted[0]}x{wanted[1]}; extract it in a run "
            "of its own, without a size."
        )
    info.grid(wanted)
    if fit == "processor" and wanted != info.size:
        raise InputError(
            f"fit=processor is {info.name}'s own {info.size[0]}x{info.size[1]} crop. Got size "
            f"{wanted[0]}x{wanted[1]}; leave the size out, or use fit=squash or fit=pad."
        )
    if fit == "processor" and view:
        raise InputError("a view is a crop of its own, and fit=processor another; use fit=squash or fit=pad for views.")
    if fit == "processor" and info.processor.get("resample") != 3:
        raise InputError(f"{info.name}'s processor does not resize bicubically and crop; use fit=squash or fit=pad.")
    return ImageRecipe(
        window=window,
        size=wanted,
        mean=info.mean,
        std=info.std,
        fit=fit,
        resize=info.resize,
        processor=info.processor if fit == "processor" else {},
        plane=plane,
        time=time,
        view=view,
        augmentation=augmentation if view else None,
    )
