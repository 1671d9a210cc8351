"""How a probe reads rows of a store: which vectors, pooled how and over what, or left to the probe in bags."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embedcache.datasets.columns import is_missing, read_table
from embedcache.datasets.second_table import JOIN_COLUMNS
from embedcache.errors import InputError, UnknownNameError, suggest
from embedcache.evaluation.feature_choices import widest
from embedcache.probes.base import FitsBags, Probe
from embedcache.store.features import Features, find_units
from embedcache.store.fingerprint import sha256
from embedcache.store.labels import is_label_table
from embedcache.store.pooling import Pooling
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import locate
from embedcache.store.units import PoolBy, pooling_task
from embedcache.types import Labels, StringArray, strings

if TYPE_CHECKING:
    from embedcache.evaluation.question import ProbeConfig, Question

BAGS = "bags"


class UnitWishes(Protocol):
    """The part of a probe's configuration that says what slices are pooled over; see ProbeConfig."""

    @property
    def pool_by(self) -> str | None:
        """`patient`, or a column."""

    @property
    def labels(self) -> Path | None:
        """A table, which may have that column."""

    @property
    def join_on(self) -> str | None:
        """The table's column of ids."""


def settle_pool(pool: str | None, probe: Probe, name: str) -> str | None:
    """How slices are pooled: as asked, or not at all for a probe that does it itself. Raises InputError, UnknownNameError."""
    if pool is not None:
        Pooling.parse(pool)
    if not isinstance(probe, FitsBags):
        if pool == BAGS:
            raise InputError(f"probe {name!r} takes one vector per sample, not a bag of slices; use another --pool.")
        return pool
    if pool not in ("mean", BAGS):  # `mean` is what nobody asked for
        raise InputError(f"probe {name!r} pools the slices itself, by what it learns; leave --pool out.")
    return BAGS


def read_rows(question: "Question", config: "ProbeConfig", cache: FeatureCache, samples: list[str]) -> Features:
    """Rows of `samples` of a store, with the columns of every choice of features and the labels of the question's task."""
    kind, layers = widest(question.choices.values())
    return cache.features(
        kind,
        layers=layers or None,
        pool=question.pool,
        strict_volumes=config.strict_volumes,
        task=question.task.name,
        labels=question.labels,
        split=samples,
        pool_by=pool_units(cache, question.labels, config),
    )


def pool_units(cache: FeatureCache, labels: Labels, config: UnitWishes) -> PoolBy | None:
    """What the slices are pooled over: a name that the store and its labels know, or the values of a column of the user's table.

    Raises UnknownNameError where there is no such column.
    """
    by = config.pool_by
    if by is None or by in ("sample", "patient"):
        return by
    try:
        pooling_task(labels, by)
    except UnknownNameError as error:
        if (values := _of_table(cache, by, config)) is None:
            raise error from None
        return values
    return by


def unit_inputs(cache: FeatureCache, labels: Labels, config: UnitWishes) -> dict[str, Any]:
    """What of the units enters a result's inputs: which samples are together, and no name of them."""
    if config.pool_by in (None, "sample"):
        return {}
    plan = cache.index.plan
    nobody = np.zeros(len(plan.sample_id), dtype=np.bool_)
    units = find_units(plan, pool_units(cache, labels, config), nobody, labels)
    return {"units": sha256(units.of_sample.astype("<i8").tobytes())}


def _of_table(cache: FeatureCache, by: str, config: UnitWishes) -> StringArray | None:
    """(samples,): that column of the user's own table, "" where it says nothing; None where there is no table.

    It may hold identifiers, which are no labels: they are compared, and go nowhere.
    """
    file = config.labels
    if file is None or file.is_dir() or is_label_table(file):
        return None
    table = read_table(file)
    key = table.find(config.join_on, JOIN_COLUMNS)
    if by not in table.names or key is None:
        raise suggest(f"column of {table.name} to pool by", by, ("sample", "patient", *table.names))
    ids, values = table.column(key).text(), table.column(by).text()
    samples = cache.samples()
    row = locate(samples.id, ids)
    row = np.where(row >= 0, row, locate(samples.patient_id, ids))
    texts = [str(values[i]) if i >= 0 else "" for i in row.tolist()]
    return strings(["" if is_missing(text) else text for text in texts])
