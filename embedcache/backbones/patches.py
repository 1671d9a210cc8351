"""The floor of segmentation: each patch's own pixels, `patches:14` being patches of 14x14 grey values.

A patch token that does not beat the pixels under it has learned nothing that they do not show.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedcache.errors import InputError
from embedcache.types import ArraySpec, BackboneInfo, ModelRecipe, Stage

if TYPE_CHECKING:
    import torch

MAX_SIDE = 64
GRID = 32
"""Patches per axis unless a size is asked for: 448 pixels at patch 14, as segmentation is done."""


def describe(side: str, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """`patches:<side>`: slices windowed and resized like any backbone's input, cut into patches, in float32.

    compute_dtype and attention decide nothing here. Raises InputError if the side is no number from 1 to 64.
    """
    if not side.isdigit() or not 1 <= int(side) <= MAX_SIDE:
        raise InputError(f"patches takes a side from 1 to {MAX_SIDE}, as in patches:14. Got patches:{side}.")
    n = int(side)
    return BackboneInfo(
        name=f"patches:{n}",
        folder="",
        family="patches",
        model=ModelRecipe("patches", f"patches-{n}", "", "", attention="none", position_interpolation="none"),
        stages=(Stage(n * n, n),),
        registers=0,
        size=(GRID * n, GRID * n),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        processor={},
        kinds=("patch_tokens",),
        norm="none: they are pixels",
        loader="embedcache.backbones.patches:load",
    )


@dataclass(frozen=True)
class Patches:
    """A backbone without weights."""

    info: BackboneInfo

    def tokens(self, x: "torch.Tensor", arrays: Sequence[ArraySpec]) -> "dict[str, torch.Tensor]":
        """`patch_tokens`: the mean over channels of a patch's pixels, row by row, (n, y, x, side * side)."""
        side = self.info.patch_size
        grid = self.info.grid((x.shape[-2], x.shape[-1]))
        cut = x.mean(dim=1).reshape(len(x), grid[0], side, grid[1], side)
        return {spec.path: cut.permute(0, 1, 3, 2, 4).flatten(3) for spec in arrays}


def load(info: BackboneInfo, device: str = "cpu") -> Patches:
    """Nothing to load; `device` is where the batches lie anyway."""
    return Patches(info)
