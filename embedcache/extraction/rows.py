"""Which rows a store has: those of its first plan, and those that a longer one adds at its end."""

import numpy as np
import numpy.typing as npt

from embedcache.store.layout import choose_quantum
from embedcache.types import IntArray, Plan, Samples


def first_plan(samples: Samples, counts: IntArray) -> Plan:
    """The rows of a new store: the slices of each sample (one where `counts` is 0), in the samples' order."""
    rows = np.maximum(counts, 1)
    quantum = choose_quantum(int(rows.sum()))
    start, slice_index = _laid_out(rows, 0, quantum)
    return Plan(samples.id, samples.patient_id, start, rows, slice_index, quantum)


def longer_plan(plan: Plan, samples: Samples, counts: IntArray) -> Plan:
    """`plan` with the rows of more samples after its own, from a whole shard on: what is there stays where it is."""
    rows = np.maximum(counts, 1)
    start, slice_index = _laid_out(rows, plan.rows, plan.quantum)
    return Plan(
        np.concatenate([plan.sample_id, samples.id]),
        np.concatenate([plan.patient_id, samples.patient_id]),
        np.concatenate([plan.slice_start, start]),
        np.concatenate([plan.slice_count, rows]),
        np.concatenate([plan.slice_index, slice_index]),
        plan.quantum,
    )


def _laid_out(counts: IntArray, first: int, quantum: int) -> tuple[IntArray, npt.NDArray[np.int32]]:
    """The first row of each sample, and the slice index of every row from `first` on, padded to the quantum."""
    offset = np.cumsum(counts) - counts
    total = int(counts.sum())
    slice_index = np.full(-(-total // quantum) * quantum, -1, dtype=np.int32)
    slice_index[:total] = np.arange(total) - np.repeat(offset, counts)
    return first + offset, slice_index
