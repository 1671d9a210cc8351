"""AUROC of very many heads on the same test rows: one product for the scores, one sort per head for the areas."""

import numpy as np
import numpy.typing as npt

from embedcache.probes.base import Features, Matrix

_BLOCK_VALUES = 4_000_000
"""Scores that are sorted at a time: 16 MB in float32."""


def head_scores(X: Features, coef: Matrix) -> npt.NDArray[np.float32]:
    """(heads, n) without intercepts, which order nothing; X (n, d) float32, best with the features' means about 0."""
    return np.asarray(coef.astype(np.float32) @ X.T, dtype=np.float32)


def head_aurocs(truth: Matrix, scores: Features, label: npt.NDArray[np.intp]) -> Matrix:
    """(heads,): probability that a positive scores above a negative, ties one half; NaN without both, or without scores.

    truth (n, labels) of 0, 1 and NaN; scores (heads, n), a head's all NaN if it could not be fitted; label (heads,).
    """
    found = np.full(len(scores), np.nan)
    fitted = ~np.isnan(scores[:, 0]) if scores.shape[1] else np.zeros(len(scores), dtype=np.bool_)
    for j in np.unique(label[fitted]).tolist():
        positive, negative = (np.flatnonzero(truth[:, j] == value) for value in (1, 0))
        if not len(positive) or not len(negative):
            continue
        heads = np.flatnonzero(fitted & (label == j))
        step = max(1, _BLOCK_VALUES // len(truth))
        for start in range(0, len(heads), step):
            some = heads[start : start + step]
            above, below = (np.sort(scores[np.ix_(some, part)], axis=1) for part in (positive, negative))
            for i, a, b in zip(some.tolist(), above, below, strict=True):
                # the smaller side looks for its places in the larger one
                few, many, sign = (a, b, 1) if len(a) <= len(b) else (b, a, -1)
                beaten = int(np.searchsorted(many, few, "left").sum()) + int(np.searchsorted(many, few, "right").sum())
                share = beaten / (2 * len(few) * len(many))
                found[i] = share if sign == 1 else 1 - share
    return found
