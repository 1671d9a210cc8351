"""A `Place` and `linear_heads` on a device: the same lines, run by torch. In this room only this file, `attention_on_torch`
and `by_torch` import torch, and all are imported only where a device is asked for.
"""

from typing import Any

import numpy as np
import torch

from embedcache.errors import InputError
from embedcache.probes.linear_heads import Block, Heads
from embedcache.probes.place import FLOAT64, Place


def place_on(device: str) -> Place:
    """The place that `device` is, as torch calls it. Raises InputError if torch does not know it, or if it has no float64."""
    check_device(device, torch.float64)

    class OnDevice(Place):
        xp: Any = torch
        # a device idles between small products; `Rows.blocks` bounds them for their digits' sake
        block_values = 1 << 27
        fits_at_once = True

        def load(self, values: Any) -> Any:
            # One transfer, as stored. What is not pinned has been read when the call returns, so that nobody has to wait.
            return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)

        def unload(self, values: Any) -> Any:
            return values.to(torch.float64).cpu().numpy()

        def zeros(self, shape: tuple[int, ...], dtype: Any = FLOAT64) -> Any:
            return torch.zeros(shape, dtype=_DTYPES[dtype.name], device=device)

        def cast(self, values: Any, dtype: Any) -> Any:
            return values.to(_DTYPES[dtype.name])

        def turned(self, values: Any) -> Any:
            return values.T.contiguous()

        def precision(self, values: Any) -> Any:
            return np.dtype(np.float64 if values.dtype is torch.float64 else np.float32)

        def factor(self, matrix: Any) -> Any:
            found, broken = torch.linalg.cholesky_ex(matrix)
            return None if int(broken) else found

        def solved(self, factor: Any, right: Any) -> Any:
            return torch.cholesky_solve(right, factor)

    return OnDevice()


def heads_on(device: str) -> type[Heads]:
    """The class whose heads are trained on `device`. Raises InputError if torch does not know or have it."""
    check_device(device)

    class HeadsOnDevice(Heads):
        xp: Any = torch

        @classmethod
        def hold(cls, X: Any) -> Any:
            return torch.from_numpy(np.ascontiguousarray(X)).to(device)

        @classmethod
        def load(cls, values: Any) -> Any:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        @classmethod
        def unload(cls, values: Any) -> Any:
            return values.cpu().numpy()

        @classmethod
        def spare(cls, weights: Any) -> Any:
            return None

        def take(self, rows: Any, columns: slice) -> Any:
            return self.X[:, columns][rows].to(torch.float32)

        def move(self, block: Block, x: Any, slope: Any, pace: float) -> None:
            block.velocity.addmm_(x, slope)
            block.weights.add_(block.velocity, alpha=-pace)

    return HeadsOnDevice


def check_device(device: str, dtype: torch.dtype = torch.float32) -> None:
    """Raises InputError if torch does not know or have it, or if it does not have numbers of that dtype."""
    try:
        torch.empty(1, device=device, dtype=dtype)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device {device!r}: {str(error).splitlines()[0]}; take cpu, or what torch has.") from None


_DTYPES = {"float32": torch.float32, "float64": torch.float64}
