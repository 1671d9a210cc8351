"""Passes over the training rows, block by block: weighted means, the Gram matrix, and the logistic loss with its slope.

Everything here sees rows as (x - centre of the label) without ever holding them so: the centre enters as a correction of
rank one. Only where a feature's mean dwarfs its deviation, and the correction would cost digits, is a block copied and
shifted before it is used. Products run in the rows' own precision (at least float32), sums over blocks in float64.

Sums stay where the rows lie (see `place`) until a pass is done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from embedcache.probes.base import Features, Matrix
from embedcache.probes.place import HERE, Place
from embedcache.probes.side_by_side import ALONE, Team, shares

_BLOCK_ROWS = 8192
"""At most: a product sums the rows of a block in float32, and its error grows with them; over blocks sums are float64."""
_FLAT = 1e-4
"""Share of a fit's curvature that a metric may lack. Of separable rows it leaves out half; with a hundredth a path took nearly
three times as long."""
_LEAST = 1e-37
"""A fit's curvature where all of it is lost in rounding; float32 still holds it."""
_FAR = 3.0
"""Deviations between a feature's mean and 0 from which rows are shifted before a product."""
SAMPLE = 500
"""Rows that tell about where the means lie."""


@dataclass(frozen=True)
class Targets:
    """What the columns of scores should be, and how much each row counts."""

    sign: Features
    """(n_labels, n): 1 or -1, any where the weight is 0. Of a softmax: (n_classes, n), 1 in the row's class, else 0."""
    weight: Features
    """(n_labels, n), each summing to 1; 0 leaves a row out. Of a softmax: (1, n)."""
    softmax: bool = False

    @property
    def heads(self) -> int:
        """Scores that are fitted together: the classes of a softmax, else 1."""
        return len(self.sign) if self.softmax else 1


class Rows:
    """The features X (n, d) as `place` holds them, and targets; `dtype` is what products run in; `team` makes a pass."""

    def __init__(
        self,
        X: Any,
        targets: Targets,
        dtype: np.dtype[Any] | None = None,
        team: Team = ALONE,
        place: Place = HERE,
    ) -> None:
        self.team, self.place, self.xp = team, place, place.xp
        self.X, self.targets = X, targets
        self.softmax, self.heads = targets.softmax, targets.heads
        self.n, self.d = X.shape
        self.dtype = place.precision(X) if dtype is None else dtype
        self.sign, self.weight = self.load(targets.sign), self.load(targets.weight)
        middle = far_means(place.unload(X[:: max(1, self.n // SAMPLE)]))
        self._shift = None if middle is None else self.load(middle)
        """Subtracted from each block: (d,), or nothing."""
        self.shift = np.zeros(self.d) if middle is None else place.unload(self._shift)
        self.relative = self._means()
        """(n_labels, d): weighted mean of each label's rows, less the shift."""
        self._relative = place.load(self.relative)
        self.centre: Matrix = self.relative + self.shift

    def in_float64(self) -> "Rows":
        """The same rows for work in float64; X stays as it is, its blocks are converted."""
        return Rows(self.X, self.targets, np.dtype(np.float64), self.team, self.place)

    def load(self, values: Any) -> Any:
        """`values` of main memory in the working precision, where the work is done."""
        return self.place.load(np.ascontiguousarray(values, dtype=self.dtype))

    def take(self, rows: slice) -> Any:
        """Rows of X in the working precision: a view where neither precision nor shift asks for a copy."""
        block = self.place.cast(self.X[rows], self.dtype)
        return block if self._shift is None else block - self._shift

    def blocks(self, columns: int) -> list[slice]:
        """Blocks of rows, equal but for one row, beside which one of `columns` scores fits; as many for each of the team."""
        most = max(64, min(self.place.block_values // (self.d + columns), _BLOCK_ROWS))
        each = -(-self.n // (most * self.team.size))
        count = max(1, min(each * self.team.size, self.n // 64))
        return [slice(a, b) for a, b in pairwise(shares(0, self.n, count))]

    def _means(self) -> Matrix:
        alike = bool((self.weight == self.weight[:1]).all())
        weight = self.weight[:1] if alike else self.weight
        total = self.place.zeros((len(weight), self.d))
        for rows in self.blocks(len(weight)):
            total += weight[:, rows] @ self.take(rows)
        return np.repeat(self.place.unload(total), len(self.weight) // len(weight), axis=0)

    def gram(self, weight: Any, team: Team | None = None) -> tuple[Matrix, Any]:
        """Mean (d,), less the shift, and covariance (d, d) of the rows under `weight` (n,), which sums to 1.

        The covariance and the weight lie where the rows do.

        One pass, over the rows whose weight is not 0. team: who makes it, in place of the rows' own.
        """
        plain = bool((weight == weight[0]).all())

        def sums(blocks: Sequence[slice]) -> tuple[Any, Any]:
            mean, total = self.place.zeros((self.d,)), self.place.zeros((self.d, self.d))
            for rows in blocks:
                x, w = self.take(rows), weight[rows]
                if not plain:
                    there = self.xp.where(w > 0)[0]
                    x, w = (x, w) if len(there) == len(w) else (x[there], w[there])
                mean += w @ x
                part = x if plain else x * self.xp.sqrt(w)[:, None]
                total += part.T @ part
            return mean, total

        mean, total = (team or self.team).summed(sums, self.blocks(0))
        if plain:
            total *= float(weight[0])
        total -= self.xp.outer(mean, mean)
        return self.place.unload(mean), total

    def curvature(self, coef: Matrix, intercept: Matrix, label: int) -> tuple[Any, Matrix]:
        """How much each row bends the loss of each head of one fit, (heads, n), each summing to 1, and how much all do, (heads,).

        coef (heads, d) and intercept (heads,) come from main memory; the first answer lies where the rows do.
        Rows that all together bend it by less than a ten-thousandth (_FLAT) are said to bend it by 0.
        """
        offset = self.load((intercept - coef @ self.relative[label])[:, None])
        W = self.load(coef)
        each = []
        for rows in self.blocks(self.heads):
            scores = W @ self.take(rows).T + offset
            if self.softmax:
                shares = _softmax(self.xp, scores)
                bend = shares * (1 - shares)
            else:
                small = self.xp.exp(-abs(scores))
                bend = small / (1 + small) ** 2
            each.append(bend * self.weight[label, rows])
        bend = self.xp.concatenate(each, 1)
        total = np.maximum(self.place.unload(bend.sum(1)), _LEAST)
        counts = self.xp.where(bend * self.n < self.load(_FLAT * total)[:, None], 0 * bend, bend)
        return counts / self.load(np.maximum(self.place.unload(counts.sum(1)), _LEAST))[:, None], total

    def evaluate(self, coef: Any, intercept: Any, label: Any) -> tuple[Matrix, Any, Any, Matrix]:
        """Mean loss (m,), its slopes (m, heads, d) and (m, heads), and how it bends (m, 3), as `Standing` says. One pass.

        coef (m, heads, d); intercept (m, heads) is that of centred rows; label (m,), ascending: which target each has. Of these
        and the slopes all but the label lie where the rows do; each is float64.
        """
        m, heads, d = coef.shape
        place = self.place
        relative = self._relative[place.load(label)]
        offset = intercept - self.xp.einsum("mhd,md->mh", coef, relative)
        offset = place.cast(offset, self.dtype).reshape(-1, 1)
        W = place.turned(place.cast(coef.reshape(m * heads, d), self.dtype))
        runs = self._runs(label)

        def sums(blocks: Sequence[slice]) -> tuple[Any, Any, Any, Any]:
            loss, bend = place.zeros((m,)), place.zeros((m, 3))
            slope, slope_b = place.zeros((m * heads, d)), place.zeros((m * heads,))
            for rows in blocks:
                x = self.take(rows)
                # rows times columns: BLAS is faster at it than at columns times rows, where columns are few
                scores = place.turned(x @ W)
                scores += offset
                if self.softmax:
                    by_head = scores.reshape(m, heads, -1)
                    parts = softmax_loss(self.xp, by_head, self.sign[:, rows], self.weight[0, rows])
                    loss += parts[0]
                    bend[:, 0] += parts[1]
                else:
                    for which, columns in runs:
                        parts = binary_loss(self.xp, scores[columns], self.sign[which, rows], self.weight[which, rows])
                        loss[columns] += parts[0]
                        bend[columns] += parts[1]
                # The scores have been replaced by the derivatives of the loss.
                slope += scores @ x
                slope_b += scores.sum(1)
            return loss, bend, slope, slope_b

        loss, bend, slope, slope_b = self.team.summed(sums, self.blocks(2 * m * heads))
        slope_b = slope_b.reshape(m, heads)
        slope = slope.reshape(m, heads, d)
        slope -= slope_b[:, :, None] * relative[:, None, :]
        told = place.unload(bend)
        told[:, 1:] /= np.maximum(told[:, :1], _LEAST)
        told[:, 2] -= told[:, 1] ** 2
        return place.unload(loss), slope, slope_b, told

    def _runs(self, label: Any) -> list[tuple[Any, slice]]:
        """Columns that are worked on together, and their label, or where there is room for it all of them and their labels."""
        edges = np.flatnonzero(np.diff(label)) + 1
        if len(edges) and self.place.fits_at_once:
            return [(self.place.load(label), slice(0, len(label)))]
        starts, stops = [0, *edges.tolist()], [*edges.tolist(), len(label)]
        return [(int(label[a]), slice(a, b)) for a, b in zip(starts, stops, strict=True)]


def far_means(sample: Matrix) -> Matrix | None:
    """(d,) of some rows (n, d) in float64, if a feature's mean dwarfs its deviation, so that products of float32 lose digits."""
    middle: Matrix = sample.mean(axis=0)
    with np.errstate(invalid="ignore"):  # what is not finite is refused by whoever sees the centre
        return middle if (np.abs(middle) > _FAR * sample.std(axis=0)).any() else None


def binary_loss(xp: Any, scores: Any, sign: Any, weight: Any) -> tuple[Any, Any]:
    """Weighted sums of log(1 + exp(-sign·score)), (m,), and of p·(1 - p) alone, times the score and times its square, (m, 3).

    scores (m, b) become the derivatives. sign and weight are (b,), or each column's own, (m, b).

    Written so that neither a large margin nor a large mistake loses digits.
    """
    scores *= sign
    # in few arrays, and without `where`: that takes two thirds of the time
    small = abs(scores)
    xp.exp(xp.negative(small, out=small), out=small)
    loss = xp.log1p(small)
    below = xp.clip(scores, None, 0)
    loss -= below
    # the probability of the other answer: the lesser of exp(-score) and 1, over 1 + small
    wrong = xp.subtract(below, scores, out=below)
    xp.exp(wrong, out=wrong)
    small += 1
    wrong /= small
    bend = xp.subtract(wrong, xp.multiply(wrong, wrong, out=small), out=small)
    signed, told = sign * weight, [_weighed(bend, weight)]
    for factor in (signed, weight):
        bend *= scores
        told.append(_weighed(bend, factor))
    xp.multiply(wrong, -signed, out=scores)
    return _weighed(loss, weight), xp.stack(told, 1)


def _weighed(values: Any, weight: Any) -> Any:
    """(m,): sums of values (m, b) times weights, (b,) or (m, b)."""
    return values @ weight if weight.ndim == 1 else (values * weight).sum(1)


def _softmax(xp: Any, scores: Any) -> Any:
    """Over the first axis of (heads, b)."""
    # each row's own top: against another row's, all shares of a row may round to 0
    shares = xp.exp(scores - xp.amax(scores, 0))
    return shares / shares.sum(0)


def softmax_loss(xp: Any, scores: Any, target: Any, weight: Any) -> tuple[Any, Any]:
    """Weighted sums of -log p(class) and of Σ p·(1 - p), each (m,); scores (m, heads, b) become the derivatives.

    target (heads, b) of 0 and 1. The loss is log(1 + Σ over the other classes of exp(score - score of the class)).
    """
    own = (scores * target).sum(1)
    scores -= own[:, None, :]
    top = xp.amax(scores, 1)
    shares = xp.exp(scores - top[:, None, :])
    total = shares.sum(1)
    # The row's own class gives exp(0 - top); the rest is summed apart, so that a confident row keeps its small loss.
    others = (shares * (1 - target)).sum(1)
    loss = top + xp.log(total)
    confident = top <= 0
    loss = xp.where(confident, xp.log1p(xp.where(confident, others, 0 * others)), loss)
    shares /= total[:, None, :]
    curvature = ((shares - shares * shares).sum(1)) @ weight
    shares -= target
    # p - 1 of the own class, from the rest: exact where p rounds to 1.
    wrong = (others / total)[:, None, :]
    scores[...] = xp.where(target > 0, -wrong, shares) * weight
    return loss @ weight, curvature
