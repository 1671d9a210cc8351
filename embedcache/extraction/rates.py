"""How long an extraction takes, from what each of its steps takes alone: arithmetic only, the measuring is calibrate.py's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedcache.extraction.pending import PendingPass
from embedcache.store.fingerprint import plan_digest
from embedcache.types import Unit


@dataclass(frozen=True)
class Rates:
    """Seconds that single steps took on this machine and device, each alone."""

    device: str
    cores: int
    """That this process may use."""
    processes: int
    """That will share the work, each with a device."""
    workers: int
    """Decode processes that each of them will have."""
    threads: int
    """CPU threads of each one's forward pass."""
    startup: float
    """Importing torch and loading every backbone."""
    decode: float
    """Per slice, in one decode process; 0 where only whole volumes are asked for."""
    decoded: int
    """Slices and volumes that were decoded to find that out."""
    preprocess: Mapping[str, float]
    """Per slice or volume, by `PendingPass.input_name`."""
    batch: Mapping[str, float]
    """Per batch of full size, until its tokens are in main memory, by `PendingPass.name`."""
    put: float
    """Per object, whatever its size: sync and rename. 0 where it could not be tried."""
    byte: float
    """Per byte of an object: encoding, hashing and writing. 0 where it could not be tried."""
    decode_volume: float = 0.0
    """Per whole volume, in one decode process; 0 where none is asked for."""


@dataclass(frozen=True)
class RunTime:
    """The time of a run, and what it is made of, in seconds."""

    seconds: float
    """Of all: start-up, and the slowest of what overlaps."""
    startup: float
    decode: float
    """If nothing else had to be done, with all decode processes; so are the next two."""
    forward: float
    """Preprocessing, and every backbone after another, on all devices; a GPU does both at once, so the longer of them."""
    write: float
    binds: str
    """The stage that the others wait for: `decode`, `forward` or `write`."""


def run_time(passes: Sequence[PendingPass], rates: Rates) -> RunTime:
    """How long `passes` take.

    Decoding, computing and writing overlap, so that the slowest decides: min(D·workers, F, W) in slices a second. On a CPU
    decoding and computing share the cores as well: with a forward pass on all of them, 1/(1/F + 1/D) is the limit, where
    D is the rate of all cores. All backbones share one decoding, and their seconds add.
    """
    decode_once = prepared = forward = 0.0
    for group in _same_plan(passes):
        decode_once += _slices(group) * (rates.decode if group[0].unit == "slice" else rates.decode_volume)
        by_input: dict[str, list[PendingPass]] = {}
        for p in group:
            by_input.setdefault(p.input_name, []).append(p)
            forward += p.batches() * rates.batch[p.name]
        prepared += sum(_slices(sharing) * rates.preprocess[name] for name, sharing in by_input.items())
    write = sum(p.files() * rates.put + sum(p.array_bytes().values()) * rates.byte for p in passes)
    forward = prepared + forward if rates.device == "cpu" else max(prepared, forward)
    stages = {
        "decode": decode_once / min(rates.processes * rates.workers, rates.cores),
        "forward": forward / rates.processes,
        "write": write,
    }
    # the cores' own work; a GPU computes beside them
    shared = (decode_once + rates.threads * forward) / rates.cores if rates.device == "cpu" else 0.0
    return RunTime(
        seconds=rates.startup + max(shared, *stages.values()),
        startup=rates.startup,
        **stages,
        binds=max(stages, key=lambda stage: stages[stage]),
    )


def _slices(passes: Sequence[PendingPass]) -> int:
    """Slices that at least one of these passes of one plan lacks."""
    return int(np.logical_or.reduce([p.rows() for p in passes]).sum())


def _same_plan(passes: Sequence[PendingPass]) -> list[list[PendingPass]]:
    """The passes by plan: an extraction runs over one plan after another."""
    groups: dict[tuple[Unit, str], list[PendingPass]] = {}
    for p in passes:
        digest = p.store.root.plan_digest if p.store.root else plan_digest(p.plan)
        groups.setdefault((p.unit, digest), []).append(p)
    return list(groups.values())
