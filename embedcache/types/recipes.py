"""What decides the value of a token: how a slice becomes an input, and which model takes it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from embedcache.errors import InputError
from embedcache.types.images import Window

Unit = Literal["slice", "volume"]
"""What a backbone sees at once, and so what a row of a store is."""
Voxels: TypeAlias = tuple[int, int, int]
"""Along (z, y, x): from feet to head, from anterior to posterior, from the patient's right to the left."""
Fit = Literal["squash", "pad", "processor"]


@dataclass(frozen=True)
class Augmentation:
    """How the views of a slice other than view 0 are drawn: a random crop that is resized, and a random flip."""

    scale: tuple[float, float]
    """The crop's area as a share of the slice's: drawn evenly between these two."""
    ratio: tuple[float, float]
    """Its width over its height as a multiple of the slice's own: the logarithm is drawn evenly between these two."""
    flip: float
    """The probability that left and right are swapped."""
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"a view's scale must be 0 < low <= high <= 1. Got {self.scale}.")
        if not (0 < self.ratio[0] <= self.ratio[1] and math.isfinite(self.ratio[1])):
            raise InputError(f"a view's ratio must be 0 < low <= high. Got {self.ratio}.")
        if not 0 <= self.flip <= 1:
            raise InputError(f"a view's probability of a flip must be from 0 to 1. Got {self.flip}.")


@dataclass(frozen=True)
class VolumeInput:
    """How a whole volume becomes the input of an encoder of volumes (FORMAT.md, section 2)."""

    slices: int
    """Voxels of the input along z."""
    spacing: tuple[float, float, float] | None = None
    """mm between the input's voxels along (z, y, x): the volume is resampled to it, then cropped or bordered with black about its
    centre. None: all of it is stretched to the input, whatever its own spacing."""
    roi: Voxels | None = None
    """Sliding: what the model sees at once, in windows over the input. None, patched: all of the input."""
    overlap: float = 0.0
    """Sliding: the share of a window that the next one shows again, at least."""

    def __post_init__(self) -> None:
        sizes = (self.slices, *(self.roi or ()))
        if min(sizes) < 1 or not 0 <= self.overlap < 1 or (self.overlap > 0 and self.roi is None):
            raise InputError(
                f"a volume's input is at least one voxel, windows overlap by 0 to less than 1. Got {self}."
            )
        if self.spacing is not None and not all(0 < mm < math.inf for mm in self.spacing):
            raise InputError(f"the spacing of a volume's input must be above 0 mm. Got {self.spacing}.")


@dataclass(frozen=True)
class ImageRecipe:
    """From stored pixels to a backbone's input."""

    window: Window
    size: tuple[int, int]
    """(height, width) of the input in pixels; of a volume's input those of its slices."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "squash"
    resize: str = "torch-bicubic-antialias-clamp"
    processor: Mapping[str, Any] = field(default_factory=dict)
    """Under `fit=processor`: the numbers of the processor's own resize and crop; else empty."""
    plane: str = "stored"
    """As the file stores its slices, or `axial`, `coronal`, `sagittal` by its affine: see `images.planes`."""
    view: int = 0
    channels: int = 3
    time: int = 0
    """Which time point of a series of volumes, from 0. A later field: left out of the canonical document where it is 0."""
    augmentation: Augmentation | None = None
    """How a view other than 0 is drawn; None for view 0. A later field."""
    volume: VolumeInput | None = None
    """How a whole volume becomes one input; None where a slice does. A later field."""

    def __post_init__(self) -> None:
        if self.view < 0 or (self.view == 0) != (self.augmentation is None):
            raise InputError(f"view 0 has no augmentation, and every other one has. Got view {self.view}.")

    @property
    def unit(self) -> Unit:
        """What a row of its store is."""
        return "slice" if self.volume is None else "volume"

    @property
    def shape(self) -> tuple[int, int] | Voxels:
        """(height, width) of the input, or (z, y, x)."""
        return self.size if self.volume is None else (self.volume.slices, *self.size)


@dataclass(frozen=True)
class ModelRecipe:
    """From a backbone's input to its tokens."""

    family: str
    source: str
    """A hub name, or the base name of a local folder (never its path)."""
    revision: str
    weights_digest: str
    """SHA-256 over names and bytes of the weight files and of the model configuration."""
    adapter_digest: str | None = None
    """Reserved for weights that are laid over a backbone's own; always None so far, and part of the fingerprint."""
    compute_dtype: str = "float32"
    tf32: bool = False
    attention: str = "sdpa"
    position_interpolation: str = "transformers-bicubic"
    compiled: bool = False
    """Its blocks were compiled by torch.compile, whose fused kernels round elsewhere. A later field."""


@dataclass(frozen=True)
class Recipe:
    """All that decides a token's value before it is rounded for storage; its fingerprint names the store."""

    image: ImageRecipe
    model: ModelRecipe
