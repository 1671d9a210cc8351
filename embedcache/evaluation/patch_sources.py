"""Where a patch head's features come from: a layer of the cache, or, as a floor, nothing but the patch's position."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedcache.probes.base import Features
from embedcache.store.tokens import PatchTokens
from embedcache.types import IntArray

WAVES = 6
"""Cosines per axis of the image: they tell a lung from a lung's neighbour, and leave a mean mask little to add."""
DEPTH_WAVES = 4
"""Cosines along a volume."""
BLOCK_BYTES = 32 * 2**20
"""Of tokens that are read at a time."""


class PatchSource(Protocol):
    """Features of all patches of a slice."""

    @property
    def name(self) -> str:
        """As messages call it."""

    @property
    def width(self) -> int:
        """Features per patch."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the features."""

    def slices(self, rows: IntArray) -> Iterator[tuple[int, Features]]:
        """(row, (patches, width)) of each of the ascending `rows`; only good until the next one is asked for."""


@dataclass(frozen=True)
class LayerSource:
    """The patch tokens of one layer."""

    tokens: PatchTokens

    @property
    def name(self) -> str:
        """By its layer."""
        return f"layer {self.tokens.spec.layer}"

    @property
    def width(self) -> int:
        """The layer's hidden size."""
        return self.tokens.spec.shape[-1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        return self.tokens.dtype

    def slices(self, rows: IntArray) -> Iterator[tuple[int, Features]]:
        """Read some rows at a time, into the same memory."""
        shape = self.tokens.spec.shape
        step = max(1, BLOCK_BYTES // (int(np.prod(shape)) * self.dtype.itemsize))
        memory = np.empty((min(step, len(rows)), *shape), dtype=self.dtype)
        for first in range(0, len(rows), step):
            some = rows[first : first + step]
            for row, tokens in zip(some.tolist(), self.tokens.rows(some, out=memory[: len(some)]), strict=True):
                yield row, tokens.reshape(-1, self.width)


@dataclass(frozen=True)
class PositionSource:
    """Products of cosines of the patch's place in the slice and, in a volume, of the slice's place among the others."""

    grid: tuple[int, int]
    depth: Mapping[int, float]
    """Row → 0 to 1 along its volume."""

    name = "position"
    dtype = np.dtype(np.float32)

    @property
    def width(self) -> int:
        """The constant is left to the intercept."""
        return WAVES**2 * self._deep - 1

    @property
    def _deep(self) -> int:
        return DEPTH_WAVES if len(set(self.depth.values())) > 1 else 1

    def slices(self, rows: IntArray) -> Iterator[tuple[int, Features]]:
        """Computed, not read."""
        y, x = (_cosines((np.arange(n) + 0.5) / n, WAVES) for n in self.grid)
        plane = np.einsum("yi,xj->yxij", y, x).reshape(self.grid[0] * self.grid[1], -1)
        for row in rows.tolist():
            along = _cosines(np.array([self.depth[row]]), self._deep)[0]
            yield row, np.einsum("pi,j->pij", plane, along).reshape(len(plane), -1)[:, 1:].astype(np.float32)


def _cosines(t: npt.NDArray[np.float64], waves: int) -> npt.NDArray[np.float64]:
    """(n, waves): cos(π k t), the first of which is 1."""
    return np.asarray(np.cos(np.pi * np.outer(t, np.arange(waves))))


def gather(source: PatchSource, rows: IntArray, patches: IntArray) -> Features:
    """(m, width): the features of `patches` of `rows` (both (m,), rows ascending), in the source's dtype."""
    X = np.empty((len(rows), source.width), dtype=source.dtype)
    for row, features in source.slices(np.unique(rows)):
        first, last = np.searchsorted(rows, [row, row + 1])
        X[first:last] = features[patches[first:last]]
    return X
