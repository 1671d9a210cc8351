"""How a probe reads rows of a store: which vectors, pooled how and over what, or left to the probe in bags."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedcache.datasets.columns import is_missing
from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation.feature_choices import widest
from embedcache.evaluation.label_files import table_rows
from embedcache.probes.base import FitsBags, Probe
from embedcache.store.ahead import ReadAhead
from embedcache.store.features import Features, find_units
from embedcache.store.fingerprint import sha256
from embedcache.store.labels import is_label_table
from embedcache.store.pooling import POOLS, Pooling
from embedcache.store.reader import FeatureCache
from embedcache.store.units import PoolBy, pooling_task, units_by
from embedcache.types import IntArray, Labels, StringArray, Task, strings

if TYPE_CHECKING:
    from embedcache.evaluation.elsewhere import Elsewhere
    from embedcache.evaluation.question import ProbeConfig, Question

BAGS = "bags"


def settle_pool(pool: str | None, probe: Probe, name: str, task: Task) -> str | None:
    """How slices are pooled: as asked, or not at all for a probe that does it itself. Raises InputError, UnknownNameError."""
    if pool == "none":  # as the command line calls it
        pool = None
    if pool is not None:  # who takes bags takes nothing else, so nobody is offered them
        Pooling.parse(pool, [*(way for way in POOLS if way != BAGS), "none"])
    if not isinstance(probe, FitsBags):
        if pool == BAGS:
            raise InputError(f"probe {name!r} takes one vector per sample, not a bag of slices; use another --pool.")
        return pool
    if task.level == "slice":
        raise InputError(
            f"probe {name!r} scores samples, and task {task.name!r} has a label per slice; use another probe."
        )
    if pool not in ("mean", BAGS):  # `mean` is what nobody asked for
        raise InputError(f"probe {name!r} pools the slices itself, by what it learns; leave --pool out.")
    return BAGS


def settle_pool_by(asked: str | None, pool: str | None, cache: FeatureCache, task: Task) -> str | None:
    """What slices are pooled over, None for a sample: as asked, else by patient where the task is of patients and some have
    several samples.

    Not where slices are kept apart, and not where the middle of each volume is asked for.
    """
    if asked == "sample":
        return None
    if asked is not None or task.level != "patient" or pool is None or Pooling.parse(pool).ordered:
        return asked
    samples = cache.samples()
    patients = samples.patient_id[~samples.superseded]
    return "patient" if len(np.unique(patients)) < len(patients) else None


def pooled_by_patient(task: Task) -> str:
    """What is said where nobody asked for it."""
    return (
        f"task {task.name!r} is of patients, so the slices of all samples of a patient are pooled to one row; --pool-by sample "
        "(in few-shot --pool none) leaves them apart."
    )


def read_rows(
    question: "Question",
    config: "ProbeConfig",
    cache: FeatureCache,
    samples: Iterable[str],
    as_stored: bool = False,
    ahead: ReadAhead | None = None,
) -> Features:
    """Rows of `samples` of a store, with the columns of every choice of features and the labels of the question's task."""
    units = pool_units(cache, question.labels, question.pool_by, config.labels, config.join_on)
    return read_alike(question, config, cache, samples, question.task.name, question.labels, units, as_stored, ahead)


def read_elsewhere_rows(question: "Question", config: "ProbeConfig", there: "Elsewhere") -> Features:
    """The same of the second store that is tested on, with its own labels."""
    units = pool_units(there.cache, there.labels, question.pool_by, config.test_labels)
    return read_alike(question, config, there.cache, there.samples.tolist(), there.task.name, there.labels, units, True)


def read_alike(
    question: "Question",
    config: "ProbeConfig",
    cache: FeatureCache,
    samples: Iterable[str],
    task: str | None,
    labels: Labels,
    units: PoolBy | None,
    as_stored: bool = False,
    ahead: ReadAhead | None = None,
) -> Features:
    """With the kinds, layers and pooling of the question, so that columns are the same in every store."""
    kind, layers = widest(question.choices.values())
    return cache.features(
        kind,
        layers=layers or None,
        pool=question.pool,
        strict_volumes=config.strict_volumes,
        task=task,
        labels=labels,
        split=samples,
        pool_by=units,
        as_stored=as_stored,
        ahead=ahead,
    )


def pool_units(
    cache: FeatureCache, labels: Labels, by: str | None, table: Path | None = None, join_on: str | None = None
) -> PoolBy | None:
    """What the slices are pooled over: a name that the store and its labels know, or the values of a column of the user's table.

    table, join_on: as in `find_labels`. Raises UnknownNameError where there is no such column.
    """
    if by is None or by in ("sample", "patient"):
        return by
    try:
        pooling_task(labels, by)
    except UnknownNameError as error:
        if (values := _of_table(cache, by, table, join_on)) is None:
            raise error from None
        return values
    return by


def unit_inputs(
    cache: FeatureCache, labels: Labels, by: str | None, table: Path | None = None, join_on: str | None = None
) -> dict[str, Any]:
    """What of the units enters a result's inputs: which samples are together, and no name of them."""
    if by in (None, "sample"):
        return {}
    return {"units": units_digest(unit_numbers(cache, labels, by, table, join_on))}


def unit_numbers(
    cache: FeatureCache, labels: Labels, by: str | None, table: Path | None = None, join_on: str | None = None
) -> IntArray:
    """(samples,): the number of the unit that each sample of the store is pooled into; arguments as of `pool_units`."""
    plan = cache.index.plan
    nobody = np.zeros(len(plan.sample_id), dtype=np.bool_)
    return find_units(plan, pool_units(cache, labels, by, table, join_on), nobody, labels).of_sample


def patients_as_units(cache: FeatureCache) -> IntArray:
    """(samples,): the number of each sample's patient."""
    return units_by(cache.index.plan, "patient", np.zeros(len(cache.index.plan.sample_id), dtype=np.bool_)).of_sample


def units_digest(of_sample: IntArray) -> str:
    """SHA-256 of which samples of a store are together."""
    return sha256(of_sample.astype("<i8").tobytes())


def count_samples(features: Features, inside: npt.NDArray[np.bool_]) -> int:
    """How many samples these rows are of: of a unit all that it was pooled over."""
    if (features.slice_index < 0).all():
        return int(features.members[inside].sum())
    return len(np.unique(features.sample_id[inside]))


def incomplete_notes(
    features: Features, question: "Question", strict_volumes: bool, where: str = ""
) -> tuple[str, ...]:
    """What is to be said of samples, or units of them, of which slices are set aside; `where` they are: ` of theirs`."""
    count = len(features.incomplete)
    if not count:
        return ()
    what, many = ("sample", "samples") if question.pool_by is None else ("unit", "units")
    of = "" if question.pool_by is None else f" (pooled by {question.pool_by})"
    done = "left out, since slices of them were" if strict_volumes else "pooled without the slices that were"
    return (f"{count} {what if count == 1 else many}{of}{where} {'was' if count == 1 else 'were'} {done} set aside.",)


def _of_table(cache: FeatureCache, by: str, file: Path | None, join_on: str | None) -> StringArray | None:
    """(samples,): that column of the user's own table, "" where it says nothing; None where there is no table.

    It may hold identifiers, which are no labels: they are compared, and go nowhere.
    """
    if file is None or file.is_dir() or is_label_table(file):
        return None
    table, row = table_rows(cache, file, join_on, by)
    values = table.column(by).text()
    texts = [str(values[i]) if i >= 0 else "" for i in row.tolist()]
    return strings(["" if is_missing(text) else text for text in texts])
