"""Every learning rate on every choice of features, trained at once by the same batches of rows.

Momentum SGD without weight decay, its learning rate falling to 0 by a cosine: DINOv2's and the study's linear evaluation. A
batch is read once for all heads. On the CPU the heads are shared out among threads, which never wait for each other: heads
have nothing in common but the rows.

What row is drawn when follows from the rows and the seed alone, not from the order in which rows are given; and where a
class starts follows from the rows that it has, not from its place among the classes.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from itertools import permutations

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from embedcache.errors import InputError
from embedcache.probes.base import Columns, Features, Matrix, runs
from embedcache.probes.linear_heads import ClassLoss, Heads, LabelLoss, Loss
from embedcache.probes.place import torch_there
from embedcache.probes.side_by_side import cores

Numbers = npt.NDArray[np.int64]
FIRST_WEIGHTS = 0.01
"""Standard deviation of the weights that a head starts with (DINOv2's); biases start at 0."""
LAST = 100
"""Iterations at the end whose mean loss is called the final one."""
_BLOCK_VALUES = 1 << 18
_MOST_ORDERED = 6
"""Choices whose orders are all tried."""
_HEADS_OF_A_THREAD = 4
"""At least: each thread reads every batch, so that many threads would read more than they multiply."""
_SMALL = 4_000_000
"""Multiplications of a step below which one thread is faster than two."""


@dataclass(frozen=True)
class Training:
    """How long heads are trained, and on what batches."""

    iterations: int
    batch_size: int
    momentum: float = 0.9
    seed: int = 0

    def batches(self, n: int) -> Numbers:
        """(iterations, batch_size) of rows below n: shuffled epochs end to end, without a gap at an epoch's end."""
        random = np.random.default_rng(self.seed)
        wanted = self.iterations * self.batch_size
        epochs = [random.permutation(n) for _ in range(-(-wanted // n))]
        return np.concatenate(epochs)[:wanted].reshape(self.iterations, self.batch_size)

    def decay(self) -> Matrix:
        """(iterations,): what each step multiplies the learning rates by, from 1 towards 0."""
        return (1 + np.cos(np.pi * np.arange(self.iterations) / self.iterations)) / 2

    def told(self) -> npt.NDArray[np.bool_]:
        """(iterations,): whose loss is worth its time, every tenth and the last `LAST`."""
        at = np.arange(self.iterations)
        told: npt.NDArray[np.bool_] = (at % 10 == 0) | (at >= self.iterations - LAST)
        return told

    def first_weights(self, of_class: Features, width: int) -> npt.NDArray[np.float32]:
        """(width,): where a class starts, drawn by the labels that its rows have, in the order of `in_order`."""
        told = np.where(np.isnan(of_class), -1, of_class).astype(np.int8)
        drawn = int.from_bytes(sha256(told.tobytes()).digest()[:8], "little")
        normal = np.random.default_rng([self.seed, drawn]).standard_normal(width, dtype=np.float32)
        return np.float32(FIRST_WEIGHTS) * normal


@dataclass(frozen=True)
class Swept:
    """The heads of one choice of features, one per learning rate."""

    weights: npt.NDArray[np.float32]
    """(n_rates, n_classes, d)."""
    bias: npt.NDArray[np.float32]
    """(n_rates, n_classes)."""
    losses: npt.NDArray[np.float32]
    """(n_rates, iterations of `Training.told`): of a batch, before the step on it."""


def in_order(X: Features, labels: Matrix) -> Numbers:
    """The rows in an order that does not depend on the one in which they are given: by a number drawn from each row's bits.

    X (n, d), read as float32; rows that are equal there lie by their labels (n, n_classes). Raises InputError if X is not finite.
    """
    factor = np.random.default_rng(0).integers(0, 1 << 63, X.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    number = np.empty(len(X), dtype=np.uint64)
    for rows in runs(len(X), X.shape[1], _BLOCK_VALUES):
        block = np.ascontiguousarray(X[rows], dtype=np.float32)
        if not np.isfinite(block).all():
            raise InputError("features must be finite numbers; a row holds NaN or infinity.")
        number[rows] = np.einsum("ij,j->i", block.view(np.uint32), factor)
    return np.lexsort((*labels.T, number)).astype(np.int64)


def sweep(
    X: Features,
    labels: Matrix,
    choices: Mapping[str, Columns],
    rates: tuple[float, ...],
    training: Training,
    *,
    softmax: bool,
    share: int,
    device: str = "cpu",
) -> dict[str, Swept]:
    """Train a head for each choice and learning rate.

    X (n, d); labels (n, n_classes) of 0, 1 and NaN for missing, one-hot for a softmax; each class has rows of both kinds. The
    loss of labels is the mean over their known rows of the batch, divided by `share`. Products run in float32. Raises
    InputError if X is not finite or torch has no such device.
    """
    order = in_order(X, labels)
    labels = labels[order]
    batches = order[training.batches(len(order))]
    heads = [(choice, rate) for choice in side_by_side(choices) for rate in rates]
    widths = {choice: sum(c.stop - c.start for c in columns) for choice, columns in choices.items()}
    starts = {
        w: np.stack([training.first_weights(column, w) for column in labels.T]) for w in sorted(set(widths.values()))
    }
    by_row = np.empty_like(labels)
    by_row[order] = labels
    if device == "cpu":
        kind: type[Heads] = Heads
    else:
        kind = torch_there(device).heads_on(device)
    held, loss, drawn = kind.hold(X), _loss(kind, by_row, softmax, share), kind.load(batches)
    shares = _shared_out(heads, widths, len(labels.T) * training.batch_size) if device == "cpu" else [heads]

    def train(some: list[tuple[str, float]]) -> tuple[list[npt.NDArray[np.float32]], npt.NDArray[np.float32], Matrix]:
        columns, start = [choices[c] for c, _ in some], [starts[widths[c]] for c, _ in some]
        trained = kind(held, loss, columns, [rate for _, rate in some], start, training.momentum)
        with np.errstate(over="ignore", invalid="ignore"):  # a head that diverges is told by its loss
            steps = zip(drawn, training.decay().tolist(), training.told().tolist(), strict=True)
            losses = [trained.step(rows, decay, told) for rows, decay, told in steps]
        told = kind.unload(kind.xp.stack([each for each in losses if each is not None], 1))
        return (*trained.learned(), told)

    if len(shares) == 1:
        done = [train(shares[0])]
    else:
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(len(shares)) as pool:
            done = list(pool.map(train, shares))
    found = {
        head: each
        for some, (weights, bias, losses) in zip(shares, done, strict=True)
        for head, each in zip(some, zip(weights, bias, losses, strict=True), strict=True)
    }
    return {
        choice: Swept(*(np.stack(part) for part in zip(*(found[choice, rate] for rate in rates), strict=True)))
        for choice in choices
    }


def side_by_side(choices: Mapping[str, Columns]) -> tuple[str, ...]:
    """The choices in an order in which those that share columns are neighbours: what lies together needs no copy."""
    edges = sorted({e for columns in choices.values() for c in columns for e in (c.start, c.stop)})
    uses = {
        name: [any(c.start <= a < c.stop for c in columns) for a in edges[:-1]] for name, columns in choices.items()
    }

    def gaps(order: tuple[str, ...]) -> int:
        used = np.array([uses[name] for name in order])
        return int((used[1:] != used[:-1]).sum())

    orders = permutations(choices) if len(choices) <= _MOST_ORDERED else [tuple(choices)]
    return min(orders, key=gaps)


def _loss(kind: type[Heads], labels: Matrix, softmax: bool, share: int) -> Loss:
    if softmax:
        return ClassLoss(kind.xp, kind.load(labels.argmax(axis=1)), labels.shape[1])
    missing = np.isnan(labels)
    known = kind.load((~missing).astype(np.float32)) if missing.any() else None
    return LabelLoss(kind.xp, kind.load(np.nan_to_num(labels).astype(np.float32)), known, share)


def _shared_out(heads: list[tuple[str, float]], widths: Mapping[str, int], each: int) -> list[list[tuple[str, float]]]:
    """Heads for each thread, so that the widest have about as many columns; `each` multiplications go to a column."""
    workers = max(1, min(cores(), len(heads) // _HEADS_OF_A_THREAD))
    if sum(widths[choice] for choice, _ in heads) * each < _SMALL:
        workers = 1
    shares: list[list[tuple[str, float]]] = [[] for _ in range(workers)]
    load = [0] * workers
    for head in sorted(heads, key=lambda h: -widths[h[0]]):
        least = load.index(min(load))
        shares[least].append(head)
        load[least] += widths[head[0]]
    return [[head for head in heads if head in some] for some in shares]
