"""What of a store enters a result's inputs: all that can make the same question have another answer."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.errors import InputError
from embedcache.evaluation.feature_choices import FeatureChoice
from embedcache.store.features import vectors
from embedcache.store.fingerprint import sha256
from embedcache.store.reader import FeatureCache

_IF_SHARED = "if some share a patient, parts leak and intervals are too narrow"
NOT_UNSEEN = "so they are no unseen images"
"""Said of test samples that are images which a probe was fitted or chosen on."""


def store_inputs(cache: FeatureCache, passes: Iterable[str]) -> dict[str, Any]:
    """The store's dataset, recipe, samples, good rows, and the bytes of the passes that are read, by their digests.

    Only passes that are read: another layer added later makes no other answer. With their contents, for two datasets may
    share ids, labels and recipe, and images may have been replaced under the same names.
    """
    return {
        "dataset": cache.root.dataset.name,
        "store": cache.fingerprint,
        "plan": cache.plan_digest,
        "rows": sha256(cache.row_status.tobytes()),
        "passes": {name: cache.contents_digest(name) for name in sorted(set(passes))},
        # a result says so itself, and is made anew once they are named: by the same, perhaps
        **({"patients": "assumed"} if cache.root.dataset.patients_assumed else {}),
    }


def patient_notes(cache: FeatureCache, where: str = "") -> tuple[str, ...]:
    """What is to be said of a store whose dataset named no patients; `where` they are: ` of theirs`."""
    if not cache.root.dataset.patients_assumed:
        return ()
    samples = cache.samples()
    current = ~samples.superseded
    if len(np.unique(samples.patient_id[current])) == int(current.sum()):
        told = f"the dataset{where} named no patients, so every sample counts as one"
    else:
        told = f"the dataset{where} named no patient of some samples, so each of these counts as one"
    return (f"{told}: {_IF_SHARED}; in a table name the column with --patient-column, and run extract again.",)


def told_of_patients(dataset: str, warnings: Iterable[str]) -> tuple[str, ...]:
    """Of a result's warnings those of `patient_notes`, and of images seen before, for a table of many results."""
    return tuple(f"{dataset}: {line}" for line in warnings if _IF_SHARED in line or NOT_UNSEEN in line)


def passes_of(cache: FeatureCache, choices: Mapping[str, FeatureChoice]) -> set[str]:
    """The passes that hold the vectors of all choices."""
    return {t.stored_pass.id for c in choices.values() for t in vectors(cache, c.kind, c.layers or None)}


def each_once(stores: Iterable[Path | str]) -> list[Path]:
    """The stores as paths. Raises InputError for one that is given twice, whatever it is called."""
    paths = [Path(store) for store in stores]
    real = [path.resolve() for path in paths]
    for i, path in enumerate(real):
        if path in real[:i]:
            raise InputError(f"store {paths[i]} is given twice; leave one of them out.")
    return paths
