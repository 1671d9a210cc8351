"""One dataset cut along several planes, a store each: the pooled vectors of a sample side by side."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.errors import InputError
from embedcache.evaluation.feature_choices import FeatureChoice
from embedcache.evaluation.store_inputs import passes_of, store_inputs
from embedcache.store.features import FeatureColumns, Features
from embedcache.store.fingerprint import recipe_document
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import locate
from embedcache.types import IntArray, Result, strings

Read = Callable[[FeatureCache, list[str]], Features]
"""A store's rows of these samples."""


def open_planes(cache: FeatureCache, stores: Iterable[Path | str], pool: str | None) -> tuple[FeatureCache, ...]:
    """The stores of the other planes. Raises InputError, with what differs, unless only the plane does.

    pool: how slices are pooled, which they must be: those of one plane are not those of another.
    """
    others = tuple(FeatureCache.open(store) for store in stores)
    if others and pool in (None, "bags"):
        raise InputError(
            "the slices of several planes are not the same ones; pool them (--pool), or leave --planes out."
        )
    seen = {cache.recipe.image.plane: cache.path.name}
    for other in others:
        plane = other.recipe.image.plane
        if plane in seen:
            raise InputError(
                f"{other.path.name} is cut along the plane {plane!r}, as {seen[plane]} is; give each plane once."
            )
        seen[plane] = other.path.name
        if apart := _differences(cache, other):
            raise InputError(
                f"{other.path.name} and {cache.path.name} differ in more than the plane: {'; '.join(apart)}; extract both "
                "with the same options."
            )
    return others


def read_planes(
    caches: Sequence[FeatureCache], samples: list[str], read: Read, units: IntArray, strict_volumes: bool
) -> Features:
    """The rows of all planes side by side, of samples that have a slice in each; `columns` has all of X in order.

    units (samples of a store,): what they are pooled into. A unit that is pooled without one of its samples, because that has no
    slice in a plane, is among the `incomplete`, and left out under `strict_volumes`.
    """
    stored = caches[0].samples().id
    whole, replaced = np.ones(len(stored), dtype=np.bool_), np.zeros(len(stored), dtype=np.bool_)
    for cache in caches:
        there = cache.samples()
        at = locate(stored, there.id)
        whole &= (there.ok_slices > 0)[at] & ~there.superseded[at]
        replaced |= there.superseded[at]
    asked = locate(strings(samples), stored)
    asked = asked[asked >= 0]
    lost = asked[~whole[asked] & ~replaced[asked]]  # what was replaced is not missed
    kept = stored[asked[whole[asked]]].tolist()
    found = [read(cache, kept) for cache in caches]
    first = found[0]
    order = [_places(first, other) for other in found]
    shared = np.all([at >= 0 for at in order], axis=0)  # under strict_volumes one plane may have lost a unit
    short = np.isin(units[locate(strings(first.sample_id.tolist()), stored)], units[lost])
    incomplete = [first.sample_id[short], *(other.incomplete for other in found)]
    if strict_volumes:
        shared &= ~short
    X = np.concatenate([other.X[at[shared]] for other, at in zip(found, order, strict=True)], axis=1)
    columns: list[FeatureColumns] = []
    for other in found:
        start = columns[-1].stop if columns else 0
        columns += [replace(c, start=c.start + start, stop=c.stop + start) for c in other.columns]
    return Features(
        X,
        first.y[shared],
        first.groups[shared],
        first.sample_id[shared],
        first.slice_index[shared],
        first.classes,
        np.unique(np.concatenate([np.array(ids.tolist(), dtype=str) for ids in incomplete])),
        tuple(columns),
        first.members[shared],
    )


def plane_inputs(planes: Sequence[FeatureCache], choices: Mapping[str, FeatureChoice]) -> dict[str, Any]:
    """What of the other planes enters a result's inputs; nothing, if there are none."""
    if not planes:
        return {}
    return {
        "planes": [
            {"plane": cache.recipe.image.plane, **store_inputs(cache, passes_of(cache, choices))} for cache in planes
        ]
    }


def find_planes(result: Result, store: Path) -> tuple[Path, ...]:
    """The stores of a result's other planes, which lie beside its own. Raises InputError where one does not."""
    wanted = {plane["store"]: plane["plane"] for plane in result.inputs.get("planes", ())}
    beside = (
        {FeatureCache.open(path).fingerprint: path for path in sorted(store.parent.glob("*.zarr"))} if wanted else {}
    )
    for fingerprint, plane in wanted.items():
        if fingerprint not in beside:
            raise InputError(f"no store of plane {plane!r} with the recorded recipe lies beside {store.name}.")
    return tuple(beside[fingerprint] for fingerprint in wanted)


def _places(first: Features, other: Features) -> Any:
    """Of each row of the first the row of the other that is of the same unit, -1 where there is none."""
    place = {sample: i for i, sample in enumerate(other.sample_id.tolist())}
    return np.array([place.get(sample, -1) for sample in first.sample_id.tolist()], dtype=np.int64)


def _differences(a: FeatureCache, b: FeatureCache) -> list[str]:
    """What differs besides the plane, in the words of the stores' own attributes."""
    found = []
    one, two = recipe_document(a.recipe), recipe_document(b.recipe)
    for part in ("image", "model"):
        for name in sorted({*one[part], *two[part]} - {"plane"}):
            x, y = one[part].get(name), two[part].get(name)
            if x != y:
                found.append(f"{part}.{name} is {_short(x)} and {_short(y)}")
    if a.root.dataset.name != b.root.dataset.name:
        found.append(f"the datasets are {b.root.dataset.name} and {a.root.dataset.name}")
        return found
    mine, theirs = (set(zip(c.samples().id.tolist(), c.samples().patient_id.tolist(), strict=True)) for c in (a, b))
    if mine != theirs:
        found.append(f"{len(mine ^ theirs)} samples with their patients are in one of them only")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:12]}…"
