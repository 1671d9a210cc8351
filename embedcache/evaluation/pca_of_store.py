"""`embedcache figure pca`: the patch tokens of several slices of a store as colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedcache.errors import InputError
from embedcache.evaluation.figure_files import check_figure
from embedcache.evaluation.inputs_seen import inputs_seen
from embedcache.evaluation.pca_figure import parse_background, pca_figure
from embedcache.store.reader import FeatureCache

SLICES = 6
FINE = 8
"""Patches along a side from which shapes can be told in a picture."""


@dataclass(frozen=True)
class PcaReport:
    """A picture that was drawn."""

    path: str
    layer: int
    slices: tuple[str, ...]
    """`sample` or `sample:slice_index`, left to right."""
    background: str
    """`dropped`, and white in the picture, or `kept`."""
    images: int
    """Slices whose image is shown above their colours."""
    grid: tuple[int, int]
    """Patches of a slice along (y, x)."""

    @property
    def coarse(self) -> bool:
        """Whether the grid has too few patches to show shapes."""
        return min(self.grid) < FINE


def draw_pca(
    store: str | Path,
    path: str | Path,
    samples: Sequence[str] = (),
    layer: int = -1,
    n_slices: int = SLICES,
    background: str = "auto",
    images: bool = True,
) -> PcaReport:
    """Draw the patch tokens of some slices, coloured by one PCA over all of them together.

    samples: ids, or `id:slice_index`; an id alone is its middle slice. None are the store's first `n_slices` samples.
    layer: which stored layer, negative from the last one. background: auto, keep or drop (see `patch_colours`).
    images: show above its colours what the backbone saw of each slice. Images are not in a cache: they are read where the private
    index of this machine knows where they lie, else the picture shows colours only.
    Raises InputError for a sample that is not there, set aside or pending, or a store without patch tokens.
    """
    path = check_figure(path)
    cache = FeatureCache.open(store)
    if cache.unit == "volume":
        raise InputError(
            f"{cache.path.name} holds whole volumes; the figure shows patches of slices, so name another store."
        )
    kinds = ("patch_tokens", "patch_tokens_int8")
    stored = sorted({a.layer for p in cache.passes for a in p.arrays if a.kind in kinds})
    if not stored:
        raise InputError(f"{cache.path.name} holds no patch tokens; add them with `embedcache extract --tokens patch`.")
    number = cache.layer_number(layer)
    if number not in stored:
        raise InputError(
            f"layer {number} of {cache.path.name} has no patch tokens, and layers {stored} have; name one of these with --layer."
        )
    tokens = cache.layer(number).patch_tokens
    plan, ok = cache.index.plan, cache.good_rows([tokens.stored_pass])
    position = {name: i for i, name in enumerate(plan.sample_id.tolist())}
    asked = list(samples) or plan.sample_id[: max(1, n_slices)].tolist()
    given_background = parse_background(background)
    rows, titles, places = [], [], []
    for text in asked:
        name, _, given = (text, "", "") if text in position else text.rpartition(":")
        if name not in position or (given and not given.isdigit()):
            raise InputError(
                f"{cache.path.name} has no sample {text!r}; `embedcache show` and labels.parquet name its samples."
            )
        i = position[name]
        count = int(plan.slice_count[i])
        at = int(given) if given else count // 2
        row = int(plan.slice_start[i]) + at
        if at >= count or not ok[row]:
            raise InputError(f"slice {at} of sample {name} is not there or was set aside; it has {count} slices.")
        rows.append(row)
        titles.append(f"{name[:12]}:{at}" if count > 1 else name[:16])
        places.append((name, at))
    seen = inputs_seen(cache, places) if images else []
    shown = sum(image is not None for image in seen)
    colours = pca_figure(tokens.rows(np.asarray(rows)), seen if shown else None, titles, path, given_background)
    kept = "kept" if colours.foreground.all() else "dropped"
    height, width = colours.foreground.shape[1:]
    return PcaReport(str(path), number, tuple(titles), kept, shown, (height, width))
