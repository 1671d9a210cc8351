"""Logistic regression on the few rows of one draw: all labels (or a softmax), all values of C, each patient left out.

Minimises  |w|² / 2 + C · Σ_i loss_i,  the intercept free, as `logistic_path` and scikit-learn do. That solver is made for many
rows and a long path of C, and decomposes a Gram matrix for every label. Here rows are so few that they nearly separate the
classes, and such decompositions would take most of the time.

1. All fits move together, by L-BFGS: a pass over the rows is one product with all of them, in float64, so that what is found
   has float64's digits.
2. The first iterations share one metric, a Cholesky factor of the Hessian where they start. Then each fit has its own, of the
   rows that still bend its loss, which are few (`few_rows`).

Memory beside X (n, d): 20 bytes for each of its numbers, 4·n² where n <= 2·d, and for each fit 200 bytes a coefficient and
4·|S|² for the |S| rows that count; a draw of NIH's 16 patients per class (1,500 x 1,024, 14 labels) takes 150 MB.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.probes.base import Features, Groups, Matrix
from embedcache.probes.few_fits import FewFits
from embedcache.probes.few_losses import loss_of
from embedcache.probes.few_rows import FewRows, Metric

TOLERANCE = 1e-14
"""Share of the objective that may be left: weights are then within some 1e-7 of their length, and scores nearer."""
_TOLERANCE_LEFT_OUT = 1e-6
"""In float32: scores are within a thousandth of their spread, where two values of C differ by far more."""
_PATIENTS_AT_ONCE = 256
Fitted = npt.NDArray[np.intp]


@dataclass(frozen=True)
class FewShotSolution:
    """Each label, or the classes of a softmax, at each C."""

    C: tuple[float, ...]
    coef: Matrix
    """(n_C, n_outputs, d), float64; NaN for a label or class that can not be fitted."""
    intercept: Matrix
    """(n_C, n_outputs)."""
    left_out_loss: Matrix | None
    """(n_C,): mean loss of rows by models without their patient, over rows and then over labels; NaN where none can be judged.
    None where it was not asked for."""
    converged: bool


def solve_few_shot(
    X: Features,
    Y: Matrix,
    C: tuple[float, ...],
    *,
    multinomial: bool = False,
    groups: Groups | None = None,
    tol: float = TOLERANCE,
) -> FewShotSolution:
    """Fit every label (or the softmax over all classes) at every C.

    X (n, d). Y (n, n_labels) of 0, 1 and NaN for a missing label, which leaves its row out of that label's fit; multinomial:
    one column per class. A label with one class among its rows, and a class without a row, get NaN. Two classes of a softmax
    are one binary fit, as in scikit-learn. groups (n,): the patient of each row; if given, every patient is left out in turn.
    The loss of its rows judges a C, and not their AUROC: across models whose intercepts differ by who was left out, rows are
    not comparable, and of features without signal such an AUROC lies far below one half. Raises InputError on features
    that are not finite.
    """
    d, n_out = X.shape[1], Y.shape[1]
    coef, intercept = np.full((len(C), n_out, d), np.nan), np.full((len(C), n_out), np.nan)
    if not len(C) or not np.isfinite(Y).any():
        return FewShotSolution(tuple(C), coef, intercept, None if groups is None else np.full(len(C), np.nan), True)
    rows = FewRows.of(X)
    target, known, shown = _targets(Y, multinomial)
    if not len(target):
        return FewShotSolution(tuple(C), coef, intercept, None if groups is None else np.full(len(C), np.nan), True)
    m, heads, _ = target.shape
    weight = np.concatenate([c * known for c in C]).astype(np.float64)
    fits = FewFits(rows, np.tile(target, (len(C), 1, 1)), weight)
    found = fits.solve(tol)
    w, b = rows.back(found.point.reshape(len(C), m, heads, -1))
    if multinomial and heads == 1:
        w, b = np.concatenate([-w, w], axis=2) / 2, np.concatenate([-b, b], axis=2) / 2
    coef[:, shown], intercept[:, shown] = w.reshape(len(C), -1, d), b.reshape(len(C), -1)
    losses = None if groups is None else _left_out(fits, found.point, len(C), np.unique(groups, return_inverse=True)[1])
    return FewShotSolution(tuple(C), coef, intercept, losses, bool(found.converged.all()))


def _targets(Y: Matrix, multinomial: bool) -> tuple[Matrix, npt.NDArray[np.bool_], Fitted]:
    """Of the fits that can be made: targets (m, heads, n), which rows take part (m, n), which outputs they are."""
    known = ~np.isnan(Y.T)
    positive = np.where(known, Y.T, 0.0)
    if multinomial:
        shown = np.flatnonzero(positive.sum(axis=1) > 0)
        if len(shown) < 2:
            return np.empty((0, 1, len(Y))), known[:0], shown[:0]
        heads = positive[shown[1:]] if len(shown) == 2 else positive[shown]
        return heads[None], known[:1], shown
    both = (positive.sum(axis=1) > 0) & ((known - positive).sum(axis=1) > 0)
    shown = np.flatnonzero(both)
    return positive[shown][:, None], known[shown], shown


def _left_out(fits: FewFits, points: Matrix, n_C: int, patient: npt.NDArray[np.intp]) -> Matrix:
    """(n_C,): mean loss of the rows by fits without their patient, which start where the whole fit ended, with its metric."""
    m, heads = fits.target.shape[:2]
    metrics = fits.metrics(points)
    names = np.arange(int(patient.max()) + 1)
    loss = np.full(m, np.nan)
    for i in range(m):
        total, count = 0.0, 0
        for some in np.array_split(names, -(-len(names) // _PATIENTS_AT_ONCE)):
            out = patient == some[:, None]
            summed, rows = _loss_without(fits, i, points[i], metrics[i * heads : (i + 1) * heads], out)
            total, count = total + summed, count + rows
        loss[i] = total / count if count else np.nan
    by_C = loss.reshape(n_C, -1)
    known = ~np.isnan(by_C)
    mean = np.where(known, by_C, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.asarray(np.where(known.any(axis=1), mean, np.nan))


def _loss_without(
    fits: FewFits, i: int, point: Matrix, metrics: list[Metric], out: npt.NDArray[np.bool_]
) -> tuple[float, int]:
    """Summed loss of the rows of patients by fit number i without them, and how many rows those are; out (patients, n).

    A patient without whom a class is gone is not judged, nor is one without a label.
    """
    target, weight = fits.target[i], fits.weight[i]
    takes_part = weight > 0
    stays = takes_part & ~out
    all_there = (stays @ target.T > 0).all(axis=1)
    if len(target) == 1:
        all_there &= stays @ (1 - target[0]) > 0
    judged = all_there & (out & takes_part).any(axis=1)
    k = int(judged.sum())
    if not k:
        return 0.0, 0
    without = FewFits(
        fits.rows,
        np.repeat(target[None].astype(np.float32), k, axis=0),
        np.where(out[judged], 0.0, weight).astype(np.float32),
    )
    found = without.solve(_TOLERANCE_LEFT_OUT, np.repeat(point[None], k, axis=0), metrics * k)
    held = (out[judged] & takes_part).astype(np.float32)
    return float(loss_of(without.scores(found.point), without.target, held).value.sum()), int(held.sum())
