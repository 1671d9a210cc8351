"""Attention on a device: the same lines as in numpy, run by torch. Imported only where a device is asked for."""

from typing import Any

import numpy as np
import torch

from embedcache.probes.attention_work import Work
from embedcache.probes.base import Sizes
from embedcache.probes.on_torch import check_device


def work_on(device: str) -> Work:
    """Arrays and bags on `device`, as torch calls it. Raises InputError if torch does not know or have it."""
    check_device(device)

    class BagsOnDevice:
        """As `Bags`, each bag padded to the longest one: gathers and sums that run in a fixed order on a GPU too."""

        def __init__(self, sizes: Sizes) -> None:
            self.single = bool((sizes == 1).all())
            place = np.arange(sizes.max(initial=1))[None, :]
            index = np.where(place < sizes[:, None], (np.cumsum(sizes) - sizes)[:, None] + place, sizes.sum())
            self.index = torch.from_numpy(index).to(device)
            self.of_row = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)).to(device)

        def _padded(self, values: Any, by: float) -> Any:
            return torch.cat([values, values.new_full((1, *values.shape[1:]), by)])[self.index]

        def sums(self, values: Any) -> Any:
            return values if self.single else self._padded(values, 0.0).sum(dim=1)

        def spread(self, values: Any) -> Any:
            return values if self.single else values[self.of_row]

        def softmax(self, values: Any) -> Any:
            highest = values if self.single else self._padded(values, -torch.inf).amax(dim=1)
            shares = torch.exp(values - self.spread(highest))
            return shares / self.spread(self.sums(shares))

    return Work(
        torch,
        lambda values: torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device),
        lambda values: values.cpu().numpy(),
        BagsOnDevice,
        f"torch {torch.__version__} on {device}",
    )
