"""From what a backbone computed to what is stored: rounded on the device, and refused where it does not fit. Imports torch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import torch

from embedcache.errors import TokenOverflowError
from embedcache.store.quantise import quantise
from embedcache.types import ArraySpec


def stored_tokens(
    tokens: Mapping[str, torch.Tensor], places: torch.Tensor, arrays: Sequence[ArraySpec], backbone: str
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """(array path, its values at `places` of the batch) in the stored dtype, for each of `arrays`.

    tokens: of the whole batch, by path, of `float_arrays(arrays)`. Raises TokenOverflowError, naming the layer, for NaN and
    for what the stored dtype can not hold.
    """
    for spec in arrays:
        if spec.kind == "patch_scale":
            continue  # comes with its codes
        if spec.kind == "patch_tokens_int8":
            source = ArraySpec(spec.layer, "patch_tokens", "float32", spec.shape).path
            codes, scale = quantise(tokens[source][places].float(), torch)
            if not bool(torch.isfinite(scale).all()):
                raise TokenOverflowError(
                    f"{source} of {backbone} holds NaN, or values that int8 with a float16 scale can not; "
                    "extract with --dtype float32, or another --compute-dtype if that does not help."
                )
            yield spec.path, codes.cpu().numpy()
            yield ArraySpec(spec.layer, "patch_scale", "float16", spec.shape[:-1]).path, scale.cpu().numpy()
            continue
        stored = tokens[spec.path][places].to(getattr(torch, spec.dtype))
        if not bool(torch.isfinite(stored).all()):
            raise TokenOverflowError(
                f"{spec.path} of {backbone} holds values that {spec.dtype} can not, or NaN; "
                "extract with --dtype float32, or another --compute-dtype if that does not help."
            )
        yield spec.path, stored.cpu().numpy()
