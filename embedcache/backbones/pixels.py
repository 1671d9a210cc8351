"""The floor of every comparison: the pixels themselves, `pixels:32` being 32x32 grey values as one vector.

A backbone that does not beat its own input, shrunk, has learned nothing that the task needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedcache.errors import InputError
from embedcache.types import ArraySpec, BackboneInfo, ModelRecipe, Stage

if TYPE_CHECKING:
    import torch

MAX_SIDE = 256


def describe(side: str, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """`pixels:<side>`: slices windowed and resized like any backbone's input, then kept as they are, in float32.

    compute_dtype and attention decide nothing here. Raises InputError if the side is no number from 1 to 256.
    """
    if not side.isdigit() or not 1 <= int(side) <= MAX_SIDE:
        raise InputError(f"pixels takes a side from 1 to {MAX_SIDE}, as in pixels:32. Got pixels:{side}.")
    n = int(side)
    return BackboneInfo(
        name=f"pixels:{n}",
        folder="",
        family="pixels",
        model=ModelRecipe("pixels", f"pixels-{n}", "", "", attention="none", position_interpolation="none"),
        stages=(Stage(n * n, n),),
        registers=0,
        size=(n, n),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        processor={},
        kinds=("cls_token",),
        norm="none: they are pixels",
        loader="embedcache.backbones.pixels:load",
        fixed_size=True,
    )


@dataclass(frozen=True)
class Pixels:
    """A backbone without weights."""

    info: BackboneInfo

    def tokens(self, x: "torch.Tensor", arrays: Sequence[ArraySpec]) -> "dict[str, torch.Tensor]":
        """`cls_token`: the mean over channels of each pixel, row by row, (n, side * side). Raises InputError for another size."""
        from embedcache.backbones.tokens import check_asked  # torch, which describing does without

        check_asked(self.info, arrays, (int(x.shape[-2]), int(x.shape[-1])))
        return {spec.path: x.mean(dim=1).flatten(1) for spec in arrays}


def load(info: BackboneInfo, device: str = "cpu") -> Pixels:
    """Nothing to load; `device` is where the batches lie anyway."""
    return Pixels(info)
