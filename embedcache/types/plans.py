"""What is computed and written: rows in order, the passes over them, and the commits that say a shard is there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.types.columns import IntArray, StringArray
from embedcache.types.tokens import ArraySpec


@dataclass(frozen=True)
class Pass:
    """One extraction's set of arrays over the plan, and all that decides how its rows are batched."""

    id: str
    """`p` and 8 hex digits of its canonical content (everything below)."""
    arrays: tuple[ArraySpec, ...]
    rows_per_shard: int
    batch_size: int
    threads: int
    device_kind: str
    """`cpu` or `cuda`: a shard made on another kind is refused unless asked for."""
    dropped: tuple[tuple[int, int], ...] = ()
    """Ranges [first, stop) of shards that held superseded rows only, and that `gc` removed. No part of what it is."""

    def is_dropped(self, shard: int) -> bool:
        """Whether `gc` removed a shard."""
        return any(first <= shard < stop for first, stop in self.dropped)


@dataclass(frozen=True)
class Shard:
    """The unit of work, of writing and of resuming: rows [start, stop) of the slice axis."""

    index: int
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """Rows in order, frozen before extraction starts.

    Sample i owns rows slice_start[i] : slice_start[i] + slice_count[i]; a row that no sample owns is padding.
    """

    sample_id: StringArray
    patient_id: StringArray
    slice_start: IntArray
    slice_count: IntArray
    slice_index: npt.NDArray[np.int32]
    """Shape (rows,): position in the source volume, -1 in a padding row."""
    quantum: int
    """Q: a power of two; the row count is a multiple of it and no shard is longer."""

    @property
    def rows(self) -> int:
        """Length of the slice axis, padding included."""
        return len(self.slice_index)

    def owner(self) -> IntArray:
        """Shape (rows,): the sample that owns each row, -1 for padding."""
        owner = np.full(self.rows, -1, dtype=np.int64)
        owned = np.repeat(np.arange(len(self.slice_start)), self.slice_count)
        first = np.repeat(self.slice_start, self.slice_count)
        offset = np.arange(len(owned)) - np.repeat(np.cumsum(self.slice_count) - self.slice_count, self.slice_count)
        owner[first + offset] = owned
        return owner

    def rows_of(self, which: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Shape (rows,): whether a row is owned by a sample of `which`, shape (samples,)."""
        found = np.zeros(self.rows, dtype=np.bool_)
        found[self.slice_index >= 0] = np.repeat(which, self.slice_count)
        return found

    def shards(self, rows_per_shard: int) -> Iterator[Shard]:
        """The shards that own at least one row; padding alone is neither planned nor written."""
        owned = (self.slice_index >= 0).reshape(-1, rows_per_shard).any(axis=1)
        for k in np.flatnonzero(owned).tolist():
            yield Shard(k, k * rows_per_shard, (k + 1) * rows_per_shard)

    def shards_of(self, p: Pass) -> Iterator[Shard]:
        """The shards that a pass must have: those that own a row and were not dropped."""
        for shard in self.shards(p.rows_per_shard):
            if not p.is_dropped(shard.index):
                yield shard


@dataclass(frozen=True)
class Quarantined:
    """One row that holds zeros because its source could not be read."""

    row: int
    stage: str
    """`open`, `decode`, `preprocess` or `forward`."""
    reason: str
    """No path and no identifier in it."""


@dataclass(frozen=True)
class Commit:
    """What a commit says of one shard of one pass. It is written last, and ends with its own SHA-256."""

    shard: int
    rows: tuple[int, int]
    quarantined: tuple[Quarantined, ...]
    batch_size: int
    device: str
    versions: Mapping[str, str]
    objects: Mapping[str, str]
    """Array path → SHA-256 of the shard object's bytes."""
    host: str
    """Host and pid of the writer; free to differ between two equal stores, as the times are."""
    started: str
    finished: str
