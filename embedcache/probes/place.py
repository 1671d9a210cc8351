"""Where a solver's arrays lie and are worked on: in main memory by numpy; `on_torch` has the same for a device.

What is long (rows, gradients, factors) stays in its place through a solve; what has one number per column comes to main memory,
where decisions are made, since each look at a device's numbers waits for the device.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import MissingPackageError
from embedcache.half import widened
from embedcache.probes.base import Matrix

FLOAT64 = np.dtype(np.float64)


class Place:
    """Main memory. `xp` is the module of array functions that works there."""

    xp: Any = np
    block_values = 2_000_000
    """Features and scores of a block of rows: 24 MB in float32."""
    fits_at_once = False
    """Whether the columns of several fits are better worked on together than fit by fit, each in a core's cache."""

    def load(self, values: npt.NDArray[Any]) -> Any:
        """An array of main memory, as it is stored, brought here: in main memory the same array."""
        return values

    def unload(self, values: Any) -> Matrix:
        """float64 in main memory."""
        return np.asarray(values, dtype=np.float64)

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any] = FLOAT64) -> Any:
        """Zeros, for sums: what is added to them with += may be of another precision."""
        return np.zeros(shape, dtype=dtype)

    def cast(self, values: Any, dtype: np.dtype[Any]) -> Any:
        """In another precision; the same array where it has it already."""
        return widened(values).astype(dtype, copy=False)

    def turned(self, values: Any) -> Any:
        """(a, b) as (b, a), each of its rows in one run: so added up, numbers lose the fewest digits."""
        return np.ascontiguousarray(values.T)

    def precision(self, values: Any) -> np.dtype[Any]:
        """What products of `values` run in: their own, but at least float32."""
        return np.dtype(np.result_type(values.dtype, np.float32))

    def factor(self, matrix: Any) -> Any:
        """Cholesky's lower factor of (r, r), or None where that is not positive definite."""
        from scipy.linalg import LinAlgError, cho_factor  # takes a while to import: see `PathProblem.solve`

        try:
            return cho_factor(matrix, lower=True, check_finite=False)[0]
        except LinAlgError:
            return None

    def solved(self, factor: Any, right: Any) -> Any:
        """The solution (r, k) of the factored matrix times it = right (r, k)."""
        from scipy.linalg import cho_solve

        return cho_solve((factor, True), right, check_finite=False)


HERE = Place()
"""Main memory."""


def torch_there(device: str) -> Any:
    """The module `on_torch`. torch takes a second to import: only a device pays for it. Raises MissingPackageError without it."""
    try:
        from embedcache.probes import on_torch
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"device {device!r} needs {error.name}: pip install 'embedcache[gpu]', or leave device at cpu."
        ) from error
    return on_torch
