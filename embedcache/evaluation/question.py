"""What a probe is asked, settled before any feature is read: task, classes, split, grid, and the digests of it all."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

import embedcache
from embedcache.errors import InputError, suggest
from embedcache.evaluation import splits
from embedcache.evaluation.feature_choices import FeatureChoice, Layers, Standardize, described, feature_choices
from embedcache.evaluation.label_files import find_labels
from embedcache.evaluation.split_files import find_split
from embedcache.evaluation.views import find_views, views_inputs
from embedcache.probes import REGISTRY
from embedcache.probes.base import Probe, ProbeKind
from embedcache.store.features import vectors
from embedcache.store.fingerprint import canonical, sha256
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import factorise
from embedcache.types import Labels, Split, Task, strings

FEWEST_RESAMPLES = 20
"""Of fewer no 95% interval can be read off."""
Select = Literal["validation", "leave-one-out", "leave-patient-out"]
_ANSWERED_BY: Mapping[str, str] = {
    "numeric": "ridge",
    "segmentation": "patch-linear",
    "binary": "logistic",
    "multilabel": "logistic",
    "multiclass": "logistic",
}
"""A command that answers a task of this kind."""


@dataclass(frozen=True)
class ProbeConfig:
    """What to fit on what. Paths say where things lie and never enter a result."""

    probe: str
    """A registered probe: `logistic`, `knn`, `linear`, `ridge`."""
    store: Path | str
    task: str | None = None
    """Which of the labels' tasks; None is the only one."""
    features: str = "auto"
    """`cls`, `mean`, `cls+mean`, `pooled`, or `auto`: validation chooses among `cls` and `cls+mean`, where stored."""
    layers: Layers = "last"
    """Numbers (-1 is the last): their CLS tokens side by side. `auto`: validation chooses between the last block and the last
    four, where stored."""
    views: int = 0
    """Fit on this many cached views of each row too, from the stores that lie beside this one."""
    pool: str | None = "mean"
    """How the slices of a sample become one vector: `mean`, `max`, `mean+max`, `middle`; None leaves slices apart."""
    strict_volumes: bool = False
    """Leave out a sample of which a slice is set aside, in place of pooling the rest."""
    standardize: Standardize | None = None
    """By the training rows' mean and standard deviation; None is the probe's own choice (logistic yes, kNN no), `auto` lets
    validation choose."""
    labels: Path | None = None
    """Instead of the labels beside the store: a `labels.parquet`, or a table of the user's own with the store's ids."""
    join_on: str | None = None
    """The column of that table that holds sample ids or patients."""
    split: Path | None = None
    """A split file, or the name of an imported split; None is what the labels name, completed by a draw."""
    validation: float = 0.2
    test: float = 0.2
    seed: int = 0
    """Of the drawn split and of the bootstrap."""
    classes: tuple[str, ...] | None = None
    """Multilabel: only these findings, and the macro average over them."""
    C: tuple[float, ...] | None = None
    """Grid of the logistic probe; None is its own."""
    k: tuple[int, ...] | None = None
    """Grid of the kNN probe; None is its own."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further options of the probe, by the names of its own fields: `{"class_weight": "balanced"}`, `{"votes": "ml-knn"}`."""
    select: Select = "validation"
    """What chooses: the validation part; or each row of training and validation, scored without its own row or patient."""
    results: Path | None = None
    """Folder of the results; None is `<cache>/results`, or `results` beside a store that lies in no cache."""
    force: bool = False
    """Fit again although the result is there, and write it beside the old one."""
    resamples: int = 1000

    def __post_init__(self) -> None:
        if self.resamples < FEWEST_RESAMPLES:
            raise InputError(f"resamples must be at least {FEWEST_RESAMPLES}. Got {self.resamples}.")
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more. Got {self.seed}.")
        if self.select not in get_args(Select):
            raise suggest("way to choose", self.select, get_args(Select))


@dataclass(frozen=True)
class Question:
    """All that decides the answer, before any feature was read."""

    cache: FeatureCache
    labels: Labels
    task: Task
    kind: ProbeKind
    split: Split
    probe: Probe
    choices: Mapping[str, FeatureChoice]
    """By name, from the fewest features to the most."""
    columns: npt.NDArray[np.int64]
    """Which of the task's classes are asked for."""
    classes: tuple[str, ...]
    """Of the columns; a numeric task's one column has the task's name."""
    select: Select
    inputs: Mapping[str, Any]
    views: tuple[FeatureCache, ...] = ()
    """Whose rows are fitted beside those of `cache`."""


def ask(config: ProbeConfig) -> Question:
    """Open the cache, settle task, split, features and grid, and name the inputs by their digests."""
    cache = FeatureCache.open(config.store)
    labels = find_labels(cache, config.labels, config.join_on)
    task = _task(labels, config.task)
    probe = _probe(config)
    kind = _kind(task, config.probe, probe)
    columns = _columns(task, config.classes)
    split = choose_split(cache, labels, config)
    standardize = probe.standardize if config.standardize is None else config.standardize
    choices = feature_choices(cache, config.features, config.layers, standardize)
    kinds, layers = described(choices)
    views = find_views(cache, config.views)
    if views and config.select != "validation":
        raise InputError(f"a row has views that stay when it is left out, so no {config.select}; leave --views out.")
    classes = (task.name,) if kind == "numeric" else tuple(task.classes[j] for j in columns.tolist())
    inputs = {
        "store": cache.fingerprint,
        "plan": cache.plan_digest,
        # which of them are good: a retry of what was set aside makes this another answer
        "rows": sha256(cache.row_status.tobytes()),
        # only those that are read: another layer added later does not make this answer another one
        "passes": sorted(
            {t.stored_pass.id for c in choices.values() for t in vectors(cache, c.kind, c.layers or None)}
        ),
        "labels": labels_digest(labels, task),
        "split": splits.split_digest(split),
        "config": {
            "probe": config.probe,
            "options": asdict(probe),
            "task": task.name,
            "classes": classes,
            "features": kinds,
            "layers": layers,
            "pool": config.pool,
            "strict_volumes": config.strict_volumes,
            "standardize": standardize,
            "select": config.select,
            "seed": config.seed,
            "resamples": config.resamples,
        },
        "version": embedcache.__version__,
        **views_inputs(views, choices),
    }
    return Question(
        cache,
        labels,
        task,
        kind,
        split,
        probe,
        choices,
        columns,
        classes,
        config.select,
        plain(inputs),
        views=views,
    )


def _task(labels: Labels, name: str | None) -> Task:
    names = [t.name for t in labels.tasks]
    if name is None and len(names) != 1:
        what = f"the labels hold {len(names)} tasks: {', '.join(names)}; choose one with --task." if names else (
            "the labels hold no task; give a table that has one with --labels FILE."
        )  # fmt: skip
        raise InputError(what)
    return labels.get(name if name is not None else names[0])


def _kind(task: Task, name: str, probe: Probe) -> ProbeKind:
    """The task's kind, if the probe answers it."""
    for kind in probe.answers:
        if task.kind == kind:
            return kind
    raise InputError(
        f"task {task.name!r} is a {task.kind} task, and probe {name!r} answers {', '.join(probe.answers)} ones; "
        f"`embedcache probe {_ANSWERED_BY[task.kind]}` answers it."
    )


def _columns(task: Task, classes: tuple[str, ...] | None) -> npt.NDArray[np.int64]:
    """Positions of the asked findings, in the task's order; a numeric task has one column."""
    if classes is None:
        return np.arange(len(task.classes) or 1)
    if task.kind != "multilabel":
        raise InputError(f"classes restrict a multilabel task; {task.name!r} is {task.kind}, so leave --classes out.")
    for name in classes:
        if name not in task.classes:
            raise suggest(f"class of task {task.name!r}", name, task.classes)
    if not classes:
        raise InputError("--classes names no class; leave it out for all of them.")
    return np.array([j for j, name in enumerate(task.classes) if name in classes])


def _probe(config: ProbeConfig) -> Probe:
    """The probe with the options that are asked for."""
    factory = REGISTRY.load(config.probe)
    options = dict(config.options)
    for name, grid in (("C", config.C), ("k", config.k)):
        if grid is not None:
            options[name] = grid
    probe: Probe = factory()
    known = [f.name for f in fields(probe)]
    for name in options:
        if name not in known:
            raise suggest(f"option of probe {config.probe!r}", name, known)
    grid = options.get(probe.parameter)
    if grid is not None and (not grid or not all(0 < value < np.inf for value in grid)):
        raise InputError(f"{probe.parameter} must be one or several positive numbers. Got {list(grid)}.")
    asked: Probe = factory(**options)
    return asked


class SplitWishes(Protocol):
    """The part of a probe's configuration that says who trains, validates and tests; see ProbeConfig."""

    @property
    def split(self) -> Path | None:
        """A split file, or the name of an imported split."""

    @property
    def validation(self) -> float:
        """Share of the training patients, where no validation part is named."""

    @property
    def test(self) -> float:
        """Share of the patients, where no test part is named."""

    @property
    def seed(self) -> int:
        """Of the draw."""


def choose_split(cache: FeatureCache, labels: Labels, config: SplitWishes) -> Split:
    """The given file's split, else the labels' own, completed by a draw; always with the store's own patients."""
    samples = cache.samples()
    if config.split is None:
        usable = ~samples.superseded
        ids, patients = samples.id[usable], samples.patient_id[usable]
        given = splits.given_parts(ids, patients, labels)
        return splits.make_split(ids, patients, given, validation=config.validation, test=config.test, seed=config.seed)
    file = splits.read_split(find_split(config.split, cache), samples.id)
    patient = dict(zip(samples.id.tolist(), samples.patient_id.tolist(), strict=True))
    split = Split(
        file.sample, strings([patient[s] for s in file.sample.tolist()]), file.part, file.draw, file.seed, file.name
    )
    splits.check_split(split)
    for part in ("train", "validation", "test"):
        if part not in split.part.tolist():
            raise InputError(
                f"{config.split.name} names no {part} samples; `embedcache splits make` completes a split."
            )
    return split


def labels_digest(labels: Labels, task: Task) -> str:
    """SHA-256 over the task and its labels, in whatever order; other tasks and the split column do not enter."""
    of_task = labels.task == task.name
    columns = [factorise(column[of_task]) for column in (labels.sample, labels.patient, labels.klass)]
    words = [names.tolist() for names, _ in columns]
    sample, patient, klass = (codes for _, codes in columns)
    slices, value = labels.slice[of_task].astype(np.int64), labels.value[of_task]
    numbers = np.stack([sample, patient, slices, klass]).astype("<i8")
    # whatever a NaN holds besides, it says: not known
    values = np.where(np.isnan(value), np.nan, value).astype("<f8")
    if not _in_order(numbers):  # as a table of ours has them
        order = np.lexsort(numbers[::-1])
        numbers, values = numbers[:, order], values[order]
    return sha256(canonical([asdict(task), words]).encode() + numbers.tobytes() + values.tobytes())


def _in_order(numbers: npt.NDArray[np.int64]) -> bool:
    """Whether the columns of (keys, n) ascend, the first key weighing most."""
    before, after = numbers[:, :-1], numbers[:, 1:]
    ascends = np.ones(before.shape[1], dtype=np.bool_)
    for a, b in zip(before[::-1], after[::-1], strict=True):
        ascends = (a < b) | ((a == b) & ascends)
    return bool(ascends.all())


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """As it will be read back from JSON: lists for tuples."""
    document: dict[str, Any] = json.loads(canonical(dict(value)))
    return document
