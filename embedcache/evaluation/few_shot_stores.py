"""Curves of several stores in one job: every store is opened and asked before the first is fitted, one picture ends it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from embedcache.errors import InputError
from embedcache.evaluation.clock import Progress
from embedcache.evaluation.few_shot import few_shot, settle
from embedcache.evaluation.few_shot_config import FewShotConfig
from embedcache.evaluation.few_shot_curve import check_together, draw_few_shot
from embedcache.evaluation.few_shot_result import FewShotResult
from embedcache.evaluation.figure_files import check_figure


def few_shot_curves(
    configs: Sequence[FewShotConfig],
    figure: str | Path | None = None,
    progress: Progress | None = None,
    told: Callable[[FewShotResult], None] | None = None,
) -> tuple[FewShotResult, ...]:
    """The curves that `configs` ask for, in their order, each told of as it is there; drawn together into `figure`.

    Whatever can be seen to be wrong without features (a store, a task, a split, a folder that takes no files, curves that no
    figure can hold) is raised before anything is fitted: InputError, StoreError, and MissingPackageError without matplotlib.
    """
    if not configs:
        raise InputError("a curve needs a store; `embedcache ls CACHE` lists those of a cache.")
    _each_once(configs)
    if figure is not None:
        check_figure(figure)
    if len(configs) > 1:  # questions are asked again later: many of them do not fit into memory
        tasks = [(asked.question.task.name, asked.question.classes) for asked in map(settle, configs)]
        if figure is not None:
            check_together(tasks)
    found = []
    for config in configs:
        found.append(few_shot(config, progress))
        if told is not None:
            told(found[-1])
    if figure is not None:
        draw_few_shot(found, figure)
    return tuple(found)


def _each_once(configs: Sequence[FewShotConfig]) -> None:
    real = [replace(config, store=Path(config.store).resolve()) for config in configs]
    for i, config in enumerate(real):
        if config in real[:i]:
            raise InputError(f"store {configs[i].store} is given twice; leave one of them out.")
