"""The precision of a forward pass, as the recipe says. Imports torch."""

import contextlib

import torch

from embedcache.types import BackboneInfo


def precision(info: BackboneInfo, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Within it products run in the recipe's compute dtype: autocast over float32 weights, or nothing for float32."""
    dtype = getattr(torch, info.model.compute_dtype)
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)
