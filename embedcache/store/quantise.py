"""Patch tokens as int8: one scale a token, symmetric, quantised with the scale as it is stored (FORMAT.md, section 4)."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.types import ArraySpec

STEPS = 127
"""Codes run from -127 to 127; -128 is never used, so that a sign can be turned."""

_NORMAL, _LEAST = 2.0**-14, 2.0**-24
"""The least float16 that keeps all its bits, and the least above 0, which is the step between those below the first."""


def quantise(tokens: Any, xp: Any) -> tuple[Any, Any]:
    """Codes (…, feature) int8 and scales (…) float16 of float32 tokens (…, feature).

    xp: the module of the array, numpy or torch: both give the same bits, on every device, since each step is rounded as
    IEEE 754 says (hence a product with 1/127: torch divides by a plain number as CUDA finds best). The greatest value of a
    token gets code 127 or -127, so the error is at most half a scale, and up to .56 where the rounding of the scale pushes
    the greatest value outwards; a scale below 2^-14, which has few bits, is rounded up. A token with NaN or infinity, or too
    large for a float16 scale, has a scale that is not finite: the caller's to refuse. One below 4e-6 everywhere becomes zero.
    """
    greatest = xp.amax(xp.abs(tokens), axis=-1, keepdims=True)
    with np.errstate(over="ignore", invalid="ignore"):  # the scale shows it
        exact = greatest * (1 / STEPS)
        scale = xp.asarray(exact, dtype=xp.float16)
        rounded = xp.asarray(scale, dtype=xp.float32)
        # a scale of few bits is rounded up: cut off by the half of one, the greatest values would be far from theirs
        low = (rounded < exact) & (rounded < _NORMAL) & (rounded > 0)
        scale = xp.asarray(rounded + xp.asarray(low, dtype=xp.float32) * _LEAST, dtype=xp.float16)
        divisor = xp.asarray(scale, dtype=xp.float32)
        codes = xp.round(tokens / xp.where(divisor == 0, xp.ones_like(divisor), divisor))
        codes = xp.asarray(xp.clip(codes, -STEPS, STEPS), dtype=xp.int8)
    return codes, scale[..., 0]


def dequantise(
    codes: npt.NDArray[np.int8], scale: npt.NDArray[np.float16], out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """The tokens (…, feature) that codes (…, feature) and scales (…) stand for; exact in float32."""
    product: npt.NDArray[np.float32] = np.multiply(codes, scale[..., None], out=out, dtype=np.float32)
    return product


def int8_arrays(layer: int, shape: tuple[int, ...]) -> tuple[ArraySpec, ArraySpec]:
    """The two arrays that hold a layer's patch tokens, (y, x, feature) = `shape` a row, as int8."""
    return (
        ArraySpec(layer, "patch_tokens_int8", "int8", shape),
        ArraySpec(layer, "patch_scale", "float16", shape[:-1]),
    )


def float_arrays(arrays: Iterable[ArraySpec]) -> tuple[ArraySpec, ...]:
    """What a backbone must compute so that `arrays` can be stored: the tokens themselves where codes are."""
    found = []
    for spec in arrays:
        if spec.kind == "patch_tokens_int8":
            found.append(ArraySpec(spec.layer, "patch_tokens", "float32", spec.shape))
        elif spec.kind != "patch_scale":
            found.append(spec)
    return tuple(dict.fromkeys(found))
