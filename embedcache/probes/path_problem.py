"""The columns of a logistic path, one per fit and C, and the two stages that solve them; see `logistic_path`."""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from embedcache.probes.base import Matrix
from embedcache.probes.batched_lbfgs import MEMORY, Columns, Solution, minimize_all
from embedcache.probes.coarse_to_fine import levels, weights_between
from embedcache.probes.coordinates import not_finite
from embedcache.probes.eigenbasis import Eigenbasis, Metric
from embedcache.probes.factored import Factored, FactoredHeads
from embedcache.probes.place import HERE, Place
from embedcache.probes.rows import Rows, Targets
from embedcache.probes.side_by_side import ALONE, Team, one_blas_thread, shares

STATE_BYTES = 1.5e9
"""What columns at work may take together."""
FACTOR_BYTES, CLASS_BYTES = 5e8, 2e9
"""What factors of all fits may take, and those of all classes of a softmax."""
STATE_NUMBERS = 2 * MEMORY + 8
"""float64 per coefficient of a column at work."""
_FIRST = 12
"""Iterations of the first stage; what needs more is cheaper along the path."""
_AHEAD, _LATER = 6, 14
"""Values of C that start together from one point of the path, and the iterations they have before it is renewed."""
_FINER = 10.0
"""Times less that float64 leaves of what it takes over: steps are cheap there, and what is foreseen is least to be believed."""
_SLOW = 12.0
"""Iterations that a column has on average of float32 that is left with noise."""
_ALIKE = 0.05
"""Share of a fit's curvature that may be gone where its metric serves further: classes that nothing separates keep it along C."""
_SHARE = 8
"""Columns that a thread takes at least, of those that share a metric."""
_STILL_FIRST, _STILL_LATER = 10.0, 1.0
"""Times what may be left that the last step may have gained. Far from the metric's point, L-BFGS has ended 3e-4 too early."""
_COUPLED, _COUPLED_OF_ALL = 2.0, 8.0
"""Times what is foreseen that a softmax may have left: with 1, real features ended 2e-5 above the best. Of one factor for all
classes, which has ended 2e-4 too early even so (three classes, 500 rows): hence room for one of each."""
_OF_GAIN = 1e-4
"""Share of the gain over the prior alone that may be left: weights are then within a hundredth of their length."""
_ROUNDING = {"float32": 3e-7, "float64": 1e-14}
"""Share of a mean loss that may be noise."""


class Preconditioner(Protocol):
    """An estimate of one fit's Hessian at any penalty."""

    def solve(self, gradient: Any, penalty: Matrix, curvature: Matrix) -> Any:
        """The gradient over the Hessian; see `Metric`."""

    def misses(self, penalty: Matrix, curvature: Matrix) -> Matrix:
        """How many times more decrease than it foresees there may be: both (m,) as in `solve`."""


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

    def solve(self, tol: float, max_iter: int, near: Near = NOWHERE) -> tuple[Solution, float, Eigenbasis]:
        """The solution of every column, how many passes over the rows its Gram matrices took, and the first one's basis."""
        state = self._start() if near.point is None else self._start_near(near.point)
        basis = near.basis or self._basis()
        grams = 0.0 if near.basis else 1.0
        metrics: list[Preconditioner] = self._first_metrics(basis)
        for part in self._parts():
            for level in self._levels(part) if near.point is None else [part]:
                first = level[0] == part[0]
                started = level if first else self._start_between(state, part, level)
                still = _STILL_FIRST if first else _STILL_LATER
                self._minimize(state, started, metrics, tol, min(_FIRST, max_iter), still)
            if state.converged[part].all():
                continue
            importlib.import_module("scipy.linalg")  # takes a while: only rows that separate pay for it
            with one_blas_thread(self.rows.team):
                grams += self._finish(state, part, metrics, tol, max_iter)
        return state, grams, basis

    def _finish(
        self, state: Solution, part: Columns, metrics: list[Preconditioner], tol: float, max_iter: int
    ) -> float:
        """The second stage: along each fit's C, from where metrics are renewed. A fit that float32 does not bring on goes on in
        float64 when the others are done: where features nearly depend on each other, it takes rounds by the dozen to see that.
        """
        grams = 0.0
        double: PathProblem | None = None
        behind: set[int] = set()  # fits that float32 does not bring on
        serves: set[int] = set()  # fits whose metric may do for what is left of them
        ended: set[int] = set()  # nor float64
        while True:
            left = part[~state.converged[part] & (state.iterations[part] < max_iter)]
            fits = [fit for fit in np.unique(self.label[left]).tolist() if fit not in ended]
            if not fits:
                return grams
            ahead = [fit for fit in fits if fit not in behind]
            if not ahead and double is None:
                double = replace(self, rows=self.rows.in_float64())
            path, fits = (self, ahead) if ahead or double is None else (double, fits)
            batch = [left[self.label[left] == fit][:_AHEAD] for fit in fits]
            path._set_out(state, batch, again=path is not self)
            of_batch = [metrics[fit] if fit in serves else None for fit in fits]
            renewed = path._renewed(state, batch, of_batch)
            for fit, (metric, _) in zip(fits, renewed, strict=True):
                metrics[fit] = metric
            grams += sum(read or 0.0 for _, read in renewed)
            columns = np.concatenate(batch)
            before, taken = state.value.copy(), state.iterations.copy()
            path._minimize(state, columns, metrics, tol if path is self else tol / _FINER, _LATER, _STILL_LATER)
            for fit, todo, (metric, read) in zip(fits, batch, renewed, strict=True):
                missed = todo[~state.converged[todo]]
                serves_on = not len(missed) or alike(metric, state.curvature[missed[0]])
                if path is self and self.rows.dtype != np.float64:
                    slow = (state.iterations - taken)[todo].mean() > _SLOW
                    if slow or not state.converged[todo[0]]:
                        behind.add(fit)
                        serves_on = False
                        # float64 is asked whether any of them is
                        state.converged[todo[state.iterations[todo] < max_iter]] = False
                    elif len(missed) and serves_on and ((state.iterations - taken)[missed] < _LATER).all():
                        behind.add(fit)  # not the metric, but rounding is in the way
                else:
                    gained = before[todo] - state.value[todo] > tol / 100 * np.abs(before[todo])
                    if read is not None and not (gained | state.converged[todo]).any():
                        ended.add(fit)
                    serves_on = not len(missed)
                (serves.add if serves_on else serves.discard)(fit)

    def _parts(self) -> Iterator[Columns]:
        """Columns whose state fits in memory together; where not all do, the smaller C come first."""
        numbers = self.rows.heads * (self.rows.d + 1)
        at_once = max(1, int(STATE_BYTES // (STATE_NUMBERS * 8 * numbers)))
        columns = np.arange(len(self.label))
        for start in range(0, len(columns), at_once):
            yield columns[start : start + at_once]

    def _levels(self, part: Columns) -> list[Columns]:
        """The columns of a part in the order in which they are solved, from coarse to fine along each fit's C."""
        of_fit = [part[self.label[part] == fit] for fit in np.unique(self.label[part])]
        by_fit = [[mine[level] for level in levels(len(mine))] for mine in of_fit]
        deepest = max(len(own) for own in by_fit)
        return [np.sort(np.concatenate([own[i] for own in by_fit if i < len(own)])) for i in range(deepest)]

    def _start_between(self, state: Solution, part: Columns, level: Columns) -> Columns:
        """Bring the columns of `level` that lie between solved ones to where those point; the others are left out."""
        at = -np.log(self.penalty)
        started, points = [], []
        for fit in np.unique(self.label[level]):
            mine = part[self.label[part] == fit]
            solved = mine[state.converged[mine]]
            for column in level[self.label[level] == fit].tolist():
                if not len(solved) or not solved[0] < column < solved[-1]:
                    continue
                self._start_from(state, int(solved[np.abs(solved - column).argmin()]), column)
                nearest, weight = weights_between(at[column], at[solved])
                started.append(column)
                points.append(weight @ state.point[solved[nearest]])
        columns = np.array(started, dtype=np.intp)
        if not started:
            return columns
        self._try(state, np.array(points), columns)
        return columns

    def _try(self, state: Solution, points: Matrix, columns: Columns) -> Columns:
        """Take each column to its point, if that is better than where it stands. Returns those."""
        value, gradient, curvature = self._evaluate(self.rows.place.load(points), columns)
        state.evaluations += len(columns)
        better = value < state.value[columns]
        taken = columns[better]
        state.point[taken] = points[better]
        state.value[taken], state.curvature[taken] = value[better], curvature[better]
        state.gradient[taken] = self.rows.place.unload(gradient)[better]
        return taken

    def _start_from(self, state: Solution, base: int, column: int) -> None:
        """Start a column where another of the same fit stands, if that is better; no pass over the rows is needed."""
        w = state.point[base].reshape(self.rows.heads, -1)[:, :-1]
        value = state.value[base] + (self.penalty[column] - self.penalty[base]) / 2 * float((w**2).sum())
        if value >= state.value[column]:
            return
        state.point[column], state.value[column] = state.point[base], value
        state.curvature[column] = state.curvature[base]
        gradient = state.gradient[base].reshape(self.rows.heads, -1).copy()
        gradient[:, :-1] += (self.penalty[column] - self.penalty[base]) * w
        state.gradient[column] = gradient.ravel()

    def _minimize(
        self,
        state: Solution,
        columns: Columns,
        metrics: Sequence[Preconditioner],
        tol: float,
        max_iter: int,
        still: float,
    ) -> None:
        precondition = partial(self._precondition, metrics)
        allowed = partial(self._allowed, tol, metrics)
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

    def _allowed(
        self,
        tol: float,
        metrics: Sequence[Preconditioner],
        points: Any,
        values: Matrix,
        curvature: Matrix,
        columns: Columns,
    ) -> Matrix:
        """`tol` of the objective, but little of what the features gain: with a tiny C all but w = 0 is within `tol`. Less, where
        the metric may foresee too little.
        """
        w = points.reshape(len(points), self.rows.heads, -1)[..., :-1]
        square = self.penalty[columns] / 2 * self._squares(w)
        # Both are below the gain at the solution, and where the first is lost in rounding, the second is nearly all of it.
        gain = np.maximum(self.prior_loss[self.label[columns]] - values, square)
        runs = self._runs(metrics, columns)
        misses = [metric.misses(self.penalty[columns[run]], curvature[run]) for metric, run in runs]
        return np.asarray(np.minimum(tol * values, _OF_GAIN * gain) / np.concatenate(misses))

    def _squares(self, w: Any) -> Matrix:
        """(m,): the squared lengths of w (m, heads, d)."""
        return self.rows.place.unload(self.rows.xp.einsum("mhd,mhd->m", w, w))

    def _evaluate(self, points: Any, columns: Columns) -> tuple[Matrix, Any, Matrix]:
        """Values and curvatures, and gradients, which lie where the points do."""
        split = points.reshape(len(points), self.rows.heads, -1)
        w = split[..., :-1]
        penalty = self.penalty[columns]
        value, slope, slope_b, curvature = self.rows.evaluate(w, split[..., -1], self.label[columns])
        value += penalty / 2 * self._squares(w)
        slope += self.rows.place.load(penalty)[:, None, None] * w
        return value, self.rows.xp.concatenate([slope, slope_b[..., None]], -1).reshape(points.shape), curvature

    def _precondition(
        self, metrics: Sequence[Preconditioner], gradient: Any, columns: Columns, curvature: Matrix
    ) -> Any:
        def solve(of_run: tuple[Preconditioner, slice]) -> Any:
            metric, run = of_run
            return metric.solve(gradient[run], self.penalty[columns[run]], curvature[run])

        runs = [
            (metric, slice(a, b))
            for metric, run in self._runs(metrics, columns)
            for a, b in pairwise(
                shares(run.start, run.stop, min(self.rows.team.size, (run.stop - run.start) // _SHARE))
            )
        ]
        return self.rows.xp.concatenate(self.rows.team.each(solve, runs))

    def _runs(self, metrics: Sequence[Preconditioner], columns: Columns) -> list[tuple[Preconditioner, slice]]:
        """Runs of columns that share a metric."""
        label = self.label[columns]
        edges = [i for i in range(1, len(label)) if metrics[label[i]] is not metrics[label[i - 1]]]
        return [(metrics[label[a]], slice(a, b)) for a, b in pairwise([0, *edges, len(label)])]

    def _start(self) -> Solution:
        """Every column at w = 0; those of one fit share value and gradient."""
        rows, points = self.rows, self._at_zero()
        n_fits = len(points)
        there = rows.place.load(points.reshape(n_fits, rows.heads, -1))
        value, slope, slope_b, curvature = rows.evaluate(there[..., :-1], there[..., -1], np.arange(n_fits))
        gradient = rows.place.unload(rows.xp.concatenate([slope, slope_b[..., None]], -1).reshape(n_fits, -1))
        m = len(self.label)
        return Solution(
            points[self.label],
            value[self.label],
            gradient[self.label],
            curvature[self.label],
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

    def _start_near(self, points: Matrix) -> Solution:
        """Every column at its point, or at w = 0 where it has none (NaN), or one that is worse than that."""
        m = len(self.label)
        state = Solution(
            self._at_zero()[self.label],
            self.prior_loss[self.label],
            np.zeros(points.shape),
            np.zeros(m),
            np.zeros(m, dtype=np.int64),
            np.zeros(m, dtype=bool),
        )
        with np.errstate(over="ignore"):
            usable = np.isfinite(points.astype(self.rows.dtype)).all(axis=1)
        for part in self._parts():
            known = part[usable[part]]
            taken = self._try(state, points[known], known) if len(known) else known
            if len(rest := np.setdiff1d(part, taken)):
                self._evaluate_again(state, rest)
        return state

    def _basis(self) -> Eigenbasis:
        """One for all fits, of the rows under the mean of their weights."""
        rows = self.rows
        mean, gram = rows.gram(rows.weight.mean(0))
        return Eigenbasis.of(gram, mean + rows.shift, rows.dtype, rows.place)

    def _first_metrics(self, basis: Eigenbasis) -> list[Preconditioner]:
        rows = self.rows
        one = np.diag(self.prior) - np.outer(self.prior, self.prior) if rows.softmax else np.ones((1, 1))
        return [Metric.of(basis, one)] * (int(self.label[-1]) + 1)

    def _set_out(self, state: Solution, batch: Sequence[Columns], again: bool) -> None:
        """Bring the columns of each fit to the best point that is known before them: where the column before them stands, or
        where the line through the last two points. again: what is known of their points, another precision said.
        """
        at = -np.log(self.penalty)
        led, points = [], []
        for todo in batch:
            first = int(todo[0])
            before = [c for c in (first - 2, first - 1) if c >= 0 and self.label[c] == self.label[first]]
            for column in todo.tolist():
                self._start_from(state, before[-1] if before else first, column)
                if len(before) == 2 and state.converged[before].all():
                    nearest, weight = weights_between(at[column], at[before])
                    led.append(column)
                    points.append(weight @ state.point[before][nearest])
        if again:
            self._evaluate_again(state, np.concatenate(batch))
        if led:
            self._try(state, np.array(points), np.array(led, dtype=np.intp))
        for todo in batch:
            for nearer, column in pairwise(todo.tolist()):
                self._start_from(state, nearer, column)

    def _renewed(
        self, state: Solution, batch: Sequence[Columns], before: Sequence[Preconditioner | None]
    ) -> list[tuple[Preconditioner, float | None]]:
        """The metric of each fit at the point of the first of its columns, and how many passes over the rows it took, those that
        count in it being a part of one; of several fits side by side. before: their metrics, where these may serve again, for
        which None is told.
        """
        team = self.rows.team if len(batch) == 1 else ALONE
        return self.rows.team.each(partial(self._renew, state, team), list(zip(batch, before, strict=True)))

    def _renew(
        self, state: Solution, team: Team, of_fit: tuple[Columns, Preconditioner | None]
    ) -> tuple[Preconditioner, float | None]:
        rows, (todo, before) = self.rows, of_fit
        first = int(todo[0])
        fit = int(self.label[first])
        middle = float(np.exp(np.log(self.penalty[todo]).mean()))
        if isinstance(before, Factored | FactoredHeads) and alike(before, state.curvature[first]):
            served = before.under(middle)
            if served is not None:
                return served, None
        point = state.point[first].reshape(rows.heads, -1)
        weight, curvature = rows.curvature(point[:, :-1], point[:, -1], fit)

        def factored(weight: Any, curvature: float, team: Team) -> Factored:
            mean, gram = rows.gram(weight, team)
            offset = mean - rows.relative[fit]
            return Factored.of(gram, mean + rows.shift, offset, curvature, middle, rows.dtype, rows.place)

        read = float((weight > 0).sum()) / rows.n
        if rows.heads == 1:
            return factored(weight[0], float(curvature[0]), team), read
        if rows.heads * rows.d**2 * rows.dtype.itemsize <= CLASS_BYTES:
            heads = team.each(lambda k: factored(weight[k], float(curvature[k]), ALONE), range(rows.heads))
            return FactoredHeads(tuple(heads), _COUPLED), read
        together = weight.mean(0)
        of_all = factored(together, float(curvature.mean()), team)  # too many classes
        return FactoredHeads((of_all,) * rows.heads, _COUPLED_OF_ALL), float((together > 0).sum()) / rows.n

    def _evaluate_again(self, state: Solution, columns: Columns) -> None:
        """What float32 said of the points of `columns`, in float64."""
        value, gradient, curvature = self._evaluate(self.rows.place.load(state.point[columns]), columns)
        state.value[columns], state.curvature[columns] = value, curvature
        state.gradient[columns] = self.rows.place.unload(gradient)
        state.evaluations += len(columns)


def alike(metric: Preconditioner, curvature: float) -> bool:
    """Whether a column of this curvature stands where the metric is nearly right."""
    if not isinstance(metric, Factored | FactoredHeads):
        return False
    return abs(metric.curvature - curvature) < _ALIKE * metric.curvature
