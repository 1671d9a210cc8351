"""Every figure of a scored test part with its bootstrap distribution: what intervals and paired tests are made from."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from embedcache.evaluation import thresholds
from embedcache.evaluation.bootstrap import Figures, Resampled, Sums, bootstrap
from embedcache.evaluation.calibration import PROBABLE, calibration_sums, probabilities
from embedcache.evaluation.estimates import ALL, MACRO, Estimate, Estimates, Label, mask
from embedcache.evaluation.metrics import macro, ratio
from embedcache.evaluation.ranks import Ranks
from embedcache.evaluation.statistics import FEW_PATIENTS, Patients, patients_together, spread
from embedcache.evaluation.thresholds import SPECIFICITIES, BeforeRefit, confusion
from embedcache.probes.base import Matrix, ProbeKind

RANKED = ("auroc", "average_precision")
DECIDED = ("accuracy", "balanced_accuracy")
S = TypeVar("S")
T = TypeVar("T")
AT_SPECIFICITY = tuple(f"{what}_at_{s}_specificity" for s in SPECIFICITIES for what in ("sensitivity", "specificity"))
CALIBRATED = ("brier", "calibration_error")


def estimate(
    truth: Matrix,
    scores: Matrix,
    patients: Patients,
    kind: ProbeKind,
    classes: tuple[str, ...],
    threshold: float,
    score_name: str,
    before: BeforeRefit | None,
    resamples: int,
    seed: int,
) -> Estimates:
    """Every figure of a classification; the arguments are those of `measure`."""
    labels = tuple(
        side_by_side(lambda j: Label.of(classes[j], truth[:, j], scores[:, j], patients), range(len(classes)))
    )
    columns = [j for j, label in enumerate(labels) if not label.undefined]
    multiclass = kind == "multiclass"
    missing: dict[tuple[str, str], str] = {}
    # of a score that is no probability (a distance, a margin) what would be said of one is left out below
    probable = score_name in PROBABLE
    chance = probabilities(scores, score_name) if probable else np.where(np.isnan(scores), np.nan, 0.0)
    chosen = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    known = mask((~np.isnan(truth)).any(axis=1))

    def of_label(j: int) -> list[_Part]:
        label, y = labels[j], truth[:, j]
        decided = mask(chosen == j) if multiclass else mask(scores[:, j] > threshold)
        found = [_Part(label.name, RANKED, Ranks.of_ranking(label.ranking, patients), (label.smaller,) * 2)]
        found.append(_own_threshold(label, y, decided, chance[:, j], patients, multiclass))
        if before is not None:
            found += _chosen_thresholds(label, y, before, j, patients, multiclass, missing)
        return found

    parts = [part for of_one in side_by_side(of_label, columns) for part in of_one]
    if multiclass and columns:
        parts.append(_together(labels, truth, chance, chosen, known, patients))
    resampled = bootstrap([part.figures for part in parts], patients, resamples, seed)
    found = {
        (name, part.label): part.estimate(i, r)
        for part, r in zip(parts, resampled, strict=True)
        for i, name in enumerate(part.names)
    }
    names = _names(multiclass, before is not None, probable)
    found = {key: one for key, one in found.items() if key[0] in names}
    for name in names:
        each = [found[name, labels[j].name] for j in columns if (name, labels[j].name) in found]
        # The sum over the classes stands for their mean.
        if each and not (multiclass and name in ("brier", *DECIDED)):
            found[name, MACRO] = _mean(name, each)
    return Estimates(names, labels, found, missing)


def side_by_side(work: Callable[[S], T], items: Sequence[S]) -> list[T]:
    """What `work` makes of each item, in their order, two at a time: nearly all of it is numpy's."""
    with ThreadPoolExecutor(2, thread_name_prefix="embedcache-label") as pool:
        return list(pool.map(work, items))


def _names(multiclass: bool, before: bool, probable: bool) -> tuple[str, ...]:
    f1 = ("f1",) if multiclass or before else ()
    return (*RANKED, *DECIDED, *f1, *(AT_SPECIFICITY if before else ()), *(CALIBRATED if probable else ()))


def _mean(name: str, each: Sequence[Estimate]) -> Estimate:
    off = [e.off for e in each if e.off is not None]
    return Estimate(
        name,
        MACRO,
        float(np.mean([e.value for e in each])),
        macro(np.stack([e.drawn for e in each], axis=-1)),
        macro(np.stack([e.left_out for e in each], axis=-1)),
        patients_together(np.array([spread(e.left_out) for e in each]), [e.patients for e in each]),
        off=np.concatenate(off) / len(each) if off else None,
        off_drawn=np.concatenate([e.off_drawn for e in each if e.off_drawn is not None]) / len(each) if off else None,
    )


def in_common(every: Sequence[Estimates]) -> tuple[Estimates, ...]:
    """Each of `every`, of the same labels, with only the figures that all have: a macro average is over one set of labels."""
    shared = set.intersection(*(set(one.found) for one in every))
    return tuple(_only(one, shared) for one in every)


def _only(one: Estimates, shared: set[tuple[str, str]]) -> Estimates:
    found = {key: figure for key, figure in one.found.items() if key in shared}
    for name in one.names:
        own = [label.name for label in one.labels if (name, label.name) in one.found]
        kept = [label for label in own if (name, label) in found]
        if (name, MACRO) not in found or kept == own:
            continue
        if kept:
            found[name, MACRO] = _mean(name, [found[name, label] for label in kept])
        else:
            del found[name, MACRO]
    return Estimates(one.names, one.labels, found, one.missing)


@dataclass(frozen=True)
class _Part:
    """Figures that are computed together."""

    label: str
    names: tuple[str, ...]
    figures: Figures
    patients: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def estimate(self, i: int, r: Resampled) -> Estimate:
        """The i-th figure. What bins are off follows the figures that have a name."""
        note = self.notes[i] if self.notes else ""
        bins = len(self.names) if self.names[i] == "calibration_error" else None
        return Estimate(
            self.names[i],
            self.label,
            float(r.value[i]),
            r.bootstrap[i],
            r.left_out[i],
            self.patients[i],
            note,
            None if bins is None else r.value[bins:],
            None if bins is None else r.bootstrap[bins:],
        )


def _own_threshold(
    label: Label,
    truth: Matrix,
    called: npt.NDArray[np.bool_],
    chance: Matrix,
    patients: Patients,
    multiclass: bool,
) -> _Part:
    """What the refitted model decides, and how good its probabilities are. Of a multiclass task's class: F1 and the latter."""
    usable = np.where(np.isnan(chance), np.nan, truth)
    squared = np.nan_to_num((chance - usable) ** 2)
    first = _summed([*confusion(usable, called), squared], patients)
    sums = np.concatenate([first, calibration_sums(usable, chance, patients)])

    def of(s: Matrix) -> Matrix:
        rows = s[:4].sum(axis=0)
        off = ratio(s[5:], rows)
        decided = [thresholds.f1(s)] if multiclass else [thresholds.right_share(s[:4]), thresholds.balanced(s)]
        return np.stack([*decided, ratio(s[4], rows), np.abs(off).sum(axis=0), *off])

    counts = (label.patients, label.smaller, label.patients, label.patients)
    if multiclass:
        return _Part(
            label.name,
            ("f1", *CALIBRATED),
            Sums(sums, of),
            (label.positive_patients, *counts[2:]),
            ("of the class with the highest score", "", ""),
        )
    return _Part(label.name, (*DECIDED, *CALIBRATED), Sums(sums, of), counts)


def _chosen_thresholds(
    label: Label,
    truth: Matrix,
    before: BeforeRefit,
    j: int,
    patients: Patients,
    multiclass: bool,
    missing: dict[tuple[str, str], str],
) -> list[_Part]:
    """Decisions by thresholds that validation chose, or scores of left-out rows; see BeforeRefit."""
    y, score, test = before.validation_truth[:, j], before.validation_scores[:, j], before.test_scores[:, j]
    usable = np.where(np.isnan(test), np.nan, truth)
    parts = []

    def add(names: tuple[str, ...], t: float | None, of: Callable[[Matrix], Matrix], counts: tuple[int, ...]) -> None:
        if t is None or not (usable == 1).any() or not (usable == 0).any():
            lacking = "training" if before.without else "validation"
            reason = f"undefined: no threshold, since {lacking} lacks a class" if t is None else (
                f"undefined: not both classes scored{'' if before.without else ' before the refit'}"
            )  # fmt: skip
            missing.update({(name, label.name): reason for name in names})
            return
        sums = _summed(list(confusion(usable, mask(test > t))), patients)
        note = f"above {t:.4g}, {before.origin}"
        parts.append(_Part(label.name, names, Sums(sums, of), counts, (note,) * len(names)))

    if not multiclass:
        add(("f1",), f1_or_none(y, score), lambda s: thresholds.f1(s)[None], (label.positive_patients,))
    for ending, specificity in SPECIFICITIES.items():
        names = (f"sensitivity_at_{ending}_specificity", f"specificity_at_{ending}_specificity")
        add(
            names,
            thresholds.specificity_threshold(y, score, specificity) if (y == 1).any() else None,
            lambda s: np.stack([thresholds.sensitivity(s), thresholds.specificity(s)]),
            (label.positive_patients, label.negative_patients),
        )
    return parts


def f1_or_none(y: Matrix, score: Matrix) -> float | None:
    """The best threshold by F1, where there are both classes to choose it by."""
    return thresholds.f1_threshold(y, score) if (y == 0).any() else None


def _together(
    labels: tuple[Label, ...],
    truth: Matrix,
    chance: Matrix,
    chosen: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_],
    patients: Patients,
) -> _Part:
    """Accuracy, mean recall, Brier score summed over the classes, calibration of the highest probability."""
    p = np.nan_to_num(chance)
    one_hot = np.where(known[:, None], truth, 0.0)
    hit = one_hot[np.arange(len(chosen)), chosen]
    squared = np.where(known, ((p - one_hot) ** 2).sum(axis=1), 0.0)
    highest = p[np.arange(len(chosen)), chosen]
    K = truth.shape[1]
    first = _summed([known, hit, squared, *one_hot.T, *(one_hot * hit[:, None]).T], patients)
    sums = np.concatenate([first, calibration_sums(np.where(known, hit, np.nan), highest, patients)])

    def of(s: Matrix) -> Matrix:
        recall = ratio(s[3 + K : 3 + 2 * K], s[3 : 3 + K])
        off = ratio(s[3 + 2 * K :], s[0])
        return np.stack([ratio(s[1], s[0]), macro(recall.T), ratio(s[2], s[0]), np.abs(off).sum(axis=0), *off])

    everyone = patients.having(known)
    present = [label for label in labels if label.positive_patients]
    # a mean of recalls is known no better than the rarest class's
    rarest = min((label.positive_patients for label in present), default=everyone)
    absent = [label.name for label in labels if not label.positive_patients]
    few = [label.name for label in present if label.positive_patients < FEW_PATIENTS]
    said = [f"left out as undefined: {', '.join(absent)}"] if absent else []
    said += [f"few patients in {', '.join(few)}"] if few else []
    return _Part(
        ALL,
        (*DECIDED, *CALIBRATED),
        Sums(sums, of),
        (everyone, rarest, everyone, everyone),
        ("", "; ".join(said), "", ""),
    )


def _summed(rows: Sequence[npt.ArrayLike], patients: Patients) -> Matrix:
    return np.stack([patients.sums(np.asarray(row, dtype=np.float64)) for row in rows])
