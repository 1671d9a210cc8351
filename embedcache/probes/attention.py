"""Attention over the slices of a sample, learned with the head that follows it (ABMIL, Ilse, Tomczak & Welling 2018).

One model per label for binary and multilabel tasks, so that no label bears on another one; softmax for multiclass.
Each minimises  mean log loss + weight_decay / 2 · |weights|²  over all bags at once (`attention_heads`).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from threadpoolctl import threadpool_limits

from embedcache.errors import InputError
from embedcache.probes.attention_heads import AttentionHead, forward, train
from embedcache.probes.attention_losses import binary, multinomial
from embedcache.probes.attention_work import IN_NUMPY, Work, work_for
from embedcache.probes.bags import Bags
from embedcache.probes.base import Diagnostics, Features, Groups, Matrix, ProbeKind, Sizes, label_matrix
from embedcache.probes.coordinates import not_finite
from embedcache.probes.logistic import log_softmax

DECAYS: tuple[float, ...] = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
_THREADS = 2
"""Heads that are trained at once in numpy, a thread of linear algebra each: most of a step is spent on single elements."""


@dataclass(frozen=True)
class FittedAttention:
    """One head per value and label, or per value; None for a label without a fit."""

    values: tuple[float, ...]
    kind: ProbeKind
    n_classes: int
    heads: tuple[tuple[AttentionHead | None, ...], ...]
    columns: tuple[tuple[int, ...], ...]
    """Of each head in turn: the classes that its outputs score."""
    diagnostics: Diagnostics

    threshold = 0.0
    """Of the log-odds."""

    @property
    def score_name(self) -> str:
        """As of the logistic probe."""
        return "log-probability" if self.kind == "multiclass" else "log-odds"

    def only(self, value: float) -> "FittedAttention":
        """The heads of one weight decay alone."""
        return replace(self, values=(value,), heads=(self.heads[self.values.index(value)],))

    def scores(self, X: Features) -> Matrix:
        """Of bags of one row: log-odds per label, or log-softmax; shape (n_values, n, n_classes)."""
        return self.bag_scores(X, np.ones(len(X), dtype=np.int64))

    def bag_scores(self, X: Features, sizes: Sizes) -> Matrix:
        """(n_values, bags, n_classes); a class without a fit has NaN."""
        rows, bags = IN_NUMPY.load(X), Bags.of(sizes)
        found = np.full((len(self.values), len(sizes), self.n_classes), np.nan)
        for i, of_value in enumerate(self.heads):
            for head, columns in zip(of_value, self.columns, strict=True):
                if head is not None:
                    found[i][:, list(columns)] = forward(head, rows, bags, np)
        return log_softmax(found) if self.kind == "multiclass" else found


@dataclass(frozen=True)
class AttentionProbe:
    """Gated attention over the slices of a sample, by weight decay."""

    weight_decay: tuple[float, ...] = DECAYS
    """Strength of the penalty on the squared weights of attention and head, beside the mean loss."""
    hidden: int = 64
    """Width of the attention's inner layer."""
    lr: float = 0.01
    """Adam's first learning rate; it falls to zero by a cosine."""
    epochs: int = 150
    """Steps, each over all training samples."""
    seed: int = 0
    """Of the attention's first weights."""
    device: str = "cpu"
    """Where it is trained: `cpu` in numpy, anything else as torch calls it."""

    parameter = "weight_decay"
    answers: ClassVar[tuple[ProbeKind, ...]] = ("binary", "multilabel", "multiclass")
    standardize = True
    zero_too = True

    def __post_init__(self) -> None:
        if not self.weight_decay or not all(0 <= d < np.inf for d in self.weight_decay):
            raise InputError(
                f"weight_decay must be one or several numbers of 0 or more. Got {list(self.weight_decay)}."
            )
        for name, value in (("hidden", self.hidden), ("epochs", self.epochs)):
            if value < 1:
                raise InputError(f"{name} must be 1 or more. Got {value}.")
        if not 0 < self.lr < np.inf:
            raise InputError(f"lr must be above 0. Got {self.lr}.")
        if self.seed < 0:
            raise InputError(f"the seed of the first weights must be 0 or more. Got {self.seed}.")

    def grid(self, n_train: int) -> tuple[float, ...]:
        """All decays, descending: a stronger one is the smoother model. Independent of `n_train`."""
        return tuple(sorted(set(self.weight_decay), reverse=True))

    def fit_path(
        self,
        X: Features,
        y: Features,
        kind: ProbeKind,
        values: tuple[float, ...],
        n_classes: int,
        groups: Groups | None = None,
    ) -> FittedAttention:
        """Fit to bags of one row each: a linear head, since there is nothing to attend to."""
        return self.fit_bags(X, np.ones(len(X), dtype=np.int64), y, kind, values, n_classes, groups)

    def fit_bags(
        self,
        X: Features,
        sizes: Sizes,
        y: Features,
        kind: ProbeKind,
        values: tuple[float, ...],
        n_classes: int,
        groups: Groups | None = None,
    ) -> FittedAttention:
        """Fit each of `values`; a missing label leaves its bag out of that label's fit, one class leaves none."""
        if not np.isfinite(X).all():
            raise not_finite()
        work = work_for(self.device)
        labels = label_matrix(y, kind, n_classes)
        columns = _columns(labels, kind)
        trained = {of_head: self._train_all(X, sizes, labels, of_head, kind, values, work) for of_head in columns}
        heads = [tuple(head for head, _ in of_value) for of_value in zip(*trained.values(), strict=True)]
        losses = [[loss for head, loss in of_value if head] for of_value in zip(*trained.values(), strict=True)]
        return FittedAttention(values, kind, n_classes, tuple(heads), columns, _diagnostics(values, losses, work))

    def _train_all(
        self,
        X: Features,
        sizes: Sizes,
        labels: Matrix,
        columns: tuple[int, ...],
        kind: ProbeKind,
        values: tuple[float, ...],
        work: Work,
    ) -> list[tuple[AttentionHead | None, float]]:
        """For each value the head that scores these columns of the labels, and its objective."""
        known = ~np.isnan(labels[:, list(columns)]).any(axis=1)
        target = labels[known][:, list(columns)]
        if not len(columns) or not len(target) or (target == target[0]).all():
            return [(None, 0.0)] * len(values)
        rows, bags = work.load(X[np.repeat(known, sizes)]), work.bags(sizes[known])
        loss = (multinomial if kind == "multiclass" else binary)(work.load(target), work.xp)
        start = AttentionHead.start(X.shape[1], self.hidden, len(columns), self.seed)

        def of_value(decay: float) -> tuple[AttentionHead | None, float]:
            with np.errstate(over="ignore", invalid="ignore"):  # a rate that runs away is told by its objective
                head, value = train(
                    AttentionHead(*map(work.load, start.parts())),
                    rows, bags, loss, decay=decay, lr=self.lr, epochs=self.epochs, xp=work.xp,
                )  # fmt: skip
            return AttentionHead(*map(work.unload, head.parts())), value

        if work is not IN_NUMPY:
            return [of_value(decay) for decay in values]
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(_THREADS, "embedcache-attention") as pool:
            return list(pool.map(of_value, values))


def _columns(labels: Matrix, kind: ProbeKind) -> tuple[tuple[int, ...], ...]:
    """The classes of each head: all that have a row, or each label by itself."""
    if kind != "multiclass":
        return tuple((j,) for j in range(labels.shape[1]))
    return (tuple(np.flatnonzero((labels == 1).any(axis=0)).tolist()),)


def _diagnostics(values: tuple[float, ...], losses: list[list[float]], work: Work) -> Diagnostics:
    broken = tuple(value for value, found in zip(values, losses, strict=True) if not np.isfinite(found).all())
    warned = (f"{len(broken)} values of weight_decay ran away; a smaller lr may hold them.",) if broken else ()
    path = {
        "weight_decay": list(values),
        "objective": [float(np.mean(found)) if found and np.isfinite(found).all() else None for found in losses],
    }
    return Diagnostics(warned, broken, {"solver": f"{work.name}, Adam"}, path)
