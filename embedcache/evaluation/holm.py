"""Many tests in one table: Holm's step-down correction, and the best as a set."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedcache.probes.base import Matrix


def holm(p_values: npt.ArrayLike) -> Matrix:
    """Holm's adjusted p values (1979), in the order given; NaN is no test: it stays NaN and counts for nothing."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    ascending = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[ascending] * np.arange(len(ascending), 0, -1)
    adjusted[ascending] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def best_set(
    names: Sequence[str],
    values: npt.ArrayLike,
    p_of_pair: npt.ArrayLike,
    alpha: float = 0.05,
    *,
    higher_is_better: bool = True,
) -> tuple[str, ...]:
    """Those of `names` that no other beats: none is better with a p value under `alpha` after Holm over all pairs.

    values (m,); p_of_pair (m, m), of which the upper triangle is read, NaN where a pair was not tested. All pairs are one
    family, so nobody is picked first and tested after. A name whose value is NaN is not in the set.
    """
    value = np.asarray(values, dtype=np.float64) * (1 if higher_is_better else -1)
    first, second = np.triu_indices(len(names), 1)
    adjusted = holm(np.asarray(p_of_pair, dtype=np.float64)[first, second])
    beaten = np.isnan(value)
    for i, j, p in zip(first, second, adjusted, strict=True):
        if p < alpha and value[i] != value[j]:
            beaten[i if value[i] < value[j] else j] = True
    return tuple(name for name, out in zip(names, beaten, strict=True) if not out)
