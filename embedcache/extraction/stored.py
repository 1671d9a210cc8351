"""From what a backbone computed to what is stored: rounded on the device, and refused where it does not fit. Imports torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch

from embedcache.errors import TokenOverflowError
from embedcache.store.quantise import quantise
from embedcache.types import ArraySpec


@dataclass(frozen=True)
class Sent:
    """A batch's values on their way to main memory: a GPU computes and copies them while something else is done here."""

    parts: tuple["_Part", ...]
    backbone: str
    copied: torch.cuda.Event | None
    """Recorded behind the copies; None where there is nothing to wait for."""

    def arrived(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """(array path, values in the stored dtype), when all are there. Raises TokenOverflowError as `stored_tokens`."""
        if self.copied is not None:
            self.copied.synchronize()
        for part in self.parts:
            if not bool(part.finite):
                raise TokenOverflowError(
                    f"{part.source} of {self.backbone} holds {part.refused}; "
                    "extract with --dtype float32, or another --compute-dtype if that does not help."
                )
            yield from ((path, values.numpy()) for path, values in part.values)


@dataclass(frozen=True)
class _Part:
    """What is stored of one array of tokens."""

    source: str
    values: tuple[tuple[str, torch.Tensor], ...]
    """By the path of the array that they go to."""
    finite: torch.Tensor
    """One boolean: whether the stored dtype holds them all."""
    refused: str
    """What there is where it does not."""


def stored_tokens(
    tokens: Mapping[str, torch.Tensor], places: torch.Tensor | slice, arrays: Sequence[ArraySpec], backbone: str
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """(array path, its values at `places` of the batch) in the stored dtype, for each of `arrays`.

    tokens: of the whole batch, by path, of `float_arrays(arrays)`. Raises TokenOverflowError, naming the layer, for NaN and
    for what the stored dtype can not hold.
    """
    return send_tokens(tokens, places, arrays, backbone).arrived()


def send_tokens(
    tokens: Mapping[str, torch.Tensor], places: torch.Tensor | slice, arrays: Sequence[ArraySpec], backbone: str
) -> Sent:
    """As `stored_tokens`, without waiting for the device. `tokens` must not be written to before they have arrived."""
    parts = []
    for spec in arrays:
        if spec.kind == "patch_scale":
            continue  # comes with its codes
        if spec.kind == "patch_tokens_int8":
            source = ArraySpec(spec.layer, "patch_tokens", "float32", spec.shape).path
            codes, scale = quantise(tokens[source][places].float(), torch)
            scale_path = ArraySpec(spec.layer, "patch_scale", "float16", spec.shape[:-1]).path
            values, shown = [(spec.path, codes), (scale_path, scale)], scale
            refused = "NaN, or values that int8 with a float16 scale can not"
        else:
            source, shown = spec.path, tokens[spec.path][places].to(getattr(torch, spec.dtype))
            values, refused = [(spec.path, shown)], f"values that {spec.dtype} can not, or NaN"
        finite = torch.isfinite(shown).all()
        parts.append(_Part(source, tuple((path, _to_host(v)) for path, v in values), _to_host(finite), refused))
    copied = None
    if any(value.is_cuda for value in tokens.values()):
        # waiting for it leaves the core to others; a bare event would spin
        copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(next(iter(tokens.values())).device))
    return Sent(tuple(parts), backbone, copied)


def _to_host(values: torch.Tensor) -> torch.Tensor:
    """In main memory; from a GPU into pinned memory, there once the work that is queued so far is done."""
    if not values.is_cuda:
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)
