"""How much main memory an extraction takes at its peak: arithmetic over the plan, and a look at its largest images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedcache.extraction.apart import look
from embedcache.extraction.decode import BUFFER_BYTES, pool_slots
from embedcache.extraction.decode_process import FIRST_SLOT_BYTES
from embedcache.extraction.device import default_workers
from embedcache.extraction.memory import decoder_limit, main_memory
from embedcache.extraction.pending import PendingPass
from embedcache.extraction.pieces import PIECE_SLICES, Found
from embedcache.extraction.prepare import Prepared, RowPlanner, paths_of
from embedcache.extraction.turns import weights_bytes
from embedcache.types import IntArray, Window

LIBRARIES_BYTES = 700 * 2**20
"""Resident in a process that computes on a CPU: the interpreter, torch, transformers."""
DECODER_BYTES = 200 * 2**20
"""Resident in a decode process with every reader imported."""
SAMPLE_BYTES, LABEL_BYTES, ROW_BYTES = 1_000, 200, 20
"""What planning takes for a sample, a row of the label table and a row of the plan (`benchmarks/scale_plan.py`)."""
LOOKED_AT = 2
"""Images that are opened: so many of the largest by their files, and by their slices."""
WHOLE_COPIES, VOLUME_COPIES, IMAGE_COPIES = 5, 2, 4
"""Times that a decoded volume is there at once: while its statistics are taken (as unpacked, as decoded, its finite values, their
order, and a mask), while it is only cut into slices, and an image of one slice while it is decoded."""
PREPROCESSED = 16
"""Bytes that preprocessing takes for a byte of a piece: float32 of a uint8, four times."""
WEIGHT_COPIES = 2
"""While they are loaded: the file's, and what is made of it."""
QUEUED_SHARDS = 3
"""On their way to disk: two wait, and one is written."""


@dataclass(frozen=True)
class Memory:
    """Main memory at the peak of an extraction on this machine, in bytes, leaning upwards; all processes together.

    Not counted: activations of the backbones (on a CPU about a batch's tokens, many times over), what a GPU's driver maps, and
    the system's own cache of files.
    """

    libraries: int
    tables: int
    """Samples, labels and rows of the plan."""
    weights: int
    inputs: int
    """Batches and what preprocessing takes."""
    shards: int
    """That are filled, wait for the writer and are encoded."""
    slots: int
    """Shared memory in which pixels travel."""
    images: int
    """What decode processes hold: each its largest image, with its file's bytes."""
    processes: int
    """That compute; each has all of the above but the images of others."""
    workers: int
    """Decode processes of each of them."""
    available: int
    """What this machine, or this container, has."""

    @property
    def total(self) -> int:
        """Of all processes."""
        parts = (self.libraries, self.tables, self.weights, self.inputs, self.shards, self.slots, self.images)
        return self.processes * sum(parts)

    @property
    def fits(self) -> bool:
        """Whether there is as much."""
        return self.total <= self.available


def peak_memory(
    prepared: Prepared, planner: RowPlanner, passes: Sequence[PendingPass], processes: int
) -> Memory | None:
    """What filling `passes` takes; None where nothing is pending. Opens a few of the largest images, in a decode process."""
    pending = [p for p in passes if p.shards]
    if not pending:
        return None
    config = prepared.config
    workers = config.workers or default_workers(prepared.device_kind)
    found = largest_images(prepared, planner, pending[0])
    recipes = [p.store.recipe.image for p in pending]
    whole = any(image.volume is not None for image in recipes)
    row_bytes = max((f.slice_bytes * (f.slices if whole else 1) for f in found), default=0)
    limit, turned = decoder_limit(workers), whole or config.plane != "stored"
    held = max((min(limit, image_bytes(f, image.window, turned)) for f in found for image in recipes), default=0)
    batch = max(p.stored_pass.batch_size for p in pending)
    slot = max(FIRST_SLOT_BYTES, row_bytes)
    shard = [p.stored_pass.rows_per_shard * sum(a.row_bytes for a in p.stored_pass.arrays) for p in pending]
    encoded = max(p.stored_pass.rows_per_shard * a.row_bytes for p in pending for a in p.stored_pass.arrays)
    filled = 1 if prepared.device_kind == "cpu" else 2  # a GPU's last batch is on its way when the next shard is begun
    sizes = {p.name: int(np.prod(p.store.recipe.image.shape)) for p in pending}
    return Memory(
        libraries=LIBRARIES_BYTES + workers * DECODER_BYTES,
        tables=SAMPLE_BYTES * len(prepared.samples)
        + LABEL_BYTES * len(prepared.labels.task)
        + ROW_BYTES * sum(p.plan.rows for p in pending),
        weights=WEIGHT_COPIES
        * sum(weights_bytes(info) for info in {p.store.name: p.store.info for p in pending}.values()),
        inputs=sum(2 * p.stored_pass.batch_size * 3 * 4 * sizes[p.name] for p in pending) + PREPROCESSED * slot,
        shards=filled * sum(shard) + QUEUED_SHARDS * max(shard) + encoded,
        slots=min(workers * pool_slots(workers, 2 * batch) * slot, max(BUFFER_BYTES, workers * slot)),
        images=workers * held,
        processes=processes,
        workers=workers,
        available=main_memory(),
    )


def largest_images(prepared: Prepared, planner: RowPlanner, p: PendingPass) -> list[Found]:
    """Those of the pending samples that are largest by their files or have most slices, as a decode process finds them."""
    plan = p.plan
    owners = np.unique(plan.owner()[p.rows()])
    size = prepared.sources.lookup(plan.sample_id, ("size",))["size"].astype(np.int64)
    learned = {row.id: row.size for row in planner.learned}
    if learned:
        size = np.array(
            [learned.get(name, known) for name, known in zip(plan.sample_id.tolist(), size.tolist(), strict=True)]
        )
    chosen = np.union1d(_largest(owners, size), _largest(owners, plan.slice_count))
    paths = paths_of(plan, prepared.samples, prepared.sources)[chosen].tolist()
    found = look(paths, "measure", prepared.config.image_options, prepared.config)
    return [image for image in found if image is not None]


def _largest(owners: IntArray, by: IntArray) -> IntArray:
    chosen: IntArray = owners[np.argsort(-by[owners], kind="stable")[:LOOKED_AT]]
    return chosen


def image_bytes(found: Found, window: Window, turned: bool) -> int:
    """What a decode process holds of an image while it reads its slices, its file's bytes included."""
    volume, piece = found.slices * found.slice_bytes, min(PIECE_SLICES, found.slices) * found.slice_bytes
    if found.slices == 1:
        return found.size + IMAGE_COPIES * volume
    whole = window.name == "auto" or window.scope == "volume"
    return found.size + (WHOLE_COPIES if whole else VOLUME_COPIES + turned) * volume + 2 * piece
