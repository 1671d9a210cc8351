"""From scores on the test part to the figures of a result, each with its interval and what is to be said of it."""

from collections.abc import Sequence

import numpy as np

from embedcache.evaluation.calibration import INVERTED
from embedcache.evaluation.clustered import auroc_interval, macro_auroc_interval
from embedcache.evaluation.estimates import ALL, MACRO, Estimate, Estimates, Label, mask
from embedcache.evaluation.estimating import RANKED, estimate, side_by_side
from embedcache.evaluation.regression import measure_values
from embedcache.evaluation.statistics import BCA, FEW_PATIENTS, LOGIT, Interval, Patients
from embedcache.evaluation.thresholds import BeforeRefit
from embedcache.probes.base import Groups, Matrix, ProbeKind
from embedcache.types import Metric


def measure(
    truth: Matrix,
    scores: Matrix,
    groups: Groups,
    kind: ProbeKind,
    classes: tuple[str, ...],
    threshold: float,
    *,
    score_name: str = "log-odds",
    before: BeforeRefit | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Metric, ...]:
    """Every figure that the task's kind has, with a 95% interval clustered by patient.

    truth (n, n_classes) of 0, 1 and NaN for missing, one-hot for multiclass, values for numeric; scores (n, n_classes), a
    column of NaN for a label that could not be fitted; groups: the patient of each row. `score_name` says what a score
    is, and so how it becomes a probability. Macro averages leave undefined labels out and name them.

    `threshold` is the probe's own, by which accuracy and balanced accuracy decide (multiclass, F1 too: the highest score
    wins). F1 and sensitivity at fixed specificity take theirs from `before`, and are left out without it.
    """
    patients = Patients.of(groups)
    if kind == "numeric":
        return measure_values(truth[:, 0], scores[:, 0], patients, classes[0], resamples, seed)
    found = estimate(truth, scores, patients, kind, classes, threshold, score_name, before, resamples, seed)
    counts = _counts(truth, patients)
    if not found.found:
        note = _macro_note(found.labels)
        none = [Metric(name, MACRO, None, None, None, _method(name), **counts, note=note) for name in RANKED]
        return (*none, *(_undefined(name, label, label.undefined) for name in RANKED for label in found.labels))
    each = side_by_side(lambda name: _of_name(name, found, patients, counts), found.names)
    return tuple(metric for of_name in each for metric in of_name)


def _of_name(name: str, found: Estimates, patients: Patients, counts: dict[str, int]) -> list[Metric]:
    """The figure of all together, the macro average, then one per label in the task's order."""
    metrics = []
    for label in (ALL, MACRO):
        if (name, label) not in found.found:
            continue
        e = found.found[name, label]
        interval = e.interval()
        if name == "auroc":
            rankings = [label.ranking for label in found.labels if not label.undefined]
            interval = macro_auroc_interval(rankings, patients)
        few = "few patients" if patients.count < FEW_PATIENTS else ""
        missing = {one: note for (figure, one), note in found.missing.items() if figure == name}
        # balanced accuracy names the classes that are rare
        note = (e.note or few) if label == ALL else _macro_note(found.labels, tuple(missing))
        metrics.append(
            Metric(
                name, label, e.value, interval.low, interval.high, interval.method, **counts,
                note=joined(interval.note, note),
            )
        )  # fmt: skip
    if (name, ALL) in found.found and not found.per_label(name):
        return metrics
    if not metrics:
        note = _macro_note(found.labels, tuple(label.name for label in found.labels))
        metrics.append(Metric(name, MACRO, None, None, None, _method(name), **counts, note=note))
    for one in found.labels:
        if one.undefined:
            metrics.append(_undefined(name, one, one.undefined))
        elif (name, one.name) in found.missing:
            metrics.append(_undefined(name, one, found.missing[name, one.name]))
        else:
            metrics.append(_defined(found.found[name, one.name], one, patients))
    return metrics


def _defined(e: Estimate, label: Label, patients: Patients) -> Metric:
    interval = auroc_interval(label.ranking, patients) if e.name == "auroc" else e.interval()
    return _metric(e.name, label, e.value, interval, joined(interval.note, label.few, e.note))


def _undefined(name: str, label: Label, why: str) -> Metric:
    return _metric(name, label, None, Interval(None, None, _method(name)), why)


def _metric(name: str, label: Label, value: float | None, interval: Interval, note: str) -> Metric:
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


def _method(name: str) -> str:
    return {"auroc": LOGIT, "calibration_error": INVERTED}.get(name, BCA)


def _counts(truth: Matrix, patients: Patients) -> dict[str, int]:
    known = mask((~np.isnan(truth)).any(axis=1))
    return {"n": int(known.sum()), "positives": int(np.nansum(truth)), "patients": patients.having(known)}


def _macro_note(labels: tuple[Label, ...], missing: tuple[str, ...] = ()) -> str:
    return macro_note(labels, [label.name for label in labels if label.undefined or label.name in missing])


def macro_note(labels: Sequence[Label], out: Sequence[str]) -> str:
    """What is to be said of an average over `labels`: which are left `out` of it, and which have few patients."""
    few = [label.name for label in labels if label.few and not label.undefined]
    left_out = f"left out as undefined: {', '.join(out)}" if out else ""
    return joined(left_out, f"few patients in {', '.join(few)}" if few else "")


def joined(*notes: str) -> str:
    """Those that say something, in one line."""
    return "; ".join(note for note in notes if note)
