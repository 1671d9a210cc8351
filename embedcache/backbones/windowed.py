"""Stored pixels as they are to be seen, in [0, 1]: rescaled, windowed and turned over in torch, slice by slice."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embedcache.types import FloatArray, Volume

PIXELS_AT_ONCE = 1 << 22
"""Slices are taken in groups of about this many pixels, so that a long volume needs 16 MiB a step, not gigabytes."""
EXACT_IN_FLOAT32 = ("b1", "u1", "i1", "u2", "i2", "f2", "f4")
"""Stored dtypes whose every value is a float32; wider ones are calibrated and windowed in float64 (torch on the CPU
and on CUDA has both), then rounded."""


def groups(pixels: npt.NDArray[Any]) -> Iterator[slice]:
    """The slices of `pixels` (n, y, x[, 3]) in groups that are worked on at once."""
    step = max(1, PIXELS_AT_ONCE // max(1, pixels[0].size)) if len(pixels) else 1
    for start in range(0, len(pixels), step):
        yield slice(start, min(start + step, len(pixels)))


def windowed(volume: Volume, limits: FloatArray, rows: slice, device: torch.device) -> torch.Tensor:
    """Slices as they are to be seen, in [0, 1]: (n, 1 or 3, y, x) float32."""
    calibration = volume.calibration
    stored = volume.pixels[rows]
    wide = stored.dtype.str[1:] not in EXACT_IN_FLOAT32
    dtype = torch.float64 if wide else torch.float32

    ends: FloatArray = limits[rows].astype(np.float64 if wide else np.float32)
    # in the pixels' own precision: a window that is narrower than it is as good as constant
    low, span = ends[..., 0], ends[..., 1] - ends[..., 0]
    rescaled = bool(np.any(calibration.slope[rows] != 1) or np.any(calibration.intercept[rows] != 0))
    linear = (calibration.slope[rows, None], calibration.intercept[rows, None]) if rescaled else ()
    # all in one transfer: a GPU is waited for at each
    numbers = torch.tensor(np.concatenate([low, span, *linear], axis=1, dtype=np.float64), dtype=dtype, device=device)
    channels = low.shape[1]
    each = torch.split(numbers[..., None, None], [channels, channels, 1, 1][: 4 if rescaled else 2], dim=1)
    # first to the device, then to floats: the transfer carries the stored bytes. The copy is ours to work in
    value = _tensor(stored).to(device).to(dtype, copy=True)
    value = value.unsqueeze(1) if value.ndim == 3 else value.movedim(3, 1).contiguous()
    black = _black(value, span, stored.dtype.kind == "f", calibration.padding)
    if channels > value.shape[1]:
        value = value.repeat(1, channels, 1, 1)
    if rescaled:
        value.mul_(each[2]).add_(each[3])
    value.sub_(each[0]).div_(each[1]).clamp_(0, 1)
    if calibration.invert:
        value.neg_().add_(1)
    for mask in black:
        value.masked_fill_(mask, 0)
    return value.float()


def _black(
    stored: torch.Tensor, span: FloatArray, may_be_nan: bool, padding: tuple[float, float] | None
) -> list[torch.Tensor]:
    """Masks, broadcastable to (n, channels, y, x), of what has no value to show; none in the common case."""
    masks = []
    if may_be_nan:
        masks.append(~stored.isfinite())
    if padding is not None:
        masks.append((stored >= padding[0]) & (stored <= padding[1]))
    constant = ~(span > 0)
    if constant.any():
        masks.append(torch.from_numpy(constant).to(stored.device).unsqueeze(-1).unsqueeze(-1))
    return masks


def _tensor(stored: npt.NDArray[Any]) -> torch.Tensor:
    """The array as a tensor in its own dtype; copied only where torch needs it (byte order, strides, read-only)."""
    if not stored.dtype.isnative:
        stored = stored.astype(stored.dtype.newbyteorder("="))
    stored = np.require(stored, requirements=["C", "W"])
    return torch.from_numpy(stored)
