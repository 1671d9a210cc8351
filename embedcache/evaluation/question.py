"""What a probe is asked, settled before any feature is read: task, classes, split, grid, and the digests of it all."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

import embedcache
from embedcache.errors import InputError, suggest
from embedcache.evaluation import splits
from embedcache.evaluation.ahead import Ahead
from embedcache.evaluation.elsewhere import Elsewhere, meet
from embedcache.evaluation.feature_choices import FeatureChoice, Layers, Standardize, described, feature_choices
from embedcache.evaluation.label_files import find_labels, labels_digest
from embedcache.evaluation.planes import open_planes, plane_inputs
from embedcache.evaluation.reading import settle_pool, settle_pool_by, unit_inputs
from embedcache.evaluation.split_files import choose_split
from embedcache.evaluation.store_inputs import passes_of, store_inputs
from embedcache.evaluation.views import find_views, views_inputs
from embedcache.fields import held, hold_fields
from embedcache.probes import REGISTRY
from embedcache.probes.base import Probe, ProbeKind
from embedcache.store.fingerprint import canonical
from embedcache.store.reader import FeatureCache
from embedcache.types import Labels, Split, Task

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
    """A registered probe: `logistic`, `knn`, `linear`, `attention`, `linear-svm`, `prototypes`, `ridge` for numbers, or another
    package's (`embedcache.probes.REGISTRY.names()`)."""
    store: Path | str
    task: str | None = None
    """Which of the labels' tasks; None is the only one."""
    features: str = "auto"
    """`cls`, `mean`, `cls+mean`, `pooled`, or `auto`: validation chooses among `cls` and `cls+mean`, where stored."""
    layers: Layers | None = None
    """Numbers (-1 is the last): their CLS tokens side by side. `last`, or `auto`: validation chooses between the last block and
    the last four, where stored. None is the probe's own choice (linear heads `auto`, others `last`)."""
    views: int = 0
    """Fit on this many cached views of each row too, from the stores that lie beside this one."""
    pool: str | None = "mean"
    """How the slices of a sample become one vector: `mean`, `max`, `mean+max`, `middle`, `middle-N`, `top-K`; None or `none`
    leaves slices apart. A probe that pools by itself (attention) takes the default."""
    pool_by: str | None = None
    """What slices are pooled over: `patient`, or all of a patient's that share a value of a column of the labels or of the table
    that `labels` names (a study, a breast); None is a sample, but a patient where the task is of patients."""
    planes: tuple[Path | str, ...] = ()
    """Stores of the same images cut along other planes: pooled each by itself, side by side with the vector of `store`."""
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
    test_store: Path | str | None = None
    """Test on all samples of this store, in place of the split's own test part: a store of the same recipe, or a folder that
    holds one. Its patients that train or validate are left out."""
    test_labels: Path | None = None
    """Of that store, instead of the labels beside it."""
    classes: tuple[str, ...] | None = None
    """Multilabel: only these findings, and the macro average over them."""
    C: tuple[float, ...] | None = None
    """Values of C, the inverse of the penalty, for a probe that has it (`logistic`, `linear-svm`): one, or several to choose
    among. None is the probe's own grid. Another probe's parameter is one of `options`."""
    k: tuple[int, ...] | None = None
    """Numbers of neighbours, for `knn`: one, or several to choose from. None is its own grid."""
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
        hold_fields(self)
        if self.resamples < FEWEST_RESAMPLES:
            raise InputError(f"resamples must be at least {FEWEST_RESAMPLES}. Got {self.resamples}.")
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more. Got {self.seed}.")
        if self.layers == ():
            raise InputError("layers names none; give their numbers, `last` or `auto`.")
        if self.test_labels is not None and self.test_store is None:
            raise InputError(
                "test labels are those of a second store; name it with --test STORE, or leave --test-labels out."
            )


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
    elsewhere: Elsewhere | None = None
    """Where the test rows come from, if not from the split's test part."""
    pool: str | None = "mean"
    """As configured, or `bags` for a probe that pools by itself."""
    planes: tuple[FeatureCache, ...] = ()
    """Whose vectors stand beside those of `cache`."""
    pool_by: str | None = None
    """What slices are pooled over: as configured, or by patient for a task of patients of whom some have several samples."""


def ask(config: ProbeConfig, ahead: Ahead | None = None) -> Question:
    """Open the cache, settle task, split, features and grid, and name the inputs by their digests.

    ahead: begins what can be begun, as soon as it is known what.
    """
    cache = FeatureCache.open(config.store)
    # a thread reads the labels, and hashes them: it needs the interpreter for little of either
    with ThreadPoolExecutor(1, thread_name_prefix="embedcache-labels") as beside:
        reading = beside.submit(find_labels, cache, config.labels, config.join_on)
        probe = _probe(config)
        standardize = probe.standardize if config.standardize is None else config.standardize
        choices = feature_choices(cache, config.features, asked_layers(config.layers, probe), standardize)
        kinds, layers = described(choices)
        if ahead is not None and not config.planes:
            ahead.begin(cache, choices)
        labels = reading.result()
        task = _task(labels, config.task)
        kind = _kind(task, config.probe, probe)
        columns = _columns(task, config.classes)
        pool = settle_pool(config.pool, probe, config.probe, task)
        pool_by = settle_pool_by(config.pool_by, pool, cache, task)
        if ahead is not None and pool_by is not None:
            ahead.drop()
        planes = open_planes(cache, config.planes, pool)
        if planes and (config.views or config.test_store is not None):
            raise InputError("several planes have no further views and no second store to test on; leave --planes out.")
        labelled = beside.submit(_labelled_inputs, cache, choices, labels, task)
        split = choose_split(cache, labels, config, needs_test=config.test_store is None)
        if ahead is not None:
            ahead.make_room(split, choices)
        split_digest = splits.split_digest(split)
    views = find_views(cache, config.views)
    if views and config.select != "validation":
        raise InputError(f"a row has views that stay when it is left out, so no {config.select}; leave --views out.")
    elsewhere = None
    if config.test_store is not None:
        elsewhere = meet(cache, task, columns, split, config.test_store, config.test_labels)
        columns = elsewhere.asked
    classes = (task.name,) if kind == "numeric" else tuple(task.classes[j] for j in columns.tolist())
    inputs = {
        **labelled.result(),
        "split": split_digest,
        "config": {
            "probe": config.probe,
            "options": asdict(probe),
            "task": task.name,
            "classes": classes,
            "features": kinds,
            "layers": layers,
            "pool": pool,
            **({"pool_by": pool_by} if pool_by is not None else {}),
            "strict_volumes": config.strict_volumes,
            "standardize": standardize,
            "select": config.select,
            "seed": config.seed,
            "resamples": config.resamples,
        },
        "version": embedcache.__version__,
        **unit_inputs(cache, labels, pool_by, config.labels, config.join_on),
        **plane_inputs(planes, choices),
        **views_inputs(views, choices),
    }
    if elsewhere is not None:
        inputs["elsewhere"] = _labelled_inputs(
            elsewhere.cache, choices, elsewhere.labels, elsewhere.task
        ) | unit_inputs(elsewhere.cache, elsewhere.labels, pool_by, config.test_labels)
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
        views,
        elsewhere,
        pool,
        planes,
        pool_by,
    )


def _labelled_inputs(
    cache: FeatureCache, choices: Mapping[str, FeatureChoice], labels: Labels, task: Task
) -> dict[str, Any]:
    """Digests of what is read of a store and of its labels."""
    return {**store_inputs(cache, passes_of(cache, choices)), "labels": labels_digest(labels, task)}


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
    options: dict[str, Any] = dict(config.options)
    for name, grid in (("C", config.C), ("k", config.k)):
        if grid is not None and name in options:
            raise InputError(f"{name} is given twice, by itself and among the options; leave one of them out.")
        if grid is not None:
            options[name] = grid
    probe: Probe = factory()
    known = [f.name for f in fields(probe)]
    for name in options:
        if name not in known:
            raise suggest(f"option of probe {config.probe!r}", name, known)
    options = held(type(probe), options)
    grid = options.get(probe.parameter)
    if grid is not None and not isinstance(grid, list | tuple):
        grid = options[probe.parameter] = (grid,)
    least_too = bool(getattr(probe, "zero_too", False))  # of a penalty: none
    if grid is not None and not (grid and all(_is_number(v) and (v > 0 or (v == 0 and least_too)) for v in grid)):
        what = "numbers of 0 or more" if least_too else "positive numbers"
        raise InputError(f"{probe.parameter} must be one or several {what}. Got {list(grid)}.")
    try:
        asked: Probe = factory(**options)
        canonical(asdict(asked))  # what no file can hold is no option
    except InputError:
        raise
    except (TypeError, ValueError) as error:  # of another package's probe: a word where a number belongs
        given = ", ".join(f"{name} = {value!r}" for name, value in options.items())
        raise InputError(f"probe {config.probe!r} takes no such options: {given} ({error}).") from None
    return asked


def asked_layers(layers: Layers | None, probe: Probe) -> Layers:
    """As asked, or as the probe itself would have it."""
    own: Layers = getattr(probe, "layers", "last")
    return own if layers is None else layers


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < np.inf


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """As it will be read back from JSON: lists for tuples."""
    document: dict[str, Any] = json.loads(canonical(dict(value)))
    return document
