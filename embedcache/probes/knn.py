"""Nearest neighbours by cosine, all k from one search: votes weighted by softmax(similarity / 0.07), or ML-kNN."""

from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from embedcache.errors import InputError, suggest
from embedcache.probes.base import Diagnostics, Features, Groups, Matrix, ProbeKind, label_matrix
from embedcache.probes.by_faiss import faiss_library
from embedcache.probes.ml_knn import LabelCounts, count_labels, posterior
from embedcache.probes.neighbours import (
    Apart,
    Device,
    Nearest,
    Numbers,
    Rows,
    Search,
    check_device,
    nearest,
    normalized,
    searched_by,
)

K_GRID: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
Votes = Literal["softmax", "ml-knn"]
VOTES: tuple[Votes, ...] = ("softmax", "ml-knn")
SEARCHES: tuple[Search, ...] = ("auto", "numpy", "faiss", "torch")
_BLOCK = 1024
"""Queries whose votes are counted at a time: some 25 MB for 200 neighbours and 14 labels."""


@dataclass(frozen=True)
class FittedNeighbours:
    """The training rows that have a label, normalised, and their labels."""

    values: tuple[float, ...]
    rows: Rows
    """(n_rows, d), of length 1."""
    labels: Matrix
    """(n_rows, n_classes) of 0, 1 and NaN."""
    group: Numbers
    """(n_rows,): number of each row's patient; of each row its own, where no patients were given."""
    trained: Features
    """(n_train, d), as given, and below the number of each one's patient and row: what `left_out_scores` scores."""
    trained_group: Numbers
    kept: Numbers
    """(n_rows,): which of the training rows are searched."""
    temperature: float
    search: Search
    device: Device
    tables: tuple[LabelCounts, ...]
    """Of ML-kNN, one for each of `values`; () for weighted votes."""
    diagnostics: Diagnostics

    threshold = 0.5

    @property
    def score_name(self) -> str:
        """Both are from 0 to 1."""
        return "probability" if self.tables else "vote share"

    def scores(self, X: Features) -> Matrix:
        """Share of the weighted votes, or probability, of each label: (n_values, n, n_classes), all k from one search.

        Neighbours whose label is missing do not vote on it; where none votes, the share is the training rows' own.
        """
        found, share = self._nearest(X), _share(self.labels)
        if self.tables:
            scores = expit(posterior(self.tables, self.labels, found.row))
            scores[..., np.isnan(share)] = np.nan
            return scores
        return self._votes(found, np.broadcast_to(share, (len(X), len(share))))

    def left_out_scores(self, by: Literal["row", "patient"]) -> Matrix:
        """(n_values, n_train, n_classes): each training row scored as if it, or its patient, had not been there.

        Exact for weighted votes: NaN for a label that has one class without them. Raises InputError for ML-kNN, whose tables
        are counted over all rows.
        """
        if self.tables:
            raise InputError(
                "ML-kNN counts its tables over all rows, so it can not leave some out; choose k by validation."
            )
        own = np.arange(len(self.trained_group)) if by == "row" else self.trained_group
        found = self._nearest(self.trained, Apart(own[self.kept], own))
        return self._votes(found, _share_of_others(self.labels, own[self.kept], own))

    def only(self, value: float) -> "FittedNeighbours":
        """The vote of one k alone."""
        at = self.values.index(value)
        return replace(self, values=(value,), tables=self.tables[at : at + 1])

    @property
    def _most(self) -> int:
        return max(int(k) for k in self.values)

    def _nearest(self, X: Features, apart: Apart | None = None) -> Nearest:
        found = nearest(self.rows, normalized(X), self._most, apart, self.search, self.device)
        if (found.row[:, :1] < 0).any():
            raise InputError(
                "kNN has no training row left to be a neighbour; it needs at least one other, of another patient where patients "
                "are left out."
            )
        return found

    def _votes(self, found: Nearest, share: Matrix) -> Matrix:
        """share (n, n_classes): what is said where no neighbour votes; NaN in it stays NaN."""
        similarity, neighbour = found.similarity, found.row
        most = neighbour.shape[1]
        result = np.empty((len(self.values), *share.shape))
        for start in range(0, len(neighbour), _BLOCK):
            rows = slice(start, start + _BLOCK)
            # The nearest comes first, so subtracting its similarity keeps every exponent below 0.
            weight = np.exp((similarity[rows] - similarity[rows, :1]).astype(np.float64) / self.temperature)
            label = self.labels[neighbour[rows]]
            known = ~np.isnan(label)
            votes = np.cumsum(weight[:, :, None] * known, axis=1)
            yes = np.cumsum(weight[:, :, None] * np.where(known, label, 0.0), axis=1)
            for i, k in enumerate(self.values):
                cast, for_it = votes[:, min(int(k), most) - 1], yes[:, min(int(k), most) - 1]
                result[i, rows] = np.divide(for_it, cast, out=share[rows].copy(), where=cast > 0)
        result[:, np.isnan(share)] = np.nan
        return result


@dataclass(frozen=True)
class NearestNeighbourProbe:
    """kNN by k."""

    k: tuple[int, ...] = K_GRID
    temperature: float = 0.07
    """Of the weighted votes."""
    votes: Votes = "softmax"
    """`softmax`: weighted by similarity; `ml-knn`: the posterior of how many neighbours have the label."""
    search: Search = "auto"
    """`auto`: on the CPU bounds in fewer dimensions first, where that pays, on a GPU FAISS if it is made for one, else torch;
    `numpy`; `faiss`; `torch`. All find the same rows in the same order."""
    device: Device = "cpu"
    """Where rows are searched: `cpu`, `cuda` or `cuda:N`."""

    parameter = "k"
    standardize = False

    def __post_init__(self) -> None:
        if self.votes not in VOTES:
            raise suggest("way to vote", self.votes, VOTES)
        if self.search not in SEARCHES:
            raise suggest("search", self.search, SEARCHES)
        check_device(self.device)
        if not self.temperature > 0:
            raise InputError(f"temperature must be above 0. Got {self.temperature}.")

    @property
    def answers(self) -> tuple[ProbeKind, ...]:
        """ML-kNN judges each label by itself, so it has no answer for classes that exclude each other."""
        return ("binary", "multilabel") if self.votes == "ml-knn" else ("binary", "multilabel", "multiclass")

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
        """Keep the rows that have a label; a label without both classes gets NaN for scores.

        ML-kNN searches the rows among themselves, where the rows of one patient (`groups`) are no neighbours of each other: they
        would tell a row its label, as none in the test part can.
        """
        labels = label_matrix(y, kind, n_classes)
        kept = np.flatnonzero(~np.isnan(labels).all(axis=1))
        if not len(kept):
            raise InputError("kNN has no training row; it needs at least one with a label.")
        rows = normalized(X[kept])
        group = np.arange(len(X)) if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int64)
        tables: tuple[LabelCounts, ...] = ()
        if self.votes == "ml-knn":
            apart = Apart(group[kept], group[kept])
            found = nearest(rows, rows, int(max(values)), apart, self.search, self.device)
            tables = count_labels(labels[kept], found.row, [int(k) for k in values])
        told = Diagnostics(self._cut_short(values, len(X)), software={"search": _software(self.search, self.device)})
        return FittedNeighbours(
            values,
            rows,
            labels[kept],
            group[kept],
            X,
            group,
            kept,
            self.temperature,
            self.search,
            self.device,
            tables,
            told,
        )

    def _cut_short(self, values: tuple[float, ...], n_train: int) -> tuple[str, ...]:
        """What is said where `grid` took a k that was asked for as the number of rows; of the default grid, nothing."""
        over = sorted({k for k in self.k if k > n_train})
        if self.k == K_GRID or not over or n_train not in values:
            return ()
        are = "is" if len(over) == 1 else "are"
        return (
            f"k = {', '.join(map(str, over))} {are} above the {n_train} rows to search, and taken as k = {n_train}.",
        )


def _software(search: Search, device: Device) -> str:
    by = searched_by(search, device)
    if by == "faiss":
        return f"faiss {faiss_library().__version__} IndexFlatIP" + ("" if device == "cpu" else f" on {device}")
    if by == "torch":
        return f"torch {version('torch')} on {device}, products"
    return f"numpy {np.__version__}" + (" bounds, or FAISS where they do not pay" if search == "auto" else " products")


def _share(labels: Matrix) -> Matrix:
    """Share of positives among the known labels of each column; NaN where they are all one, or none is known."""
    known = (~np.isnan(labels)).sum(axis=0)
    return _share_or_nan((labels == 1).sum(axis=0), known)


def _share_of_others(labels: Matrix, group: Numbers, query_group: Numbers) -> Matrix:
    """(n, n_classes): the share among the rows that are not of the query's group."""
    n_groups = int(query_group.max()) + 1
    result = np.empty((len(query_group), labels.shape[1]))
    for j in range(labels.shape[1]):
        known, positive = ~np.isnan(labels[:, j]), labels[:, j] == 1
        of_known = np.bincount(group[known], minlength=n_groups)
        of_positive = np.bincount(group[positive], minlength=n_groups)
        share = _share_or_nan(positive.sum() - of_positive, known.sum() - of_known)
        result[:, j] = share[query_group]
    return result


def _share_or_nan(positives: npt.ArrayLike, count: npt.ArrayLike) -> Matrix:
    part, whole = np.asarray(positives, dtype=np.float64), np.asarray(count, dtype=np.float64)
    return np.where((part > 0) & (part < whole), part / np.maximum(whole, 1), np.nan)
