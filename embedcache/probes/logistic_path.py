"""Logistic regression for all labels and all values of C in one solve.

Minimises  |w|² / 2 + C · Σ_i s_i · loss_i  as scikit-learn does, the intercept free, for every label (or for a softmax over
all classes) and every C: a column each. Divided by C · Σ s it is the mean loss plus a penalty of 1 / (C · Σ s).

1. All columns start at w = 0 and the prior's intercept, where the Hessian is known: p·(1 - p) times the rows' covariance.
   In its eigenbasis it is diagonal with any penalty, so that one decomposition preconditions all columns, and the first
   step of L-BFGS is Newton's. Further on few rows bend the loss, and the mean and the variance of their scores tell how their
   covariance differs (`Bending`). With features that do not separate the classes, six passes over the rows do.
2. A large C on separable rows ends far away, where few rows bend the loss. What the first stage leaves is solved along
   ascending C: several larger C start at once, on the line through what is done, and the covariance is taken anew there,
   weighted by each row's curvature: for each fit, and for each class of a softmax. One factor serves all of these C.
3. Where float32 allows no more progress, what is left goes on in float64, block by block.

Memory beside X: blocks of rows (some 50 MB), 3 · d² float64 per core while Gram matrices are made and decomposed, one d x d
matrix per label or class that needs the second stage (labels are solved in groups that hold at most 0.5 GB of them; classes
that would take more than 2 GB share one), and 31 numbers per coefficient at work (columns are solved in groups that hold at
most 1.5 GB of them). With fewer rows than features the rows' coordinates in a basis of themselves, (n, n), take the place
of X; the penalty does not see the rotation.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.probes.base import Features, Matrix
from embedcache.probes.batched_lbfgs import Columns
from embedcache.probes.coordinates import Coordinates
from embedcache.probes.eigenbasis import Eigenbasis
from embedcache.probes.path_problem import NOWHERE, STATE_BYTES, STATE_NUMBERS, Near, PathProblem
from embedcache.probes.path_stages import FACTOR_BYTES, solve
from embedcache.probes.place import HERE, Place, torch_there
from embedcache.probes.rows import Targets
from embedcache.probes.side_by_side import threads_for

ClassWeight: TypeAlias = Literal["balanced"] | Mapping[int, float] | None
"""`balanced`: each class of a label counts n / (number of classes · rows of the class); or a weight by class number."""


_ROWS_NEAR = 20
"""Rows for each feature from which on a solution of most of them is near that of all, and their eigenvectors too; of 6, and with
C = 1, a start there took 21 passes in place of 18."""


@dataclass(frozen=True)
class LogisticSolution:
    """Each fit at each C; a fit is a label, or all classes of a softmax."""

    C: tuple[float, ...]
    coef: Matrix
    """(n_C, n_outputs, d); NaN for a label or class that cannot be fitted."""
    intercept: Matrix
    """(n_C, n_outputs)."""
    objective: Matrix
    """(n_C, n_fits): |w|² / 2 + C · Σ s · loss; NaN where there was nothing to fit."""
    gradient_norm: Matrix
    """(n_C, n_fits): Euclidean length of the gradient of the objective divided by C · Σ s."""
    iterations: npt.NDArray[np.int64]
    """(n_C, n_fits)."""
    converged: npt.NDArray[np.bool_]
    """(n_C, n_fits), booleans."""
    passes: float
    """Over the rows, for all columns: a pass in which half of the columns took part counts one half, and a Gram matrix, of one
    label or class, as much of one as the rows that it reads are of all."""
    grams: float
    """How many of the passes were Gram matrices."""
    basis: Eigenbasis | None = field(default=None, repr=False, compare=False)
    """For a solve that starts from this one: of all features, on the device; None if some of them are constant, or if n < d."""


@dataclass(frozen=True)
class Start:
    """A solution of most of the rows, by the same values of C, from which a solve of all may start."""

    coef: Matrix
    """(n_C, n_outputs, d), as `LogisticSolution` has them."""
    intercept: Matrix
    basis: Eigenbasis | None


def solve_logistic(
    X: Features,
    Y: Matrix,
    C: tuple[float, ...],
    *,
    multinomial: bool = False,
    sample_weight: Matrix | None = None,
    class_weight: ClassWeight = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    device: str = "cpu",
    start: Start | None = None,
) -> LogisticSolution:
    """Fit every label (or the softmax over all classes) at every C.

    X (n, d), float16 to float64; products run in float64 for float64, else in float32. Y (n, n_labels) of 0, 1 and NaN for a
    missing label, which leaves its row out of that label's fit; multinomial: one column per class. sample_weight (n,).
    A column stops where the decrease that is left is foreseen to lie below `tol` times the objective, or unconverged after
    about `max_iter` iterations (it may end the round that it is in). Two classes of a softmax are one binary fit, as in
    scikit-learn. `device` other than `cpu` asks torch for the work: it holds X as stored, in one transfer, the state of the
    columns and the factors. `start` saves steps, where rows are many, and decides nothing: a column starts there if that is
    better than w = 0, and ends where it would have ended, within `tol`. Raises InputError on features that are not finite, or
    if torch has no such device.
    """
    ascending = tuple(sorted(set(C)))
    order = [C.index(c) for c in ascending]
    fits = _Fits.of(Y, _weights(Y, multinomial, sample_weight, class_weight), multinomial)
    coordinates, place = Coordinates.of(X), place_on(device)
    held = place.load(coordinates.rows)
    many = len(X) >= _ROWS_NEAR * X.shape[1]
    n_C, n_fits, heads = len(ascending), fits.weight.shape[1], fits.heads
    coef, intercept = np.full((n_C, Y.shape[1], X.shape[1]), np.nan), np.full((n_C, Y.shape[1]), np.nan)
    objective, norm = np.full((n_C, n_fits), np.nan), np.full((n_C, n_fits), np.nan)
    iterations, converged = np.zeros((n_C, n_fits), dtype=np.int64), np.ones((n_C, n_fits), dtype=np.bool_)
    evaluations, grams, first = 0, 0.0, None
    products = 2 * coordinates.rows.size * n_C * max(1, len(fits.possible)) * heads
    with threads_for(products if device == "cpu" else 0) as team:
        for some in _groups(fits.possible, n_C * heads, coordinates.rows.shape[1]):
            total = fits.weight[:, some].sum(axis=0)
            problem = PathProblem.over(
                held,
                fits.targets(some),
                fits.prior(some),
                np.array(ascending),
                total,
                team,
                place,
            )
            near = _near(start, fits, some, order, problem) if start and many else NOWHERE
            found, decomposed, basis = solve(problem, tol, max_iter, near)
            first = first or basis
            evaluations, grams = evaluations + found.evaluations, grams + decomposed
            shape = (len(some), n_C)
            point = found.point.reshape(*shape, heads, -1).transpose(1, 0, 2, 3)
            w = coordinates.back(point[..., :-1])
            b = point[..., -1] - np.einsum("cfhd,fd->cfh", w, coordinates.original(problem.rows.centre))
            if multinomial and heads == 1:
                w, b = np.concatenate([-w, w], axis=2) / 2, np.concatenate([-b, b], axis=2) / 2
            into = fits.shown if multinomial else some
            coef[:, into], intercept[:, into] = w.reshape(n_C, -1, X.shape[1]), b.reshape(n_C, -1)
            objective[:, some] = np.array(ascending)[:, None] * total * found.value.reshape(shape).T
            norm[:, some] = np.linalg.norm(found.gradient, axis=1).reshape(shape).T
            iterations[:, some], converged[:, some] = (
                found.iterations.reshape(shape).T,
                found.converged.reshape(shape).T,
            )
    at = [ascending.index(c) for c in C]
    passes = evaluations / max(1, len(fits.possible) * n_C) + grams
    kept = first if coordinates.dual is None and first is not None and first.whole else None
    return LogisticSolution(
        tuple(C), coef[at], intercept[at], objective[at], norm[at], iterations[at], converged[at], passes, grams, kept
    )


def _near(start: Start, fits: "_Fits", some: Columns, order: list[int], problem: PathProblem) -> Near:
    """`start` as points of the problem of the fits `some`; order: the C that it has, ascending."""
    into = fits.shown if fits.multinomial else some
    w, b = start.coef[order][:, into], start.intercept[order][:, into]
    if fits.multinomial and fits.heads == 1:
        w, b = w[:, 1:] - w[:, :1], b[:, 1:] - b[:, :1]
    w, b = w.reshape(len(order), len(some), fits.heads, -1), b.reshape(len(order), len(some), fits.heads)
    b = b + np.einsum("cfhd,fd->cfh", w, problem.rows.centre)
    point = np.concatenate([w, b[..., None]], axis=-1).transpose(1, 0, 2, 3).reshape(len(some) * len(order), -1)
    return Near(point if np.isfinite(point).all(axis=1).any() else None, start.basis)


@dataclass(frozen=True)
class _Fits:
    """Which fits there are, their targets and weights."""

    positive: Matrix
    """(n, n_outputs) of 0 and 1."""
    weight: Matrix
    """(n, n_fits)."""
    shown: Columns
    """Multinomial: the classes that rows have. Else the labels that have both."""
    multinomial: bool

    @classmethod
    def of(cls, Y: Matrix, weight: Matrix, multinomial: bool) -> "_Fits":
        positive = np.where(np.isnan(Y), 0.0, Y)
        count = (weight * positive).sum(axis=0)
        shown = count > 0 if multinomial else (count > 0) & ((weight * (1 - positive)).sum(axis=0) > 0)
        return cls(positive, weight, np.flatnonzero(shown), multinomial)

    @property
    def possible(self) -> Columns:
        """The fits that have at least two classes."""
        return np.arange(min(1, len(self.shown) // 2)) if self.multinomial else self.shown

    @property
    def heads(self) -> int:
        """Outputs that are solved together."""
        return len(self.shown) if self.multinomial and len(self.shown) > 2 else 1

    def _outputs(self, some: Columns) -> Columns:
        if not self.multinomial:
            return some
        return self.shown if self.heads > 1 else self.shown[1:]

    def targets(self, some: Columns) -> Targets:
        """What the fits `some` are to learn."""
        share = (self.weight[:, some] / self.weight[:, some].sum(axis=0)).T
        positive = self.positive[:, self._outputs(some)].T
        return Targets(positive, share, True) if self.heads > 1 else Targets(2 * positive - 1, share)

    def prior(self, some: Columns) -> Matrix:
        """Shares of positives, one per fit or per class of a softmax."""
        weight = self.weight[:, some]
        return np.asarray((weight * self.positive[:, self._outputs(some)]).sum(axis=0) / weight.sum(axis=0))


def _weights(Y: Matrix, multinomial: bool, sample_weight: Matrix | None, class_weight: ClassWeight) -> Matrix:
    """(n, n_fits): how much each row counts; 0 where its label is missing."""
    missing = np.isnan(Y)
    number = np.where(missing, 0.0, Y).astype(np.int64)
    if multinomial:
        number, missing = number.argmax(axis=1)[:, None], missing[:, :1]  # a row's class is known for all or none
    each = np.ones(len(Y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    weight = np.where(missing, 0.0, each[:, None])
    if class_weight is None:
        return weight
    classes = range(Y.shape[1] if multinomial else 2)
    for j in range(weight.shape[1]):
        if class_weight == "balanced":
            count = np.bincount(number[:, j], weights=weight[:, j], minlength=len(classes))
            there = (count > 0).sum() * count
            by_class = np.divide(count.sum(), there, out=np.zeros_like(count), where=there > 0)
        else:
            by_class = np.array([class_weight.get(k, 1.0) for k in classes])
        weight[:, j] *= by_class[number[:, j]]
    return weight


def _groups(fits: Columns, columns: int, d: int) -> Iterator[Columns]:
    """Fits that are solved together, within the memory that states and bases may take."""
    at_once = int(min(STATE_BYTES // (STATE_NUMBERS * 8 * columns * (d + 1)), FACTOR_BYTES // (8 * d * d)))
    step = max(1, at_once)
    for start in range(0, len(fits), step):
        yield fits[start : start + step]


def place_on(device: str) -> Place:
    """Where the work is done: by numpy on `cpu`, by torch on any other device."""
    if device == "cpu":
        return HERE
    place: Place = torch_there(device).place_on(device)
    return place
