"""Pairs of images that look like one image, found among many from a vector of each.

Vectors are centred, scaled to one length, and whitened along their strongest directions: what all images of a kind share is gone,
and a copy stands out from a mere resemblance. How alike two different images get is learned from the data: each image's nearest
neighbour of another patient, as Fisher's z of the cosine, has a median and a spread once the copies among them are clipped away.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.types import IntArray

Vectors = npt.NDArray[np.float32]

DIRECTIONS = 64
"""Kept by the whitening. On 128 px radiographs as 32x32 pixels, 32 tell fewer copies from resemblances, and 128 lose crops."""
FEW = 256
"""Below so many images nothing can be learned: plain cosines of centred vectors, and fixed bars."""
FEW_BARS = (0.9, 0.998)
BARS = (1.0, 4.0)
"""Spreads above the median nearest neighbour from which a pair is a candidate, and from which it is near by itself."""
SAMPLED = 4096
"""Images whose nearest neighbours the bars are learned from."""
TILE = (1024, 8192)
"""Cosines are taken so many at once: 32 MiB."""
MOST_PAIRS = 1_000_000
"""Of more candidates than this, the most alike are kept; while they are looked for, twice as many: 40 MiB."""


@dataclass(frozen=True)
class Twins:
    """Candidate pairs i < j, most alike first."""

    first: IntArray
    second: IntArray
    cosine: Vectors
    """Of the whitened vectors; of the better of both ways round where `mirrored` was given."""
    candidate: float
    """The least cosine that was looked for."""
    near: float
    """From here on two images are near-identical by their vectors alone."""
    left_out: int
    """Candidates beyond MOST_PAIRS, at least."""


def find_twins(X: Vectors, patient: IntArray, mirrored: Vectors | None = None, apart: int | None = None) -> Twins:
    """Candidates among the n rows of X (n, d), without zero vectors, given each row's patient as a number.

    mirrored: (n, d), the vector that each image would have had turned left to right, where it is known. apart: the first row
    of a second set: pairs of one row of each set are looked for alone, and what two different images are like is learned
    from the first set, for the second may hold a copy of every image of it. X and mirrored are changed in place. Time grows
    with n^2 (112,120 rows: minutes on two cores); memory beside X is (n, 64) float32 once or twice, a tile and the pairs.
    """
    _normalise(X)
    if mirrored is not None:
        _normalise(mirrored)
    learned = len(X) if apart is None else apart
    if learned < FEW:
        whitened, others = X, X if mirrored is None else np.concatenate([X, mirrored])
        candidate, near = FEW_BARS
    else:
        mean, directions = _whitening(X)
        whitened = _turned(X, mean, directions)
        others = whitened if mirrored is None else np.concatenate([whitened, _turned(mirrored, mean, directions)])
        width = others.shape[1]
        ways_of_learned = others.reshape(-1, len(X), width)[:, :learned].reshape(-1, width)
        candidate, near = _bars(whitened[:learned], ways_of_learned, patient[:learned])
    first, second, cosine, left_out = _above(whitened, others, candidate, apart)
    return Twins(first, second, cosine, candidate, near, left_out)


def _normalise(X: Vectors) -> None:
    for start in range(0, len(X), TILE[1]):  # the norms of all at once would take a copy of X
        rows = X[start : start + TILE[1]]
        rows -= rows.mean(axis=1, keepdims=True)  # a brighter picture is the same picture
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))


def _whitening(X: Vectors) -> tuple[npt.NDArray[np.float64], Vectors]:
    """(d,) mean and (d, k) directions, each divided by the spread along it."""
    mean = X.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((X.shape[1], X.shape[1]))
    for start in range(0, len(X), TILE[1]):
        block = (X[start : start + TILE[1]] - mean).astype(np.float32)
        covariance += block.T @ block
    values, directions = np.linalg.eigh(covariance / len(X))
    k = min(DIRECTIONS, int(np.count_nonzero(values > 1e-9 * values[-1])))
    return mean, (directions[:, -k:] / np.sqrt(values[-k:])).astype(np.float32)


def _turned(X: Vectors, mean: npt.NDArray[np.float64], directions: Vectors) -> Vectors:
    """X along the directions, rows of length 1."""
    turned = np.empty((len(X), directions.shape[1]), dtype=np.float32)
    for start in range(0, len(X), TILE[1]):
        turned[start : start + TILE[1]] = (X[start : start + TILE[1]] - mean).astype(np.float32) @ directions
    turned /= np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), np.float32(1e-12))
    return turned


def _bars(whitened: Vectors, others: Vectors, patient: IntArray) -> tuple[float, float]:
    """The cosines from which a pair is a candidate, and near."""
    n = len(whitened)
    rows = np.arange(n) if n <= SAMPLED else np.random.default_rng(0).choice(n, SAMPLED, replace=False)
    nearest = np.full(len(rows), -1, dtype=np.float32)
    whose = np.tile(patient, len(others) // n)
    for i in range(0, len(rows), TILE[0]):
        part = rows[i : i + TILE[0]]
        for start in range(0, len(others), TILE[1]):
            cosine = whitened[part] @ others[start : start + TILE[1]].T
            cosine[patient[part][:, None] == whose[start : start + TILE[1]]] = -1
            np.maximum(nearest[i : i + len(part)], cosine.max(axis=1), out=nearest[i : i + len(part)])
    z = np.arctanh(np.clip(nearest, -0.99999, 0.99999).astype(np.float64))
    kept = z
    for _ in range(20):  # copies sit far above: without them the median and the spread are those of different images
        median = float(np.median(kept))
        spread = 1.4826 * float(np.median(np.abs(kept - median)))
        clipped = z[z <= median + BARS[1] * spread]
        if len(clipped) == len(kept):
            break
        kept = clipped
    candidate, near = (float(np.tanh(median + bar * spread)) for bar in BARS)
    return candidate, near


def _above(
    whitened: Vectors, others: Vectors, bar: float, apart: int | None = None
) -> tuple[IntArray, IntArray, Vectors, int]:
    """The i < j whose cosine, of the better of both ways round, reaches the bar, and how many had to be left out.

    apart: only i < apart <= j.
    """
    n, ways = len(whitened), len(others) // len(whitened)
    found: list[tuple[IntArray, IntArray, Vectors]] = []
    held = left_out = 0
    stop = n if apart is None else apart
    for i in range(0, stop, TILE[0]):
        block = whitened[i : min(i + TILE[0], stop)]
        for j in range(i - i % TILE[1] if apart is None else apart, n, TILE[1]):
            cosine = block @ others[j : min(j + TILE[1], n)].T
            if ways == 2:
                np.maximum(cosine, block @ others[n + j : n + min(j + TILE[1], n)].T, out=cosine)
            a, b = np.nonzero(cosine >= bar)
            upper = a + i < b + j
            a, b = a[upper], b[upper]
            found.append((a + i, b + j, cosine[a, b]))
            held += len(a)
        if held > 2 * MOST_PAIRS:
            found = [_strongest(found)]
            bar = float(found[0][2].min())
            left_out, held = left_out + held - MOST_PAIRS, MOST_PAIRS
    first, second, value = _strongest(found)
    return first, second, value, left_out + max(held - MOST_PAIRS, 0)


def _strongest(found: list[tuple[IntArray, IntArray, Vectors]]) -> tuple[IntArray, IntArray, Vectors]:
    first, second, value = (np.concatenate(column) for column in zip(*found, strict=True))
    kept = np.argsort(-value, kind="stable")[:MOST_PAIRS]
    return first[kept], second[kept], value[kept]
