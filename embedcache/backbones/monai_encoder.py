"""MONAI's encoders of volumes, run by their own forward pass on inputs that lie as (z, y, x). Imports torch.

A larger input than the model takes is seen in windows on its patch grid, whose tokens are averaged where windows overlap.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from embedcache.backbones.monai_config import Axes
from embedcache.backbones.precision import precision
from embedcache.errors import InputError
from embedcache.types import ArraySpec, BackboneInfo, Voxels

Output: TypeAlias = tuple[torch.Tensor | None, torch.Tensor]
"""Of one layer: CLS (n, E) or None, and the map of patches (n, E, and the model's own axes)."""
Layers: TypeAlias = Callable[[Any, torch.Tensor, Voxels], Sequence[Output]]
"""(model, input, patches of the last layer along the model's axes) → what every layer gives, the first one first, normed."""


@dataclass(frozen=True)
class MonaiEncoder:
    """A loaded encoder of volumes."""

    info: BackboneInfo
    model: torch.nn.Module
    """In evaluation mode, without gradients."""
    axes: Axes
    outputs: Layers
    layers: tuple[torch.nn.Module, ...] = field(default=())
    """Blocks that may be compiled."""

    @torch.inference_mode()
    def tokens(self, x: torch.Tensor, arrays: Sequence[ArraySpec]) -> dict[str, torch.Tensor]:
        """The asked tokens of `x` (n, 1, z, y, x), float32, by ArraySpec.path, on its device.

        Shapes: (n, E) for cls_token and patch_mean, (n, z, y, x, E) for patch_tokens. Layers count from 1. Raises InputError for
        an input that the model, or its windows, do not fit, and for a layer or kind that it has not.
        """
        size: Voxels = (int(x.shape[-3]), int(x.shape[-2]), int(x.shape[-1]))
        self._check(arrays, size)
        wanted = sorted({spec.layer for spec in arrays})
        sums = {layer: _Sum.over(self.info.grid(size, layer)) for layer in wanted}
        with precision(self.info, x.device):
            roi = self.roi(size)
            for start in window_starts(size, roi, self._steps(), self.info.volume.overlap if self.info.volume else 0.0):
                z, y, x_ = (slice(at, at + n) for at, n in zip(start, roi, strict=True))
                for layer, (cls, patches) in self._seen(x[..., z, y, x_], wanted).items():
                    place = tuple(at // n for at, n in zip(start, self.info.stages[layer - 1].along(3), strict=True))
                    sums[layer].add(cls, patches, place)
        return {spec.path: sums[spec.layer].kind(spec.kind) for spec in arrays}

    def roi(self, size: Voxels) -> Voxels:
        """What the model sees at once of an input of `size`."""
        volume = self.info.volume
        return size if volume is None or volume.roi is None else volume.roi

    def _check(self, arrays: Sequence[ArraySpec], size: Voxels) -> None:
        self.info.grid(size)
        if self.info.fixed_size and self.roi(size) == size != self.info.shape:
            raise InputError(f"{self.info.name} takes {self.info.shape} voxels (z, y, x) only. Got {size}.")
        for spec in arrays:
            if spec.kind not in self.info.kinds:
                raise InputError(f"{self.info.name} has no {spec.kind}; it has {', '.join(self.info.kinds)}.")
            if not 1 <= spec.layer <= self.info.layers:
                raise InputError(f"{self.info.name} has layers 1 to {self.info.layers}. Got {spec.layer}.")

    def _steps(self) -> Voxels:
        """Voxels along each axis that a patch of the coarsest layer has: windows begin at multiples of it."""
        z, y, x = (max(stage.along(3)[axis] for stage in self.info.stages) for axis in range(3))
        return z, y, x

    def _seen(self, window: torch.Tensor, wanted: Sequence[int]) -> dict[int, Output]:
        """The wanted layers' tokens of a window (n, 1, z, y, x): CLS, and patches (n, z, y, x, E), in float32."""
        grid = self.info.grid((window.shape[-3], window.shape[-2], window.shape[-1]))
        of_layers = self.outputs(self.model, to_model(window, self.axes), in_model(grid, self.axes))
        found: dict[int, Output] = {}
        for layer in wanted:
            cls, patches = of_layers[layer - 1]
            found[layer] = (None if cls is None else cls.float(), from_model(patches.float(), self.axes).movedim(1, -1))
        return found


@dataclass
class _Sum:
    """Tokens of windows on the grid of the whole input."""

    grid: Voxels
    counts: torch.Tensor
    patches: torch.Tensor | None = None
    cls: torch.Tensor | None = None
    windows: int = 0

    @classmethod
    def over(cls, grid: Voxels) -> "_Sum":
        return cls(grid, torch.zeros(grid))

    def add(self, cls: torch.Tensor | None, patches: torch.Tensor, place: tuple[int, ...]) -> None:
        """One window whose first patch lies at `place`."""
        if self.patches is None:
            shape = (len(patches), *self.grid, patches.shape[-1])
            self.patches = torch.zeros(shape, dtype=torch.float32, device=patches.device)
        z, y, x = (slice(at, at + n) for at, n in zip(place, patches.shape[1:4], strict=True))
        self.patches[:, z, y, x] += patches
        self.counts[z, y, x] += 1
        self.windows += 1
        if cls is not None:
            self.cls = cls.clone() if self.cls is None else self.cls + cls

    def kind(self, kind: str) -> torch.Tensor:
        """The means over windows, as a kind of token."""
        assert self.patches is not None
        if kind == "cls_token":
            assert self.cls is not None
            return self.cls / self.windows
        patches = self.patches / self.counts.to(self.patches.device)[..., None]
        return patches.mean(dim=(1, 2, 3)) if kind == "patch_mean" else patches


def window_starts(size: Voxels, roi: Voxels, steps: Voxels, overlap: float) -> Iterator[Voxels]:
    """Where windows of `roi` begin in an input of `size`: on the patch grid, sharing `overlap` or more, the last ends with it."""
    along = []
    for n, window, step in zip(size, roi, steps, strict=True):
        stride = max(step, int(window * (1 - overlap)) // step * step)
        along.append([*range(0, n - window, stride), n - window])
    yield from itertools.product(along[0], along[1], along[2])


# --- axes -----------------------------------------------------------------------------------------


def to_model(x: torch.Tensor, axes: Axes) -> torch.Tensor:
    """(n, C, z, y, x) with the model's own axes."""
    flipped = x.flip([axis + 2 for axis in range(3) if axes.flipped[axis]])
    back = [axes.source.index(axis) + 2 for axis in range(3)]
    return flipped.permute(0, 1, *back).contiguous()


def from_model(maps: torch.Tensor, axes: Axes) -> torch.Tensor:
    """(n, E, and the model's own axes) as (n, E, z, y, x)."""
    turned = maps.permute(0, 1, *(axis + 2 for axis in axes.source))
    return turned.flip([axis + 2 for axis in range(3) if axes.flipped[axis]])


def in_model(numbers: Voxels, axes: Axes) -> Voxels:
    """Numbers along (z, y, x), along the model's axes."""
    first, second, third = (numbers[axes.source.index(axis)] for axis in range(3))
    return first, second, third


# --- what the two architectures give --------------------------------------------------------------


def vit_layers(model: Any, x: torch.Tensor, grid: Voxels) -> list[Output]:
    """Every block of MONAI's ViT through its final norm."""
    _, hidden = model(x)
    found: list[Output] = []
    for state in hidden:
        normed = model.norm(state)
        cls, patches = (normed[:, 0], normed[:, 1:]) if model.classification else (None, normed)
        found.append((cls, patches.transpose(1, 2).unflatten(2, grid)))
    return found


def swin_layers(model: Any, x: torch.Tensor, grid: Voxels) -> list[Output]:
    """Every stage of MONAI's Swin transformer, normalised; the patch embedding, which comes before them, is none."""
    return [(None, maps) for maps in model(x, True)[1:]]
