"""Linear heads by stochastic gradient descent: every learning rate on every choice of features at once.

The classical evaluation of frozen backbones (DINOv2's, and the study's): momentum 0.9, no weight decay, a learning rate that
falls to 0 by a cosine. `logistic` solves the same model to its end, without a learning rate; this one is here to be compared
with published figures. `linear_sweep` trains.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from embedcache.errors import InputError, suggest
from embedcache.probes.base import Columns, Diagnostics, Features, Groups, Matrix, ProbeKind, label_matrix
from embedcache.probes.linear_sweep import LAST, Swept, Training, sweep
from embedcache.probes.logistic import FittedLogistic

Preset = Literal["paper", "dinov2"]


@dataclass(frozen=True)
class Settings:
    """What a preset stands for; each choice of features gets a head per learning rate."""

    lr: tuple[float, ...]
    per_256_rows: bool
    """Whether the learning rates are those of batches of 256, and others in proportion."""
    batch_size: int
    epochs: int | None
    """Passes over the rows, within `FEWEST` and `MOST` iterations; None is `MOST`."""


FEWEST, MOST = 1000, 12_500
"""Iterations: below, a small dataset's heads have hardly moved; DINOv2 makes 12,500."""
LARGEST_LR = 1e6
"""Nothing is learned long before; steps are taken in float32, which ends at 3e38."""
PRESETS: Mapping[str, Settings] = {
    "paper": Settings((1e-3, 5e-3, 1e-2, 5e-2), False, 128, 10),
    "dinov2": Settings((1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1), True, 128, None),
}
"""`paper`: the study's four learning rates; it does not say for how long, so ten epochs. `dinov2`: its 13 and its length."""


@dataclass(frozen=True)
class LinearProbe:
    """Linear heads by their learning rate. What is None is the preset's.

    A preset's four vectors are those of `ProbeConfig(layers="auto")`, which is this probe's own choice.
    """

    lr: tuple[float, ...] | None = None
    """As the steps take them, not scaled by the batch."""
    preset: Preset = "paper"
    batch_size: int | None = None
    iterations: int | None = None
    momentum: float = 0.9
    seed: int = 0
    """Of the batches and of where heads start."""
    device: str = "cpu"
    """Where heads are trained: `cpu` in numpy, anything else as torch calls it."""

    parameter = "lr"
    answers: ClassVar[tuple[ProbeKind, ...]] = ("binary", "multilabel", "multiclass")
    standardize = False
    layers = "auto"
    """The presets' vectors: of the last block and of the last four."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise suggest("preset", self.preset, get_args(Preset))
        for name in ("batch_size", "iterations"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise InputError(f"{name} must be at least 1. Got {given}.")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum must be at least 0 and below 1. Got {self.momentum}.")
        if self.seed < 0:
            raise InputError(f"the seed of the training must be 0 or more. Got {self.seed}.")
        if self.lr is not None and any(rate > LARGEST_LR for rate in self.lr):
            raise InputError(f"lr must be at most {LARGEST_LR:g}. Got {', '.join(f'{rate:g}' for rate in self.lr)}.")

    def grid(self, n_train: int) -> tuple[float, ...]:
        """All learning rates, ascending: after as many steps, a smaller one is the smoother model."""
        if self.lr is not None:
            return tuple(sorted(set(self.lr)))
        preset = PRESETS[self.preset]
        scale = self.training(n_train).batch_size / 256 if preset.per_256_rows else 1.0
        return tuple(sorted(rate * scale for rate in preset.lr))

    def training(self, n: int) -> Training:
        """On n rows with a label."""
        preset = PRESETS[self.preset]
        batch_size = self.batch_size if self.batch_size is not None else preset.batch_size
        iterations = self.iterations
        if iterations is None:
            passes = MOST if preset.epochs is None else -(-preset.epochs * n // batch_size)
            iterations = min(MOST, max(FEWEST, passes))
        return Training(iterations, batch_size, self.momentum, self.seed)

    def fit_path(
        self,
        X: Features,
        y: Features,
        kind: ProbeKind,
        values: tuple[float, ...],
        n_classes: int,
        groups: Groups | None = None,
    ) -> FittedLogistic:
        """Train a head for each learning rate in `values`; see `fit_choices`."""
        return self.fit_choices(X, y, kind, {"": (slice(0, X.shape[1]),)}, values, n_classes, groups)[""]

    def fit_choices(
        self,
        X: Features,
        y: Features,
        kind: ProbeKind,
        choices: Mapping[str, Columns],
        values: tuple[float, ...],
        n_classes: int,
        groups: Groups | None = None,
    ) -> dict[str, FittedLogistic]:
        """Train a head for each of `values` and `choices`, all on the same batches.

        A missing label leaves its row out of that label's loss only; rows without any label are left out. A label with one
        class among its rows gets no head, and NaN for scores, as does a head whose loss is not finite at the end.
        """
        labels = label_matrix(y, kind, n_classes)
        known = ~np.isnan(labels).all(axis=1)
        rows, labels = (X if known.all() else X[known]), labels[known]
        two = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)  # of a softmax: a class without a row is out of it
        softmax = kind == "multiclass"
        training = self.training(len(rows))
        swept: dict[str, Swept] = {}
        if two.any():
            swept = sweep(
                rows,
                labels[:, two],
                choices,
                values,
                training,
                softmax=softmax,
                share=1 if softmax else n_classes,
                device=self.device,
            )
        return {
            choice: self._fitted(swept.get(choice), kind, values, two, _width(columns), training)
            for choice, columns in choices.items()
        }

    def _fitted(
        self, swept: Swept | None, kind: ProbeKind, values: tuple[float, ...], two: Any, width: int, training: Training
    ) -> FittedLogistic:
        coef = np.full((len(values), len(two), width), np.nan)
        intercept = np.full((len(values), len(two)), np.nan)
        losses = np.full(len(values), np.nan)
        fine = np.ones(len(values), dtype=np.bool_)
        if swept is not None:
            # of the labels that have a head, whatever others have none
            share = 1.0 if kind == "multiclass" else len(two) / int(two.sum())
            losses = share * swept.losses[:, -LAST:].mean(axis=1, dtype=np.float64)
            fine = (
                np.isfinite(losses) & np.isfinite(swept.weights).all(axis=(1, 2)) & np.isfinite(swept.bias).all(axis=1)
            )
            coef[np.ix_(fine, two)], intercept[np.ix_(fine, two)] = swept.weights[fine], swept.bias[fine]
        told = self._told(values, losses, fine, training)
        return FittedLogistic(values, kind, coef, intercept, np.zeros(width), told)

    def _told(self, values: tuple[float, ...], losses: Matrix, fine: Any, training: Training) -> Diagnostics:
        diverged = tuple(value for value, held in zip(values, fine, strict=True) if not held)
        rates = ", ".join(f"{value:.3g}" for value in diverged)
        path: dict[str, Any] = {
            "lr": list(values),
            # the mean of the last batches
            "loss": [float(loss) if np.isfinite(loss) else None for loss in losses],
            "iterations": training.iterations,
            "batch_size": training.batch_size,
            "momentum": training.momentum,
            "seed": training.seed,
        }
        warned = (f"the loss became infinite with lr {rates}; these heads are not chosen.",) if diverged else ()
        return Diagnostics(warned, diverged, {"solver": _solver(self.device)}, path)


def _width(columns: Columns) -> int:
    return sum(c.stop - c.start for c in columns)


def _solver(device: str) -> str:
    if device == "cpu":
        return f"numpy {np.__version__} SGD"
    return f"torch {version('torch')} on {device}, SGD"
