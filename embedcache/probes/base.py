"""What a probe is: options that were frozen, a grid of one hyper-parameter, and a fit for all its values at once.

A whole path (45 values of C, all k) is one call, because the values share most of their work: a decomposition and
warm starts, or one neighbour search.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

Matrix: TypeAlias = npt.NDArray[np.float64]
Features: TypeAlias = npt.NDArray[np.floating[Any]]
Groups: TypeAlias = npt.NDArray[Any]
"""(n,): the patient of each row, fixed-width strings or integers."""
Columns: TypeAlias = tuple[slice, ...]
"""Columns of a matrix in runs, side by side: what one choice of features takes of the widest matrix."""
Sizes: TypeAlias = npt.NDArray[np.int64]
"""(bags,): how many rows each has, 1 or more."""
Affine: TypeAlias = tuple[Matrix, Matrix]
"""A factor (d,) and a shift (d,) of each feature."""
ProbeKind = Literal["binary", "multilabel", "multiclass", "numeric"]
"""The task kinds that probes answer; `answers` of a probe says which of them it does."""


@dataclass(frozen=True)
class Diagnostics:
    """What a fit has to say of itself."""

    warnings: tuple[str, ...] = ()
    """Plain lines for the result."""
    not_converged: tuple[float, ...] = ()
    """Values of the hyper-parameter whose solver stopped before its tolerance."""
    software: dict[str, str] = field(default_factory=dict)
    """What did the work, and its version: `{"neighbours": "faiss 1.15.1"}`."""
    path: Mapping[str, Any] = field(default_factory=dict)
    """What a solver has to tell, plain JSON: `{"iterations": 7, "gradient": [...]}`, a list having one item per value."""


class FittedPath(Protocol):
    """One fitted model per value of the hyper-parameter."""

    @property
    def values(self) -> tuple[float, ...]:
        """The hyper-parameter's values, in the order of `scores`."""

    @property
    def threshold(self) -> float:
        """Binary and multilabel: a score above it says positive. (Multiclass: the highest score wins; numeric: unused.)"""

    @property
    def score_name(self) -> str:
        """What a score is: `log-odds`, `log-probability`, `vote share`, `probability`, from which probabilities are made;
        `decision`, `cosine`, `closeness`, which only order and decide; `value` of a numeric task."""

    @property
    def diagnostics(self) -> Diagnostics:
        """Warnings and software of the fit."""

    def scores(self, X: Features) -> Matrix:
        """Shape (n_values, n, n_classes), float64; NaN in the column of a label that could not be fitted."""

    def only(self, value: float) -> "FittedPath":
        """The model of one of `values` alone, as a path of length one."""


@runtime_checkable
class LeavesOut(Protocol):
    """A fitted path that can score its own training rows without them, at no more than the cost of a fit."""

    def left_out_scores(self, by: Literal["row", "patient"]) -> Matrix:
        """(n_values, n_train, n_classes): each training row by a model without it, or without the rows of its patient."""


@runtime_checkable
class FitsTogether(Protocol):
    """A probe that fits all choices of features at once, at less cost than one after the other."""

    def fit_choices(
        self,
        X: Features,
        y: Features,
        kind: ProbeKind,
        choices: Mapping[str, Columns],
        values: tuple[float, ...],
        n_classes: int,
        groups: Groups | None = None,
    ) -> dict[str, FittedPath]:
        """As `Probe.fit_path` for each of `choices`, which names columns of X: its path scores those columns of a matrix."""


@runtime_checkable
class FitsFrom(Protocol):
    """A probe that is fitted in fewer steps where a fit to most of the rows is known: after the choice, to all of them."""

    def fit_from(
        self,
        X: Features,
        y: Features,
        kind: ProbeKind,
        fitted: FittedPath,
        scale: Affine,
        n_classes: int,
        groups: Groups | None = None,
    ) -> FittedPath:
        """As `Probe.fit_path` of the values of `fitted`, its own, and within its tolerance the same models.

        `fitted` saw these features under another scale: as X · factor + shift.
        """


class FittedBags(FittedPath, Protocol):
    """A fitted path that scores bags of rows."""

    def bag_scores(self, X: Features, sizes: Sizes) -> Matrix:
        """(n_values, bags, n_classes): X has the rows of each bag after those of the one before it."""


@runtime_checkable
class FitsBags(Protocol):
    """A probe that pools by itself: it is given all slices of a sample. As any other it can be fitted to bags of one row."""

    def fit_bags(
        self,
        X: Features,
        sizes: Sizes,
        y: Features,
        kind: ProbeKind,
        values: tuple[float, ...],
        n_classes: int,
        groups: Groups | None = None,
    ) -> FittedBags:
        """As `Probe.fit_path`, y and groups being those of the bags: X has the rows of each after those of the one before it."""


class Probe(Protocol):
    """A frozen dataclass of options (they enter the result's digest); learns nothing until `fit_path`.

    One whose hyper-parameter may be 0 says so by an attribute `zero_too = True`.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def parameter(self) -> str:
        """Name of the hyper-parameter, as its field calls it: `C`, `k`."""

    @property
    def answers(self) -> tuple[ProbeKind, ...]:
        """The kinds of task that it can be fitted to."""

    @property
    def standardize(self) -> bool:
        """Whether features are standardised on the training rows unless the user says otherwise."""

    def grid(self, n_train: int) -> tuple[float, ...]:
        """Values to try with `n_train` rows, from the smoothest model to the most flexible: a tie goes to the earlier."""

    def fit_path(
        self,
        X: Features,
        y: Features,
        kind: ProbeKind,
        values: tuple[float, ...],
        n_classes: int,
        groups: Groups | None = None,
    ) -> FittedPath:
        """Fit every one of `values`.

        X (n, d). y (n,) or (n, n_classes) of 0, 1 and NaN for missing; multiclass: (n,) class numbers as floats; numeric:
        (n,) values. `n_classes` is the number of score columns: 1 for binary and numeric. `groups` (n,): the patient of each
        row, for a probe that leaves rows of one patient out of each other's fit.
        """


def label_matrix(y: Features, kind: ProbeKind, n_classes: int) -> Matrix:
    """`y` as (n, n_classes) of 0, 1 and NaN for missing; multiclass numbers become one column per class."""
    if kind == "multiclass":
        numbers = np.asarray(y, dtype=np.float64)
        matrix: Matrix = (numbers[:, None] == np.arange(n_classes)).astype(np.float64)
        matrix[np.isnan(numbers)] = np.nan
        return matrix
    return np.asarray(y, dtype=np.float64).reshape(len(y), n_classes)


def take_columns(X: Features, columns: Columns) -> Features:
    """The columns of X (n, D), side by side: a view where they are one run."""
    return X[:, columns[0]] if len(columns) == 1 else np.concatenate([X[:, run] for run in columns], axis=1)


def runs(n: int, width: int, values: int) -> Iterator[slice]:
    """0 to n in runs that hold some `values` numbers, where each of the n has `width` of them; at least one at a time."""
    step = max(1, values // max(1, width))
    for start in range(0, n, step):
        yield slice(start, start + step)
