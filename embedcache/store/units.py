"""What the slices are pooled over: a sample, or all samples of a patient that share a value (a study, a breast)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, suggest
from embedcache.store.texts import factorise
from embedcache.types import IntArray, Labels, Plan, StringArray, Task, strings

PoolBy = str | Sequence[str] | StringArray
"""`sample`, `patient`, a column of the labels, or a value for each sample of the store, in its order."""
_KINDS = ("binary", "multiclass", "numeric")


@dataclass(frozen=True)
class Units:
    """The unit of each sample of a store. A unit never spans patients: a value that two patients have makes two units."""

    of_sample: IntArray
    """(samples,)."""
    name: str
    """What a message calls them: `patient`, `study`."""

    @classmethod
    def samples(cls, plan: Plan) -> "Units":
        """Each sample by itself."""
        return cls(np.arange(len(plan.sample_id)), "sample")

    def named(self, plan: Plan, used: IntArray) -> IntArray:
        """Of each unit among the samples `used` (sorted by unit), the sample whose id it goes by: the first of its ids."""
        if self.name == "sample":
            return used
        by_id = np.empty(len(plan.sample_id), dtype=np.int64)
        by_id[np.argsort(plan.sample_id, kind="stable")] = np.arange(len(plan.sample_id))
        order = used[np.lexsort((by_id[used], self.of_sample[used]))]
        return np.asarray(order[np.unique(self.of_sample[order], return_index=True)[1]])


def agreed(y: npt.NDArray[np.float64], unit: IntArray, name: str, task: Task) -> npt.NDArray[np.float64]:
    """The label of each unit from those of its samples: y (samples, …) and unit (samples,), sorted by unit.

    A sample whose label is missing has no say. Raises InputError where known ones differ: which of them is right, or whether
    one positive makes the unit positive, is for the user to say.
    """
    first = np.unique(unit, return_index=True)[1]
    if len(first) == len(unit):
        return y
    low, high = (of.reduceat(y, first, axis=0) for of in (np.fmin, np.fmax))
    differ = (low != high) & ~np.isnan(low)
    disagree = int(differ.reshape(len(first), -1).any(axis=1).sum())
    if disagree:
        raise InputError(
            f"{disagree} of {len(first)} units, pooled by {name}, have samples with different labels of task {task.name!r}; give "
            f"a table with one label for each {name} (--labels FILE), or pool by sample."
        )
    return np.asarray(low)


def units_by(
    plan: Plan, by: PoolBy | None, asked: npt.NDArray[np.bool_], values: "npt.NDArray[np.float64] | None" = None
) -> Units:
    """The units of a store's samples; values (samples,) are those of a column of the labels, NaN where missing.

    asked (samples,): those that take part, which all must have a value. Raises InputError.
    """
    if by is None or (isinstance(by, str) and by == "sample"):
        return Units.samples(plan)
    patient = factorise(plan.patient_id)[1]
    if isinstance(by, str) and by == "patient":
        return Units(patient, "patient")
    if isinstance(by, str):
        assert values is not None  # assemble joins them
        name, missing, value = by, np.isnan(values), np.unique(values, return_inverse=True)[1]
    else:
        texts = strings(np.asarray(by).tolist())
        if len(texts) != len(patient):
            raise InputError(f"pool_by must have a value for each of {len(patient)} samples. Got {len(texts)} values.")
        name, missing, value = "unit", np.asarray(texts == ""), factorise(texts)[1]
    lacking = int((missing & asked).sum())
    if lacking:
        raise InputError(
            f"{lacking} of {int(asked.sum())} samples have no value to pool by ({name}); complete the column, or pool by "
            "patient or sample."
        )
    key = patient * (int(value.max(initial=0)) + 1) + value
    return Units(np.unique(key, return_inverse=True)[1], name)


def pooling_task(labels: Labels, by: str) -> Task:
    """The column of the labels that samples are pooled by. Raises InputError where it is none of these."""
    usable = [t.name for t in labels.tasks if t.kind in _KINDS and t.level != "slice"]
    if by not in usable:
        raise suggest("column to pool by", by, ("sample", "patient", *usable))
    return labels.get(by)
