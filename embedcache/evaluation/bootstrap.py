"""The patient bootstrap: patients are drawn, blocks of resamples at a time, and every figure is computed from the draws alone.

What a figure needs of the rows was summed per patient once: `Sums` are linear (counts of decisions, squared errors), a ranking's
is `Ranks`. Blocks have a seed of their own, so draws depend on neither the threads nor the number of resamples.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embedcache.evaluation.statistics import Patients
from embedcache.probes.base import Matrix

BLOCK = 256
"""Resamples at a time: a row of draws is 512 bytes, the cumulated counts of a label some hundred kB of a core's cache."""

_KEPT = 2**25
"""Counts of draws that are kept for a second use, 64 MB (of over 65,535 patients 128): others are drawn again, the same."""


@dataclass(frozen=True)
class Draws:
    """How often each patient was drawn in each resample of a block."""

    count: npt.NDArray[np.unsignedinteger]
    """(patients, resamples), uint16 or uint32."""

    @classmethod
    def of_block(cls, patients: int, resamples: int, seed: int, block: int) -> "Draws":
        """As many patients as there are, drawn with replacement, for each of up to BLOCK resamples."""
        random = np.random.default_rng((seed, block))
        chosen = random.integers(patients, size=(BLOCK, patients), dtype=np.int32)[:resamples]
        count = np.empty((resamples, patients), np.uint16 if patients < 2**16 else np.uint32)
        for r in range(resamples):
            count[r] = np.bincount(chosen[r], minlength=patients)
        return cls(np.ascontiguousarray(count.T))

    @classmethod
    def once(cls, patients: int) -> "Draws":
        """Every patient once: the sample itself as its only resample."""
        return cls(np.ones((patients, 1), np.uint16))

    @cached_property
    def largest(self) -> int:
        """The most often that any patient was drawn."""
        return int(self.count.max(initial=0))

    @cached_property
    def as_float(self) -> Matrix:
        """(patients, resamples), float64, made once for all figures."""
        return self.count.astype(np.float64)


class Figures(Protocol):
    """Some figures of the same rows."""

    def figures(self, draws: Draws) -> Matrix:
        """(n_figures, resamples); NaN where a resample leaves one undefined."""

    def left_out(self) -> Matrix:
        """(n_figures, patients): the figures without each patient."""


@dataclass(frozen=True)
class Sums:
    """Figures that are a function of sums over the rows."""

    per_patient: Matrix
    """(n_sums, patients)."""
    of: Callable[[Matrix], Matrix]
    """From sums (n_sums, m) to figures (n_figures, m)."""

    def figures(self, draws: Draws) -> Matrix:
        """One matrix product, and the function."""
        return self.of(self.per_patient @ draws.as_float)

    def left_out(self) -> Matrix:
        """The whole sums less each patient's."""
        return self.of(self.per_patient.sum(axis=1, keepdims=True) - self.per_patient)


@dataclass(frozen=True)
class Resampled:
    """Figures of the sample, on resamples of its patients, and with each patient left out."""

    value: Matrix
    """(n_figures,)."""
    bootstrap: Matrix
    """(n_figures, resamples)."""
    left_out: Matrix
    """(n_figures, patients)."""


def bootstrap(
    figures: Sequence[Figures], patients: Patients, resamples: int, seed: int, threads: int | None = None
) -> list[Resampled]:
    """Draw patients once for all `figures`, with as many threads as there are cores unless told otherwise.

    `Sums` wait until the threads are done, and share one matrix product a block: it has threads of its own, which on busy
    cores spin for longer than they work, and do so once per product.
    """
    blocks: list[list[Matrix]] = [[] for _ in figures]
    starts = range(0, resamples, BLOCK)
    kept: dict[int, Draws] = {}

    def draws(start: int) -> Draws:
        return Draws.of_block(patients.count, min(BLOCK, resamples - start), seed, start // BLOCK)

    summed = {i: f for i, f in enumerate(figures) if isinstance(f, Sums)}
    counted = {i: f for i, f in enumerate(figures) if i not in summed}

    def block(start: int) -> list[Matrix]:
        drawn = draws(start)
        if summed and (start + BLOCK) * patients.count <= _KEPT:
            kept[start] = drawn
        return [f.figures(drawn) for f in counted.values()]

    left_out = {i: f.left_out() for i, f in summed.items()}
    if counted:
        with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
            for found in pool.map(block, starts):
                for i, values in zip(counted, found, strict=True):
                    blocks[i].append(values)
            left_out.update(zip(counted, pool.map(lambda f: f.left_out(), counted.values()), strict=True))
    if summed:
        together = np.concatenate([f.per_patient for f in summed.values()])
        ends = np.cumsum([len(f.per_patient) for f in summed.values()])[:-1]
        for start in starts:
            drawn = kept.pop(start) if start in kept else draws(start)
            parts = np.split(together @ drawn.as_float, ends)
            for (i, f), part in zip(summed.items(), parts, strict=True):
                blocks[i].append(f.of(part))
    once = Draws.once(patients.count)
    return [
        Resampled(f.figures(once)[:, 0], np.concatenate(blocks[i], axis=1), left_out[i]) for i, f in enumerate(figures)
    ]
