"""Linear heads side by side and one step of stochastic gradient descent for all of them, with two losses.

Features are cut into blocks of columns that the same heads use, so that one product per block serves them all: the rows of a
batch by (columns, heads x classes) forward, and the other way round backward. numpy does the work here; `on_torch` runs the
same lines on a device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedcache.half import widened
from embedcache.probes.base import Columns, Features

Single = npt.NDArray[np.float32]
_PIECE = 131_072
"""Weights that are moved at a time: with velocity and gradient 1.5 MB, which stay in a core's cache meanwhile."""
_SMALLEST = 1e-4
"""What a velocity is held as a multiple of, at least."""


class Loss(Protocol):
    """Of the scores of all heads, side by side, against the labels of a batch."""

    n_classes: int
    """Score columns of a head."""

    def slope(self, scores: Any, rows: Any, rate: Any, told: bool) -> tuple[Any, Any]:
        """Derivatives of each head's mean loss by its scores (rows, heads x n_classes), times `rate` (heads x n_classes,).

        Before them the mean losses (heads,), or None unless they are to be `told`.
        """


class LabelLoss:
    """Cross entropy of a sigmoid per label: the mean over the batch's rows with that label, and over `share` labels."""

    def __init__(self, xp: Any, values: Any, known: Any | None, share: int) -> None:
        """values (n, n_classes) of 0 and 1; known (n, n_classes) likewise, None where all are."""
        self.xp, self.values, self.known, self.share = xp, values, known, share
        self.n_classes = values.shape[1]

    def slope(self, scores: Any, rows: Any, rate: Any, told: bool) -> tuple[Any, Any]:
        """See `Loss`. `exp` may overflow: the probability is 0 then."""
        tiled = (1, scores.shape[1] // self.n_classes)
        truth = self.xp.tile(self.values[rows], tiled)
        weight = 1 / (len(rows) * self.share)
        if self.known is not None:
            known = self.known[rows]
            weight = self.xp.tile(known / (known.sum(0).clip(min=1) * self.share), tiled)
        loss = None
        if told:
            each = self.xp.log(self.xp.exp(-abs(scores)) + 1)
            each += scores.clip(min=0)
            each -= scores * truth
            loss = (each * weight).sum(0).reshape(-1, self.n_classes).sum(1)
        wrong = self.xp.exp(-scores)
        wrong += 1
        wrong = 1 / wrong
        wrong -= truth
        wrong *= rate * weight
        return loss, wrong


class ClassLoss:
    """Cross entropy of the softmax over classes."""

    def __init__(self, xp: Any, number: Any, n_classes: int) -> None:
        """number (n,): the class of each row."""
        self.xp, self.number, self.n_classes = xp, number, n_classes

    def slope(self, scores: Any, rows: Any, rate: Any, told: bool) -> tuple[Any, Any]:
        """See `Loss`."""
        of_head = scores.reshape(len(rows), -1, self.n_classes)
        own = self.number[rows]
        top = of_head.max(2) if self.xp is np else of_head.max(2).values
        margin = of_head - top[..., None]
        shares = self.xp.exp(margin)
        total = shares.sum(2)
        at = self.xp.arange(len(rows), device=own.device)
        loss = (self.xp.log(total) - margin[at, :, own]).mean(0) if told else None
        shares /= total[..., None]
        shares[at, :, own] -= 1
        shares = shares.reshape(scores.shape)
        shares *= rate / len(rows)
        return loss, shares


@dataclass
class Block:
    """Columns of X that the same heads use, with what those heads have learned of them."""

    columns: slice
    scores: Any
    """Which columns of the scores (rows, heads x n_classes) it adds to: a slice, or numbers where the scores lie."""
    weights: Any
    """(columns, those scores)."""
    velocity: Any
    spare: Any
    """As large as the weights, for the gradient; None where a step needs no room for it."""

    pieces: list[tuple[Any, Any, Any]] = field(default_factory=list, init=False)
    """Weights, velocity and gradient in runs of `_PIECE`, where there is room for a gradient."""

    def __post_init__(self) -> None:
        if self.spare is not None:
            flat = [values.reshape(-1) for values in (self.weights, self.velocity, self.spare)]
            cuts = [slice(a, a + _PIECE) for a in range(0, flat[0].size, _PIECE)]
            self.pieces = [(flat[0][cut], flat[1][cut], flat[2][cut]) for cut in cuts]


class Heads:
    """Heads under one loss, each with its columns, its learning rate and its first weights."""

    xp: Any = np

    def __init__(
        self,
        X: Any,
        loss: Loss,
        columns: Sequence[Columns],
        rates: Sequence[float],
        first: Sequence[Single],
        momentum: float,
    ) -> None:
        """X (n, d) as `hold` gives it. Per head: its columns of X, learning rate, and weights (n_classes, its columns)."""
        self.X, self.loss, self.columns, self.momentum = X, loss, columns, momentum
        self.rate = self.load(np.repeat(np.array(rates, dtype=np.float32), loss.n_classes))
        wide = [_spread(w, head, X.shape[1]) for w, head in zip(first, columns, strict=True)]
        self.blocks = [self._block(part, users, wide) for part, users in self._parts()]
        none = np.zeros((1, len(columns) * loss.n_classes), dtype=np.float32)
        self.bias, self.bias_velocity = self.load(none), self.load(none.copy())
        self.unit = 1.0
        """The velocities are held as multiples of it: what makes them smaller from step to step need not touch them."""

    @classmethod
    def hold(cls, X: Features) -> Any:
        """X where the work is done: here, as the caller holds it."""
        return X

    @classmethod
    def load(cls, values: npt.NDArray[Any]) -> Any:
        """An array where the work is done."""
        return values

    @classmethod
    def unload(cls, values: Any) -> npt.NDArray[Any]:
        """An array of numpy."""
        found: npt.NDArray[Any] = values
        return found

    @classmethod
    def spare(cls, weights: Single) -> Any:
        """Room for a gradient as large as `weights`, where a step needs it."""
        return np.empty_like(weights)

    def take(self, rows: Any, columns: slice) -> Any:
        """Rows of some columns of X, in float32 and contiguous."""
        return widened(self.X[rows, columns]).astype(np.float32, copy=False)

    def step(self, rows: Any, decay: float, told: bool) -> Any:
        """One step on the batch `rows`, at `decay` times the learning rates; the losses (heads,) before it, if `told`."""
        scores = self.xp.tile(self.bias, (len(rows), 1))
        taken = [self.take(rows, block.columns) for block in self.blocks]
        for block, x in zip(self.blocks, taken, strict=True):
            scores[:, block.scores] += x @ block.weights
        self.slow_down()
        loss, slope = self.loss.slope(scores, rows, self.rate / self.unit, told)
        for block, x in zip(self.blocks, taken, strict=True):
            self.move(block, x.T, slope[:, block.scores], decay * self.unit)
        self.bias_velocity += slope.sum(0)
        self.bias -= decay * self.unit * self.bias_velocity
        return loss

    def slow_down(self) -> None:
        """Every velocity becomes `momentum` times as large."""
        self.unit *= self.momentum
        if self.unit < _SMALLEST:
            for velocity in (self.bias_velocity, *(block.velocity for block in self.blocks)):
                velocity *= self.unit
            self.unit = 1.0

    def move(self, block: Block, x: Any, slope: Any, pace: float) -> None:
        """The velocity takes up the gradient x @ slope, which has its learning rate in it; the weights follow it."""
        np.matmul(x, slope, out=block.spare)
        for weights, velocity, gradient in block.pieces:
            velocity += gradient
            np.multiply(velocity, np.float32(pace), out=gradient)
            weights -= gradient

    def learned(self) -> tuple[list[Single], Single]:
        """Per head its weights (n_classes, its columns); and the biases (heads, n_classes)."""
        n_classes = self.loss.n_classes
        wide = np.zeros((self.X.shape[1], len(self.columns) * n_classes), dtype=np.float32)
        for block in self.blocks:
            scores = block.scores if isinstance(block.scores, slice) else self.unload(block.scores)
            wide[block.columns, scores] = self.unload(block.weights)
        of_head = np.split(wide, len(self.columns), axis=1)
        weights = [np.concatenate([w[c] for c in head]).T for w, head in zip(of_head, self.columns, strict=True)]
        return weights, self.unload(self.bias).reshape(-1, n_classes)

    def _parts(self) -> list[tuple[slice, tuple[int, ...]]]:
        """Columns in the largest runs that the same heads use, with those heads."""
        edges = sorted({e for head in self.columns for c in head for e in (c.start, c.stop)})
        found: list[tuple[slice, tuple[int, ...]]] = []
        for a, b in pairwise(edges):
            users = tuple(i for i, head in enumerate(self.columns) if any(c.start <= a < c.stop for c in head))
            if found and found[-1][1] == users:
                a = found.pop()[0].start
            found.append((slice(a, b), users))
        return [(part, users) for part, users in found if users]

    def _block(self, part: slice, users: tuple[int, ...], wide: list[Single]) -> Block:
        n_classes = self.loss.n_classes
        weights = np.concatenate([wide[i][:, part] for i in users]).T.copy()
        at = (np.array(users)[:, None] * n_classes + np.arange(n_classes)).ravel()
        run = slice(int(at[0]), int(at[-1]) + 1)
        scores = run if run.stop - run.start == len(at) else self.load(at)
        return Block(part, scores, self.load(weights), self.load(np.zeros_like(weights)), self.spare(weights))


def _spread(weights: Single, columns: Columns, width: int) -> Single:
    """Weights (n_classes, columns) in their places among `width` columns, 0 elsewhere."""
    wide = np.zeros((len(weights), width), dtype=np.float32)
    start = 0
    for c in columns:
        wide[:, c] = weights[:, start : start + c.stop - c.start]
        start += c.stop - c.start
    return wide
