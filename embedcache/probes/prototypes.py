"""The nearest class mean: as few parameters as a head can have (Snell et al. 2017, SimpleShot of Wang et al. 2019).

`shrink` moves each class mean towards the mean of all rows, feature by feature, by so many standard errors and no further
(nearest shrunken centroids, Tibshirani et al. 2002); 0, the only value unless others are given, leaves it where it is.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from embedcache.errors import InputError
from embedcache.probes.base import Diagnostics, Features, Groups, Matrix, ProbeKind, label_matrix, runs
from embedcache.probes.coordinates import BLOCK_VALUES, not_finite


@dataclass(frozen=True)
class FittedPrototypes:
    """Class means less the mean of all rows; of a label: without and with it."""

    values: tuple[float, ...]
    kind: ProbeKind
    metric: str
    means: tuple[Matrix, ...]
    """Of each label (n_values, 2, d), or one of (n_values, n_classes, d); NaN where there is no row."""
    centres: tuple[Matrix, ...]
    """(d,) each: the mean of the label's rows."""
    diagnostics: Diagnostics

    threshold = 0.0
    """Nearer to the mean with the label than to the one without."""

    @property
    def score_name(self) -> str:
        """Of a label the difference of two."""
        return "cosine" if self.metric == "cosine" else "closeness"

    def only(self, value: float) -> "FittedPrototypes":
        """The means of one value alone."""
        at = self.values.index(value)
        return replace(self, values=(value,), means=tuple(m[at : at + 1] for m in self.means))

    def scores(self, X: Features) -> Matrix:
        """How near a row is to a class's mean, or how much nearer than to the mean without the label: (n_values, n, …)."""
        columns = []
        for means, centre in zip(self.means, self.centres, strict=True):
            near = np.empty((len(means), len(X), means.shape[1]))
            for rows in runs(len(X), X.shape[1], BLOCK_VALUES):
                near[:, rows] = _nearness(X[rows].astype(np.float64) - centre, means, self.metric)
            columns.append(near if self.kind == "multiclass" else near[..., 1:] - near[..., :1])
        return np.concatenate(columns, axis=2)


@dataclass(frozen=True)
class PrototypeProbe:
    """Nearest class mean."""

    shrink: tuple[float, ...] = (0.0,)
    """Standard errors by which each class mean is moved towards the mean of all."""
    metric: Literal["cosine", "euclidean"] = "cosine"
    """How near a row is: by the cosine about the mean of all training rows, or by the distance."""

    parameter = "shrink"
    answers: ClassVar[tuple[ProbeKind, ...]] = ("binary", "multilabel", "multiclass")
    standardize = True
    zero_too = True

    def __post_init__(self) -> None:
        if not self.shrink or not all(0 <= s < np.inf for s in self.shrink):
            raise InputError(f"shrink must be one or several numbers of 0 or more. Got {list(self.shrink)}.")
        if self.metric not in ("cosine", "euclidean"):
            raise InputError(f"metric must be 'cosine' or 'euclidean'. Got {self.metric!r}.")

    def grid(self, n_train: int) -> tuple[float, ...]:
        """All values, descending: the more is shrunk away, the fewer features count. Independent of `n_train`."""
        return tuple(sorted(set(self.shrink), reverse=True))

    def fit_path(
        self,
        X: Features,
        y: Features,
        kind: ProbeKind,
        values: tuple[float, ...],
        n_classes: int,
        groups: Groups | None = None,
    ) -> FittedPrototypes:
        """Class means of each label over the rows where it is known; NaN for a label or class without rows."""
        labels = label_matrix(y, kind, n_classes)
        if kind == "multiclass":
            found = [_class_means(X, labels, values)]
        else:
            found = [_class_means(X, np.stack([1 - column, column], axis=1), values) for column in labels.T]
        means, centres = zip(*found, strict=True)
        return FittedPrototypes(
            values, kind, self.metric, means, centres, Diagnostics(software={"solver": f"numpy {np.__version__} means"})
        )


def _class_means(X: Features, member: Matrix, values: tuple[float, ...]) -> tuple[Matrix, Matrix]:
    """Shrunken means (n_values, classes, d) about the centre (d,); member (n, classes) of 0, 1, NaN in rows left out."""
    known = np.flatnonzero(~np.isnan(member).any(axis=1))
    member, n, d = member[known], len(known), X.shape[1]
    size = member.sum(axis=0)
    if not n or (size > 0).sum() < 2:
        return np.full((len(values), member.shape[1], d), np.nan), np.zeros(d)
    total, total_of_square = np.zeros((member.shape[1], d)), np.zeros(d)
    middle = X[known[: min(n, 1000)]].mean(axis=0, dtype=np.float64)  # near the mean: squares about it lose no digits
    for rows in runs(n, d, BLOCK_VALUES):
        block = X[known[rows]].astype(np.float64) - middle
        total += member[rows].T @ block
        total_of_square += np.einsum("ij,ij->j", block, block)
    centre = total.sum(axis=0) / n
    if not np.isfinite(centre).all():
        raise not_finite()
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / size[:, None]  # NaN for a class without a row
    there = size > 0
    within = total_of_square - (size[there, None] * mean[there] ** 2).sum(axis=0)
    deviation = np.sqrt(np.maximum(within, 0.0) / max(1, n - int(there.sum())))
    error = np.sqrt(np.maximum(1 / np.maximum(size, 1) - 1 / n, 0.0))[:, None] * deviation
    apart = mean - centre
    shrunk = np.stack([np.sign(apart) * np.maximum(np.abs(apart) - value * error, 0.0) for value in values])
    return shrunk, middle + centre


def _nearness(X: Matrix, means: Matrix, metric: str) -> Matrix:
    """(n_values, n, classes): cosines, or 2 x·m - |m|², which is |x|² less the squared distance."""
    product = np.einsum("nd,vkd->vnk", X, means, optimize=True)
    square = (means**2).sum(axis=2)[:, None, :]
    if metric == "euclidean":
        return np.asarray(2 * product - square)
    length = np.sqrt((X**2).sum(axis=1)[:, None] * square)
    none: Matrix = np.where(np.isnan(product), np.nan, 0.0)  # a row or a mean of zeros is near to nothing
    cosine: Matrix = np.divide(product, length, out=none, where=length > 0)
    return cosine
