"""What a few-shot curve is asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from embedcache.errors import InputError
from embedcache.evaluation.feature_choices import Layers
from embedcache.fields import hold_fields

Choosing = Literal["fixed", "leave-patient-out", "validation"]
Preset = Literal["paper"]
SHOTS = (1, 2, 4, 8, 16)
SEEDS = 20
"""As many as the protocol asks for at least."""
GRID = (1e-3, 1e-2, 1e-1, 1.0)
"""Values of C that leaving patients out, or validation, chooses among."""


@dataclass(frozen=True)
class FewShotConfig:
    """How many patients of each class to fit to, how often, and where to test. Paths never enter a result."""

    store: Path | str
    task: str | None = None
    """Which of the labels' tasks; None is the only one. Binary, multilabel or multiclass."""
    shots: tuple[int, ...] = SHOTS
    """Patients of each class; of a multilabel or binary task also of those without any finding."""
    seeds: int | None = None
    """Draws of each size; None is 20. The draws of one seed are nested: a larger one holds the smaller ones."""
    preset: Preset | None = None
    """`paper`: one draw (so `seeds` stays None), the first patients of each class by sorted id."""
    select: Choosing = "fixed"
    """How C comes about. `fixed`: it is given. `leave-patient-out`: inside each draw, by the loss of its patients' rows, each
    under a model without that patient. `validation`: by macro AUROC on the whole validation part, which is not few-shot."""
    C: tuple[float, ...] | None = None
    """The value, by default 1; or the values to choose among."""
    whole: bool = True
    """Fit to the whole training part too: the last point of the curve."""
    features: str = "auto"
    """`cls`, `mean`, `cls+mean`, `pooled`; `auto` is the first of them that is stored. Nothing is chosen: draws are too small."""
    layers: Layers = "last"
    """Numbers (-1 is the last): their CLS tokens side by side."""
    pool: str | None = "mean"
    """How the slices of a sample become one vector; None leaves slices apart."""
    strict_volumes: bool = False
    standardize: bool = True
    """By the mean and standard deviation of the draw's own rows."""
    labels: Path | None = None
    join_on: str | None = None
    split: Path | None = None
    """A split file, or the name of an imported split; None is what the labels name, completed by a draw."""
    validation: float = 0.2
    test: float = 0.2
    seed: int = 0
    """Of the drawn split, and of all draws of patients."""
    classes: tuple[str, ...] | None = None
    """Multilabel: only these findings. Who is drawn for one of them is the same as among all. For "No Finding" those are drawn
    who have no finding at all and a label of these: where labels are missing, perhaps others than among all."""
    results: Path | None = None
    """Folder of the results; None is `<cache>/results`, or `results` beside a store that lies in no cache."""
    force: bool = False

    def __post_init__(self) -> None:
        hold_fields(self)
        if not self.shots or list(self.shots) != sorted(set(self.shots)) or self.shots[0] < 1:
            raise InputError(f"shots must be numbers of patients from 1 on, ascending. Got {list(self.shots)}.")
        if self.seeds is not None and self.seeds < 1:
            raise InputError(f"seeds must be 1 or more. Got {self.seeds}.")
        if self.preset == "paper" and self.seeds is not None:
            raise InputError("preset paper draws once, without any seed; leave --seeds or --preset out.")
        if self.layers in ("auto", ()):
            raise InputError("few shots choose no layers; give their numbers, or `last`.")
        if not all(0 < c < float("inf") for c in self.grid):
            raise InputError(f"C must be one or several positive numbers. Got {list(self.grid)}.")
        if self.select == "fixed" and len(self.grid) != 1:
            raise InputError(
                f"{len(self.grid)} values of C need a way to choose; give one, or --select leave-patient-out."
            )

    @property
    def grid(self) -> tuple[float, ...]:
        """Values of C, ascending."""
        if self.C is not None:
            return tuple(sorted(set(self.C)))
        return (1.0,) if self.select == "fixed" else GRID

    @property
    def draws(self) -> int:
        """Draws of each size."""
        return 1 if self.preset == "paper" else SEEDS if self.seeds is None else self.seeds
