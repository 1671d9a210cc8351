"""From the heads of all draws of one size to a point of the curve: AUROC of each, their mean, and two intervals of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from embedcache.evaluation.clustered import Clustered, mean_auroc_interval
from embedcache.evaluation.few_shot_fits import Heads
from embedcache.evaluation.few_shot_result import CurveFigure, CurvePoint
from embedcache.evaluation.few_shot_scores import head_aurocs, head_scores
from embedcache.evaluation.metrics import Ranking, macro
from embedcache.evaluation.statistics import CONFIDENCE, FEW_PATIENTS, Interval, Patients
from embedcache.probes.base import Features, Groups, Matrix, ProbeKind
from embedcache.probes.logistic import log_softmax


@dataclass(frozen=True)
class Tested:
    """The rows of the test part, about the training rows' mean, so that products in float32 keep their digits."""

    X: npt.NDArray[np.float32]
    """(n, d)."""
    about: Matrix
    """(d,): subtracted from them."""
    truth: Matrix
    """(n, n_classes) of 0, 1 and NaN."""
    patients: Patients
    kind: ProbeKind
    classes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        X: npt.NDArray[np.float32],
        rows: npt.NDArray[np.int64],
        about: Matrix,
        truth: Matrix,
        groups: Groups,
        kind: ProbeKind,
        classes: tuple[str, ...],
    ) -> "Tested":
        """The `rows` of all."""
        centred = X[rows] - about.astype(np.float32)
        return cls(
            centred, about.astype(np.float32).astype(np.float64), truth[rows], Patients.of(groups[rows]), kind, classes
        )

    def scores(self, heads: Sequence[Heads]) -> Features:
        """(draws · n_classes, n), draw by draw: of a softmax log-probabilities, else log-odds less a constant."""
        coef = np.concatenate([head.coef for head in heads])
        flat = head_scores(self.X, coef)
        if self.kind != "multiclass":
            return flat
        intercept = np.concatenate([head.intercept + head.coef @ self.about for head in heads])
        linear = (flat + intercept[:, None]).reshape(len(heads), len(self.classes), -1)
        return log_softmax(linear.transpose(0, 2, 1)).transpose(0, 2, 1).reshape(flat.shape)


def curve_point(
    test: Tested,
    heads: Sequence[Heads],
    shots: int | None,
    seeds: Sequence[int | None],
    patients: Sequence[int],
    rows: Sequence[int],
    overlaps: Sequence[int],
    short: Mapping[str, int],
    notes: tuple[str, ...],
) -> CurvePoint:
    """Measure the heads of all draws of one size."""
    scores, width = test.scores(heads), len(test.classes)
    areas = head_aurocs(test.truth, scores, np.tile(np.arange(width), len(heads))).reshape(-1, width)
    of_label = [_over_draws(test, scores, areas, j) for j in range(width)]
    # over the classes that every draw defines: value and both intervals speak of the same ones
    whole = np.asarray(~np.isnan(areas).any(axis=0), dtype=np.bool_)
    each = macro(areas[:, whole]) if whole.any() else np.full(len(areas), np.nan)
    kept = [part for part, defined in zip(of_label, whole.tolist(), strict=True) if defined]
    figures = [_figure("macro", each, _macro_interval(kept), _left_out(test, areas))]
    for j, (name, part) in enumerate(zip(test.classes, of_label, strict=True)):
        interval = None if part is None else mean_auroc_interval([part])
        few = part is not None and part.smaller < FEW_PATIENTS
        figures.append(_figure(name, areas[:, j], interval, "few patients" if few else ""))
    return CurvePoint(
        shots,
        tuple(seeds),
        tuple(patients),
        tuple(rows),
        tuple(overlaps),
        tuple(head.C for head in heads),
        _listed(each),
        {name: _listed(areas[:, j]) for j, name in enumerate(test.classes)},
        tuple(figures),
        dict(short),
        notes,
    )


def t_interval(values: Matrix) -> tuple[float, float] | None:
    """Student's 95% interval of the mean of independent draws; None of fewer than two."""
    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2) * values.std(ddof=1) / np.sqrt(len(values)))
    mean = float(values.mean())
    return max(0.0, mean - half), min(1.0, mean + half)  # of AUROCs


def _over_draws(test: Tested, scores: Features, areas: Matrix, j: int) -> Clustered | None:
    """What every test patient adds to the mean AUROC of one class over the draws that define it."""
    width = len(test.classes)
    parts = [
        Clustered.of(Ranking.of(test.truth[:, j], scores[i * width + j]), test.patients)
        for i in np.flatnonzero(~np.isnan(areas[:, j])).tolist()
    ]
    return Clustered.mean(parts) if parts else None


def _macro_interval(of_label: Sequence[Clustered | None]) -> Interval | None:
    parts = [part for part in of_label if part is not None]
    return mean_auroc_interval(parts) if parts else None


def _left_out(test: Tested, areas: Matrix) -> str:
    out = [name for name, column in zip(test.classes, areas.T, strict=True) if np.isnan(column).any()]
    return f"left out where undefined: {', '.join(out)}" if out else ""


def _figure(label: str, values: Matrix, interval: Interval | None, note: str) -> CurveFigure:
    known = values[~np.isnan(values)]
    if not len(known):
        return CurveFigure(
            label, None, 0, None, None, None, None, "undefined: no draw has both classes, or the test part one"
        )
    around = t_interval(known)
    draws_low, draws_high = (None, None) if around is None else around
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    said = "; ".join(text for text in ("" if interval is None else interval.note, note) if text)
    return CurveFigure(label, float(known.mean()), len(known), draws_low, draws_high, low, high, said)


def _listed(values: Matrix) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else float(value) for value in values)
