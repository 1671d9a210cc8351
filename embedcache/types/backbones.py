"""What is known of a backbone before its weights are loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from embedcache.errors import InputError
from embedcache.types.recipes import ModelRecipe, VolumeInput, Voxels
from embedcache.types.tokens import TokenKind


@dataclass(frozen=True)
class Stage:
    """One layer of a backbone."""

    width: int
    """Numbers in a token."""
    stride: int
    """Pixels of the input per patch and axis."""
    strides: tuple[int, ...] = ()
    """Of an encoder of volumes whose patches are no cubes: voxels per patch along (z, y, x)."""

    def along(self, axes: int) -> tuple[int, ...]:
        """Pixels or voxels per patch along each of so many axes."""
        return self.strides or (self.stride,) * axes


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of a backbone before its weights are loaded (from its configuration files alone, no torch)."""

    name: str
    """As the user gave it: a hub name or a folder."""
    folder: str
    """Where its files lie on this machine. Private."""
    family: str
    model: ModelRecipe
    stages: tuple[Stage, ...]
    """Its blocks (of a hierarchical model or a CNN: its stages), layer 1 first."""
    registers: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    processor: Mapping[str, Any]
    """The processor's resize and crop, as `backbones.description.processor_geometry` spells them out."""
    kinds: tuple[TokenKind, ...]
    loader: str
    """`package.module:function`; called with (info, device) it returns the loaded Backbone."""
    licence: str = ""
    citation: str = ""
    norm: str = ""
    """What a stored layer has passed through, in words for the user."""
    pooled_size: int = 0
    """Length of the model's own pooled vector, where `kinds` has `pooled`."""
    fixed_size: bool = False
    """The architecture takes its own input size only."""
    volume: VolumeInput | None = None
    """Of an encoder of whole volumes: how it takes them, its own way until a recipe has chosen another. None: it sees slices."""
    window: str = ""
    """The intensity window of its training, as a user would name it; taken in place of `auto`. "" where nothing says one."""
    resize: str = "torch-bicubic-antialias-clamp"
    """How slices are brought to its size: of its recipes."""
    smallest_side: int = 0
    """Pixels below which the architecture takes no input: the windows of Swin must fit into its coarsest layer."""

    @property
    def store_name(self) -> str:
        """The folder of its stores: the hub name with `--` for `/`, or the local folder's base name."""
        return self.model.source.replace("/", "--")

    @property
    def layers(self) -> int:
        """How many layers there are; they count from 1."""
        return len(self.stages)

    @property
    def hidden_size(self) -> int:
        """Width of the last layer."""
        return self.stages[-1].width

    @property
    def patch_size(self) -> int:
        """Pixels per patch and axis of the last layer."""
        return self.stages[-1].stride

    @property
    def shape(self) -> tuple[int, int] | Voxels:
        """Its own input: (height, width), or (z, y, x)."""
        return self.size if self.volume is None else (self.volume.slices, *self.size)

    @overload
    def grid(self, size: tuple[int, int], layer: int = -1) -> tuple[int, int]: ...
    @overload
    def grid(self, size: Voxels, layer: int = -1) -> Voxels: ...
    @overload
    def grid(self, size: tuple[int, ...], layer: int = -1) -> tuple[int, ...]: ...
    def grid(self, size: tuple[int, ...], layer: int = -1) -> tuple[int, ...]:
        """Patches (y, x), or (z, y, x), of a layer at an input of `size`; layers count from 1, -1 is the last.

        Raises InputError for a size that the coarsest layer's patches do not divide, or that is below `smallest_side`.
        """
        axes = len(size)
        if min(size) < self.smallest_side:
            raise InputError(
                f"{self.name} takes no side below {self.smallest_side} pixels. Got {_by(size)}; use {self.smallest_side} or more."
            )
        steps = [max(strides) for strides in zip(*(stage.along(axes) for stage in self.stages), strict=True)]
        if any(n % step or n < step for n, step in zip(size, steps, strict=True)):
            told = steps[0] if len(set(steps)) == 1 else _by(steps)
            fitting = [max(1, n // step) * step for n, step in zip(size, steps, strict=True)]
            raise InputError(
                f"input size {_by(size)} is no multiple of {self.name}'s patch size {told}; "
                f"use {fitting[0] if axes == 2 else _by(fitting)}."
            )
        strides = self.stages[layer - 1 if layer > 0 else layer].along(axes)
        return tuple(n // stride for n, stride in zip(size, strides, strict=True))


def _by(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))
