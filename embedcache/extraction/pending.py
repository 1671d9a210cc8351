"""What an extraction still has to do, counted: shards, slices and batches, bytes and files. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.extraction.prepare import Prepared, RowPlanner, StorePlan
from embedcache.store import layout
from embedcache.store.encoding import ShardForm
from embedcache.store.fingerprint import canonical, recipe_document, sha256
from embedcache.store.writer import pending_shards
from embedcache.types import ArraySpec, Pass, Plan, Shard, Unit

BLOCK_BYTES = 4_096
"""What the smallest file takes on common file systems, and every directory."""
LOGGED_COMMIT_BYTES = 1_024
"""About what one commit takes in its pass's log."""
ARRAY_BYTES = 5 * BLOCK_BYTES
"""What an array takes before it holds anything: its document, two directories, and its part of root and manifest."""
INDEX_ARRAYS = 8


@dataclass(frozen=True)
class PendingPass:
    """A pass of one store, and what of it is not committed."""

    store: StorePlan
    plan: Plan
    stored_pass: Pass
    shards: tuple[Shard, ...]

    @property
    def name(self) -> str:
        """`<backbone>/<fp12>.zarr/<pass>`."""
        return f"{self.store.info.store_name}/{self.store.files.path.name}/{self.stored_pass.id}"

    @property
    def unit(self) -> Unit:
        """What its rows are."""
        return self.store.recipe.image.unit

    @property
    def input_name(self) -> str:
        """Digest of the image recipe: passes of one input share the preprocessed slices."""
        return sha256(canonical(recipe_document(self.store.recipe)["image"]))

    def rows(self) -> npt.NDArray[np.bool_]:
        """Shape (rows,): whether a row's shard is pending and its image will be read; a superseded sample's is not."""
        pending = np.zeros(self.plan.rows, dtype=np.bool_)
        for shard in self.shards:
            pending[shard.start : shard.stop] = True
        current = np.ones(len(self.plan.sample_id), dtype=np.bool_)
        if self.store.index is not None:  # the plan may be longer, by samples that are new
            current[: len(self.store.index.superseded)] = ~self.store.index.superseded
        return pending & self.plan.rows_of(current)

    def batches(self) -> int:
        """How many batches are computed. Each has its full size, so a shard shorter than a batch costs a whole one."""
        p = self.stored_pass
        shard, place = np.divmod(np.flatnonzero(self.rows()), p.rows_per_shard)
        batch = shard * -(-p.rows_per_shard // p.batch_size) + place // p.batch_size
        return int((np.diff(batch) != 0).sum()) + 1 if len(batch) else 0

    def array_bytes(self) -> dict[str, int]:
        """Array path → bytes of its rows in pending shards, padding included."""
        p = self.stored_pass
        return {a.path: len(self.shards) * p.rows_per_shard * a.row_bytes for a in p.arrays}

    def files(self) -> int:
        """Files that will be written: an object per array, and a commit."""
        return len(self.shards) * (len(self.stored_pass.arrays) + 1)

    def disk_bytes(self) -> int:
        """What pending shards take on disk: whole blocks, with checksums, indexes, directories, commits and their log."""
        p = self.stored_pass
        each = sum(_object_bytes(a, p.rows_per_shard) + len(a.shape) * BLOCK_BYTES for a in p.arrays)
        shards = len(self.shards) * (each + BLOCK_BYTES + LOGGED_COMMIT_BYTES)
        planned = self.store.root is not None and p.id in self.store.root.passes
        return shards + (0 if planned else (len(p.arrays) + 3) * ARRAY_BYTES)  # commits, log, and the group of a layer


def _object_bytes(spec: ArraySpec, rows: int) -> int:
    """A shard object in whole blocks."""
    chunks = rows if layout.chunk_per_row(spec) else 1
    return in_blocks(ShardForm(chunks, rows * spec.row_bytes // chunks).size)


def in_blocks(size: int) -> int:
    """`size` bytes as a file takes them on disk."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def pending_passes(prepared: Prepared, planner: RowPlanner) -> list[PendingPass]:
    """Every pass that this extraction begins or goes on with, over the rows that its store will have."""
    found = []
    for store in prepared.stores:
        plan = planner.plan(store)
        for p in store.unfinished:
            found.append(PendingPass(store, plan, p, tuple(pending_shards(store.files.objects, plan, p))))
        if store.missing:
            added = prepared.new_pass(store.missing, plan.quantum, store.recipe.image.unit)
            found.append(PendingPass(store, plan, added, tuple(plan.shards(added.rows_per_shard))))
    return found


def needed_bytes(prepared: Prepared, passes: Sequence[PendingPass], planner: RowPlanner) -> int:
    """What all of it takes on disk, the index arrays and documents of stores that are new or grow included."""
    grown = [planner.plan(store) for store in prepared.stores if store.index is None or len(store.new)]
    return sum(p.disk_bytes() for p in passes) + sum(_index_bytes(plan) for plan in grown)


def _index_bytes(plan: Plan) -> int:
    texts = sum(4 * len(column) + int(np.strings.str_len(column).sum()) for column in (plan.sample_id, plan.patient_id))
    per_sample = 8 + 8 + 1  # slice_start, slice_count, superseded
    per_row = 4 + 1  # slice_index, row_status
    return texts + per_sample * len(plan.sample_id) + per_row * plan.rows + INDEX_ARRAYS * ARRAY_BYTES
