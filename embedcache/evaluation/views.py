"""Cached views of training rows as further rows: what an extraction drew once stands in place of fresh random crops.

`embedcache extract --views N` writes a store per view. Only rows that are fitted get views; whatever is judged or tested is the
whole slice, view 0, and no view of a test row is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError, StoreError
from embedcache.evaluation.feature_choices import FeatureChoice
from embedcache.evaluation.reading import pool_units, read_alike, unit_numbers
from embedcache.evaluation.store_inputs import passes_of, store_inputs
from embedcache.store.features import Features
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import locate
from embedcache.types import IntArray, Recipe, Texts, strings

if TYPE_CHECKING:
    from embedcache.evaluation.question import ProbeConfig, Question
    from embedcache.evaluation.selection import Rows


def find_views(cache: FeatureCache, count: int) -> tuple[FeatureCache, ...]:
    """The stores of views 1 to `count` of a store's slices, which lie beside it. Raises InputError where one is missing."""
    if count < 0:
        raise InputError(f"views must be 0 or more. Got {count}.")
    if not count:
        return ()
    if cache.recipe.image.view:
        raise InputError(f"{cache.path.name} is a view itself; give the store of view 0, the whole slices.")
    found: dict[int, list[FeatureCache]] = {}
    for path in sorted(cache.path.parent.glob("*.zarr")):
        other = _opened(path)
        if other is not None and other.plan_digest == cache.plan_digest and _seen_whole(other.recipe) == cache.recipe:
            found.setdefault(other.recipe.image.view, []).append(other)
    for view in range(1, count + 1):
        of_view = found.get(view, [])
        if len(of_view) != 1:
            raise InputError(
                f"{len(of_view)} finished stores of view {view} lie beside {cache.path.name}, and one is needed; "
                f"`embedcache extract --views {count}` makes it."
            )
    return tuple(found[view][0] for view in range(1, count + 1))


def views_inputs(
    views: Sequence[FeatureCache], choices: Mapping[str, FeatureChoice]
) -> dict[str, list[dict[str, Any]]]:
    """What of them enters a result's inputs; nothing, if there are none."""
    if not views:
        return {}
    return {"views": [store_inputs(view, passes_of(view, choices)) for view in views]}


def with_views(rows: "Rows", question: "Question", config: "ProbeConfig") -> "tuple[Rows, npt.NDArray[np.int64]]":
    """The rows and, after them, the views of those that train or validate; and for each which of the first ones it shows.

    rows: all of the matrix that they lie in. A view that is set aside is not there. Labels, patients and samples are those of
    the row that is shown. A pooled row and its view are of one unit, though a unit of which slices are set aside in one of them
    may go by the id of another of its samples there.
    """
    stored = question.cache.samples().id
    units = unit_numbers(question.cache, question.labels, question.pool_by, config.labels, config.join_on)
    place = {key: i for i, key in enumerate(_keys(rows, stored, units))}
    fitted = question.split.sample[np.isin(question.split.part, ["train", "validation"])].tolist()
    matrices, shown = [rows.matrix], [np.arange(len(rows))]
    sizes = [rows.sizes] if rows.sizes is not None else []
    for view in question.views:
        by = pool_units(view, question.labels, question.pool_by, config.labels, config.join_on)
        features = read_alike(question, config, view, fitted, None, question.labels, by, as_stored=True)
        at = np.array([place.get(key, -1) for key in _keys(features, stored, units)], dtype=np.int64)
        there = at >= 0
        matrices.append(features.X[there if features.sizes is None else np.repeat(there, features.sizes)])
        shown.append(at[there])
        if features.sizes is not None:
            sizes.append(features.sizes[there])
    of, matrix = np.concatenate(shown), np.concatenate(matrices)
    bags = np.concatenate(sizes) if sizes else None
    seen = replace(
        rows,
        matrix=matrix,
        at=np.arange(len(matrix)),
        y=rows.y[of],
        groups=rows.groups[of],
        sample_id=rows.sample_id[of],
        slice_index=rows.slice_index[of],
        sizes=bags,
    )
    return seen, of


def _keys(rows: "Rows | Features", stored: Texts, units: IntArray) -> list[tuple[int, int]]:
    """Unit and slice of each row; stored, units (samples of the store,): views share its plan."""
    unit = units[locate(strings(rows.sample_id.tolist()), stored)]
    return list(zip(unit.tolist(), rows.slice_index.tolist(), strict=True))


def _opened(path: Path) -> FeatureCache | None:
    try:
        return FeatureCache.open(path)
    except StoreError:  # not finished, or damaged: it is not there
        return None


def _seen_whole(recipe: Recipe) -> Recipe:
    return replace(recipe, image=replace(recipe.image, view=0, augmentation=None))
