"""What attention is computed with: numpy, or torch where a device is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.probes.bags import Bags
from embedcache.probes.base import Sizes
from embedcache.probes.place import torch_there


@dataclass(frozen=True)
class Work:
    """A module of array functions, and how arrays come there and back."""

    xp: Any
    load: Callable[[Any], Any]
    """From numpy, as float32."""
    unload: Callable[[Any], Any]
    """To numpy."""
    bags: Callable[[Sizes], Any]
    name: str
    """Module, version and device, for a result."""


IN_NUMPY = Work(
    np, lambda values: np.ascontiguousarray(values, dtype=np.float32), np.asarray, Bags.of, f"numpy {np.__version__}"
)


def work_for(device: str) -> Work:
    """`cpu` is numpy; anything else is asked of torch. Raises InputError if torch does not know or have it."""
    if device == "cpu":
        return IN_NUMPY
    torch_there(device)
    from embedcache.probes.attention_on_torch import work_on

    return work_on(device)
