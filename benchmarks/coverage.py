"""Do 95% intervals hold the truth in 95 of 100 samples, and do paired tests reject a true null in 5?

Simulated patients have one to nine images. P of them have the finding in most of their images, N never; scores are normal, half
of their variance the patient's own. A sample's truth is known in closed form (AUROC) or from 1,000 samples' worth of patients.
Printed: AUROC's coverage over a grid of AUROC x patients of the smaller class, that of all other figures, and of numeric
targets. ours: the share held over the cells where PROTOCOL.md claims 93 to 97% (AUROC to .95, 30 patients of each class);
baseline: the same of the interval that takes images of one patient for independent.

Checks allow for chance in the number of simulations: three standard errors on either side where the twelve claimed cells are
looked at, two for a test's share. `--quick` runs fewer. The number of patients with the finding is fixed, and resamples let it
vary, so figures that depend on how common it is (average precision, accuracy, F1, Brier) are held a little too often.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from common import finish
from scipy.special import ndtr, ndtri

from embedcache.evaluation.clustered import Clustered, auroc_interval, macro_auroc_interval
from embedcache.evaluation.estimating import estimate
from embedcache.evaluation.measure import measure
from embedcache.evaluation.metrics import Ranking
from embedcache.evaluation.paired import compare_areas, compare_scores, difference_of
from embedcache.evaluation.segmentation import measure_overlap
from embedcache.evaluation.statistics import Patients
from embedcache.evaluation.subgroups import auroc_differences
from embedcache.evaluation.thresholds import BeforeRefit

Matrix = np.ndarray
AREAS = (0.60, 0.75, 0.85, 0.95, 0.98)
SIZES = ((5, 200), (8, 230), (15, 200), (30, 30), (30, 200), (100, 200))
CLAIMED_AREA, CLAIMED_PATIENTS = 0.95, 30
GROUPS = ((8, 4, 20), (4, 10, 30), (8, 10, 40), (2, 30, 60))
"""How many groups, and the patients with and without the finding in each."""
MOST = 9
OFFSET = -1.4
"""Of the log-odds that the made-up scores stand for: near calibrated, not quite."""


@dataclass(frozen=True)
class Sample:
    y: Matrix
    """(n, labels)."""
    score: Matrix
    patients: Matrix
    """(n,): numbers."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer simulations")
    options = parser.parse_args()
    many, some, few = (500, 60, 400) if options.quick else (4000, 1000, 4000)
    random = np.random.default_rng(18)

    print(
        f"AUROC, share of intervals that hold the truth, {many} simulations a cell (in brackets: images taken as patients)"
    )
    print("| patients with, without | " + " | ".join(f"{area:.2f}" for area in AREAS) + " |")
    clustered, naive = {}, {}
    for size in SIZES:
        for area in AREAS:
            clustered[size, area], naive[size, area] = auroc_coverage(*size, area, many, random)
        cells = [f"{clustered[size, area]:.3f} ({naive[size, area]:.3f})" for area in AREAS]
        print(f"| {size[0]}, {size[1]} | " + " | ".join(cells) + " |", flush=True)
    claimed = [cell for cell in clustered if min(cell[0]) >= CLAIMED_PATIENTS and cell[1] <= CLAIMED_AREA]

    print(f"\nOther figures, {some} simulations a cell, AUROC .85")
    others = {size: other_coverage(*size, 0.85, some, random) for size in SIZES[2:]}
    names = list(others[SIZES[-1]])
    print("| patients with, without | " + " | ".join(names) + " |")
    for size, found in others.items():
        print(f"| {size[0]}, {size[1]} | " + " | ".join(f"{found.get(name, np.nan):.3f}" for name in names) + " |")

    print(f"\nNumeric targets, {some} simulations a cell")
    for patients in (15, 30, 100):
        numeric = numeric_coverage(patients, some, random)
        print(f"| {patients} patients | " + " | ".join(f"{k} {v:.3f}" for k, v in numeric.items()) + " |", flush=True)

    print(f"\nMean Dice of samples, {some} simulations a cell, one image a patient")
    dice = {patients: dice_coverage(patients, some, random) for patients in (5, 8, 15, 30)}
    print("| patients | " + " | ".join(str(patients) for patients in dice) + " |")
    print("| held | " + " | ".join(f"{share:.3f}" for share in dice.values()) + " |", flush=True)

    rejected = paired_rejections(few, few // 2, random)
    print("\nPaired tests of two equally good scores, 100 patients with nine images: share rejected at 5%")
    for name, value in rejected.items():
        print(f"| {name} | {value:.3f} |")
    apart = {groups: subgroup_rejections(*groups, few // 2, random) for groups in GROUPS}
    print("\nTest of groups with one AUROC (.8): share rejected at 5%")
    for (count, positive, negative), share in apart.items():
        print(f"| {count} groups of {positive} and {negative} patients | {share:.3f} |")
    single = delong_agrees(random)
    low, high = allowed(0.93, many, -3), allowed(0.97, many, 3)
    checks = {
        f"coverage_{low:.3f}_to_{high:.3f}_where_claimed": all(low <= clustered[cell] <= high for cell in claimed),
        "clustered_test_rejects_3_to_7": within(rejected["clustered covariance"], 0.03, 0.07, few),
        "bootstrap_of_macro_rejects_3_to_7": within(rejected["macro, paired bootstrap"], 0.03, 0.07, few // 2),
        "dice_of_30_patients_is_held": within(dice[30], 0.93, 0.97, some),
        "groups_reject_at_most_7": all(share <= allowed(0.07, few // 2, 2) for share in apart.values()),
        "delong_on_images_rejects_more": bool(rejected["DeLong on images"] > 0.10),
        "delong_equals_the_paper": bool(single < 1e-10),
    }
    ours, baseline = (float(np.mean([side[cell] for cell in claimed])) for side in (clustered, naive))
    finish(
        "coverage",
        checks,
        ours=round(ours, 4),
        baseline=round(baseline, 4),
        baseline_name="DeLong's variance on the logit scale, images taken for patients",
        ratio=round(ours / baseline, 3),
        unit="mean coverage over the claimed cells",
        claimed_lowest=min(clustered[cell] for cell in claimed),
        claimed_highest=max(clustered[cell] for cell in claimed),
        rejected={name: round(value, 4) for name, value in rejected.items()},
        groups_rejected={" ".join(map(str, groups)): round(share, 4) for groups, share in apart.items()},
        dice_held={str(patients): share for patients, share in dice.items()},
        simulations=many,
    )


# --- the world ------------------------------------------------------------------------------------


def draw(random: np.random.Generator, positive: int, negative: int, area: float, labels: int = 1) -> Sample:
    """Patients with one to nine images; those with the finding have it in the first and in each other one by .7."""
    count = positive + negative
    images = random.integers(1, MOST + 1, count)
    patient = np.repeat(np.arange(count), images)
    first = np.append(True, patient[1:] != patient[:-1])
    gap = np.sqrt(2) * ndtri(area)
    y, score = np.empty((len(patient), labels)), np.empty((len(patient), labels))
    for j in range(labels):
        has = random.permutation(count) < positive
        y[:, j] = has[patient] & (first | (random.random(len(patient)) < 0.7))
        own = random.normal(size=count)[patient]
        score[:, j] = gap * y[:, j] + np.sqrt(0.5) * (own + random.normal(size=len(patient)))
    return Sample(y, score, patient)


def auroc_coverage(
    positive: int, negative: int, area: float, times: int, random: np.random.Generator
) -> tuple[float, float]:
    """Share of intervals that hold `area`: by patients, and with every image as a patient."""
    held = np.zeros(2)
    for _ in range(times):
        s = draw(random, positive, negative, area)
        ranking = Ranking.of(s.y[:, 0], s.score[:, 0])
        for i, groups in enumerate((s.patients, np.arange(len(s.y)))):
            interval = auroc_interval(ranking, Patients.of(groups))
            held[i] += interval.low is not None and interval.low <= area <= interval.high
    return float(held[0] / times), float(held[1] / times)


def other_coverage(
    positive: int, negative: int, area: float, times: int, random: np.random.Generator
) -> dict[str, float]:
    """Of every other figure, and of the macro AUROC of three labels."""
    threshold = 1.0
    whole = draw(random, 1000 * positive, 1000 * negative, area)
    validation = draw(random, 100, 400, area)

    def before(s: Sample) -> BeforeRefit:
        return BeforeRefit(validation.y, validation.score + OFFSET, s.score + OFFSET)

    large = estimate(
        whole.y, whole.score + OFFSET, Patients.of(whole.patients), "binary", ("x",), threshold + OFFSET, "log-odds",
        before(whole), 1, 0,
    )  # fmt: skip
    truth = {name: e.value for (name, label), e in large.found.items() if label == "x" and name != "auroc"}
    held = dict.fromkeys([*truth, "macro auroc"], 0)
    for i in range(times):
        s = draw(random, positive, negative, area)
        metrics = measure(
            s.y, s.score + OFFSET, s.patients, "binary", ("x",), threshold + OFFSET, before=before(s), seed=i
        )
        for m in metrics:
            if m.label == "x" and m.name in truth:
                held[m.name] += m.low is not None and m.low <= truth[m.name] <= m.high
        three = draw(random, positive, negative, area, labels=3)
        rankings = [Ranking.of(three.y[:, j], three.score[:, j]) for j in range(3)]
        interval = macro_auroc_interval(rankings, Patients.of(three.patients))
        held["macro auroc"] += interval.low <= area <= interval.high
    return {name: count / times for name, count in held.items()}


def numeric_coverage(patients: int, times: int, random: np.random.Generator) -> dict[str, float]:
    """Predictions that explain part of the target, both with a patient's own share."""

    def values(count: int) -> tuple[Matrix, Matrix, Matrix]:
        patient = np.repeat(np.arange(count), random.integers(1, MOST + 1, count))
        target = random.normal(size=count)[patient] + 0.5 * random.normal(size=len(patient))
        noise = random.normal(size=count)[patient] + 0.5 * random.normal(size=len(patient))
        return target, 0.6 * target + 0.4 * noise, patient

    def figures(seed: int, count: int, resamples: int) -> dict[str, tuple[float, float, float]]:
        target, prediction, patient = values(count)
        metrics = measure(
            target[:, None], prediction[:, None], patient, "numeric", ("v",), 0.0, resamples=resamples, seed=seed
        )
        return {m.name: (m.value, m.low, m.high) for m in metrics}

    truth = figures(0, 100_000, 1)
    held = dict.fromkeys(truth, 0)
    for i in range(times):
        for name, (_, low, high) in figures(i, patients, 1000).items():
            held[name] += low <= truth[name][0] <= high
    return {name: count / times for name, count in held.items()}


def dice_coverage(patients: int, times: int, random: np.random.Generator) -> float:
    """Masks and predictions of 1,000 pixels, whose overlap is a share of mean 2/3 of them: so is the Dice of each."""
    held = 0
    for i in range(times):
        both = np.round(1000 * random.beta(8, 4, patients)).astype(np.int64)
        missed = 1000 - both
        counts = np.stack([np.full(patients, 5000), missed, missed, both], axis=1).reshape(patients, 2, 2)
        found = measure_overlap(counts, np.arange(patients).astype(str), ("x",), seed=i)
        (dice,) = (m for m in found if (m.name, m.label) == ("dice", "x"))
        held += dice.low <= 2 / 3 <= dice.high
    return held / times


# --- paired tests ---------------------------------------------------------------------------------


def paired_rejections(times: int, bootstraps: int, random: np.random.Generator) -> dict[str, float]:
    """Two scores with equal AUROC .8; what they make of a patient is partly each one's own."""
    patients = np.repeat(np.arange(100), MOST)
    hits = {"clustered covariance": 0, "DeLong on images": 0, "macro, paired bootstrap": 0, "average precision": 0}
    gap = np.sqrt(2) * ndtri(0.8)
    for i in range(times):
        y = np.empty((len(patients), 2))
        a, b = np.empty_like(y), np.empty_like(y)
        for j in range(2):
            has = random.permutation(100) < 40
            y[:, j] = has[patients] & (random.random(len(patients)) < 0.7)
            shared, *own = random.normal(size=(3, 100))[:, patients]
            noise = random.normal(size=(2, len(patients)))
            a[:, j], b[:, j] = (gap * y[:, j] + np.sqrt([0.3, 0.4, 0.3]) @ (shared, own[s], noise[s]) for s in range(2))
        rankings = [Ranking.of(y[:, 0], score[:, 0]) for score in (a, b)]
        delong = difference_of(*(Clustered.of(r, Patients.of(np.arange(len(patients)))) for r in rankings))
        hits["DeLong on images"] += 2 * ndtr(-abs(delong.value) / np.sqrt(delong.variance())) < 0.05
        parts = [Clustered.of(r, Patients.of(patients)) for r in rankings]
        hits["clustered covariance"] += compare_areas(*parts, "x", len(patients), 100).p < 0.05
        if i < bootstraps:
            compared = compare_scores(y, a, b, patients, "multilabel", ("x", "y"), resamples=1000, seed=i)
            p = {(c.metric, c.label): c.p for c in compared}
            hits["macro, paired bootstrap"] += p["auroc", "macro"] < 0.05
            hits["average precision"] += p["average_precision", "x"] < 0.05
    return {name: count / (bootstraps if "boot" in name or "prec" in name else times) for name, count in hits.items()}


def subgroup_rejections(count: int, positive: int, negative: int, times: int, random: np.random.Generator) -> float:
    """Of groups of patients with one row each and the same AUROC .8; where no test is possible nothing is rejected."""
    group = np.repeat(np.arange(count), positive + negative).astype(str)
    y = np.tile(np.arange(positive + negative) < positive, count).astype(float)[:, None]
    hits = 0
    for _ in range(times):
        score = np.sqrt(2) * ndtri(0.8) * y + random.normal(size=y.shape)
        (found,) = auroc_differences(y, score, np.arange(len(y)), group, ("x",))
        hits += found.p is not None and found.p < 0.05
    return hits / times


def delong_agrees(random: np.random.Generator) -> float:
    """The largest difference from the literal test of the paper, in standard errors and covariances, one image a patient."""
    worst = 0.0
    for _ in range(20):
        y = (random.random(150) < 0.4).astype(float)
        scores = np.round(y[:, None] + random.normal(size=(150, 2)), 1)
        alone = Patients.of(np.arange(150))
        parts = difference_of(*(Clustered.of(Ranking.of(y, scores[:, j]), alone) for j in range(2)))
        area, S = literal_delong(y, scores)
        worst = max(worst, abs(parts.value - (area[0] - area[1])))
        worst = max(worst, abs(parts.variance() / (S[0, 0] + S[1, 1] - 2 * S[0, 1]) - 1))
    return worst


def literal_delong(y: Matrix, scores: Matrix) -> tuple[Matrix, Matrix]:
    """AUROC of each score and their covariance, as DeLong, DeLong and Clarke-Pearson write it (1988), pair by pair."""
    X, Y = scores[y == 1], scores[y == 0]
    m, n = len(X), len(Y)
    kernel = (X[:, None] > Y[None]) + 0.5 * (X[:, None] == Y[None])
    theta = kernel.mean(axis=(0, 1))
    V10, V01 = kernel.mean(axis=1), kernel.mean(axis=0)
    S10 = (V10 - theta).T @ (V10 - theta) / (m - 1)
    S01 = (V01 - theta).T @ (V01 - theta) / (n - 1)
    return theta, S10 / m + S01 / n


def allowed(bound: float, times: int, errors: int) -> float:
    return float(bound + errors * np.sqrt(bound * (1 - bound) / times))


def within(share: float, low: float, high: float, times: int) -> bool:
    return bool(allowed(low, times, -2) <= share <= allowed(high, times, 2))


if __name__ == "__main__":
    main()
