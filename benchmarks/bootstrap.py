"""1,000 resamples of the patients of an NIH-size test part: AUROC, and average precision, of 14 labels on 25,596 rows.

2,800 patients with nine images on average; 2 to 20% positive; half of the labels have scores with many ties.
baseline: chunked numpy as a skilled user writes it, rows sorted once per label; the fastest of two ways, three chunk sizes and
float64, float32, int32. `cumulated` gathers the negatives' weights from the patients' draws in order, cumulates them and
reads them off at the positives, ties by the mean of both sides; `segments` gathers rows of (patients, resamples), sums them
between the positives by `np.add.reduceat` and cumulates the few sums. `ratio_loop`: scikit-learn's `roc_auc_score` with
sample_weight in a loop, measured on a few resamples of every label and scaled to all.

Both sides start from the same labels, scores and draws, sorting included, on one thread; the whole bootstrap, with drawing
and every patient left out, is timed apart on all cores.
Checks: the same figures to 1e-12 in every resample; with a patient left out, of some, against weights of 0 and 1.
"""

import argparse
from collections.abc import Callable
from itertools import product

import numpy as np
from common import finish, median, seconds

from embedcache.evaluation.bootstrap import BLOCK, Draws, bootstrap
from embedcache.evaluation.metrics import Ranking
from embedcache.evaluation.ranks import Ranks
from embedcache.evaluation.statistics import Patients

ROWS, PATIENTS, LABELS = 25_596, 2_800, 14
Matrix = np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds, few resamples of the loop")
    options = parser.parse_args()
    resamples, rounds, looped = 1000, 3 if options.quick else 7, 1 if options.quick else 5
    truth, scores, patients = data()
    draws = [
        Draws.of_block(patients.count, min(BLOCK, resamples - i), 0, i // BLOCK) for i in range(0, resamples, BLOCK)
    ]
    counts = np.ascontiguousarray(np.concatenate([d.count for d in draws], axis=1).T)

    ways = list(product((numpy_cumulated, numpy_segments), (16, 64, 250), (np.float64, np.float32, np.int32)))
    some_labels = [0, LABELS // 2, LABELS - 1]
    tried = {
        way: seconds(lambda way=way: way[0](truth[:, some_labels], scores[:, some_labels], patients, counts, *way[1:]))
        for way in ways
    }
    for (method, chunk, dtype), took in tried.items():
        scaled = took * LABELS / len(some_labels)
        print(f"{method.__name__}, chunks of {chunk}, {dtype.__name__}: {scaled:.2f} s (three labels, scaled)")
    best = min(ways, key=tried.__getitem__)

    times: dict[str, list[float]] = {}
    found: dict[str, Matrix] = {}

    def clock(name: str, work: Callable[[], Matrix]) -> None:
        def kept() -> None:
            found[name] = work()

        times.setdefault(name, []).append(seconds(kept))

    for _ in range(rounds):
        clock("ours", lambda: our_auroc(truth, scores, patients, draws))
        clock("numpy", lambda: best[0](truth, scores, patients, counts, *best[1:]))
        clock("ours, with average precision", lambda: our_both(truth, scores, patients, draws))
    clock("numpy, with average precision", lambda: numpy_both(truth, scores, patients, counts, 16))
    clock("drawing", lambda: np.array([Draws.of_block(PATIENTS, BLOCK, 0, b).largest for b in range(len(draws))]))
    rankings = [Ranks.of(truth[:, j], scores[:, j], patients) for j in range(LABELS)]
    clock("jackknife", lambda: np.stack([r.left_out() for r in rankings]))
    clock("whole bootstrap", lambda: np.stack([r.bootstrap for r in bootstrap(rankings, patients, resamples, 0)]))
    sklearn_loop(truth, scores, patients, counts[:1])  # imports
    each = np.random.default_rng(0).choice(resamples, looped, replace=False)
    clock("loop", lambda: sklearn_loop(truth, scores, patients, counts[each]))
    took = {name: median(values) for name, values in times.items()}
    loop = took["loop"] * resamples / looped
    for name, value in took.items():
        print(f"{name}: {value:.3f} s")

    some = np.arange(0, PATIENTS, 40)
    weights = (some[:, None] != patients.code).astype(np.float64)
    left_out = [
        np.stack([r.auroc(weights), r.average_precision(weights)])
        for r in (Ranking.of(truth[:, j], scores[:, j]) for j in range(LABELS))
    ]
    finish(
        "bootstrap",
        {
            "at_least_3x": took["numpy"] / took["ours"] >= 3,
            "at_least_100x_a_loop": loop / took["ours"] >= 100,
            "auroc_equal_to_1e-12": equal(found["ours"], found["numpy"]),
            "both_equal_to_1e-12": equal(found["ours, with average precision"], found["numpy, with average precision"]),
            "loop_equal_to_1e-12": equal(found["ours"][:, each], found["loop"]),
            "whole_bootstrap_equal_to_1e-12": equal(found["whole bootstrap"], found["ours, with average precision"]),
            "jackknife_equal_to_1e-12": equal(found["jackknife"][:, :, some], np.stack(left_out)),
        },
        ours=round(took["ours"], 4),
        baseline=round(took["numpy"], 4),
        baseline_name=f"{best[0].__name__}, chunks of {best[1]}, {best[2].__name__}",
        ratio=round(took["numpy"] / took["ours"], 1),
        ratio_loop=round(loop / took["ours"]),
        loop_s=f"{loop:.0f} (scaled from {looped} of {resamples} resamples)",
        unit="seconds",
        ratio_with_average_precision=round(
            took["numpy, with average precision"] / took["ours, with average precision"], 1
        ),
        drawing_s=round(took["drawing"], 4),
        jackknife_s=round(took["jackknife"], 4),
        whole_bootstrap_all_cores_s=round(took["whole bootstrap"], 4),
    )


def data() -> tuple[Matrix, Matrix, Patients]:
    """Labels and scores that share a patient's shift; scores of every other label are rounded to two digits."""
    random = np.random.default_rng(17)
    share = random.gamma(0.7, size=PATIENTS) + 0.1
    code = np.concatenate([np.arange(PATIENTS), random.choice(PATIENTS, ROWS - PATIENTS, p=share / share.sum())])
    truth = np.empty((ROWS, LABELS))
    scores = np.empty((ROWS, LABELS))
    for j, prevalence in enumerate(np.linspace(0.02, 0.2, LABELS)):
        shift = random.normal(size=PATIENTS)[code]
        truth[:, j] = shift + random.normal(size=ROWS) > np.sqrt(2) * 3 * (0.5 - prevalence) + 0.4
        scores[:, j] = truth[:, j] + 0.5 * shift + random.normal(size=ROWS)
    scores[:, ::2] = scores[:, ::2].round(2)
    return truth, scores, Patients.of(code)


def our_auroc(truth: Matrix, scores: Matrix, patients: Patients, draws: list[Draws]) -> Matrix:
    rankings = [Ranks.of(truth[:, j], scores[:, j], patients) for j in range(LABELS)]
    return np.stack([np.concatenate([r.auroc(d) for d in draws]) for r in rankings])


def our_both(truth: Matrix, scores: Matrix, patients: Patients, draws: list[Draws]) -> Matrix:
    rankings = [Ranks.of(truth[:, j], scores[:, j], patients) for j in range(LABELS)]
    return np.stack([np.concatenate([r.figures(d) for d in draws], axis=1) for r in rankings])


def numpy_cumulated(
    truth: Matrix, scores: Matrix, patients: Patients, counts: Matrix, chunk: int, dtype: type[np.generic]
) -> Matrix:
    """(labels, resamples). Positives and negatives are gathered apart, each sorted; int32 sums of products in 64 bits."""
    draws = counts.astype(dtype)
    result = np.empty((truth.shape[1], len(counts)))
    wide = np.int64 if dtype is np.int32 else np.float64
    for j in range(truth.shape[1]):
        negative, positive = np.flatnonzero(truth[:, j] == 0), np.flatnonzero(truth[:, j] == 1)
        negative = negative[np.argsort(scores[negative, j], kind="stable")]
        ordered = scores[negative, j]
        left, right = (np.searchsorted(ordered, scores[positive, j], side=side) for side in ("left", "right"))
        ties = bool((left != right).any())
        for i in range(0, len(counts), chunk):
            part = draws[i : i + chunk]
            below = np.zeros((len(part), len(negative) + 1), dtype)
            np.cumsum(part[:, patients.code[negative]], axis=1, out=below[:, 1:])
            w = part[:, patients.code[positive]].astype(wide)
            twice = below[:, left] + below[:, right] if ties else 2 * below[:, left]
            pairs = w.sum(axis=1) * below[:, -1].astype(wide)
            result[j, i : i + chunk] = np.einsum("ri,ri->r", w, twice.astype(wide)) / (2 * pairs)
    return result


def numpy_segments(
    truth: Matrix, scores: Matrix, patients: Patients, counts: Matrix, chunk: int, dtype: type[np.generic]
) -> Matrix:
    """(labels, resamples). Draws with the patients first, so that a gathered row is contiguous."""
    parts = [np.ascontiguousarray(counts[i : i + chunk].T.astype(dtype)) for i in range(0, len(counts), chunk)]
    result = np.empty((truth.shape[1], len(counts)))
    for j in range(truth.shape[1]):
        negative, positive = np.flatnonzero(truth[:, j] == 0), np.flatnonzero(truth[:, j] == 1)
        negative, positive = (i[np.argsort(scores[i, j], kind="stable")] for i in (negative, positive))
        ordered = scores[negative, j]
        left, right = (np.searchsorted(ordered, scores[positive, j], side=side) for side in ("left", "right"))
        edges = np.unique(np.concatenate([[0], left, right]))
        edges = edges[edges < len(negative)]
        low, high = np.searchsorted(edges, left), np.searchsorted(edges, right)
        for k, part in enumerate(parts):
            below = np.zeros((len(edges) + 1, part.shape[1]), dtype)
            np.cumsum(np.add.reduceat(part[patients.code[negative]], edges, axis=0), axis=0, out=below[1:])
            w = part[patients.code[positive]].astype(np.float64)
            ordered_pairs = np.einsum("ir,ir->r", w, (below[low] + below[high]).astype(np.float64))
            result[j, k * chunk : k * chunk + part.shape[1]] = ordered_pairs / (2 * w.sum(axis=0) * below[-1])
    return result


def numpy_both(truth: Matrix, scores: Matrix, patients: Patients, counts: Matrix, chunk: int) -> Matrix:
    """(labels, 2, resamples): AUROC as above, and average precision from the same cumulated weights."""
    draws = counts.astype(np.float64)
    result = np.empty((truth.shape[1], 2, len(counts)))
    for j in range(truth.shape[1]):
        negative, positive = np.flatnonzero(truth[:, j] == 0), np.flatnonzero(truth[:, j] == 1)
        negative, positive = (i[np.argsort(scores[i, j], kind="stable")] for i in (negative, positive))
        ordered, own = scores[negative, j], scores[positive, j]
        left, right = (np.searchsorted(ordered, own, side=side) for side in ("left", "right"))
        first = np.searchsorted(own, own, side="left")
        for i in range(0, len(counts), chunk):
            part = draws[i : i + chunk]
            below = np.zeros((len(part), len(negative) + 1))
            np.cumsum(part[:, patients.code[negative]], axis=1, out=below[:, 1:])
            w = part[:, patients.code[positive]]
            less = np.zeros((len(part), len(positive) + 1))
            np.cumsum(w, axis=1, out=less[:, 1:])
            found = less[:, -1:] - less[:, first]
            called = found + below[:, -1:] - below[:, left]
            precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
            rows = slice(i, i + chunk)
            everything = w.sum(axis=1)
            result[j, 0, rows] = (w * (below[:, left] + below[:, right])).sum(axis=1) / (2 * everything * below[:, -1])
            result[j, 1, rows] = (w * precision).sum(axis=1) / everything
    return result


def sklearn_loop(truth: Matrix, scores: Matrix, patients: Patients, counts: Matrix) -> Matrix:
    from sklearn.metrics import roc_auc_score

    return np.array(
        [
            [roc_auc_score(truth[:, j], scores[:, j], sample_weight=c[patients.code]) for c in counts]
            for j in range(LABELS)
        ]
    )


def equal(a: Matrix, b: Matrix) -> bool:
    return bool(np.allclose(a, b, rtol=1e-12, atol=1e-12, equal_nan=True))


if __name__ == "__main__":
    main()
