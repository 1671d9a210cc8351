"""A few seconds of real work on the real device: what each step of an extraction takes alone. Imports torch.

The very functions run that an extraction runs: a decode process, `preprocess`, the backbones, the door to storage.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from embedcache.backbones import Backbone, load_backbone
from embedcache.backbones.preprocess import preprocess
from embedcache.extraction.decode import DecodePool
from embedcache.extraction.device import default_workers
from embedcache.extraction.forward import Forward, Pool
from embedcache.extraction.pending import PendingPass
from embedcache.extraction.pieces import Piece, Request, reading
from embedcache.extraction.prepare import Prepared, paths_of
from embedcache.extraction.rates import Rates
from embedcache.extraction.share import Target
from embedcache.extraction.sources import Tell
from embedcache.extraction.stored import stored_tokens
from embedcache.store.encoding import encode_shard
from embedcache.store.fingerprint import sha256
from embedcache.store.objects import Objects
from embedcache.types import Volume

SECONDS = 3.0
"""What a backbone, and the decoding, may take at most, after warming up."""
BATCHES = 3
IMAGES = 8
SLICES_OF_AN_IMAGE = 128
SLICES_KEPT = 4
"""Of each image, for the time of preprocessing."""
SEED = 0
SMALL_OBJECT, LARGE_OBJECT = 4_096, 64 * 2**20


def measure(
    prepared: Prepared,
    passes: Sequence[PendingPass],
    device: torch.device,
    processes: int,
    imported: float,
    tell: Tell,
) -> Rates:
    """The rates at which `passes` would be filled.

    processes: how many will share the work, each on such a device. imported: seconds until torch and the device were ready.
    """
    inputs = {p.input_name: p for p in passes}
    tried = {unit: decode_some(prepared, p, tell) for unit, p in {p.unit: p for p in reversed(passes)}.items()}
    loaded, batch = 0.0, dict[str, float]()
    for name, info in {p.store.info.name: p.store.info for p in passes}.items():  # one by one: memory may not hold all
        started = time.monotonic()
        backbone = load_backbone(info, str(device))
        loaded += time.monotonic() - started
        own = [p for p in passes if p.store.info.name == name]
        batch |= {p.name: forward_some(as_target(p, backbone), device, tell) for p in own}
    put, byte = write_some(prepared.config.cache_folder, passes, tell)
    return Rates(
        device=device.type,
        cores=len(os.sched_getaffinity(0)),
        processes=processes,
        workers=prepared.config.workers or default_workers(device.type),
        threads=torch.get_num_threads(),
        startup=imported + loaded,
        decode=tried["slice"].seconds if "slice" in tried else 0.0,
        decode_volume=tried["volume"].seconds if "volume" in tried else 0.0,
        decoded=sum(decoded.rows for decoded in tried.values()),
        preprocess={name: preprocess_some(tried[p.unit].pieces, p, device) for name, p in inputs.items()},
        batch=batch,
        put=put,
        byte=byte,
    )


def as_target(p: PendingPass, backbone: Backbone) -> Target:
    """A pending pass as the running part of an extraction has it."""
    batch_size = p.stored_pass.batch_size
    return Target(p.store.files, p.store.recipe.image, p.stored_pass, backbone, p.input_name, batch_size)


# --- decode ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decoded:
    """What decoding a few images took."""

    seconds: float
    """Per row of one decode process."""
    rows: int
    pieces: list[Piece]
    """The first slices of each image that could be read; whole volumes as they are."""


def decode_some(prepared: Prepared, p: PendingPass, tell: Tell) -> Decoded:
    """A seeded choice of the samples that are pending; the first one only wakes the process up."""
    requests = chosen_requests(prepared, p)
    image = p.store.recipe.image
    deadline: list[float] = []

    def stopping() -> bool:
        return bool(deadline) and time.monotonic() > deadline[0]

    pieces, slices, failed, elapsed = [], 0, 0, 0.0
    options = prepared.config.options_for(image)
    with DecodePool(1, image.window, options, prepared.config.decode_timeout, 1, stopping) as pool:
        for _ in pool.pieces(requests[:1]):
            pass
        deadline.append(time.monotonic() + SECONDS)
        asked = time.monotonic()
        for piece in pool.pieces(requests):
            elapsed += time.monotonic() - asked
            slices += piece.stop - piece.start
            failed += piece.volume is None
            if piece.volume is not None and piece.start == 0:
                pieces.append(_copied(piece, SLICES_KEPT if image.volume is None else len(piece.volume.pixels)))
            asked = time.monotonic()
    if failed:
        tell(f"of the {len(requests)} images that were tried, some could not be read; they would be set aside")
    if not slices:  # not one within the time: they take at least that
        return Decoded(SECONDS, 0, [])
    return Decoded(elapsed / slices, slices, pieces)


def chosen_requests(prepared: Prepared, p: PendingPass) -> list[Request]:
    """At most IMAGES of the samples that own a pending row of a pass, each from its first slice on."""
    plan, kind = p.plan, reading(p.store.recipe.image)
    owners = np.unique(plan.owner()[p.rows()])
    chosen = np.random.default_rng(SEED).choice(owners, size=min(IMAGES, len(owners)), replace=False)
    paths = paths_of(plan, prepared.samples, prepared.sources)
    counts = plan.slice_count
    return [
        Request(i, str(paths[i]), int(counts[i]), 0, min(int(counts[i]), SLICES_OF_AN_IMAGE), kind)
        for i in chosen.tolist()
    ]


def _copied(piece: Piece, slices: int) -> Piece:
    """The first slices of a piece, in memory of their own: its pixels are overwritten by the next piece."""
    assert piece.volume is not None
    assert piece.limits is not None
    v = piece.volume
    calibration = replace(v.calibration, slope=v.calibration.slope[:slices], intercept=v.calibration.intercept[:slices])
    kept = Volume(v.pixels[:slices].copy(), calibration, v.kind, spacing=v.spacing)
    return replace(piece, volume=kept, limits=piece.limits[:slices])


# --- compute --------------------------------------------------------------------------------------


def preprocess_some(pieces: Sequence[Piece], p: PendingPass, device: torch.device) -> float:
    """Seconds per row, 0 where no image could be read."""
    seconds, slices = 0.0, 0
    for i, piece in enumerate([*pieces[:1], *pieces]):
        assert piece.volume is not None
        assert piece.limits is not None
        took = timed(partial(preprocess, piece.volume, piece.limits, p.store.recipe.image, device, str(i)), device)
        if i:  # the first one only warms up
            seconds += took
            slices += len(piece.volume.pixels) if p.unit == "slice" else 1
    return seconds / slices if slices else 0.0


def forward_some(target: Target, device: torch.device, tell: Tell) -> float:
    """Seconds per batch of the pass's own size and arrays, until the tokens are in main memory in their stored dtype."""
    p, count = target.stored_pass, target.stored_pass.batch_size
    shape = (count, target.image.channels, *target.image.shape)
    x = torch.rand(shape, device=device)
    forward = Forward(target, Pool() if device.type == "cuda" else None)

    def batch() -> None:
        tokens = forward.tokens(x, tell)
        for _ in stored_tokens(tokens, slice(count), p.arrays, target.backbone.info.name):
            pass

    batch()
    times: list[float] = []
    while len(times) < BATCHES and sum(times) < SECONDS:
        times.append(timed(batch, device))
    return median(times)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until `work` is done, on the device too."""
    started = time.monotonic()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - started


# --- write ----------------------------------------------------------------------------------------


def write_some(cache: Path, passes: Sequence[PendingPass], tell: Tell) -> tuple[float, float]:
    """Seconds per object and per byte: a small and a shard-sized one, put and synced beside where the stores will be.

    In a temporary folder that is removed; (0, 0) where none can be made.
    """
    place = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    largest = max(a.row_bytes * p.stored_pass.rows_per_shard for p in passes for a in p.stored_pass.arrays)
    try:
        with tempfile.TemporaryDirectory(prefix=".embedcache-trial-", dir=place) as folder:
            objects = Objects(Path(folder) / "objects", Path(folder) / "scratch")
            small = median(_put(objects, f"small/{i}", SMALL_OBJECT) for i in range(BATCHES))
            size = min(LARGE_OBJECT, max(2**20, largest))
            large = _put(objects, "large/0", size)
    except OSError as error:
        tell(f"how fast the cache can be written was not tried: {os.strerror(error.errno or 0)}")
        return 0.0, 0.0
    return small, max(0.0, large - small) / size


def _put(objects: Objects, name: str, size: int) -> float:
    rows = np.zeros((1, size), dtype=np.uint8)
    rows[:] = 1  # touched before the clock starts
    started = time.monotonic()
    data = encode_shard(rows, chunk_per_row=False)
    sha256(data)
    objects.put(name, data)
    objects.sync([name])
    return time.monotonic() - started
