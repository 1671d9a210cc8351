"""The nearest rows by cosine: the same rows in the same order, whatever finds them.

The similarity of a row and a query, both of length 1, is one float32 number, which depends on these two alone (`exact`).
Neighbours are ordered by it, the nearest first, equal ones by row number. A search may find candidates in any way that
provably misses none. So neither the block size, nor threads, nor FAISS, nor a GPU change an answer.
"""

import importlib.util
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError
from embedcache.half import widened
from embedcache.probes.base import Features

Rows: TypeAlias = npt.NDArray[np.float32]
Numbers: TypeAlias = npt.NDArray[np.int64]
Search = Literal["auto", "numpy", "faiss", "torch"]
"""`auto`: bounds in fewer dimensions first, or FAISS where they do not pay, and on a GPU FAISS if it is made for one, else
torch; `numpy`: whole products, on the CPU; `faiss`: FAISS; `torch`: products by torch."""
Device: TypeAlias = str
"""`cpu`, `cuda` or `cuda:N`."""
_AT_A_TIME = 4096
"""Rows gathered at a time, so that a query with many candidates needs no second copy of all rows."""


@dataclass(frozen=True)
class Nearest:
    """Per query the k nearest rows, the nearest first."""

    similarity: Rows
    """(n, k), float32; -inf where a query has fewer than k rows to be near to."""
    row: Numbers
    """(n, k); -1 there."""


@dataclass(frozen=True)
class Apart:
    """Rows that are no neighbours of a query because they are of its group: its patient, or the row itself."""

    of_rows: Numbers
    """(n_rows,), the group of each, from 0."""
    of_queries: Numbers
    """(n_queries,); -1 leaves nothing out."""

    def members(self) -> "Members":
        """Look-up of the rows by query."""
        order = np.argsort(self.of_rows, kind="stable")
        ordered = self.of_rows[order]
        start, stop = (np.searchsorted(ordered, self.of_queries, side) for side in ("left", "right"))
        return Members(order, start, stop)


@dataclass(frozen=True)
class Members:
    """Rows that are left out, by query."""

    order: Numbers
    start: Numbers
    stop: Numbers

    @classmethod
    def none(cls, n_queries: int) -> "Members":
        """Nothing is left out."""
        nothing = np.zeros(n_queries, dtype=np.int64)
        return cls(nothing[:0], nothing, nothing)

    def of(self, query: int) -> Numbers:
        """Rows that are no neighbours of this query."""
        return self.order[self.start[query] : self.stop[query]]

    def counts(self) -> Numbers:
        """(n_queries,), how many rows each leaves out."""
        return self.stop - self.start

    def take(self, queries: Numbers) -> "Members":
        """Those of some queries."""
        return Members(self.order, self.start[queries], self.stop[queries])


def nearest(
    rows: Rows, queries: Rows, k: int, apart: Apart | None = None, search: Search = "auto", device: Device = "cpu"
) -> Nearest:
    """The k nearest of `rows` (n_rows, d) for each of `queries` (n, d); both float32, of length 1 or 0 (`normalized`).

    Every search finds the same rows, with the same similarities, in the same order. Raises InputError where `search` or
    `device` is not there.
    """
    from embedcache.probes.bounds import Bounds, choose_bounds, is_large
    from embedcache.probes.by_bound import bounded_nearest
    from embedcache.probes.by_faiss import faiss_nearest

    members = apart.members() if apart is not None else Members.none(len(queries))
    k = min(k, len(rows))
    by = searched_by(search, device)
    if by == "torch":
        from embedcache.probes.by_torch import torch_nearest

        return torch_nearest(rows, queries, k, members, device)
    if by == "faiss":
        return faiss_nearest(rows, queries, k, members, device)
    bounds = Bounds.whole(rows)
    if search == "auto" and is_large(rows, queries):
        bounds = choose_bounds(rows, queries, k)
        if bounds.basis is None and importlib.util.find_spec("faiss") is not None:
            return faiss_nearest(rows, queries, k, members, device)
    return bounded_nearest(rows, queries, k, members, bounds)


def check_device(device: Device) -> None:
    """Raises InputError for what is no device, wherever it would run."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise InputError(f"kNN searches on device cpu, cuda or cuda:N. Got {device!r}.")


def searched_by(search: Search, device: Device) -> Literal["numpy", "faiss", "torch"]:
    """What searches; `numpy` stands for `auto` on the CPU too. Raises InputError where nothing can search on the device."""
    from embedcache.probes.by_faiss import faiss_has

    check_device(device)
    if search == "faiss":
        return "faiss"
    if device == "cpu" and search != "torch":
        return "numpy"
    if search == "numpy":
        raise InputError(f"search=numpy works on the CPU, not on device={device}; leave search at auto.")
    if search == "auto" and faiss_has(device):
        return "faiss"
    try:
        from embedcache.probes.by_torch import torch_lacks
    except ImportError:
        lacking = "torch is not installed"
    else:
        lacking = torch_lacks(device)
    if lacking:
        raise InputError(
            f"kNN can not search on device={device}: {lacking}. Install torch in the build for your CUDA, or faiss-gpu in "
            "place of faiss-cpu, or leave device at cpu and search at auto."
        )
    return "torch"


def normalized(X: Features) -> Rows:
    """Rows of length 1, float32; a row of zeros stays zero."""
    X = np.asarray(X)
    if X.dtype != np.float64:
        X = widened(X).astype(np.float32, copy=False)
    length = np.linalg.norm(X, axis=1, keepdims=True)
    if not np.isfinite(length).all():
        bad = int(np.flatnonzero(~np.isfinite(length[:, 0]))[0])
        raise InputError(f"kNN needs finite features; row {bad} holds NaN or infinity, or is too long for its dtype.")
    return np.ascontiguousarray(X / np.where(length > 0, length, 1.0), dtype=np.float32)


def exact(rows: Rows, chosen: Numbers, query: Rows) -> Rows:
    """Similarities (len(chosen),) of a query (d,), each by a dot product of its own.

    A matrix product would give one row other last digits from place to place: it depends on the kernel's tile.
    """
    if len(chosen) <= _AT_A_TIME:
        return np.asarray(np.vecdot(rows.take(chosen, axis=0), query), dtype=np.float32)
    starts = range(0, len(chosen), _AT_A_TIME)
    return np.concatenate([np.vecdot(rows.take(chosen[s : s + _AT_A_TIME], axis=0), query) for s in starts])


def rounding(d: int) -> float:
    """Bound of the relative error of a float32 dot product over d terms, in any order of summation.

    Times the product of the two lengths: Higham, Accuracy and Stability of Numerical Algorithms, section 3.1.
    """
    u = 2.0**-24
    return d * u / (1 - d * u)


def product_slack(d: int, length: npt.NDArray[np.float64], longest: float) -> npt.NDArray[np.float64]:
    """How far a float32 product over d terms, in any order, may lie from the `exact` similarity, for queries of these lengths.

    longest: of the rows. Each of the two lies within `rounding` of the true one; what these are rounded to is in it too.
    """
    return 2.02 * rounding(d) * longest * length
