"""Many logistic fits to the few rows of one draw at once: labels, values of C, patients left out. See `few_shot`."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.probes.base import Features, Matrix
from embedcache.probes.batched_lbfgs import Columns, Solution, minimize_all
from embedcache.probes.few_losses import Loss, loss_of
from embedcache.probes.few_rows import FewRows, Metric, solve_all

_FIRST, _LATER, _ROUNDS = 16, 16, 12
"""Iterations with the first metric and with each later one, and how many of those there may be."""
_STILL = 10.0
"""Times what may be left that the last step may have gained."""
_ROUNDING = {np.dtype(np.float64): 1e-15, np.dtype(np.float32): 1e-7}
"""Share of an objective that is noise."""


@dataclass(frozen=True)
class FewFits:
    """m fits of some heads each: the classes of a softmax, else one."""

    rows: FewRows
    target: Features
    """(m, heads, n) of 0 and 1; passes over the rows run in its precision, float64 or float32."""
    weight: Features
    """(m, n): C where a row takes part, 0 where it does not."""

    @property
    def rounding(self) -> float:
        """Share of an objective that is noise."""
        return _ROUNDING[self.target.dtype]

    def solve(self, tol: float, start: Matrix | None = None, metrics: list[Metric] | None = None) -> Solution:
        """Points (m, heads · (r + 1)), weights of the coordinates and then the intercept, head by head.

        start (m, heads · (r + 1)): None is w = 0 and the prior. metrics: of each head of each fit; None is one for all, and
        then each one's own where the first iterations have led.
        """
        m, heads, _ = self.target.shape
        point = self._prior() if start is None else start.copy()
        value, gradient, curvature = self._evaluate(point, np.arange(m))
        state = Solution(point, value, gradient, curvature, np.zeros(m, dtype=np.int64), np.zeros(m, dtype=bool), m)
        if metrics is None:
            mean = self._loss(point, np.arange(m)).curvature.mean(axis=0)
            metrics = [Metric.of(self.rows, of_head) for of_head in mean] * m
        own = list(metrics)

        def precondition(gradients: Matrix, _: Matrix, __: Matrix, columns: Columns) -> tuple[Matrix, Matrix]:
            used = [own[i * heads + h] for i in columns.tolist() for h in range(heads)]
            solved: Matrix = solve_all(self.rows, used, gradients.reshape(len(used), -1)).reshape(gradients.shape)
            return solved, np.ones(len(columns))

        def allowed(points: Matrix, values: Matrix, _: Columns) -> Matrix:
            # with a tiny C the weights are tiny too, and all but w = 0 is within any share of the objective
            square = self._square(points)
            return np.asarray(np.maximum(tol * np.minimum(values, square), self.rounding * values))

        for round_ in range(_ROUNDS):
            todo = np.flatnonzero(~state.converged)
            if not len(todo):
                break
            if round_:
                bends = self._loss(state.point[todo], todo).curvature
                for i, bend in zip(todo.tolist(), bends, strict=True):
                    own[i * heads : (i + 1) * heads] = [Metric.of(self.rows, of_head) for of_head in bend]
            minimize_all(
                self._evaluate,
                precondition,
                allowed,
                state,
                todo,
                max_iter=_LATER if round_ else _FIRST,
                still=_STILL,
                rounding=self.rounding,
            )
        return state

    def metrics(self, points: Matrix) -> list[Metric]:
        """Of each head of each fit, where the fits now stand."""
        bends = self._loss(points, np.arange(len(points))).curvature
        return [Metric.of(self.rows, of_head) for bend in bends for of_head in bend]

    def scores(self, points: Matrix) -> Features:
        """(m, heads, n) of the rows."""
        heads, A = self.target.shape[1], self._A
        flat: Features = points.reshape(len(points) * heads, -1).astype(A.dtype, copy=False) @ A.T
        return flat.reshape(len(points), heads, -1)

    @property
    def _A(self) -> Features:
        return self.rows.single if self.target.dtype == np.float32 else self.rows.A

    def _loss(self, points: Matrix, columns: npt.NDArray[np.intp]) -> Loss:
        return loss_of(self.scores(points), self.target[columns], self.weight[columns])

    def _evaluate(self, points: Matrix, columns: Columns) -> tuple[Matrix, Matrix, Matrix]:
        loss = self._loss(points, columns)
        heads, n = loss.slope.shape[1:]
        gradient = (loss.slope.reshape(-1, n) @ self._A).reshape(len(points), heads, -1).astype(np.float64, copy=False)
        gradient[..., :-1] += points.reshape(gradient.shape)[..., :-1]
        return (
            loss.value + self._square(points) / 2,
            gradient.reshape(points.shape),
            np.asarray(loss.curvature.sum(axis=(1, 2))),
        )

    def _square(self, points: Matrix) -> Matrix:
        w = points.reshape(len(points), self.target.shape[1], -1)[..., :-1]
        return np.asarray(np.einsum("mhr,mhr->m", w, w))

    def _prior(self) -> Matrix:
        """w = 0, and the intercepts that give every row the share of positives among those that take part."""
        m, heads, _ = self.target.shape
        total = np.maximum(self.weight.sum(axis=1), np.finfo(np.float64).tiny)[:, None]
        share = np.clip(np.einsum("mn,mhn->mh", self.weight, self.target) / total, 1e-9, 1 - 1e-9)
        point = np.zeros((m, heads, self.rows.A.shape[1]))
        logs = np.log(share)
        point[..., -1] = logs - (np.log1p(-share) if heads == 1 else logs.mean(axis=1, keepdims=True))
        return point.reshape(m, -1)
