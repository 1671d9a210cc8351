"""What timm's code makes of a configuration: layers, widths, strides, tokens, positions. Imports torch and timm.

The model is built on the meta device, where weights have shapes and no bytes, and run there. As a program it reads a request
from standard input and writes the answer as one line of JSON: `timm_models` starts it so, and remembers what it says.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from typing import Any

import torch

from embedcache.backbones.timm_models import Request, Shape
from embedcache.backbones.timm_tower import as_tokens, build, intermediates
from embedcache.errors import EmbedcacheError, InputError

import timm  # isort: skip  # behind timm_tower, which makes it importable beside a torch without CUDA

FREE_SIZE: tuple[Mapping[str, Any], ...] = ({}, {"dynamic_img_size": True}, {"strict_img_size": False})
"""Arguments of a constructor that may let a model take other sizes than its own, the plainest first."""
ROUNDED_TO = (1, 32, 64)
"""Where its strides do not divide a model's own size, it is looked at with the next multiple of one of these."""
POSITIONS = (("pos_embed", "bicubic-antialias"), ("rel_pos_h", "linear-relative"))
"""Parameters that timm fits to another grid, and how."""
REFUSALS = (RuntimeError, AssertionError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError)
"""What models of timm raise for a size, or an option, that they do not take."""


def shape_of(request: Request) -> Shape:
    """What is known of a model before its weights are.

    Raises InputError for one whose layers timm does not show, or whose patches are no whole number of pixels.
    """
    model = on_meta(request, {})
    if not hasattr(model, "forward_intermediates"):
        raise InputError(
            f"timm {timm.__version__} does not show the layers of {request.architecture}, which is not supported."
        )
    data = timm.data.resolve_data_config({}, model=model)
    native = own_size(model, request, data)
    norm = can_norm(model, native)
    size, stages = stages_of(model, request, native, norm)
    final, maps, prefixes = forward(model, size, norm)
    if not isinstance(final, torch.Tensor) or final.ndim not in (3, 4):
        raise InputError(f"{request.architecture} is not supported: its features are no single grid of tokens.")
    tokens = as_tokens(model, final)
    patches = math.prod(maps[-1].shape[-2:])
    extra = tokens.shape[2] != maps[-1].shape[1]
    stages = (*stages, (tokens.shape[2], stages[-1][1])) if extra else stages
    prefix = tokens.shape[1] - patches if prefixes else 0
    class_token = prefix > 0 and getattr(model, "cls_token", None) is not None
    free_size = free_size_of(request, size, stages[: len(maps)], norm)
    return Shape(
        stages=stages,
        extra=extra,
        norm=norm,
        norm_words=words_of_norm(model, stages, norm),
        class_token=class_token,
        registers=prefix - class_token,
        pooled_size=pooled_size_of(model, final, patches, class_token),
        free_size=free_size,
        smallest_side=0 if free_size is None else smallest_side_of(request, size, stages[: len(maps)], norm, free_size),
        positions=positions_of(model, free_size),
        fused_attention=any(hasattr(module, "fused_attn") for module in model.modules()),
        channels_last=final.ndim == 4 and getattr(model, "output_fmt", "NCHW") == "NCHW" and not prefix,
        size=native,
        mean=tuple(float(v) for v in data["mean"]),
        std=tuple(float(v) for v in data["std"]),
        crop_pct=float(data["crop_pct"]),
        crop_mode=str(data["crop_mode"]),
        interpolation=str(data["interpolation"]),
        parameters=sum(p.numel() for p in model.parameters()),
    )


def on_meta(request: Request, options: Mapping[str, Any]) -> torch.nn.Module:
    """The model without a byte of weights."""
    with torch.device("meta"):
        return build(request, options)


@torch.inference_mode()
def forward(
    model: torch.nn.Module, size: tuple[int, int], norm: bool
) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """What the head sees, all maps, and the prefix tokens beside each, of one image of `size`; shapes only."""
    with torch.device("meta"):
        final, maps, prefixes = intermediates(model, torch.empty(1, 3, *size), norm)
    assert final is not None
    return final, maps, prefixes


def own_size(model: torch.nn.Module, request: Request, data: Mapping[str, Any]) -> tuple[int, int]:
    """The input size of the checkpoint: of a model of fixed size `model_args` decide, as in timm's own loading."""
    given = request.model_args.get("img_size")
    cfg: Any = model.pretrained_cfg
    if given is not None and cfg.get("fixed_input_size"):
        return (int(given), int(given)) if isinstance(given, int) else (int(given[0]), int(given[1]))
    return int(data["input_size"][1]), int(data["input_size"][2])


def can_norm(model: torch.nn.Module, size: tuple[int, int]) -> bool:
    """Whether timm's `norm=True` is a norm: some models have none to give, and SAM's would put its neck in its place."""
    try:
        normed = forward(model, size, True)[1]
    except REFUSALS:
        return False
    return [m.shape[1] for m in normed] == [m.shape[1] for m in forward(model, size, False)[1]]


def stages_of(
    model: torch.nn.Module, request: Request, native: tuple[int, int], norm: bool
) -> tuple[tuple[int, int], tuple[tuple[int, int], ...]]:
    """A size that all strides divide, and (width, stride) of each intermediate layer."""
    seen = "maps that are no images"
    for multiple in ROUNDED_TO:
        size = (math.ceil(native[0] / multiple) * multiple, math.ceil(native[1] / multiple) * multiple)
        try:
            maps = forward(model, size, norm)[1]
        except REFUSALS as e:
            seen = f"no layers ({e})"
            continue
        if all(is_divided(size, m) for m in maps):
            return size, tuple((m.shape[1], size[0] // m.shape[2]) for m in maps)
        seen = f"maps of {', '.join('x'.join(map(str, m.shape[2:])) for m in maps)} of {size[0]}x{size[1]} pixels"
    raise InputError(
        f"{request.architecture} is not supported: timm {timm.__version__} shows {seen}, and a patch must be a whole number of "
        "pixels."
    )


def is_divided(size: tuple[int, int], grid: torch.Tensor) -> bool:
    """Whether a map (n, E, y, x) cuts an input of `size` into squares of whole pixels."""
    strides = (
        {divmod(side, cells) for side, cells in zip(size, grid.shape[2:], strict=True)} if grid.ndim == 4 else set()
    )
    return len(strides) == 1 and all(rest == 0 for _, rest in strides)


def takes(
    request: Request, options: Mapping[str, Any], size: tuple[int, int], stages: tuple[tuple[int, int], ...], norm: bool
) -> bool:
    """Whether the model, built with `options`, takes an input of `size` and makes the same stages of it."""
    try:
        maps = forward(on_meta(request, options), size, norm)[1]
    except (*REFUSALS, EmbedcacheError):
        return False
    return [(m.shape[1], *m.shape[2:]) for m in maps] == [(w, size[0] // s, size[1] // s) for w, s in stages]


def free_size_of(
    request: Request, size: tuple[int, int], stages: tuple[tuple[int, int], ...], norm: bool
) -> Mapping[str, Any] | None:
    """Arguments with which the model takes a larger size of another shape; None where there are none.

    Windows that are shifted are a case of their own: timm's dynamic size keeps the shifts of the size that a model was built
    for, and a tiny Swin's tokens were .34 (relative L2) from those of the same weights built for the other size.
    """
    if any(hasattr(module, "shift_size") for module in on_meta(request, {}).modules()):
        return None
    step = max(stride for _, stride in stages)
    other = (size[0] + step, size[1] + 2 * step)
    return next((options for options in FREE_SIZE if takes(request, options, other, stages, norm)), None)


def smallest_side_of(
    request: Request,
    size: tuple[int, int],
    stages: tuple[tuple[int, int], ...],
    norm: bool,
    free_size: Mapping[str, Any],
) -> int:
    """0 where a single patch will do; the model's own size where it will not."""
    step = max(stride for _, stride in stages)
    return 0 if takes(request, free_size, (step, 2 * step), stages, norm) else min(size)


def pooled_size_of(model: torch.nn.Module, final: torch.Tensor, patches: int, class_token: bool) -> int:
    """Length of what the classifier's last layer sees; 0 where that is the class token or the mean patch.

    A head without weights computes on the meta model too: what it makes of random features shows which one it takes.
    """
    vector = seen_by_classifier(model, final)
    if vector is None:
        return 0
    features = torch.rand(final.shape, generator=torch.Generator().manual_seed(0))
    computed = seen_by_classifier(model, features)
    tokens = as_tokens(model, features)
    known = [tokens[:, -patches:].mean(dim=1), *([tokens[:, 0]] if class_token else [])]
    if computed is not None and any(v.shape == computed.shape and torch.allclose(v, computed) for v in known):
        return 0
    return vector.shape[1]


def seen_by_classifier(model: torch.nn.Module, features: torch.Tensor) -> torch.Tensor | None:
    """(n, P) on the features' own device; None where the head needs weights that are not there, or there is none."""
    try:
        with torch.inference_mode(), features.device:
            vector = model.forward_head(features, pre_logits=True)  # type: ignore[operator]
    except REFUSALS:
        return None
    is_vector = isinstance(vector, torch.Tensor) and vector.ndim == 2 and vector.device == features.device
    return vector if is_vector else None


def words_of_norm(model: torch.nn.Module, stages: tuple[tuple[int, int], ...], norm: bool) -> str:
    """What a stored layer has passed through."""
    if len(set(stages)) > 1:
        return "the last layer is what the classifier's pooling sees; earlier ones have no norm"
    if not norm or isinstance(getattr(model, "norm", None), torch.nn.Identity):
        return "none: the model's own norm follows its pooling"
    return "the model's final norm"


def positions_of(model: torch.nn.Module, free_size: Mapping[str, Any] | None) -> str:
    """How positions are fitted to another grid, by name; `none` where there is nothing to fit."""
    if free_size is None:
        return "none"
    names = [name.rpartition(".")[2] for name, _ in model.named_parameters()]
    found = [how for parameter, how in POSITIONS if parameter in names]
    rotary = any("RotaryEmbedding" in type(module).__name__ for module in model.modules())
    return "-".join(["timm", *found, *(["rope"] if rotary else [])]) if found or rotary else "none"


def main() -> None:
    """Answer the request on standard input."""
    document = json.load(sys.stdin)
    try:
        answer = dataclasses.asdict(shape_of(Request(**document)))
    except EmbedcacheError as e:
        answer = {"refused": str(e)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
