"""Two sets of scores on the same rows: how far apart, and whether by more than chance.

AUROC of a label: the clustered covariance of the difference (Obuchowski 1997; DeLong's test where each patient has one
row), with Student's quantile. Macro averages and all other figures: the patients are resampled once for both, and the test
is the percentile interval, widened for few patients, that just holds 0. A macro average over one label is that label's figure
and has its test. A difference that is the same for every patient (one score has all in order, the other ties everywhere) has no
spread: the test is of its sign over the patients. Calibration errors are not tested, see NEVER_TESTED.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from embedcache.evaluation.clustered import Clustered
from embedcache.evaluation.estimates import ALL, MACRO, Estimate, Estimates, Label, mask
from embedcache.evaluation.estimating import estimate, in_common
from embedcache.evaluation.measure import joined, macro_note
from embedcache.evaluation.regression import VALUES, resampled_values
from embedcache.evaluation.statistics import FEW_PATIENTS, TAIL, Patients, degrees_of_freedom
from embedcache.evaluation.thresholds import BeforeRefit
from embedcache.probes.base import Groups, Matrix, ProbeKind

COVARIANCE = "clustered covariance"
PAIRED = "paired bootstrap over patients"
NO_SPREAD = "no spread: a sign test over patients"
NEVER_TESTED = ("calibration_error",)
"""Figures that are shown side by side and never tested. Chance adds to a calibration error, the more the more bins there are, so
ties alone make it smaller; and its resamples do not lie about the truth."""
RESAMPLES = 10_000
"""No p value is under 2 / (resamples + 1), and Holm multiplies it by the number of pairs."""


@dataclass(frozen=True)
class Comparison:
    """One figure of two sets of scores."""

    metric: str
    label: str
    a: float
    b: float
    difference: float
    """a - b."""
    low: float | None
    """95% interval of the difference; None bounds: there is none."""
    high: float | None
    p: float | None
    """Two-sided; None where a class has one patient, no resample has both figures, or the figure is one of NEVER_TESTED."""
    method: str
    """"" where there is no test."""
    n: int
    patients: int
    note: str = ""


def compare_scores(
    truth: Matrix,
    a: Matrix,
    b: Matrix,
    groups: Groups,
    kind: ProbeKind,
    classes: tuple[str, ...],
    thresholds: tuple[float, float] = (0.0, 0.0),
    score_names: tuple[str, str] = ("log-odds", "log-odds"),
    *,
    before: tuple[BeforeRefit, BeforeRefit] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Every figure that `measure` gives and both have, compared; the arguments are those of `measure`, twice where two.

    A row that either leaves without a score is left out of both, and so is a label.
    """
    patients = Patients.of(groups)
    unscored = np.isnan(a) | np.isnan(b)
    a, b = np.where(unscored, np.nan, a), np.where(unscored, np.nan, b)
    if kind == "numeric":
        return _compare_values(truth[:, 0], a[:, 0], b[:, 0], patients, classes[0], resamples, seed)
    first, second = (
        estimate(
            truth, scores, patients, kind, classes, thresholds[i], score_names[i],
            before[i] if before is not None else None, resamples, seed,
        )
        for i, scores in enumerate((a, b))
    )  # fmt: skip
    return compare_estimates(first, second, truth, patients)


def compare_estimates(first: Estimates, second: Estimates, truth: Matrix, patients: Patients) -> tuple[Comparison, ...]:
    """Every figure that two sets of scores of the same rows have, made by `estimate` with the same resamples and seed.

    Both must leave the same rows without a score; `compare_scores` sees to that. A macro average is over the labels of which
    both have the figure; its note names the others. Over one label it is that label's comparison under another name.
    """
    first, second = in_common((first, second))
    known = mask((~np.isnan(truth)).any(axis=1))
    compared = []
    for name in first.names:
        each = [
            _compare_labels(name, label_a, label_b, first, second, patients)
            for label_a, label_b in zip(first.labels, second.labels, strict=True)
            if (name, label_a.name) in first.found and (name, label_a.name) in second.found
        ]
        for label in (ALL, MACRO):
            if (name, label) not in first.found or (name, label) not in second.found:
                continue
            if label == MACRO and len(each) == 1:
                # two tests of one number could contradict each other; the label's own note says that it has few patients
                left_out = macro_note((), _left_out(name, first, second))
                compared.append(replace(each[0], label=MACRO, note=joined(each[0].note, left_out)))
                continue
            one, two = first.found[name, label], second.found[name, label]
            note = _few(patients.count)
            if label == MACRO:
                note = macro_note(first.labels, _left_out(name, first, second))
            compared.append(_by_bootstrap(one, two, int(known.sum()), patients.having(known), note))
        compared += each
    return tuple(compared)


def _compare_labels(
    name: str, a: Label, b: Label, first: Estimates, second: Estimates, patients: Patients
) -> Comparison:
    """One figure of one label, which both have."""
    n, having, note = len(a.ranking.index), a.patients, a.few
    if name == "auroc":
        parts = Clustered.of(a.ranking, patients), Clustered.of(b.ranking, patients)
        return compare_areas(*parts, a.name, n, having, note)
    return _by_bootstrap(first.found[name, a.name], second.found[name, b.name], n, having, note)


def difference_of(a: Clustered, b: Clustered) -> Clustered:
    """The components of AUROC a less AUROC b, on the same rows: its variance is that of the difference."""
    return Clustered(
        a.value - b.value, a.positive - b.positive, a.negative - b.negative, a.positive_patients, a.negative_patients
    )


def paired_p(drawn: Matrix, df: float = np.inf, stretch: float = 1.0, value: float | None = None) -> float:
    """Two-sided p value of 'no difference' from differences on resamples: never 0, at most 1.

    (1 + resamples on the rarer side of 0) / (1 + resamples), doubled; with `df` the normal deviate that has this p value is
    taken as Student's, and divided by `stretch`, as the interval's ends are. `value`, the difference itself, says how far 0 lies
    past all resamples where it does, as `paired_ends` has it.
    """
    fewer = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    raw = min(1.0, 2 * (1 + fewer) / (1 + len(drawn)))
    if np.isinf(df):
        return raw
    deviate = -float(ndtri(raw / 2))
    spread = float(drawn.std())
    if fewer == 0 and value is not None and spread > 0:
        nearest = float(np.abs(drawn).min())
        deviate = max(deviate, min(deviate + nearest / spread, abs(value) / spread))
    return max(raw, float(2 * stdtr(df, -deviate / stretch)))


def paired_ends(drawn: Matrix, value: float, z: float) -> tuple[float, float]:
    """Ends of the interval of a difference, z normal deviates out: quantiles of the resamples.

    An end past all resamples lies as far past the last of them as a normal curve of their spread says, and no nearer to `value`
    than that curve about it: with four patients the last resample is too near.
    """
    last = -float(ndtri(1 / (1 + len(drawn))))
    low, high = (float(bound) for bound in np.quantile(drawn, ndtr((-min(z, last), min(z, last)))))
    if z > last:
        spread = float(drawn.std())
        low = min(float(drawn.min()) - (z - last) * spread, value - z * spread)
        high = max(float(drawn.max()) + (z - last) * spread, value + z * spread)
    return low, high


def sign_p(patients: float) -> float:
    """Two-sided p value of 'no difference' where all patients differ to the same side: the sign test's, at most 1."""
    return float(min(1.0, 2.0 ** (1 - patients)))


def compare_areas(a: Clustered, b: Clustered, label: str, n: int, patients: int, few: str = "") -> Comparison:
    """AUROC of one label by the components of both scores: n rows of so many patients; `few` is a note."""
    parts = difference_of(a, b)
    d = parts.value
    low = high = p = None
    note = "no interval: one patient in a class"
    if parts.smaller >= 2:
        variance = parts.variance()
        if variance < 1e-24:  # the rounding of a mean of placements
            low = high = d
            p, note = (1.0, "the same order") if abs(d) < 1e-12 else (sign_p(parts.smaller), NO_SPREAD)
        else:
            error, df = float(np.sqrt(variance)), degrees_of_freedom(parts.influence(), parts.smaller)
            half = float(stdtrit(df, 1 - TAIL)) * error
            low, high, p, note = d - half, d + half, float(2 * stdtr(df, -abs(d) / error)), ""
    return Comparison("auroc", label, a.value, b.value, d, low, high, p, COVARIANCE, n, patients, joined(note, few))


def _by_bootstrap(a: Estimate, b: Estimate, n: int, patients: int, note: str) -> Comparison:
    if a.name in NEVER_TESTED:
        why = "not tested: chance adds to a calibration error, and ties make it smaller"
        return Comparison(
            a.name, a.label, a.value, b.value, a.value - b.value, None, None, None, "", n, patients, joined(note, why)
        )
    smaller = min(a.patients, b.patients)
    each = a.drawn - b.drawn, a.left_out - b.left_out
    if a.label == ALL:
        note = a.note or note
    return compare_resampled(a.name, a.label, a.value, b.value, *each, smaller, n, patients, note)


def compare_resampled(
    name: str,
    label: str,
    a: float,
    b: float,
    drawn: Matrix,
    left_out: Matrix,
    smaller: float,
    n: int,
    patients: int,
    few: str,
) -> Comparison:
    """A figure of two results from its differences on resamples (r,) and without each patient (patients,), NaN where undefined.

    smaller: patients that the figure rests on; n, patients: of the rows; few: what else its note says.
    """
    low = high = p = None
    defined = drawn[~np.isnan(drawn)]
    if smaller < 2 or not len(defined):
        note = "no interval: one patient in a class"
    elif np.ptp(defined) < 1e-12:
        low = high = a - b
        least = paired_p(defined)  # what resamples can show at most
        p, note = (1.0, "no difference in any resample") if abs(a - b) < 1e-12 else (
            (max(sign_p(smaller), least), NO_SPREAD)
        )  # fmt: skip
    else:
        moved = left_out[~np.isnan(left_out)]
        df = degrees_of_freedom(moved - moved.mean(), smaller) if len(moved) > 1 else smaller - 1.0
        stretch = float(np.sqrt(patients / (patients - 1)))
        z = float(stdtrit(df, 1 - TAIL)) * stretch
        low, high = paired_ends(defined, a - b, z)
        undefined = len(drawn) - len(defined)
        p, note = (
            paired_p(defined, df, stretch, a - b),
            f"{undefined} of {len(drawn)} resamples undefined" if undefined else "",
        )
    return Comparison(name, label, a, b, a - b, low, high, p, PAIRED, n, patients, joined(note, few))


def _compare_values(
    truth: Matrix, a: Matrix, b: Matrix, patients: Patients, name: str, resamples: int, seed: int
) -> tuple[Comparison, ...]:
    known = ~(np.isnan(truth) | np.isnan(a))
    if not known.any():
        return ()
    inside = Patients.of(patients.code[known])
    first, second = (resampled_values(truth[known], p[known], inside, resamples, seed) for p in (a, b))
    return tuple(
        compare_resampled(
            figure, name, float(first.value[i]), float(second.value[i]), first.bootstrap[i] - second.bootstrap[i],
            first.left_out[i] - second.left_out[i],
            inside.count, int(known.sum()), inside.count, _few(inside.count),
        )
        for i, figure in enumerate(VALUES)
        if not np.isnan(first.value[i] + second.value[i])
    )  # fmt: skip


def _left_out(name: str, first: Estimates, second: Estimates) -> list[str]:
    """Labels that are not in a macro average."""
    return [
        label.name
        for label in first.labels
        if first.per_label(name) and not all((name, label.name) in side.found for side in (first, second))
    ]


def _few(patients: int) -> str:
    return "few patients" if patients < FEW_PATIENTS else ""
