"""The heads of few-shot draws: each draw's rows standardised by themselves, its fits solved together, draws side by side."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from embedcache.evaluation.few_shot_config import Choosing
from embedcache.evaluation.selection import selection_scores
from embedcache.probes.base import Features, Groups, Matrix, ProbeKind
from embedcache.probes.few_shot_path import FewShotSolution, solve_few_shot
from embedcache.probes.logistic import log_softmax
from embedcache.probes.logistic_path import solve_logistic
from embedcache.probes.standardizer import Standardizer

UNJUDGED_C = 1.0
"""Where nobody can be left out."""
_MOST_THREADS = 8
"""A draw of NIH's 16 patients per class takes 150 MB."""
_WHOLE_THREADS = 4
_FEW = 20_000
"""Rows up to which the solver for few rows is asked, in float64."""
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Heads:
    """What one draw was fitted to."""

    C: float
    judged: bool
    """Whether C was chosen; False where it was given, or nothing could judge it."""
    coef: Matrix
    """(n_outputs, d) for features as they are stored; NaN for a label or class that could not be fitted."""
    intercept: Matrix
    """(n_outputs,)."""
    converged: bool


@dataclass(frozen=True)
class Fitting:
    """How draws are fitted: the rows of a matrix that all share, and what chooses C."""

    matrix: npt.NDArray[np.float32]
    """(all rows, d)."""
    truth: Matrix
    """(all rows, n_outputs) of 0, 1 and NaN."""
    groups: Groups
    """(all rows,): the patient of each."""
    kind: ProbeKind
    grid: tuple[float, ...]
    select: Choosing
    standardize: bool
    validation: tuple[npt.NDArray[np.float32], Matrix] | None
    """Features (n, d) and truth (n, n_outputs) of the rows that choose C under `validation`."""

    def fit_all(self, draws: Sequence[Rows], shots: int) -> list[Heads]:
        """The heads of draws of one size, each given by its rows: some at a time, a thread and one BLAS thread each."""
        workers = max(1, min(len(draws), _MOST_THREADS, len(os.sched_getaffinity(0))))
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers, "embedcache-few-shot") as pool:
            return list(pool.map(lambda rows: self._fit(rows, shots), draws))

    def fit_whole(self, rows: Rows) -> Heads:
        """The heads of the whole training part; of very many rows by the solver that is made for them."""
        values = self.grid if self.select != "leave-patient-out" else (UNJUDGED_C,)
        multinomial = self.kind == "multiclass"

        def solve(X: Features, Y: Matrix) -> FewShotSolution:
            if len(X) < _FEW:
                return solve_few_shot(X, Y, values, multinomial=multinomial)
            found = solve_logistic(X, Y, values, multinomial=multinomial)
            return FewShotSolution(values, found.coef, found.intercept, None, bool(found.converged.all()))

        # products of this size do not gain from more
        with threadpool_limits(min(_WHOLE_THREADS, len(os.sched_getaffinity(0))), user_api="blas"):
            return self._choose(rows, solve)

    def _fit(self, rows: Rows, shots: int) -> Heads:
        # one patient of a class can not be left out
        leaves = self.select == "leave-patient-out" and shots > 1 and len(self.grid) > 1
        values = (UNJUDGED_C,) if self.select == "leave-patient-out" and shots == 1 else self.grid

        def solve(X: Features, Y: Matrix) -> FewShotSolution:
            groups = self.groups[rows] if leaves else None
            return solve_few_shot(X, Y, values, multinomial=self.kind == "multiclass", groups=groups)

        return self._choose(rows, solve)

    def _choose(self, rows: Rows, solve: Callable[[Features, Matrix], FewShotSolution]) -> Heads:
        scale = Standardizer.fit(self.matrix, rows) if self.standardize else None
        if scale is None:
            X: Features = self.matrix[rows]
            mean, std = np.zeros(X.shape[1]), np.ones(X.shape[1])
        else:
            mean, std = scale.mean, scale.std
            # float64 for the few: what is rounded here shows in the ties of a rare label's test rows
            X = (self.matrix[rows] - mean) / std if len(rows) < _FEW else scale.apply(self.matrix, rows)
        found = solve(X, self.truth[rows])
        coef = found.coef / std
        intercept = found.intercept - coef @ mean
        i, judged = 0, False
        if found.left_out_loss is not None:
            judged = bool(np.isfinite(found.left_out_loss).any())
            i = int(np.nanargmin(found.left_out_loss)) if judged else self._nearest(found.C)
        elif self.validation is not None and len(found.C) > 1:
            figures = self._on_validation(coef, intercept, *self.validation)
            judged = bool(np.isfinite(figures).any())
            i = int(np.nanargmax(figures)) if judged else self._nearest(found.C)
        return Heads(found.C[i], judged, coef[i], intercept[i], found.converged)

    def _on_validation(self, coef: Matrix, intercept: Matrix, X: npt.NDArray[np.float32], truth: Matrix) -> Matrix:
        """Macro AUROC (or, where no label has both classes, accuracy) of each C."""
        n_C, n_outputs, d = coef.shape
        flat = X @ coef.reshape(-1, d).T.astype(np.float32)
        linear = flat.reshape(len(X), n_C, n_outputs).transpose(1, 0, 2) + intercept[:, None]
        path = log_softmax(linear) if self.kind == "multiclass" else linear
        return selection_scores(self.kind, truth, path, 0.0)[1]

    def _nearest(self, values: tuple[float, ...]) -> int:
        return int(np.argmin(np.abs(np.log(np.array(values) / UNJUDGED_C))))
