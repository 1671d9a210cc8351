"""A store as other libraries see it. Each is imported only when asked for."""

from typing import TYPE_CHECKING

import numpy as np

from embedcache.errors import MissingPackageError
from embedcache.store.layout import GRID, OK

if TYPE_CHECKING:
    import xarray

    from embedcache.store.reader import FeatureCache


def to_xarray(cache: "FeatureCache", all_rows: bool = False) -> "xarray.Dataset":
    """Token arrays as lazily read variables `layer_<n>_<kind>` over (slice, feature) or (slice, y, x, feature); of a store of
    whole volumes over (volume, feature) or (volume, z, y, x, feature).

    Coordinates over `slice` or `volume`: `sample` and `patient` ("" in padding rows), `slice_index` and `row_status`. Only good
    rows are there, unless `all_rows` asks for padding, pending, set aside and superseded ones too, many of which are zeros.
    """
    try:
        import xarray
    except ImportError as error:
        raise MissingPackageError("to_xarray needs xarray: pip install 'embedcache[xarray]'.") from error
    parts = []
    for p in cache.passes:
        for spec in p.arrays:
            group = xarray.open_zarr(cache.path, group=f"layer_{spec.layer}" if spec.layer else None, chunks=None)
            # widths may differ between layers, so each has a feature dimension of its own
            names = {spec.kind: spec.path.replace("/", "_"), "feature": f"feature_{spec.layer}"}
            names |= {axis: f"{axis}_{spec.layer}" for axis in GRID[cache.unit]}
            one = group[[spec.kind]]
            parts.append(
                one.rename({old: new for old, new in names.items() if old in one.variables or old in one.dims})
            )
    plan = cache.index.plan
    owner = plan.owner()
    coordinates = {
        "sample": (cache.unit, [str(plan.sample_id[i]) if i >= 0 else "" for i in owner]),
        "patient": (cache.unit, [str(plan.patient_id[i]) if i >= 0 else "" for i in owner]),
        "slice_index": (cache.unit, plan.slice_index),
        "row_status": (cache.unit, cache.row_status),
    }
    merged: xarray.Dataset = xarray.merge(parts)
    every = merged.assign_coords(coordinates)
    return every if all_rows else every.isel({cache.unit: np.flatnonzero(cache.row_status == OK)})
