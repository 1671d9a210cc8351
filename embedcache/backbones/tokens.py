"""From a layer's normed tokens to the kinds that are stored, and the check of what is asked. Imports torch."""

from collections.abc import Sequence

import torch

from embedcache.errors import InputError
from embedcache.types import ArraySpec, BackboneInfo


def check_asked(info: BackboneInfo, arrays: Sequence[ArraySpec], size: tuple[int, int]) -> None:
    """Raises InputError for a size, a kind or a layer that the backbone has not."""
    info.grid(size)
    if info.fixed_size and size != info.size:
        raise InputError(f"{info.name} takes {info.size[0]}x{info.size[1]} only. Got {size[0]}x{size[1]}.")
    for spec in arrays:
        if spec.kind not in info.kinds:
            raise InputError(f"{info.name} has no {spec.kind}; it has {', '.join(info.kinds)}.")
        if not 1 <= spec.layer <= info.layers and spec.kind != "pooled":
            raise InputError(f"{info.name} has layers 1 to {info.layers}. Got {spec.layer}.")


def select(tokens: torch.Tensor, spec: ArraySpec, info: BackboneInfo, size: tuple[int, int]) -> torch.Tensor:
    """Of a layer's tokens (n, CLS + registers + patches, E) at an input of `size`, the asked kind, in float32."""
    tokens = tokens.float()  # a 16-bit run's norm may yield 16 bits; means are always taken in float32
    if spec.kind == "cls_token":
        return tokens[:, 0]
    patches = tokens[:, ("cls_token" in info.kinds) + info.registers :]
    if spec.kind == "patch_mean":
        return patches.mean(dim=1)
    return patches.reshape(len(patches), *info.grid(size, spec.layer), -1)
