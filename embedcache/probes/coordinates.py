"""The rows as a solver sees them: the features, or with fewer rows than features coordinates in the rows' own span."""

from dataclasses import dataclass

import numpy as np

from embedcache.errors import InputError
from embedcache.probes.base import Features, Matrix, runs

BLOCK_VALUES = 4_000_000
"""Features that are converted to float64 at a time: 32 MB."""


@dataclass(frozen=True)
class Coordinates:
    """The rows as they are solved: X itself, or with fewer rows than features their coordinates in their own span."""

    rows: Features
    """(n, d), or (n, r) with r <= n."""
    X: Features
    centre: Matrix | None
    """(d,): mean of X, where coordinates were taken."""
    dual: Matrix | None
    """(n, r): the directions of the coordinates as combinations of the centred rows."""

    @classmethod
    def of(cls, X: Features) -> "Coordinates":
        """Those of X (n, d). With n < d beside X three (n, n) matrices of float64. Raises InputError if X is not finite."""
        n, d = X.shape
        if n >= d:
            return cls(X, X, None, None)
        centre = X.mean(axis=0, dtype=np.float64)
        if not np.isfinite(centre).all():
            raise not_finite()
        gram = np.zeros((n, n))
        # float64, because a Gram matrix squares the condition, and these coordinates are the problem itself.
        for part in runs(d, n, BLOCK_VALUES):
            block = X[:, part].astype(np.float64) - centre[part]
            gram += block @ block.T
        square, vectors = np.linalg.eigh(gram)
        kept = square > n * np.finfo(np.float64).eps * max(square[-1], np.finfo(np.float64).tiny)
        kept[-1] = True  # at least one coordinate, if it is 0 for all rows
        length = np.sqrt(np.maximum(square[kept], 0.0))
        rows = (vectors[:, kept] * length).astype(np.result_type(X.dtype, np.float32))
        dual = np.divide(vectors[:, kept], length, out=np.zeros((n, len(length))), where=length > 0)
        return cls(rows, X, centre, dual)

    def back(self, w: Matrix) -> Matrix:
        """Weights (..., r) of the coordinates as weights (..., d) of the features."""
        if self.centre is None or self.dual is None:
            return w
        share = w @ self.dual.T
        result = np.empty((*w.shape[:-1], self.X.shape[1]))
        for part in runs(self.X.shape[1], len(self.X), BLOCK_VALUES):
            result[..., part] = share @ (self.X[:, part].astype(np.float64) - self.centre[part])
        return result

    def original(self, centre: Matrix) -> Matrix:
        """Centres (..., r) of the coordinates as centres (..., d) of the features."""
        return centre if self.centre is None else self.centre + self.back(centre)


def not_finite() -> InputError:
    """What a solver says of NaN and infinite features."""
    return InputError(
        "the features hold NaN or infinite values, and this probe needs finite ones; leave out such rows."
    )
