"""A loaded backbone under examination, small inputs for it, and the comparing of its tokens. Imports torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from embedcache.backbones import Backbone
from embedcache.extraction.config import ExtractConfig, asked_arrays
from embedcache.types import ArraySpec, BackboneInfo

BOUNDS: Mapping[str, float] = {"cls_token": 1e-5, "pooled": 1e-5, "patch_mean": 1e-5, "patch_tokens": 1e-4}
"""Relative L2 per token between two ways of computing the same float32 tokens (another batch size, a read from a store)."""
EVERYTHING = "cls,mean,patch,pooled"
GRIDS: Mapping[int, tuple[int, ...]] = {2: (4, 5), 3: (2, 3, 4)}
"""Axes → patches along each, in the coarsest layer, of the input on which a bright square or cube is moved about: no two
alike, so that exchanged axes show in shapes too."""
Tokens = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Subject:
    """A loaded backbone under examination: of slices, whose inputs are (n, 3, y, x), or of volumes, (n, 1, z, y, x)."""

    backbone: Backbone
    device: torch.device

    @property
    def info(self) -> BackboneInfo:
        """What it was loaded from."""
        return self.backbone.info

    @property
    def axes(self) -> int:
        """Of its inputs: 2, or 3 for volumes."""
        return len(self.info.shape)

    @property
    def channels(self) -> int:
        """Of its inputs: volumes are grey."""
        return 3 if self.info.volume is None else 1

    @property
    def steps(self) -> tuple[int, ...]:
        """Pixels or voxels along each axis of a patch of the coarsest layer."""
        return tuple(max(along) for along in zip(*(stage.along(self.axes) for stage in self.info.stages), strict=True))

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """Its own input size, and one whose sides differ."""
        if self.info.fixed_size:
            return [self.info.shape]
        return [self.info.shape, self.grid_size]

    @property
    def grid_size(self) -> tuple[int, ...]:
        """A small input of GRIDS patches of the coarsest layer or more, or its own where it takes no other."""
        if self.info.fixed_size:
            return self.info.shape
        least = GRIDS[self.axes][0]
        return tuple(
            step * (max(least, -(-self.info.smallest_side // step)) + n - least)
            for n, step in zip(GRIDS[self.axes], self.steps, strict=True)
        )

    def arrays(self, size: tuple[int, ...]) -> tuple[ArraySpec, ...]:
        """Every layer and kind that it has."""
        return everything(self.info, size)

    def tokens(self, x: torch.Tensor, arrays: Sequence[ArraySpec] | None = None) -> Tokens:
        """Of a batch: all there is, or `arrays`."""
        return self.backbone.tokens(x, arrays or self.arrays(tuple(x.shape[2:])))

    def noise(self, n: int, size: tuple[int, ...], seed: int = 0) -> torch.Tensor:
        """`n` inputs of normal numbers."""
        shape = (n, self.channels, *size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def constant(self, value: float, size: tuple[int, ...]) -> torch.Tensor:
        """One input that is `value` all over."""
        return torch.full((1, self.channels, *size), value, device=self.device)


def everything(info: BackboneInfo, size: tuple[int, ...]) -> tuple[ArraySpec, ...]:
    """Every layer and kind of a backbone at an input size, in float32, as an extraction asks for them."""
    asked = ExtractConfig("table", "", (info.name,), tokens=EVERYTHING, layers="all", dtype="float32")
    return asked_arrays(asked, info, size)


def relative_l2(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest distance of a token from the other's, over that one's length: shapes (…, E)."""
    distance, length = torch.linalg.norm(a - b, dim=-1), torch.linalg.norm(b, dim=-1)
    return float(torch.where(distance > 0, distance / length, distance).max())


def unequal(a: Tokens, b: Tokens, when: str) -> Iterator[str]:
    """A line for each path whose values are not the same to the bit."""
    for path in a:
        if not torch.equal(a[path], b[path]):
            yield f"{path} differs when {when}"


def apart(a: Tokens, b: Tokens, of_what: str) -> Iterator[str]:
    """A line for each path whose values are further apart than BOUNDS allow."""
    if a.keys() != b.keys():
        yield f"tokens {of_what} are {', '.join(sorted(a))} and {', '.join(sorted(b))}"
        return
    for path in a:
        distance = relative_l2(a[path].cpu(), b[path].cpu())
        if not distance <= BOUNDS[path.rpartition("/")[2]]:
            yield f"{path} {of_what} are {distance:.1e} apart (relative L2)"


def by(size: tuple[int, ...]) -> str:
    """A size for people: `32x24`."""
    return "x".join(map(str, size))
