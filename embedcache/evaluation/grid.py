"""`probe all`: stores x probes x tasks in one job. What is answered already is found by its digest, only the rest is fitted."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from embedcache.errors import EmbedcacheError, InputError, suggest
from embedcache.evaluation.by_column import measure_subgroups
from embedcache.evaluation.estimates import ALL, MACRO
from embedcache.evaluation.feature_choices import check_vectors, widest
from embedcache.evaluation.grid_formats import table_format, write_table
from embedcache.evaluation.grid_table import Entry, GridTable, tabulate
from embedcache.evaluation.groupings import check_column, group_tasks
from embedcache.evaluation.label_files import find_labels
from embedcache.evaluation.metrics import HIGHER_IS_BETTER, OF_NUMBERS
from embedcache.evaluation.paired import RESAMPLES
from embedcache.evaluation.probe import answer, read_features
from embedcache.evaluation.question import ProbeConfig, Question, ask
from embedcache.evaluation.results import find_result, results_folder, source_of, write_result
from embedcache.evaluation.splits import split_digest
from embedcache.evaluation.store_inputs import each_once, told_of_patients
from embedcache.evaluation.subgroups import Subgroup
from embedcache.evaluation.writable import check_file, check_folder
from embedcache.fields import hold_fields
from embedcache.probes import REGISTRY
from embedcache.store.features import Features
from embedcache.store.reader import FeatureCache
from embedcache.types import Labels, Result, Task, unknown_task

PROBES = ("logistic", "knn", "ridge")
"""Unless others are asked for: those of them that answer a task of its kind."""
OWN = ("probe", "store", "task", "options", "C", "k")
"""Fields of ProbeConfig that the grid itself fills in."""
GridProgress = Callable[[int, int, str], None]
"""Told how many of the fits are done, of how many, and what is done now."""


@dataclass(frozen=True)
class GridConfig:
    """What to fit on what, many times over, and what to show of it."""

    stores: tuple[Path | str, ...]
    probes: tuple[str, ...] | None = None
    """Registered probes; None is those of `PROBES` that answer a task."""
    tasks: tuple[str, ...] | None = None
    """None is every task of a store's labels that one of the probes answers."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By probe, its own options: `{"knn": {"k": (5, 20)}}`."""
    grids: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """By hyper-parameter, the values for every probe of the grid that has it: `{"C": (0.1, 1)}`."""
    shared: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of ProbeConfig, for every cell: `{"pool": "max", "test_store": …}`. `classes` are for multilabel tasks, and
    a task that labels slices has its slices apart, whatever `pool` says."""
    metrics: tuple[str, ...] | None = None
    """Of the table; None is AUROC, and R2 for numbers."""
    label: str | None = None
    """A class, in place of the macro average."""
    by: str | None = None
    """Each result apart for the values of this column of the labels too: see `measure_subgroups`."""
    comparisons: int = RESAMPLES
    """Resamples of the tests that mark the best of a column; 0 marks nothing."""
    out: Path | None = None
    """Write the table to this file too: `.csv`, `.tex` or `.json`."""

    def __post_init__(self) -> None:
        hold_fields(self)
        if not self.stores:
            raise InputError("a grid needs a store at least; `embedcache ls CACHE` lists those of a cache.")
        for name in ("probes", "tasks", "metrics"):
            if getattr(self, name) == ():
                raise InputError(f"{name} names none; leave it out for the usual ones.")
        known = [f.name for f in fields(ProbeConfig) if f.name not in OWN]
        for name in self.shared:
            if name not in known:
                raise suggest("field of ProbeConfig that all cells share", name, known)
        settled = ProbeConfig(PROBES[0], self.stores[0], **self.shared)  # refused here, not in every cell
        object.__setattr__(self, "shared", {name: getattr(settled, name) for name in self.shared})
        for name in self.metrics or ():
            if name not in HIGHER_IS_BETTER:
                raise suggest("metric", name, HIGHER_IS_BETTER)
        for what, names in (("probe", self.probes), ("task", self.tasks), ("metric", self.metrics)):
            for name in names or ():
                if names is not None and names.count(name) > 1:
                    raise InputError(f"{what} {name} is given twice; leave one of them out.")
        parameters = {name: REGISTRY.load(name)().parameter for name in self.probes or PROBES}
        for name in self.grids:
            if name not in parameters.values():
                there = ", ".join(f"{probe} has {parameter}" for probe, parameter in parameters.items())
                raise InputError(f"no probe of the grid has a hyper-parameter {name}: {there}.")
        for name in self.options:
            if name not in (self.probes or PROBES):
                raise suggest("probe of the grid", name, self.probes or PROBES)
        if self.comparisons < 0:
            raise InputError(f"comparisons must be 0 or more. Got {self.comparisons}.")
        if self.out is not None:  # refused before hours of fits, not after them
            table_format(self.out)
            check_file(self.out, "the table")


@dataclass(frozen=True)
class GridCell:
    """One store x probe x task: its result, or why there is none."""

    dataset: str
    backbone: str
    store: str
    """Name of the store."""
    probe: str
    task: str
    result: Result | None = None
    computed: bool = False
    """Whether it was fitted now; else it was found."""
    error: str = ""


@dataclass(frozen=True)
class Grid:
    """All cells, the table that they make, and what is to be said."""

    cells: tuple[GridCell, ...]
    table: GridTable
    notes: tuple[str, ...]
    lacking: tuple[str, ...] = ()
    """Metrics that were asked for, and that no result has."""

    @property
    def failed(self) -> tuple[GridCell, ...]:
        """Cells without a result."""
        return tuple(cell for cell in self.cells if cell.result is None)


def run_grid(config: GridConfig, progress: GridProgress | None = None) -> Grid:
    """Answer every cell of the grid that has no answer yet, and lay all of them out as a table.

    A probe that does not answer a task's kind is left out with a note, if it was asked for by name; a cell that fails is told of,
    and the others go on; so is a store that can not be opened or holds no vectors, as one cell. Each result is written as it is
    made: what an interruption leaves undone is done by the next run.

    Before anything is fitted it raises InputError for a store that is given twice, where no store can be probed and where there
    is nothing to answer; UnknownNameError for a task, class or column that no store has.
    """
    asked, broken, notes = _plan(config)
    _check_columns(config, asked)
    found = [_find(one) for one in asked]
    if config.by is not None:
        _check_by(config, config.by, found)
    found = [_with_room(one) for one in found]
    _check_any(found)
    missing = [i for i, one in enumerate(found) if one.cell.result is None and not one.cell.error]
    read = _LastRead()
    for done, i in enumerate(missing):
        what = f"{found[i].cell.backbone} {found[i].cell.probe} {found[i].cell.task}"

        def tell(stage: str, done: int = done, what: str = what) -> None:
            if progress is not None:
                progress(done, len(missing), f"{what}: {stage}")

        found[i] = _fit(found[i], read, tell)
    if progress is not None and missing:
        progress(len(missing), len(missing), "laying out")
    entries = [
        Entry(one.cell.result, _groups(one, config.by, notes) if config.by is not None else ())
        for one in found
        if one.cell.result is not None
    ]
    table = tabulate(entries, config.metrics, config.label, config.comparisons)
    if config.out is not None:
        write_table(table, config.out)
    shown = {column.metric for column in table.columns}
    lacking = tuple(name for name in config.metrics or () if name not in shown)
    for cell in (one.cell for one in found):
        notes += told_of_patients(cell.dataset, cell.result.warnings if cell.result else ())
    notes += [*table.notes, *(f"no result has a figure {name} that the table could show." for name in lacking)]
    return Grid((*broken, *(one.cell for one in found)), table, tuple(dict.fromkeys(notes)), lacking)


@dataclass(frozen=True)
class _Asked:
    """A cell on its way."""

    cell: GridCell
    config: ProbeConfig
    task: Task
    folder: Path | None = None
    """Of its results, once that is known; likewise the rest."""
    tested: Path | None = None
    """The store of its test rows."""
    columns: tuple[str, ...] = ()
    """By which its test rows may stand apart."""


# --- which cells there are ------------------------------------------------------------------------


def _plan(config: GridConfig) -> tuple[list[_Asked], list[GridCell], list[str]]:
    """The cells in the order of stores, tasks and probes; the stores that can not be probed; what is to be said."""
    opened: list[tuple[FeatureCache, Labels]] = []
    broken: list[GridCell] = []
    for store in each_once(config.stores):
        try:
            cache = FeatureCache.open(store)
            check_vectors(cache)  # once, not by each of its cells
            opened.append((cache, find_labels(cache, config.shared.get("labels"), config.shared.get("join_on"))))
        except EmbedcacheError as error:
            broken.append(GridCell("", store.parent.name, store.name, "", "", error=str(error)))
    if not opened:
        many = f"none of the {len(broken)} stores can be probed; the first: " if len(broken) > 1 else ""
        raise InputError(many + broken[0].error)
    everywhere = {task.name for _, labels in opened for task in labels.tasks}
    for name in config.tasks or ():
        if name not in everywhere:
            raise unknown_task(name, everywhere, "task of these stores")
    asked: list[_Asked] = []
    notes: list[str] = []
    sources: list[dict[str, str]] = []
    for cache, labels in opened:
        source = source_of(cache)
        if source in sources:
            raise InputError(
                f"two stores are {source['store']} of {source['backbone']} on a dataset {source['dataset']!r}, so they would "
                "share the cells of the table; leave one of them out."
            )
        sources.append(source)
        for task in _tasks(config, source["dataset"], labels, notes):
            for probe in _probes(config, task, notes):
                cell = GridCell(source["dataset"], source["backbone"], source["store"], probe, task.name)
                asked.append(_Asked(cell, _probe_config(config, cache, task, probe), task))
    if not asked:
        kinds = ", ".join(dict.fromkeys(f"{task.name} ({task.kind})" for _, labels in opened for task in labels.tasks))
        named = ", ".join(config.probes or PROBES)
        raise InputError(
            f"none of the probes {named} answers a task of these stores: {kinds}; name others with --probes."
            if kinds
            else "the labels of these stores hold no task; give a table that has one with --labels FILE."
        )
    return asked, broken, notes


def _check_columns(config: GridConfig, asked: list[_Asked]) -> None:
    """Raise for a class or a metric that no task of the grid has."""
    tasks = [one.task for one in asked]
    if config.label is not None:
        known: set[str] = set()
        for task in tasks:
            chosen = config.shared.get("classes") if task.kind == "multilabel" else None
            known |= {task.name} if task.kind == "numeric" else {MACRO, ALL, *(chosen or task.classes)}
        if config.label not in known:
            raise suggest("class of these tasks", config.label, known)
    for name in config.metrics or ():
        if not any((task.kind == "numeric") == (name in OF_NUMBERS) for task in tasks):
            kinds = ", ".join(dict.fromkeys(f"{task.name} ({task.kind})" for task in tasks))
            raise InputError(
                f"no task of the grid has the metric {name}, which is of {'numbers' if name in OF_NUMBERS else 'classes'}: "
                f"{kinds}; leave it out of --metrics."
            )


def _check_by(config: GridConfig, by: str, found: list[_Asked]) -> None:
    """Raise for a column that neither the user's table nor, without one, any tested store has."""
    usable = [set(one.columns) for one in found if not one.cell.error]
    if usable:
        table = config.shared.get("labels" if config.shared.get("test_store") is None else "test_labels")
        check_column(by, table, set().union(*usable))


def _check_any(found: list[_Asked]) -> None:
    """Raise what the first cell says if no cell can be answered, so that nothing is to be done and nothing to be shown."""
    if all(one.cell.error for one in found):
        many = f"none of the {len(found)} cells can be answered; the first: " if len(found) > 1 else ""
        raise InputError(many + found[0].cell.error)


def _tasks(config: GridConfig, dataset: str, labels: Labels, notes: list[str]) -> Iterator[Task]:
    there = [task.name for task in labels.tasks]
    for name in config.tasks or there:
        if name not in there:
            notes.append(f"{dataset} has no task {name}, so it is left out there.")
        else:
            yield labels.get(name)


def _probes(config: GridConfig, task: Task, notes: list[str]) -> Iterator[str]:
    """The probes that answer the task."""
    for name in config.probes or PROBES:
        if task.kind in REGISTRY.load(name)().answers:
            yield name
        elif config.probes is not None:
            notes.append(f"probe {name} does not answer {task.kind} tasks, so it is left out of {task.name}.")


def _probe_config(config: GridConfig, cache: FeatureCache, task: Task, probe: str) -> ProbeConfig:
    shared = dict(config.shared)
    if task.kind != "multilabel":
        shared.pop("classes", None)
    if task.level == "slice":
        shared["pool"] = None
    parameter = REGISTRY.load(probe)().parameter
    grid = {parameter: config.grids[parameter]} if parameter in config.grids else {}
    options = {**grid, **config.options.get(probe, {})}
    return ProbeConfig(probe=probe, store=cache.path, task=task.name, options=options, **shared)


# --- their answers --------------------------------------------------------------------------------


def _settle(one: _Asked) -> tuple[Question, Path]:
    """The question, and the folder of its results."""
    question = ask(one.config)
    return question, one.config.results if one.config.results is not None else results_folder(question.cache)


def _find(one: _Asked) -> _Asked:
    """With the result that is there, if it may stand; or with what is wrong with the question."""
    try:
        question, folder = _settle(one)
        there = None if one.config.force else find_result(question.inputs, folder)
    except EmbedcacheError as error:
        return replace(one, cell=replace(one.cell, error=str(error)))
    tested = question if question.elsewhere is None else question.elsewhere
    return replace(
        one,
        cell=replace(one.cell, result=there),
        folder=folder,
        tested=tested.cache.path,
        columns=tuple(group_tasks(tested.labels)),
    )


def _with_room(one: _Asked) -> _Asked:
    """With an error where its result is missing and can not be written. Raises InputError where the user named the folder."""
    if one.cell.result is not None or one.folder is None:
        return one
    try:
        check_folder(one.folder)
    except InputError as error:
        if one.config.results is not None:
            raise
        return replace(one, cell=replace(one.cell, error=str(error)))
    return one


def _fit(one: _Asked, read: "_LastRead", tell: Callable[[str], None]) -> _Asked:
    """With a result that is fitted and written now. The question is asked again: many of them do not fit into memory."""
    try:
        question, folder = _settle(one)
        found = answer(question, one.config, tell, read)
        result = write_result(found.result, found.encoded, folder, one.config.force, question.split)
    except EmbedcacheError as error:
        return replace(one, cell=replace(one.cell, error=str(error)))
    return replace(one, cell=replace(one.cell, result=result, computed=True))


class _LastRead:
    """The features that were read last: the probes of one store and task, which come one after the other, share them."""

    def __init__(self) -> None:
        self.key: tuple[Any, ...] = ()
        self.features: Features | None = None

    def __call__(self, question: Question, config: ProbeConfig) -> Features:
        key = (
            question.cache.path,
            question.task.name,
            widest(question.choices.values()),
            question.pool,
            question.pool_by,
            tuple(cache.path for cache in question.planes),
            config.strict_volumes,
            split_digest(question.split),
        )
        if self.features is None or key != self.key:
            self.features = None  # before the next ones are read: two do not fit where one does
            self.key, self.features = key, read_features(question, config)
        return self.features


def _groups(one: _Asked, by: str, notes: list[str]) -> tuple[Subgroup, ...]:
    """Its test rows apart for each value of the column."""
    config = one.config
    assert one.cell.result is not None  # its caller asks
    elsewhere = config.test_store is not None
    try:
        table = measure_subgroups(
            one.cell.result.path,
            by,
            store=one.tested,
            labels=config.test_labels if elsewhere else config.labels,
            join_on=None if elsewhere else config.join_on,
            resamples=config.resamples,
        )
    except EmbedcacheError as error:
        notes.append(f"not apart by {by} in {one.cell.dataset}: {error}")
        return ()
    notes += [f"{one.cell.dataset} {one.cell.task}: {note}" for note in table.notes]
    return table.groups
