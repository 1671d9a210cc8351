"""A few seconds of real work on the real device: what each step of an extraction takes alone. Imports torch.

The very functions run that an extraction runs: a decode process, `preprocess`, the backbones, the door to storage.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from embedcache.backbones import Backbone, load_backbone
from embedcache.backbones.preprocess import preprocess
from embedcache.extraction.decode import DecodePool, Piece, Request
from embedcache.extraction.device import default_workers
from embedcache.extraction.pending import PendingPass
from embedcache.extraction.plan import Prepared, paths_of
from embedcache.extraction.rates import Rates
from embedcache.extraction.share import Target
from embedcache.extraction.sources import Tell
from embedcache.extraction.stored import stored_tokens
from embedcache.extraction.worker import tokens_of
from embedcache.images import parse_window
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
    decode, decoded, pieces = decode_some(prepared, passes, tell)
    loaded, batch = 0.0, dict[str, float]()
    for name, info in {p.store.info.name: p.store.info for p in passes}.items():  # one by one: memory may not hold all
        started = time.monotonic()
        backbone = load_backbone(info, str(device))
        loaded += time.monotonic() - started
        own = [p for p in passes if p.store.info.name == name]
        batch |= {p.name: forward_some(as_target(p, backbone), device, tell) for p in own}
    inputs = {p.input_name: p for p in passes}
    put, byte = write_some(prepared.config.cache_folder, passes, tell)
    return Rates(
        device=device.type,
        cores=len(os.sched_getaffinity(0)),
        processes=processes,
        workers=prepared.config.workers or default_workers(device.type),
        threads=torch.get_num_threads(),
        startup=imported + loaded,
        decode=decode,
        decoded=decoded,
        preprocess={name: preprocess_some(pieces, p, device) for name, p in inputs.items()},
        batch=batch,
        put=put,
        byte=byte,
    )


def as_target(p: PendingPass, backbone: Backbone) -> Target:
    """A pending pass as the running part of an extraction has it."""
    batch_size = p.stored_pass.batch_size
    return Target(p.store.files, p.store.recipe.image, p.stored_pass, backbone, p.input_name, batch_size)


# --- decode ---------------------------------------------------------------------------------------


def decode_some(prepared: Prepared, passes: Sequence[PendingPass], tell: Tell) -> tuple[float, int, list[Piece]]:
    """Seconds per slice of one decode process, over how many slices, and the first slices of each image that could be read.

    A seeded choice of the samples that are pending; the first one only wakes the process up.
    """
    requests = chosen_requests(prepared, passes)
    deadline: list[float] = []

    def stopping() -> bool:
        return bool(deadline) and time.monotonic() > deadline[0]

    pieces, slices, failed, elapsed = [], 0, 0, 0.0
    window = parse_window(prepared.config.window)
    with DecodePool(1, window, prepared.config.image_options, prepared.config.decode_timeout, 1, stopping) as pool:
        for _ in pool.pieces(requests[:1]):
            pass
        deadline.append(time.monotonic() + SECONDS)
        asked = time.monotonic()
        for piece in pool.pieces(requests):
            elapsed += time.monotonic() - asked
            slices += piece.stop - piece.start
            failed += piece.volume is None
            if piece.volume is not None and piece.start == 0:
                pieces.append(_copied(piece, SLICES_KEPT))
            asked = time.monotonic()
    if failed:
        tell(f"of the {len(requests)} images that were tried, some could not be read; they would be set aside")
    if not slices:  # not one within the time: they take at least that
        return SECONDS, 0, []
    return elapsed / slices, slices, pieces


def chosen_requests(prepared: Prepared, passes: Sequence[PendingPass]) -> list[Request]:
    """At most IMAGES of the samples that own a pending row of the first pass, each from its first slice on."""
    plan = passes[0].plan
    owners = np.unique(plan.owner()[passes[0].rows()])
    chosen = np.random.default_rng(SEED).choice(owners, size=min(IMAGES, len(owners)), replace=False)
    paths = paths_of(plan, prepared.samples, prepared.sources)
    counts = plan.slice_count
    return [
        Request(i, str(paths[i]), int(counts[i]), 0, min(int(counts[i]), SLICES_OF_AN_IMAGE)) for i in chosen.tolist()
    ]


def _copied(piece: Piece, slices: int) -> Piece:
    """The first slices of a piece, in memory of their own: its pixels are overwritten by the next piece."""
    assert piece.volume is not None
    assert piece.limits is not None
    v = piece.volume
    calibration = replace(v.calibration, slope=v.calibration.slope[:slices], intercept=v.calibration.intercept[:slices])
    kept = Volume(v.pixels[:slices].copy(), calibration, v.kind)
    return replace(piece, stop=piece.start + len(kept.pixels), volume=kept, limits=piece.limits[:slices])


# --- compute --------------------------------------------------------------------------------------


def preprocess_some(pieces: Sequence[Piece], p: PendingPass, device: torch.device) -> float:
    """Seconds per slice, 0 where no image could be read."""
    seconds, slices = 0.0, 0
    for i, piece in enumerate([*pieces[:1], *pieces]):
        assert piece.volume is not None
        assert piece.limits is not None
        took = _timed(partial(preprocess, piece.volume, piece.limits, p.store.recipe.image, device, str(i)), device)
        if i:  # the first one only warms up
            seconds += took
            slices += len(piece.volume.pixels)
    return seconds / slices if slices else 0.0


def forward_some(target: Target, device: torch.device, tell: Tell) -> float:
    """Seconds per batch of the pass's own size and arrays, until the tokens are in main memory in their stored dtype."""
    p, count = target.stored_pass, target.stored_pass.batch_size
    x, places = torch.rand((count, 3, *target.image.size), device=device), torch.arange(count, device=device)

    def batch() -> None:
        tokens = tokens_of(target, x, tell)
        for _ in stored_tokens(tokens, places, p.arrays, target.backbone.info.name):
            pass

    batch()
    times: list[float] = []
    while len(times) < BATCHES and sum(times) < SECONDS:
        times.append(_timed(batch, device))
    return median(times)


def _timed(work: Callable[[], object], device: torch.device) -> float:
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
