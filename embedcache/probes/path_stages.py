"""The two stages that solve the columns of a logistic path; see `logistic_path`."""

import importlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from embedcache.probes.batched_lbfgs import Columns, Solution
from embedcache.probes.coarse_to_fine import levels, weights_between
from embedcache.probes.eigenbasis import Eigenbasis
from embedcache.probes.factored import Factored, FactoredHeads
from embedcache.probes.path_problem import NOWHERE, Near, PathProblem, Preconditioner
from embedcache.probes.side_by_side import ALONE, Team, one_blas_thread

FACTOR_BYTES, CLASS_BYTES = 5e8, 2e9
"""What factors of all fits may take, and those of all classes of a softmax."""
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
_STILL_FIRST, _STILL_LATER = 10.0, 1.0
"""Times what may be left that the last step may have gained. Far from the metric's point, L-BFGS has ended 3e-4 too early."""
_COUPLED, _COUPLED_OF_ALL = 2.0, 8.0
"""Times what is foreseen that a softmax may have left: with 1, real features ended 2e-5 above the best. Of one factor for all
classes, which has ended 2e-4 too early even so (three classes, 500 rows): hence room for one of each."""


def solve(problem: PathProblem, tol: float, max_iter: int, near: Near = NOWHERE) -> tuple[Solution, float, Eigenbasis]:
    """The solution of every column, how many passes over the rows its Gram matrices took, and the first one's basis."""
    state = problem.start() if near.point is None else problem.start_near(near.point)
    basis = near.basis or problem.basis()
    grams = 0.0 if near.basis else 1.0
    metrics: list[Preconditioner] = problem.first_metrics(basis)
    for part in problem.parts():
        for level in _levels(problem, part) if near.point is None else [part]:
            first = level[0] == part[0]
            started = level if first else _start_between(problem, state, part, level)
            still = _STILL_FIRST if first else _STILL_LATER
            problem.minimize(state, started, metrics, tol, min(_FIRST, max_iter), still)
        if state.converged[part].all():
            continue
        importlib.import_module("scipy.linalg")  # takes a while: only rows that separate pay for it
        with one_blas_thread(problem.rows.team):
            grams += _finish(problem, state, part, metrics, basis.varies, tol, max_iter)
    return state, grams, basis


def _finish(
    problem: PathProblem,
    state: Solution,
    part: Columns,
    metrics: list[Preconditioner],
    varies: Columns,
    tol: float,
    max_iter: int,
) -> float:
    """The second stage: along each fit's C, from where metrics are renewed. A fit that float32 does not bring on goes on in
    float64 when the others are done: where features nearly depend on each other, it takes rounds by the dozen to see that.
    """
    grams = 0.0
    double: PathProblem | None = None
    behind: set[int] = set()  # fits that float32 does not bring on
    ended: set[int] = set()  # nor float64
    serves: set[int] = set()  # fits whose metric may do for what is left of them
    while True:
        left = part[~state.converged[part] & (state.iterations[part] < max_iter)]
        fits = [fit for fit in np.unique(problem.label[left]).tolist() if fit not in ended]
        if not fits:
            return grams
        ahead = [fit for fit in fits if fit not in behind]
        if not ahead and double is None:
            double = replace(problem, rows=problem.rows.in_float64())
        path, fits = (problem, ahead) if ahead or double is None else (double, fits)
        batch = [left[problem.label[left] == fit][:_AHEAD] for fit in fits]
        _set_out(path, state, batch, again=path is not problem)
        of_batch = [metrics[fit] if fit in serves else None for fit in fits]
        renewed = _renewed(path, state, varies, batch, of_batch)
        for fit, (metric, _) in zip(fits, renewed, strict=True):
            metrics[fit] = metric
        grams += sum(read or 0.0 for _, read in renewed)
        columns = np.concatenate(batch)
        before, taken = state.value.copy(), state.iterations.copy()
        path.minimize(state, columns, metrics, tol if path is problem else tol / _FINER, _LATER, _STILL_LATER)
        for fit, todo, (metric, read) in zip(fits, batch, renewed, strict=True):
            missed = todo[~state.converged[todo]]
            serves_on = not len(missed) or _alike(metric, state.bend[missed[0], 0])
            if path is problem and problem.rows.dtype != np.float64:
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


def _levels(problem: PathProblem, part: Columns) -> list[Columns]:
    """The columns of a part in the order in which they are solved, from coarse to fine along each fit's C."""
    of_fit = [part[problem.label[part] == fit] for fit in np.unique(problem.label[part])]
    by_fit = [[mine[level] for level in levels(len(mine))] for mine in of_fit]
    deepest = max(len(own) for own in by_fit)
    return [np.sort(np.concatenate([own[i] for own in by_fit if i < len(own)])) for i in range(deepest)]


def _start_between(problem: PathProblem, state: Solution, part: Columns, level: Columns) -> Columns:
    """Bring the columns of `level` that lie between solved ones to where those point; the others are left out."""
    at = -np.log(problem.penalty)
    started, points = [], []
    for fit in np.unique(problem.label[level]):
        mine = part[problem.label[part] == fit]
        solved = mine[state.converged[mine]]
        for column in level[problem.label[level] == fit].tolist():
            if not len(solved) or not solved[0] < column < solved[-1]:
                continue
            problem.start_from(state, int(solved[np.abs(solved - column).argmin()]), column)
            nearest, weight = weights_between(at[column], at[solved])
            started.append(column)
            points.append(weight @ state.point[solved[nearest]])
    columns = np.array(started, dtype=np.intp)
    if not started:
        return columns
    problem.attempt(state, np.array(points), columns)
    return columns


def _set_out(problem: PathProblem, state: Solution, batch: Sequence[Columns], again: bool) -> None:
    """Bring the columns of each fit to the best point that is known before them: where the column before them stands, or
    where the line through the last two points. again: what is known of their points, another precision said.
    """
    at = -np.log(problem.penalty)
    led, points = [], []
    for todo in batch:
        first = int(todo[0])
        before = [c for c in (first - 2, first - 1) if c >= 0 and problem.label[c] == problem.label[first]]
        for column in todo.tolist():
            problem.start_from(state, before[-1] if before else first, column)
            if len(before) == 2 and state.converged[before].all():
                nearest, weight = weights_between(at[column], at[before])
                led.append(column)
                points.append(weight @ state.point[before][nearest])
    if again:
        problem.evaluate_again(state, np.concatenate(batch))
    if led:
        problem.attempt(state, np.array(points), np.array(led, dtype=np.intp))
    for todo in batch:
        for nearer, column in pairwise(todo.tolist()):
            problem.start_from(state, nearer, column)


def _renewed(
    problem: PathProblem,
    state: Solution,
    varies: Columns,
    batch: Sequence[Columns],
    before: Sequence[Preconditioner | None],
) -> list[tuple[Preconditioner, float | None]]:
    """The metric of each fit at the point of the first of its columns, and how many passes over the rows it took, those that
    count in it being a part of one; of several fits side by side. varies: the features that do. before: their metrics, where
    these may serve again, for which None is told.
    """
    team = problem.rows.team if len(batch) == 1 else ALONE
    return problem.rows.team.each(partial(_renew, problem, state, varies, team), list(zip(batch, before, strict=True)))


def _renew(
    problem: PathProblem, state: Solution, varies: Columns, team: Team, of_fit: tuple[Columns, Preconditioner | None]
) -> tuple[Preconditioner, float | None]:
    rows, (todo, before) = problem.rows, of_fit
    first = int(todo[0])
    fit = int(problem.label[first])
    middle = float(np.exp(np.log(problem.penalty[todo]).mean()))
    if isinstance(before, Factored | FactoredHeads) and _alike(before, state.bend[first, 0]):
        served = before.under(middle)
        if served is not None:
            return served, None
    point = state.point[first].reshape(rows.heads, -1)
    weight, curvature = rows.curvature(point[:, :-1], point[:, -1], fit)

    def factored(weight: Any, curvature: float, team: Team) -> Factored:
        mean, gram = rows.gram(weight, team)
        offset = mean - rows.relative[fit]
        return Factored.of(gram, mean, offset, varies, curvature, middle, rows.dtype, rows.place)

    read = float((weight > 0).sum()) / rows.n
    if rows.heads == 1:
        return factored(weight[0], float(curvature[0]), team), read
    if rows.heads * rows.d**2 * rows.dtype.itemsize <= CLASS_BYTES:
        heads = team.each(lambda k: factored(weight[k], float(curvature[k]), ALONE), range(rows.heads))
        return FactoredHeads(tuple(heads), _COUPLED), read
    together = weight.mean(0)
    of_all = factored(together, float(curvature.mean()), team)  # too many classes
    return FactoredHeads((of_all,) * rows.heads, _COUPLED_OF_ALL), float((together > 0).sum()) / rows.n


def _alike(metric: Preconditioner, curvature: float) -> bool:
    """Whether a column of this curvature stands where the metric is nearly right."""
    if not isinstance(metric, Factored | FactoredHeads):
        return False
    return abs(metric.curvature - curvature) < _ALIKE * metric.curvature
