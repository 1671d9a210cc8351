"""Token arrays of an open store, read when asked for, each chunk checked against its crc32c."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, StoreError
from embedcache.store import layout
from embedcache.store.chunks import Bytes, output, pieces, read_chunks, run_jobs, thread_count
from embedcache.store.encoding import ShardForm
from embedcache.store.quantise import dequantise
from embedcache.types import ArraySpec, IntArray, Pass

if TYPE_CHECKING:
    from embedcache.store.reader import FeatureCache


def missing(name: str, store: str) -> StoreError:
    """The error for an object that should be there."""
    return StoreError(f"object {name} of {store} is missing; run `embedcache verify`.")


@dataclass(frozen=True)
class TokenArray:
    """One array of tokens, read when asked for: `np.asarray(tokens)` or `tokens.read()`.

    Its first axis is the store's slice axis; rows that are pending, quarantined or padding are zeros, so filter by
    `FeatureCache.row_status`. Every byte that is read is checked.

    Memory that was never used costs more than the read: who reads often gives `out`, C-contiguous, which is filled and
    returned. threads: how many read and check, None is 2; more help only where storage is slow to answer.
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
        """As stored: little-endian float16 or float32, or int8."""
        return np.dtype(self.spec.dtype).newbyteorder("<")

    def read(
        self, out: npt.NDArray[Any] | None = None, threads: int | None = None, stop: Event | None = None
    ) -> npt.NDArray[Any]:
        """The whole array in its stored dtype. Raises StoreError where a byte is wrong, InputError for a wrong `out`.

        stop: once it is set, a single thread begins no further piece, and the rest holds anything.
        """
        out = output(out, self.shape, self.dtype)
        n, per_shard = thread_count(threads), self.stored_pass.rows_per_shard
        jobs = []
        for shard, committed in enumerate(self._committed().tolist()):
            rows = out[shard * per_shard : (shard + 1) * per_shard]
            if committed:
                jobs += self._whole_shard(shard, rows, n)
            else:
                rows[:] = 0
        run_jobs(jobs, n, stop)
        return out

    def shards(self, reuse: bool = False, threads: int | None = None) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """(first row, rows) of each committed shard, in order. reuse: in the same memory each time, so copy what you keep."""
        return self.of_shards(np.flatnonzero(self._committed()).tolist(), reuse, threads)

    def of_shards(
        self, numbers: Sequence[int], reuse: bool, threads: int | None
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """The same of these shards."""
        n, per_shard = thread_count(threads), self.stored_pass.rows_per_shard
        block = None
        for shard in numbers:
            if block is None or not reuse:
                block = np.empty((per_shard, *self.spec.shape), dtype=self.dtype)
            run_jobs(self._whole_shard(shard, block, n), n)
            yield shard * per_shard, block

    def rows(
        self, index: npt.ArrayLike, out: npt.NDArray[Any] | None = None, threads: int | None = None
    ) -> npt.NDArray[Any]:
        """The rows at `index` (integers), in that order and in the stored dtype: (len(index), …).

        Of patch tokens only these rows are read from disk; of vectors the shards that hold them. Raises IndexError for a
        row that the store has not, StoreError for one whose shard is pending or damaged, InputError for a wrong `out`.
        """
        n, wanted = thread_count(threads), row_numbers(index, self.shape[0])
        out = output(out, (len(wanted), *self.spec.shape), self.dtype)
        order = np.argsort(wanted, kind="stable")
        shard, place = np.divmod(wanted[order], self.stored_pass.rows_per_shard)
        there = self._committed()[shard]
        if not there.all():
            if not self.cache.root.complete[self.stored_pass.id]:
                row = wanted[order[~there][0]]
                raise StoreError(f"row {row} of {self.spec.path} is pending; run the same `embedcache extract` again.")
            out[order[~there]] = 0  # a shard of padding alone, which is never written
            order, shard, place = order[there], shard[there], place[there]
        read = self._patch_rows if layout.chunk_per_row(self.spec) else self._vector_rows
        cuts = np.flatnonzero(np.diff(shard)) + 1
        starts, ends = [0, *cuts.tolist()], [*cuts.tolist(), len(shard)]
        jobs: list[Callable[[], None]] = []
        for start, end in zip(starts, ends, strict=True) if len(shard) else ():
            jobs += read(int(shard[start]), place[start:end], order[start:end], out, n)
        run_jobs(jobs, n)
        return out

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return as_array(self, dtype, copy)

    def _committed(self) -> npt.NDArray[np.bool_]:
        return self.cache.committed(self.stored_pass.id)

    def _form(self) -> ShardForm:
        per_shard = self.stored_pass.rows_per_shard
        if layout.chunk_per_row(self.spec):
            return ShardForm(per_shard, self.spec.row_bytes)
        return ShardForm(1, per_shard * self.spec.row_bytes)

    def _whole_shard(self, shard: int, rows: npt.NDArray[Any], threads: int) -> list[Callable[[], None]]:
        """Jobs that read a shard into `rows` (rows_per_shard, …)."""
        form = self._form()
        parts = as_bytes(rows, form.chunks)
        return [
            partial(self._read, form, shard, range(piece.start, piece.stop), list(parts[piece]))
            for piece in pieces(form.chunks, form.stride, threads)
        ]

    def _patch_rows(
        self, shard: int, place: IntArray, to: IntArray, out: npt.NDArray[Any], threads: int
    ) -> list[Callable[[], None]]:
        """Jobs that read rows `place` of a shard into `out[to]`, each from its own chunk."""
        form = self._form()
        parts = as_bytes(out, len(out))
        return [
            partial(self._read, form, shard, place[piece].tolist(), [parts[k] for k in to[piece].tolist()])
            for piece in pieces(len(place), form.stride, threads)
        ]

    def _vector_rows(
        self, shard: int, place: IntArray, to: IntArray, out: npt.NDArray[Any], threads: int
    ) -> list[Callable[[], None]]:
        """One job: a shard of vectors is one chunk, which is checked as a whole."""

        def job() -> None:
            block = np.empty((self.stored_pass.rows_per_shard, *self.spec.shape), dtype=self.dtype)
            self._read(self._form(), shard, [0], [as_bytes(block, 1)[0]])
            out[to] = block[place]

        return [job]

    def _read(self, form: ShardForm, shard: int, chunks: Sequence[int], parts: list[Bytes]) -> None:
        name = layout.shard_name(self.spec, shard)
        try:
            read_chunks(self.cache.objects, name, form, chunks, parts)
        except FileNotFoundError:
            raise missing(name, self.cache.path.name) from None


@dataclass(frozen=True)
class DequantisedTokens:
    """Patch tokens that are stored as int8, read as floats: each code times its token's scale, exact in float32.

    As a TokenArray in all that a reader needs; `codes` and `scale` are the arrays as stored.
    """

    codes: TokenArray
    scale: TokenArray

    @property
    def cache(self) -> "FeatureCache":
        """The store."""
        return self.codes.cache

    @property
    def stored_pass(self) -> Pass:
        """That holds the codes."""
        return self.codes.stored_pass

    @property
    def spec(self) -> ArraySpec:
        """What the tokens are like when read."""
        return ArraySpec(self.codes.spec.layer, "patch_tokens", "float32", self.codes.spec.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """(slice, y, x, feature), of whole volumes (volume, z, y, x, feature); padding rows included."""
        return self.codes.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32: float16 has no room for 7 bits times 11."""
        return np.dtype(np.float32)

    def read(self, out: npt.NDArray[Any] | None = None, threads: int | None = None) -> npt.NDArray[Any]:
        """The whole array; see TokenArray.read."""
        out = output(out, self.shape, self.dtype)
        end = 0
        for start, rows in self.shards(reuse=True, threads=threads):
            out[end:start] = 0
            end = start + len(rows)
            out[start:end] = rows
        out[end:] = 0
        return out

    def shards(self, reuse: bool = False, threads: int | None = None) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """(first row, rows) of each committed shard, in order; see TokenArray.shards."""
        block = None
        # listed once: beside a running extraction a second listing may have more
        numbers = np.flatnonzero(self.cache.committed(self.stored_pass.id)).tolist()
        pairs = zip(
            self.codes.of_shards(numbers, True, threads), self.scale.of_shards(numbers, True, threads), strict=True
        )
        for (start, codes), (_, scale) in pairs:
            block = dequantise(codes, scale, block if reuse else None)
            yield start, block

    def rows(
        self, index: npt.ArrayLike, out: npt.NDArray[Any] | None = None, threads: int | None = None
    ) -> npt.NDArray[Any]:
        """The rows at `index`, in that order; see TokenArray.rows."""
        wanted = row_numbers(index, self.shape[0])
        out = output(out, (len(wanted), *self.spec.shape), self.dtype)
        return dequantise(self.codes.rows(wanted, threads=threads), self.scale.rows(wanted, threads=threads), out)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return as_array(self, dtype, copy)


PatchTokens: TypeAlias = TokenArray | DequantisedTokens
"""Patch tokens as floats, however they are stored."""


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
    def patch_tokens(self) -> PatchTokens:
        """(slice, y, x, feature) or (volume, z, y, x, feature), always floats: as stored, or float32 from int8 codes where
        there is nothing else.
        """
        readable = {spec.kind for p in self.cache.passes for spec in p.arrays if spec.layer == self.number}
        if "patch_tokens" not in readable and "patch_tokens_int8" in readable:
            return DequantisedTokens(
                self.cache.tokens(self.number, "patch_tokens_int8"), self.cache.tokens(self.number, "patch_scale")
            )
        return self.cache.tokens(self.number, "patch_tokens")


def row_numbers(index: npt.ArrayLike, rows: int) -> IntArray:
    """`index` as integers, each of them a row of the store. Raises IndexError, InputError."""
    given = np.asarray(index)
    if given.ndim != 1 or (len(given) and given.dtype.kind not in "iu"):
        raise InputError(f"rows are named by a list of integers. Got dtype {given.dtype} and shape {given.shape}.")
    if len(given) and not (given.min() >= 0 and given.max() < rows):
        raise IndexError(f"rows must lie in [0, {rows}). Got {given.min()} to {given.max()}.")
    return given.astype(np.int64)


def as_bytes(array: npt.NDArray[Any], parts: int) -> Bytes:
    """The memory of a contiguous array in equal parts: (parts, bytes of one)."""
    return array.reshape(-1).view(np.uint8).reshape(parts, array.nbytes // max(parts, 1))


def as_array(tokens: PatchTokens, dtype: npt.DTypeLike | None, copy: bool | None) -> npt.NDArray[Any]:
    """What `np.asarray(tokens)` asks for."""
    if copy is False:
        raise ValueError("tokens are read from disk, so an array of them is always a copy.")
    data = tokens.read()
    return data if dtype is None else data.astype(dtype)
