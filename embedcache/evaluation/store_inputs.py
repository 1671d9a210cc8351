"""What of a store enters a result's inputs: all that can make the same question have another answer."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from embedcache.errors import InputError
from embedcache.evaluation.feature_choices import FeatureChoice
from embedcache.store.features import vectors
from embedcache.store.fingerprint import sha256
from embedcache.store.reader import FeatureCache


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
    }


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
