"""Token arrays of an open store, read when asked for, each chunk checked against its crc32c."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import StoreError
from embedcache.store import layout
from embedcache.store.encoding import chunk_range, decode_chunk, decode_shard
from embedcache.types import ArraySpec, Pass

if TYPE_CHECKING:
    from embedcache.store.reader import FeatureCache


def missing(name: str, store: str) -> StoreError:
    """The error for an object that should be there."""
    return StoreError(f"object {name} of {store} is missing; run `embedcache verify`.")


@dataclass(frozen=True)
class TokenArray:
    """One array of tokens, read when asked for: `np.asarray(tokens)` or `tokens.read()`.

    Its first axis is the store's slice axis; rows that are pending, quarantined or padding are zeros, so filter by
    `FeatureCache.row_status`.
    """

    cache: "FeatureCache"
    spec: ArraySpec
    stored_pass: Pass

    @property
    def shape(self) -> tuple[int, ...]:
        """(slices, …), padding rows included."""
        return (self.cache.root.rows, *self.spec.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float16 or float32."""
        return np.dtype(self.spec.dtype)

    def read(self) -> npt.NDArray[Any]:
        """The whole array in its stored dtype; crc32c of every chunk is checked."""
        out = np.zeros(self.shape, dtype=self.dtype)
        for start, rows in self.shards():
            out[start : start + len(rows)] = rows
        return out

    def shards(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """(first row, rows) of each committed shard, in order."""
        per_shard = self.stored_pass.rows_per_shard
        objects = self.cache.objects
        for commit in self.cache.commits(self.stored_pass.id):
            name = layout.shard_name(self.spec, commit.shard)
            shape = (per_shard, *self.spec.shape)
            try:
                data = objects.get(name)
            except FileNotFoundError:
                raise missing(name, self.cache.path.name) from None
            yield commit.rows[0], decode_shard(data, shape, self.spec.dtype, layout.chunk_per_row(self.spec), name)

    def rows(self, index: npt.ArrayLike) -> npt.NDArray[Any]:
        """The rows at `index` (integers), in that order and in the stored dtype: (len(index), …).

        Of patch tokens only these rows are read from disk. Raises IndexError for a row that the store has not, StoreError
        for one whose shard is pending or damaged.
        """
        wanted = np.asarray(index, dtype=np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < self.shape[0]):
            raise IndexError(f"rows must lie in [0, {self.shape[0]}). Got {wanted.min()} to {wanted.max()}.")
        out = np.empty((len(wanted), *self.spec.shape), dtype=self.dtype)
        if not layout.chunk_per_row(self.spec):
            out[:] = self.read()[wanted]
            return out
        committed = {commit.shard for commit in self.cache.commits(self.stored_pass.id)}
        for i, row in enumerate(wanted.tolist()):
            shard, place = divmod(row, self.stored_pass.rows_per_shard)
            if shard not in committed:
                raise StoreError(f"row {row} of {self.spec.path} is pending; run the same `embedcache extract` again.")
            name = layout.shard_name(self.spec, shard)
            try:
                data = self.cache.objects.get_range(name, *chunk_range(place, self.spec.row_bytes))
            except FileNotFoundError:
                raise missing(name, self.cache.path.name) from None
            out[i] = decode_chunk(data, self.spec.shape, self.spec.dtype, name)
        return out

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("a TokenArray is read from disk, so an array of it is always a copy.")
        data = self.read()
        return data if dtype is None else data.astype(dtype)


@dataclass(frozen=True)
class Layer:
    """The stored token kinds of one layer, as attributes: `cache.layer(12).cls_token`."""

    cache: "FeatureCache"
    number: int

    @property
    def cls_token(self) -> TokenArray:
        """(slice, feature)."""
        return self.cache.tokens(self.number, "cls_token")

    @property
    def patch_mean(self) -> TokenArray:
        """(slice, feature)."""
        return self.cache.tokens(self.number, "patch_mean")

    @property
    def patch_tokens(self) -> TokenArray:
        """(slice, y, x, feature)."""
        return self.cache.tokens(self.number, "patch_tokens")
