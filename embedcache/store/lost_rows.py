"""Rows that are said to be good and hold nothing: until 0.1.0 a run with passes of unlike rows per shard could commit such."""

import numpy as np
import numpy.typing as npt

from embedcache.store import layout
from embedcache.store.encoding import ShardForm
from embedcache.store.index import StoredIndex
from embedcache.store.objects import Objects, OpenObject
from embedcache.store.root import Root
from embedcache.types import ArraySpec, Commit, Pass

BEGINNING_BYTES = 4096
"""Of a long row so much is read first; a row that is no zero shows it there."""
FAMILIES_WITH_ZEROS = ("pixels", "patches")
"""They see the pixels alone, so that a black image has zeros for tokens; whatever has a bias never does."""
LOST = (
    "these rows are zero in every array, and their commit does not set them aside: an older version lost their tokens; "
    "`embedcache repair` with --dataset, --root and --backbone makes them anew"
)


def lost_rows(objects: Objects, root: Root, index: StoredIndex, p: Pass, commit: Commit) -> list[tuple[int, int]]:
    """Runs [start, stop) of rows that a committed shard should have tokens of, and that are zero in every array of the pass.

    Raises FileNotFoundError or StoreError where an object of the shard is missing or too short.
    """
    if root.recipe.model.family in FAMILIES_WITH_ZEROS:
        return []
    start, stop = commit.rows
    zero = index.plan.rows_of(~index.superseded)[start:stop]
    zero[[bad.row - start for bad in commit.quarantined]] = False
    for spec in sorted(p.arrays, key=lambda a: a.row_bytes):
        if zero.any():
            zero &= _zero_rows(objects, p, spec, commit.shard, zero)
    edges = np.flatnonzero(np.diff(zero, prepend=False, append=False)).tolist()
    return [(start + first, start + end) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def _zero_rows(
    objects: Objects, p: Pass, spec: ArraySpec, shard: int, looked_at: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Shape (rows_per_shard,): which of the rows that are looked at are zero in one array."""
    found = np.zeros(p.rows_per_shard, dtype=np.bool_)
    length = spec.row_bytes
    with objects.reading(layout.shard_name(spec, shard)) as file:
        if not layout.chunk_per_row(spec):
            vectors = _read(file, 0, p.rows_per_shard * length).reshape(p.rows_per_shard, length)
            return looked_at & ~vectors.any(axis=1)
        stride, beginning = ShardForm(p.rows_per_shard, length).stride, min(length, BEGINNING_BYTES)
        for i in np.flatnonzero(looked_at).tolist():
            found[i] = not (_read(file, i * stride, beginning).any() or _read(file, i * stride, length).any())
    return found


def _read(file: OpenObject, start: int, length: int) -> npt.NDArray[np.uint8]:
    data = bytearray(length)
    file.read_into([memoryview(data)], length, start)
    return np.frombuffer(data, dtype=np.uint8)
