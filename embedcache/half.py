"""float16 as float32, exactly, in a quarter of the time that numpy takes: numpy converts number by number, this whole blocks.

A float16 moved into a float32's bits, sign to sign and exponent to exponent, is 2^112 times too small (the exponents' biases
differ by 112), subnormals too. What is left is to multiply, and to see to infinities and NaN, which that makes large numbers of.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK_VALUES = 1 << 17
"""Converted at a time: 256 kB in, 512 kB out, which stay in a core's cache between the steps."""
_SIGN_AND_REST = np.uint32(0x8FFFE000)
"""The bits of a sign-extended float16 that are left when it has been shifted to where a float32 has them."""
_BIAS = np.float32(2.0**112)
_TOO_LARGE = np.float32(2.0**16)
"""No float16 is so large; what becomes so was infinite or not a number."""


def widened(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`values` as they are, or float32 of the same shape if they are float16."""
    if values.dtype.type is not np.float16:
        return values
    out = np.empty(values.shape, dtype=np.float32)
    widen(out, values)
    return out


def widen(out: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
    """Write values (n, …) of any float type into out (n, …), float32; float16 quickly."""
    if values.dtype.type is not np.float16 or not values.size:
        np.copyto(out, values)
        return
    step = max(1, _BLOCK_VALUES // max(1, values[:1].size))
    for start in range(0, len(values), step):
        _widen(out[start : start + step], values[start : start + step])


def _widen(out: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
    bits = out.view(np.uint32)
    np.copyto(bits.view(np.int32), values.astype(values.dtype.newbyteorder("="), copy=False).view(np.int16))
    bits <<= 13
    bits &= _SIGN_AND_REST
    out *= _BIAS
    if out.max() >= _TOO_LARGE or out.min() <= -_TOO_LARGE:
        np.copyto(out, values)
