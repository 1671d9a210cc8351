"""The columns of a logistic path, one per fit and C: where they start, and what evaluates them; `path_stages` solves them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from embedcache.probes.base import Matrix
from embedcache.probes.batched_lbfgs import MEMORY, Columns, Solution, minimize_all
from embedcache.probes.coordinates import not_finite
from embedcache.probes.eigenbasis import Eigenbasis, Metric
from embedcache.probes.place import HERE, Place
from embedcache.probes.rows import Rows, Targets
from embedcache.probes.side_by_side import ALONE, Team, shares
from embedcache.probes.standing import Standing

STATE_BYTES = 1.5e9
"""What columns at work may take together."""
STATE_NUMBERS = 2 * MEMORY + 11
"""float64 per coefficient of a column at work."""
_SHARE = 8
"""Columns that a thread takes at least, of those that share a metric."""
_OF_GAIN = 1e-4
"""Share of the gain over the prior alone that may be left: weights are then within a hundredth of their length."""
_ROUNDING = {"float32": 3e-7, "float64": 1e-14}
"""Share of a mean loss that may be noise."""


class Preconditioner(Protocol):
    """An estimate of one fit's Hessian at any penalty."""

    def solve(self, gradient: Any, at: Standing) -> tuple[Any, Matrix]:
        """The gradient over the Hessian, and how many times more decrease than that foresees there may be; see `Metric`."""


@dataclass(frozen=True)
class Near:
    """What is known of a problem from one of nearly the same rows."""

    point: Matrix | None = None
    """(m, heads · (d + 1)): where its columns ended, the intercept being that of centred rows; NaN where one is not known."""
    basis: Eigenbasis | None = None


NOWHERE = Near()


@dataclass(frozen=True)
class PathProblem:
    """The columns of a group of fits: fit by fit, C ascending within each."""

    rows: Rows
    prior: Matrix
    """(n_fits,): share of positives; of a softmax (n_classes,)."""
    label: Columns
    """(m,): the fit of each column."""
    penalty: Matrix
    """(m,): 1 / (C · Σ s)."""
    prior_loss: Matrix
    """(n_fits,): mean loss at the prior's scores, the entropy of the labels."""

    @classmethod
    def over(
        cls,
        X: Any,
        targets: Targets,
        prior: Matrix,
        C: Matrix,
        total: Matrix,
        team: Team = ALONE,
        place: Place = HERE,
    ) -> "PathProblem":
        """Every fit at every C (ascending), of X as `place` holds it; total (n_fits,) are the sums of weights.

        Raises InputError if X is not finite.
        """
        rows = Rows(X, targets, team=team, place=place)
        if not np.isfinite(rows.centre).all():
            raise not_finite()
        entropy = -prior * np.log(prior)
        loss = entropy.sum(keepdims=True) if targets.softmax else entropy - (1 - prior) * np.log1p(-prior)
        return cls(rows, prior, np.repeat(np.arange(len(total)), len(C)), 1 / (total[:, None] * C).ravel(), loss)

    def parts(self) -> Iterator[Columns]:
        """Columns whose state fits in memory together; where not all do, the smaller C come first."""
        numbers = self.rows.heads * (self.rows.d + 1)
        at_once = max(1, int(STATE_BYTES // (STATE_NUMBERS * 8 * numbers)))
        columns = np.arange(len(self.label))
        for start in range(0, len(columns), at_once):
            yield columns[start : start + at_once]

    def attempt(self, state: Solution, points: Matrix, columns: Columns) -> Columns:
        """Take each column to its point, if that is better than where it stands. Returns those."""
        value, gradient, bend = self._evaluate(self.rows.place.load(points), columns)
        state.evaluations += len(columns)
        better = value < state.value[columns]
        taken = columns[better]
        state.point[taken] = points[better]
        state.value[taken], state.bend[taken] = value[better], bend[better]
        state.gradient[taken] = self.rows.place.unload(gradient)[better]
        return taken

    def start_from(self, state: Solution, base: int, column: int) -> None:
        """Start a column where another of the same fit stands, if that is better; no pass over the rows is needed."""
        w = state.point[base].reshape(self.rows.heads, -1)[:, :-1]
        value = state.value[base] + (self.penalty[column] - self.penalty[base]) / 2 * float((w**2).sum())
        if value >= state.value[column]:
            return
        state.point[column], state.value[column] = state.point[base], value
        state.bend[column] = state.bend[base]
        gradient = state.gradient[base].reshape(self.rows.heads, -1).copy()
        gradient[:, :-1] += (self.penalty[column] - self.penalty[base]) * w
        state.gradient[column] = gradient.ravel()

    def minimize(
        self,
        state: Solution,
        columns: Columns,
        metrics: Sequence[Preconditioner],
        tol: float,
        max_iter: int,
        still: float,
    ) -> None:
        """Bring `columns` on by at most `max_iter` steps (see `minimize_all`), each under the metric of its fit."""
        precondition = partial(self._precondition, metrics)
        allowed = partial(self._allowed, tol)
        rounding = _ROUNDING[self.rows.dtype.name]
        minimize_all(
            self._evaluate,
            precondition,
            allowed,
            state,
            columns,
            max_iter=max_iter,
            still=still,
            rounding=rounding,
            place=self.rows.place,
        )

    def _allowed(self, tol: float, points: Any, values: Matrix, columns: Columns) -> Matrix:
        """`tol` of the objective, but little of what the features gain: with a tiny C all but w = 0 is within `tol`."""
        w = points.reshape(len(points), self.rows.heads, -1)[..., :-1]
        square = self.penalty[columns] / 2 * self._squares(w)
        # Both are below the gain at the solution, and where the first is lost in rounding, the second is nearly all of it.
        gain = np.maximum(self.prior_loss[self.label[columns]] - values, square)
        return np.asarray(np.minimum(tol * values, _OF_GAIN * gain))

    def _squares(self, w: Any) -> Matrix:
        """(m,): the squared lengths of w (m, heads, d)."""
        return self.rows.place.unload(self.rows.xp.einsum("mhd,mhd->m", w, w))

    def _evaluate(self, points: Any, columns: Columns) -> tuple[Matrix, Any, Matrix]:
        """Values, gradients, which lie where the points do, and how each bends, (m, 3); see `Standing`."""
        split = points.reshape(len(points), self.rows.heads, -1)
        w = split[..., :-1]
        penalty = self.penalty[columns]
        value, slope, slope_b, bend = self.rows.evaluate(w, split[..., -1], self.label[columns])
        value += penalty / 2 * self._squares(w)
        slope += self.rows.place.load(penalty)[:, None, None] * w
        return value, self.rows.xp.concatenate([slope, slope_b[..., None]], -1).reshape(points.shape), bend

    def _precondition(
        self, metrics: Sequence[Preconditioner], gradient: Any, points: Any, bend: Matrix, columns: Columns
    ) -> tuple[Any, Matrix]:
        at = Standing(points, self.penalty[columns], bend)

        def solve(of_run: tuple[Preconditioner, slice]) -> tuple[Any, Matrix]:
            metric, run = of_run
            return metric.solve(gradient[run], at.of(run))

        runs = [
            (metric, slice(a, b))
            for metric, run in self._runs(metrics, columns)
            for a, b in pairwise(
                shares(run.start, run.stop, min(self.rows.team.size, (run.stop - run.start) // _SHARE))
            )
        ]
        steps, misses = zip(*self.rows.team.each(solve, runs), strict=True)
        return self.rows.xp.concatenate(steps), np.concatenate(misses)

    def _runs(self, metrics: Sequence[Preconditioner], columns: Columns) -> list[tuple[Preconditioner, slice]]:
        """Runs of columns that share a metric."""
        label = self.label[columns]
        edges = [i for i in range(1, len(label)) if metrics[label[i]] is not metrics[label[i - 1]]]
        return [(metrics[label[a]], slice(a, b)) for a, b in pairwise([0, *edges, len(label)])]

    def start(self) -> Solution:
        """Every column at w = 0; those of one fit share value and gradient."""
        rows, points = self.rows, self._at_zero()
        n_fits = len(points)
        there = rows.place.load(points.reshape(n_fits, rows.heads, -1))
        value, slope, slope_b, bend = rows.evaluate(there[..., :-1], there[..., -1], np.arange(n_fits))
        gradient = rows.place.unload(rows.xp.concatenate([slope, slope_b[..., None]], -1).reshape(n_fits, -1))
        m = len(self.label)
        return Solution(
            points[self.label],
            value[self.label],
            gradient[self.label],
            bend[self.label],
            np.zeros(m, dtype=np.int64),
            np.zeros(m, dtype=bool),
            evaluations=n_fits,
        )

    def _at_zero(self) -> Matrix:
        """(n_fits, heads · (d + 1)): w = 0 and the prior's intercept."""
        n_fits, logs = int(self.label[-1]) + 1, np.log(self.prior)
        points = np.zeros((n_fits, self.rows.heads, self.rows.d + 1))
        points[:, :, -1] = logs - logs.mean() if self.rows.softmax else (logs - np.log1p(-self.prior))[:, None]
        return points.reshape(n_fits, -1)

    def start_near(self, points: Matrix) -> Solution:
        """Every column at its point, or at w = 0 where it has none (NaN), or one that is worse than that."""
        m = len(self.label)
        state = Solution(
            self._at_zero()[self.label],
            self.prior_loss[self.label],
            np.zeros(points.shape),
            np.zeros((m, 3)),
            np.zeros(m, dtype=np.int64),
            np.zeros(m, dtype=bool),
        )
        with np.errstate(over="ignore"):
            usable = np.isfinite(points.astype(self.rows.dtype)).all(axis=1)
        for part in self.parts():
            known = part[usable[part]]
            taken = self.attempt(state, points[known], known) if len(known) else known
            if len(rest := np.setdiff1d(part, taken)):
                self.evaluate_again(state, rest)
        return state

    def basis(self) -> Eigenbasis:
        """One for all fits, of the rows under the mean of their weights."""
        rows = self.rows
        mean, gram = rows.gram(rows.weight.mean(0))
        return Eigenbasis.of(gram, mean + rows.shift, rows.dtype, rows.place)

    def first_metrics(self, basis: Eigenbasis) -> list[Preconditioner]:
        """For each fit the metric of w = 0."""
        rows = self.rows
        one = np.diag(self.prior) - np.outer(self.prior, self.prior) if rows.softmax else np.ones((1, 1))
        return [Metric.of(basis, one)] * (int(self.label[-1]) + 1)

    def evaluate_again(self, state: Solution, columns: Columns) -> None:
        """What float32 said of the points of `columns`, in float64."""
        value, gradient, bend = self._evaluate(self.rows.place.load(state.point[columns]), columns)
        state.value[columns], state.bend[columns] = value, bend
        state.gradient[columns] = self.rows.place.unload(gradient)
        state.evaluations += len(columns)
