"""From scores on the test part to the figures of a result, each with its interval and what is to be said of it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.evaluation.metrics import Ranking, accuracy, correct, macro
from embedcache.evaluation.statistics import (
    BCA,
    FEW_PATIENTS,
    LOGIT,
    Interval,
    Patients,
    auroc_interval,
    bca_interval,
    macro_auroc_interval,
    resample,
)
from embedcache.probes.base import Matrix, ProbeKind
from embedcache.types import Metric, StringArray

FIGURES = ("auroc", "average_precision")
"""Those that a label without both classes has not."""
ALL = "all"
"""The label of multiclass accuracy: of all classes together, which is not their macro average."""


@dataclass(frozen=True)
class _Label:
    name: str
    ranking: Ranking
    patients: int
    positive_patients: int
    negative_patients: int
    undefined: str
    """Why it has no figure; "" if it has."""

    @property
    def smaller(self) -> int:
        return min(self.positive_patients, self.negative_patients)

    @property
    def few(self) -> str:
        return "few patients" if self.smaller < FEW_PATIENTS else ""


def measure(
    truth: Matrix,
    scores: Matrix,
    groups: StringArray,
    kind: ProbeKind,
    classes: tuple[str, ...],
    threshold: float,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Metric, ...]:
    """AUROC, average precision and accuracy with 95% intervals clustered by patient.

    truth (n, n_classes) of 0, 1 and NaN for missing, one-hot for multiclass; scores (n, n_classes), a column of NaN for a
    label that could not be fitted; groups: the patient of each row. Macro averages leave undefined labels out and name
    them.
    """
    patients = Patients.of(groups)
    labels = [_label(name, truth[:, j], scores[:, j], patients) for j, name in enumerate(classes)]
    columns = [j for j, label in enumerate(labels) if not label.undefined]
    defined = [labels[j] for j in columns]
    right = correct(truth, scores, kind, threshold)
    right_columns = [0] if kind == "multiclass" else columns

    def figures(weights: Matrix) -> Matrix:
        precision = np.stack([label.ranking.average_precision(weights) for label in defined], axis=-1)
        hits = np.stack([accuracy(right[:, j], weights) for j in right_columns], axis=-1)
        return np.concatenate([precision, macro(precision)[:, None], hits, macro(hits)[:, None]], axis=-1)

    if not defined:
        known = _mask((~np.isnan(truth)).any(axis=1))
        counts = {"n": int(known.sum()), "positives": int(np.nansum(truth)), "patients": patients.having(known)}
        none = [
            Metric(
                name, "macro", None, None, None, LOGIT if name == "auroc" else BCA, **counts, note=_macro_note(labels)
            )
            for name in FIGURES
        ]
        return (*none, *(_undefined(name, label) for name in FIGURES for label in labels))
    value = figures(np.ones((1, len(truth))))[0]
    drawn = resample(figures, patients, resamples, seed)

    def bca(i: int, smaller: int) -> Interval:
        return bca_interval(float(value[i]), drawn.bootstrap[:, i], drawn.jackknife[:, i], smaller)

    n = len(defined)
    smallest = min(label.smaller for label in defined)
    macro_note = _macro_note(labels)
    rankings = [label.ranking for label in defined]
    auroc = np.array([float(r.auroc()) for r in rankings])
    found = [
        _macro("auroc", float(auroc.mean()), macro_auroc_interval(rankings, patients), truth, patients, macro_note),
        *_per_label("auroc", labels, list(auroc), [auroc_interval(r, patients) for r in rankings]),
        _macro("average_precision", float(value[n]), bca(n, smallest), truth, patients, macro_note),
        *_per_label("average_precision", labels, list(value[:n]), [bca(i, defined[i].smaller) for i in range(n)]),
    ]
    if kind == "multiclass":
        few = "few patients" if patients.count < FEW_PATIENTS else ""
        hits = bca(n + 1, patients.count)
        found.append(_macro("accuracy", float(value[n + 1]), hits, truth, patients, few, ALL))
    else:
        last = 2 * n + 1
        each = [bca(n + 1 + i, patients.having(_mask(~np.isnan(right[:, j])))) for i, j in enumerate(columns)]
        found.append(_macro("accuracy", float(value[last]), bca(last, patients.count), truth, patients, macro_note))
        found += _per_label("accuracy", labels, list(value[n + 1 : last]), each)
    return tuple(found)


def _label(name: str, truth: Matrix, score: Matrix, patients: Patients) -> _Label:
    ranking = Ranking.of(truth, score)
    undefined = ""
    if np.isnan(score).all():
        undefined = "undefined: not both classes in the training part"
    elif not ranking.positives:
        undefined = "undefined: no positive in the test part"
    elif not ranking.negatives:
        undefined = "undefined: no negative in the test part"
    known, positive, negative = _mask(~np.isnan(truth)), _mask(truth == 1), _mask(truth == 0)
    return _Label(
        name, ranking, patients.having(known), patients.having(positive), patients.having(negative), undefined
    )


def _mask(rows: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    return np.asarray(rows, dtype=np.bool_)


def _macro_note(labels: list[_Label]) -> str:
    out = [label.name for label in labels if label.undefined]
    few = [label.name for label in labels if label.few and not label.undefined]
    notes = [f"left out as undefined: {', '.join(out)}"] if out else []
    return "; ".join(notes + ([f"few patients in {', '.join(few)}"] if few else []))


def _macro(
    name: str, value: float, interval: Interval, truth: Matrix, patients: Patients, note: str, label: str = "macro"
) -> Metric:
    known = _mask((~np.isnan(truth)).any(axis=1))
    notes = "; ".join(part for part in (interval.note, note) if part)
    return Metric(
        name,
        label,
        value,
        interval.low,
        interval.high,
        interval.method,
        n=int(known.sum()),
        positives=int(np.nansum(truth)),
        patients=patients.having(known),
        note=notes,
    )


def _per_label(name: str, labels: list[_Label], values: list[float], intervals: list[Interval]) -> list[Metric]:
    """One metric per label, in the task's order; `values` and `intervals` are those of the defined labels."""
    queue = iter(zip(values, intervals, strict=True))
    found = []
    for label in labels:
        if label.undefined:
            found.append(_undefined(name, label))
            continue
        value, interval = next(queue)
        note = "; ".join(part for part in (interval.note, label.few) if part)
        found.append(_metric(name, label, float(value), interval, note))
    return found


def _metric(name: str, label: _Label, value: float | None, interval: Interval, note: str) -> Metric:
    ranking = label.ranking
    return Metric(
        name,
        label.name,
        value,
        interval.low,
        interval.high,
        interval.method,
        n=len(ranking.index),
        positives=ranking.positives,
        patients=label.patients,
        note=note,
    )


def _undefined(name: str, label: _Label) -> Metric:
    method = LOGIT if name == "auroc" else BCA
    return _metric(name, label, None, Interval(None, None, method), label.undefined)
