"""Weighted nearest neighbours: L2-normalised features, cosine, votes weighted by softmax(similarity / 0.07)."""

import importlib.util
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError
from embedcache.probes.base import Diagnostics, Features, Groups, Matrix, ProbeKind, label_matrix

K_GRID: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
_BLOCK = 1024
"""Queries searched at a time on the numpy path: a block of similarities stays within some 100 MB."""


@dataclass(frozen=True)
class FittedNeighbours:
    """The training rows, normalised, and their labels."""

    values: tuple[float, ...]
    rows: npt.NDArray[np.float32]
    """(n_train, d), each of length 1."""
    labels: Matrix
    """(n_train, n_classes) of 0, 1 and NaN."""
    temperature: float
    faiss: bool
    diagnostics: Diagnostics

    threshold = 0.5
    score_name = "vote share"

    def scores(self, X: Features, exclude: npt.NDArray[np.int64] | None = None) -> Matrix:
        """Share of the weighted votes for each label, shape (n_values, n, n_classes), all k from one search.

        `exclude` (n,): a training row that is no neighbour of query i (itself, for leave-one-out), -1 for none.
        Neighbours whose label is missing do not vote on it; where none votes, the share is the training rows' own.
        """
        available = len(self.rows) - (exclude is not None)
        if available < 1:
            raise InputError("kNN has no training row left to be a neighbour; it needs at least one other row.")
        most = min(int(max(self.values)), available)
        similarity, neighbour = self._search(normalized(X), most, exclude)
        prior = _prior(self.labels)
        result = np.empty((len(self.values), len(X), self.labels.shape[1]))
        for start in range(0, len(X), _BLOCK):
            rows = slice(start, start + _BLOCK)
            # The nearest comes first, so subtracting its similarity keeps every exponent below 0.
            weight = np.exp((similarity[rows] - similarity[rows, :1]).astype(np.float64) / self.temperature)
            label = self.labels[neighbour[rows]]
            known = ~np.isnan(label)
            votes = np.cumsum(weight[:, :, None] * known, axis=1)
            yes = np.cumsum(weight[:, :, None] * np.where(known, label, 0.0), axis=1)
            for i, k in enumerate(self.values):
                cast, for_it = votes[:, min(int(k), most) - 1], yes[:, min(int(k), most) - 1]
                result[i, rows] = np.divide(for_it, cast, out=np.broadcast_to(prior, cast.shape).copy(), where=cast > 0)
        result[..., np.isnan(prior)] = np.nan
        return result

    def only(self, value: float) -> "FittedNeighbours":
        """The vote of one k alone."""
        return replace(self, values=(value,))

    def _search(
        self, queries: npt.NDArray[np.float32], k: int, exclude: npt.NDArray[np.int64] | None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Similarities and rows of the k nearest, both (n, k), nearest first."""
        wanted = k + (exclude is not None)
        search = _faiss_search if self.faiss else _numpy_search
        similarity, neighbour = search(self.rows, queries, wanted)
        if exclude is None:
            return similarity, neighbour
        keep = neighbour != exclude[:, None]
        keep[keep.all(axis=1), -1] = False  # nothing to leave out among them: drop the farthest, k stay
        return similarity[keep].reshape(-1, k), neighbour[keep].reshape(-1, k)


@dataclass(frozen=True)
class NearestNeighbourProbe:
    """kNN by k. `faiss` None takes FAISS if it is installed; either search finds the same rows up to rounding."""

    k: tuple[int, ...] = K_GRID
    temperature: float = 0.07
    faiss: bool | None = None

    parameter = "k"
    answers: ClassVar[tuple[ProbeKind, ...]] = ("binary", "multilabel", "multiclass")
    standardize = False

    def grid(self, n_train: int) -> tuple[float, ...]:
        """All k, at most `n_train`, descending: a larger k is the smoother model."""
        return tuple(float(k) for k in sorted({min(k, n_train) for k in self.k}, reverse=True))

    def fit_path(
        self,
        X: Features,
        y: Features,
        kind: ProbeKind,
        values: tuple[float, ...],
        n_classes: int,
        groups: Groups | None = None,
    ) -> FittedNeighbours:
        """Keep the normalised rows; a label without both classes gets NaN for scores."""
        if not len(X):
            raise InputError("kNN has no training row; it needs at least one.")
        faiss = importlib.util.find_spec("faiss") is not None if self.faiss is None else self.faiss
        labels = label_matrix(y, kind, n_classes)
        return FittedNeighbours(
            values, normalized(X), labels, self.temperature, faiss, Diagnostics(software={"search": _searcher(faiss)})
        )


def normalized(X: Features) -> npt.NDArray[np.float32]:
    """Rows of length 1, float32; a row of zeros stays zero."""
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return np.ascontiguousarray(X / np.where(length > 0, length, 1.0), dtype=np.float32)


def _prior(labels: Matrix) -> Matrix:
    """Share of positives among the known labels of each column; NaN where they are all one, or none is known."""
    known = ~np.isnan(labels)
    count, positives = known.sum(axis=0), np.where(known, labels, 0.0).sum(axis=0)
    return np.where((positives > 0) & (positives < count), positives / np.maximum(count, 1), np.nan)


def _searcher(faiss: bool) -> str:
    if not faiss:
        return f"numpy {np.__version__}"
    import faiss as library  # an optional package

    return f"faiss {library.__version__} IndexFlatIP"


def _faiss_search(
    rows: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    import faiss  # an optional package

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    similarity, neighbour = index.search(queries, k)
    return similarity, neighbour


def _numpy_search(
    rows: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    similarity = np.empty((len(queries), k), dtype=np.float32)
    neighbour = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK] @ rows.T
        near = np.argpartition(-block, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(near, np.argsort(-np.take_along_axis(block, near, 1), axis=1, kind="stable"), 1)
        similarity[start : start + _BLOCK] = np.take_along_axis(block, near, 1)
        neighbour[start : start + _BLOCK] = near
    return similarity, neighbour
