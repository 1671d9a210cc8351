"""Exact neighbours: our certified search by bounds, over FAISS's flat index.

25,596 queries, 86,524 rows of 1,024, k = 200: NIH ChestX-ray14's test and training images. Made features (a multivariate
normal whose k-th variance is 1/k^1.5 about a mean, then of length 1), and features with the covariance of the trained ViT's real
tokens, if `nih128.py` has left its cache (768 wide). The bounds pay where a few directions hold most of the spread.

ours: seconds of `probes.neighbours.nearest(search="auto")`; baseline: `faiss.IndexFlatIP`, adding and searching, same threads.
Checked: the sets are the same but for rows whose similarity, in float64, lies within rounding of the k-th. `--quick`: 8,000
queries, 40,000 rows; `--queries` takes fewer of the whole.
"""

import argparse
from pathlib import Path

import numpy as np
from common import ROOT, finish, seconds
from nih128 import find_stores

from embedcache.probes.neighbours import Nearest, nearest, normalized

ROWS, QUERIES, WIDTH, K = 86_524, 25_596, 1_024, 200
AT_LEAST = 1.25
TIE = 2e-6
"""Similarities of float32 products of 1,024 terms differ by less."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8,000 queries, 40,000 rows")
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument(
        "--work", default=str(ROOT / ".benchmark-cache" / "nih128"), help="where nih128.py left its cache"
    )
    options = parser.parse_args()
    n, m = (40_000, 8_000) if options.quick else (ROWS, options.queries)
    cases = {"made": made(n + m)}
    real = like_real(n + m, Path(options.work) / "cache")
    if real is None:
        print("no cache of nih128.py is here: features like real ones are left out", flush=True)
    else:
        cases["like real"] = real
    import faiss

    found = {}
    for name, X in cases.items():
        rows, queries = normalized(X[:n]), normalized(X[n:])
        results: dict[str, object] = {}

        def flat(rows: np.ndarray = rows, queries: np.ndarray = queries, results: dict[str, object] = results) -> None:
            index = faiss.IndexFlatIP(rows.shape[1])
            index.add(rows)
            results["faiss"] = index.search(queries, K)

        def ours(rows: np.ndarray = rows, queries: np.ndarray = queries, results: dict[str, object] = results) -> None:
            results["ours"] = nearest(rows, queries, K)

        rounds = [(seconds(ours), seconds(flat)) for _ in range(1)]
        mine, theirs = (float(np.median(side)) for side in zip(*rounds, strict=True))
        same = same_sets(rows, queries, results["ours"], results["faiss"][1])  # type: ignore[arg-type,index]
        found[name] = (mine, theirs, same)
        print(
            f"{name}: ours {mine:.2f} s, FAISS {theirs:.2f} s, ratio {theirs / mine:.2f}, same sets {same}", flush=True
        )
    worst = min(found, key=lambda name: found[name][1] / found[name][0])
    mine, theirs, _ = found[worst]
    finish(
        "knn",
        {"same_sets": all(same for _, _, same in found.values()), "at_least_1.25": theirs / mine >= AT_LEAST},
        ours=round(mine, 3),
        baseline=round(theirs, 3),
        baseline_name=f"faiss {faiss.__version__} IndexFlatIP, same threads, the worse of {' and '.join(found)}",
        ratio=round(theirs / mine, 3),
        unit="seconds",
        rows=n,
        queries=m,
        k=K,
        ratios={name: round(theirs / mine, 3) for name, (mine, theirs, _) in found.items()},
    )


def made(count: int) -> np.ndarray:
    """(count, 1024) with a falling spectrum about a mean."""
    random = np.random.default_rng(0)
    X = random.standard_normal((count, WIDTH), dtype=np.float32)
    X *= (np.arange(1, WIDTH + 1) ** -0.75).astype(np.float32)
    X += np.float32(0.05) * random.standard_normal(WIDTH, dtype=np.float32)
    return X


def like_real(count: int, cache: Path) -> np.ndarray | None:
    """(count, 768) drawn with mean and covariance of the trained ViT's CLS and mean tokens of real radiographs."""
    import embedcache

    stores = find_stores(cache)
    if "trained-vit-s14" not in stores:
        return None
    X = embedcache.FeatureCache.open(stores["trained-vit-s14"].path).features("cls+mean").X
    mean, covariance = X.mean(axis=0), np.cov(X.T)
    square, turn = np.linalg.eigh(covariance)
    root = (turn * np.sqrt(np.maximum(square, 0))).astype(np.float32)
    normal = np.random.default_rng(1).standard_normal((count, X.shape[1]), dtype=np.float32)
    drawn: np.ndarray = normal @ root.T + mean
    return drawn


def same_sets(rows: np.ndarray, queries: np.ndarray, ours: Nearest, theirs: np.ndarray) -> bool:
    """Whether rows in one set only have, in float64, the similarity of the k-th up to float32's rounding."""
    for i in range(len(queries)):
        odd = np.setxor1d(ours.row[i], theirs[i])
        if len(odd):
            query = queries[i].astype(np.float64)
            kth = (rows[ours.row[i]].astype(np.float64) @ query).min()
            if np.abs(rows[odd].astype(np.float64) @ query - kth).max() > TIE:
                return False
    return True


if __name__ == "__main__":
    main()
