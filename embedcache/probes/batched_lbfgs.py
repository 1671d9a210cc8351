"""L-BFGS for many smooth convex problems at once, which share their passes over the rows.

Every problem is one row of a matrix and keeps its own step, line search and history; a pass over the rows evaluates the
trial points of all that are still at work, and a problem that has converged leaves the batch. (Nocedal & Wright 2006,
algorithm 7.4, with the given preconditioner as the first matrix.)

What has a number per coefficient is worked on in a `Place`; what has one per problem, and what is decided, is in main memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.probes.base import Matrix
from embedcache.probes.place import HERE, Place

Columns: TypeAlias = npt.NDArray[np.intp]
"""Numbers of the problems that a call is about, ascending."""
Evaluate: TypeAlias = Callable[[Any, Columns], tuple[Matrix, Any, Matrix]]
"""Points (m, D), problems (m,) → values (m,), gradients (m, D), and what else there is to tell of how each bends, (m, …)."""
Allowed: TypeAlias = Callable[[Any, Matrix, Columns], Matrix]
"""Points (m, D), values (m,), problems (m,) → the decrease that may be left, (m,)."""
Precondition: TypeAlias = Callable[[Any, Any, Matrix, Columns], tuple[Any, Matrix]]
"""Gradients (m, D), points (m, D), bends (m, …), problems (m,) → gradients over an estimate of the Hessian, (m, D), and how many
times more decrease than these foresee there may be, (m,)."""

MEMORY = 10
"""Pairs of step and change of gradient that are remembered."""
_ENOUGH = 1e-4
"""Share of the decrease that the slope promises (Armijo)."""
_MOST_CUTS = 12
_DOT = "md,md->m"
_LITTLE = 0.1
"""Share of what is allowed: a step that is foreseen to gain less, and whose gain is lost in rounding, is not missed."""
_NEAR = 1000.0
"""Times what is allowed: a problem of which no more is left is worth further iterations."""


@dataclass
class Solution:
    """Where each problem ended, in main memory; `gradient` (m, D) and `bend` (m, …) are those of its last point."""

    point: Matrix
    value: Matrix
    gradient: Matrix
    bend: Matrix
    iterations: npt.NDArray[np.int64]
    converged: npt.NDArray[np.bool_]
    evaluations: int = 0
    """Of single problems: over m, how many full passes it took."""


@dataclass
class _Work:
    """The state of the problems that are still at work; every array's first axis is theirs. What is Any lies in `place`."""

    columns: Columns
    point: Any
    value: Matrix
    gradient: Any
    bend: Matrix
    direction: Any
    descent: Matrix
    step: Matrix
    gained: Matrix
    """By the last step; infinite before the first, so that every problem takes one."""
    cuts: npt.NDArray[np.int64]
    place: Place
    steps: list[Any] = field(default_factory=list)
    changes: list[Any] = field(default_factory=list)
    inverse: list[Any] = field(default_factory=list)
    """1 / (step · change) of each pair, or 0 where a problem has none."""

    def keep(self, those: Columns) -> None:
        """Go on with `those`, counted among the problems at work."""
        there = self.place.load(those)
        for name in ("columns", "value", "bend", "descent", "step", "gained", "cuts"):
            setattr(self, name, getattr(self, name)[those])
        for name in ("point", "gradient", "direction"):
            setattr(self, name, getattr(self, name)[there])
        for pairs in (self.steps, self.changes, self.inverse):
            pairs[:] = [values[there] for values in pairs]


def minimize_all(
    evaluate: Evaluate,
    precondition: Precondition,
    allowed: Allowed,
    done: Solution,
    columns: Columns,
    *,
    max_iter: int,
    still: float,
    rounding: float,
    place: Place = HERE,
) -> None:
    """Minimise the problems `columns` of `done`, which is brought up to date, from where they stand.

    Points and gradients that `evaluate`, `precondition` and `allowed` are given and answer with lie in `place`.

    Converged is where the decrease that is left, as L-BFGS's matrix foresees it, is `allowed`, and the last step gained at
    most `still` times that: a matrix that foresees little is not believed while steps gain much. `rounding` is the share of
    a value that may be noise. A problem whose line search fails is converged if a tenth of what is allowed is foreseen, whose
    gain noise may hide; else it is not, nor one that is still at work after `max_iter` more iterations (twice as many where
    little is left).
    """
    work = _Work(
        columns,
        place.load(done.point[columns]),
        done.value[columns],
        place.load(done.gradient[columns]),
        done.bend[columns],
        direction=np.empty(0),
        descent=np.empty(0),
        step=np.ones(len(columns)),
        gained=np.full(len(columns), np.inf),
        cuts=np.zeros(len(columns), dtype=np.int64),
        place=place,
    )
    iterations = np.zeros(len(done.value), dtype=np.int64)
    fresh = np.ones(len(columns), dtype=bool)
    while len(work.columns):
        misses = _aim(work, precondition, fresh)
        left, limit = -work.descent / 2, allowed(work.point, work.value, work.columns) / misses
        lost = work.cuts > _MOST_CUTS
        ended = np.where(lost, left <= _LITTLE * limit, fresh & (left <= limit) & (work.gained <= still * limit))
        most = np.where(left <= _NEAR * limit, 2 * max_iter, max_iter)
        leave = ended | lost | (iterations[work.columns] >= most)
        if leave.any():
            out, at = work.columns[leave], place.load(np.flatnonzero(leave))
            done.point[out], done.value[out] = place.unload(work.point[at]), work.value[leave]
            done.gradient[out], done.bend[out] = place.unload(work.gradient[at]), work.bend[leave]
            done.converged[out] = ended[leave]
            work.keep(np.flatnonzero(~leave))
            if not len(work.columns):
                break
        move = work.direction * place.load(work.step)[:, None]
        value, gradient, bend = evaluate(work.point + move, work.columns)
        done.evaluations += len(work.columns)
        wanted = work.value + _ENOUGH * work.step * work.descent + rounding * np.abs(work.value)
        fresh = value <= wanted
        _learn(work, move, gradient, fresh)
        iterations[work.columns] += fresh
        # Where the step was too long: the lowest point of the parabola through what is known, within bounds.
        over = value - work.value - work.step * work.descent
        with np.errstate(all="ignore"):
            shorter = -work.descent * work.step**2 / (2 * over)
        shorter = np.clip(np.where(np.isnan(shorter), 0.0, shorter), 0.1 * work.step, 0.5 * work.step)
        work.cuts = np.where(fresh, 0, work.cuts + 1)
        work.step = np.where(fresh, 1.0, shorter)
        work.gained = np.where(fresh, work.value - value, work.gained)
        at = place.load(np.flatnonzero(fresh))
        work.point[at] += move[at]
        work.gradient[at] = gradient[at]
        work.value[fresh], work.bend[fresh] = value[fresh], bend[fresh]
    done.iterations += iterations


def _learn(work: _Work, move: Any, gradient: Any, taken: npt.NDArray[np.bool_]) -> None:
    """Remember the pairs of step and change of gradient of those that moved."""
    change = gradient - work.gradient
    pairs = ((move, change), (move, move), (change, change))
    product, moved, changed = (work.place.unload(work.place.xp.einsum(_DOT, a, b)) for a, b in pairs)
    usable = taken & (product > 1e-10 * np.sqrt(moved * changed))
    work.steps.append(move)
    work.changes.append(change)
    work.inverse.append(work.place.load(np.divide(1.0, product, out=np.zeros_like(product), where=usable)))
    del work.steps[:-MEMORY], work.changes[:-MEMORY], work.inverse[:-MEMORY]


def _aim(work: _Work, precondition: Precondition, fresh: npt.NDArray[np.bool_]) -> Matrix:
    """Directions of those that moved, and their slopes: `descent` is twice the decrease that is foreseen, negative.

    Returns how many times more there may be, (m,).
    """
    place, einsum = work.place, work.place.xp.einsum
    q = 1 * work.gradient
    shares: list[Any] = []
    for s, y, rho in zip(reversed(work.steps), reversed(work.changes), reversed(work.inverse), strict=True):
        a = rho * einsum(_DOT, s, q)
        q -= a[:, None] * y
        shares.append(a)
    r, misses = precondition(q, work.point, work.bend, work.columns)
    for s, y, rho, a in zip(work.steps, work.changes, work.inverse, reversed(shares), strict=True):
        b = rho * einsum(_DOT, y, r)
        r += (a - b)[:, None] * s
    descent = -place.unload(einsum(_DOT, work.gradient, r))
    if not len(work.direction):
        work.direction, work.descent = -r, descent
    else:
        work.direction = place.xp.where(place.load(fresh)[:, None], -r, work.direction)
        work.descent = np.where(fresh, descent, work.descent)
    return misses
