"""`rows` and `linear_heads` on a device: the same lines, run by torch. In this room only this file, `attention_on_torch`
and `by_torch` import torch, and all are imported only where a device is asked for.
"""

from typing import Any

import numpy as np
import torch

from embedcache.errors import InputError
from embedcache.probes.linear_heads import Block, Heads
from embedcache.probes.rows import Rows


def rows_on(device: str) -> type[Rows]:
    """The class whose rows work on `device`, as torch calls it. Raises InputError if torch does not know or have it."""
    _check(device)

    class RowsOnDevice(Rows):
        xp: Any = torch

        def load(self, values: Any) -> Any:
            made = torch.from_numpy(np.ascontiguousarray(values))
            return made.to(device=device, dtype=_DTYPES[self.dtype.name])

        def turned(self, scores: Any) -> Any:
            return scores.T.contiguous()

        def unload(self, values: Any) -> Any:
            return values.to(dtype=torch.float64, device="cpu").numpy()

        def hold(self, X: Any) -> Any:
            """On the device as it is stored, float16 too: there is room for it where there is a device."""
            return torch.from_numpy(np.ascontiguousarray(X)).to(device)

        def take(self, rows: slice) -> Any:
            block = self.held[rows].to(_DTYPES[self.dtype.name])
            return block if self._shift is None else block - self._shift

    return RowsOnDevice


def heads_on(device: str) -> type[Heads]:
    """The class whose heads are trained on `device`. Raises InputError as `rows_on`."""
    _check(device)

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


def _check(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r}: {str(error).splitlines()[0]}; take cpu, or what torch has.") from None


_DTYPES = {"float32": torch.float32, "float64": torch.float64}
