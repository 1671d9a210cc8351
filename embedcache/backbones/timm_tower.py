"""A model of timm, built from its configuration, and one forward pass of it that keeps the layers that are asked for.

Only timm's public interface is used: `create_model`, `forward_intermediates`, `forward_features` and `forward_head`.
Imports torch and timm.
"""

import dataclasses
import difflib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

import torch

from embedcache.backbones.timm_models import Request, Shape
from embedcache.backbones.torchvision_pair import complete_torchvision
from embedcache.errors import InputError

complete_torchvision()
import timm  # noqa: E402 it imports torchvision
from timm.models import PretrainedCfg  # noqa: E402


def build(
    request: Request, options: Mapping[str, Any] | None, state_dict: Mapping[str, torch.Tensor] | None = None
) -> torch.nn.Module:
    """The model that a configuration describes, in evaluation mode; with the weights of `state_dict`, if there are any.

    options: more arguments of its constructor. timm's own loading maps the names that older checkpoints use. Raises
    InputError for an architecture that this version of timm has not, or arguments that it does not take.
    """
    name = request.architecture.partition(".")[0]
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; a later version may."
        raise InputError(f"timm {timm.__version__} has no architecture {name}{hint}")
    fields = {field.name for field in dataclasses.fields(PretrainedCfg)}
    own = {key: value for key, value in request.pretrained_cfg.items() if key in fields}
    weights = {} if state_dict is None else {"state_dict": dict(state_dict)}
    try:
        model: torch.nn.Module = timm.create_model(
            name if own else request.architecture,
            pretrained=state_dict is not None,
            pretrained_cfg={**own, **weights} if own else None,
            pretrained_cfg_overlay={} if own else {**request.overlay, **weights},
            **{**request.model_args, **(options or {})},
        )
    except TypeError as e:
        raise InputError(f"timm {timm.__version__} can not build {name} from its config.json: {e}.") from None
    return model.eval().requires_grad_(False)


def intermediates(
    model: torch.nn.Module, x: torch.Tensor, norm: bool, indices: list[int] | None = None, *, only: bool = False
) -> tuple[torch.Tensor | None, list[torch.Tensor], list[torch.Tensor]]:
    """What the classifier's head would see, the maps (n, E, y, x) of the layers `indices` (None: all), and the prefix tokens
    (n, prefix, E) beside each; no prefix tokens where the model does not give them.

    only: stop behind the deepest of them; then there is nothing for the head.
    """
    options: dict[str, Any] = {"indices": indices, "norm": norm, "output_fmt": "NCHW"}
    has_prefix = bool(getattr(model, "num_prefix_tokens", 0))
    if has_prefix and "return_prefix_tokens" in inspect.signature(model.forward_intermediates).parameters:  # type: ignore[arg-type]
        options["return_prefix_tokens"] = True
    found = model.forward_intermediates(x, **options, stop_early=only, intermediates_only=only)  # type: ignore[operator]
    final, layers = (None, found) if only else found
    maps = [layer[0] if isinstance(layer, tuple) else layer for layer in layers]
    return final, maps, [layer[1] for layer in layers if isinstance(layer, tuple)]


def flattened(grid: torch.Tensor) -> torch.Tensor:
    """(n, patches, E), row by row, of a map (n, E, y, x)."""
    return grid.flatten(2).transpose(1, 2)


def as_tokens(model: torch.nn.Module, final: torch.Tensor) -> torch.Tensor:
    """(n, prefix + patches, E), patches row by row, of what the model's head sees: tokens, or a map in its own layout."""
    if final.ndim == 3:
        return final
    return final.flatten(1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else flattened(final)


class TimmTower(torch.nn.Module):
    """A model of timm whose forward pass yields the layers that are asked for."""

    def __init__(self, trunk: torch.nn.Module, shape: Shape, head: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = torch.nn.Identity() if head is None else head
        self.shape = shape

    def forward(self, x: torch.Tensor, wanted: Collection[int]) -> dict[int, torch.Tensor]:
        """Layer → (n, prefix + patches, E), counted from 1; 0 → the pooled vector (n, P). By one forward pass."""
        last = len(self.shape.stages)
        indices = sorted(layer - 1 for layer in wanted if 0 < layer < last)
        to_the_end = 0 in wanted or last in wanted
        if indices:
            final, maps, prefixes = intermediates(self.trunk, x, self.shape.norm, indices, only=not to_the_end)
        else:
            final, maps, prefixes = self.trunk.forward_features(x), [], []  # type: ignore[operator]
        found = {
            index + 1: torch.cat([*prefixes[i : i + 1], flattened(maps[i])], dim=1) for i, index in enumerate(indices)
        }
        if last in wanted and final is not None:
            stride = self.shape.stages[-1][1]
            patches = (x.shape[-2] // stride) * (x.shape[-1] // stride)
            found[last] = as_tokens(self.trunk, final)[:, -(patches + self.shape.prefix) :]
        if 0 in wanted:
            found[0] = self.head(self.trunk.forward_head(final, pre_logits=True))  # type: ignore[operator]
        return found
