"""The switches that declare tasks.

    --task NAME=KIND[:COLUMN[,COLUMN...]]   KIND: binary, multilabel, multiclass or numeric; COLUMN: NAME unless given.
                                            multilabel: one column whose cells hold several labels, or several columns
                                            of yes and no. If any --task is given, only the declared tasks are taken.
    --positive TASK=VALUE                   which value counts as 1; makes a binary task of one with more values.
    --sep "|"                               what separates the labels in a cell of a multilabel column.
    --level patient|study|sample|slice      what the labels attach to; sample unless given.
    --labels FILE --join-on COLUMN          the labels are in FILE, whose COLUMN holds sample ids or patients.

    --uncertain zeros|ones|ignore           what -1 counts as in a column of yes and no; missing (ignore) unless given.

A cell that is empty or says NA, N/A, #N/A, NaN, null, unknown, ? or - is a missing label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, get_args

from embedcache.errors import InputError, suggest
from embedcache.types import Level, TaskKind

_SYNTAX = "--task is NAME=KIND[:COLUMN[,COLUMN...]]"
DECLARABLE = ("binary", "multilabel", "multiclass", "numeric")


@dataclass(frozen=True)
class DeclaredTask:
    """A task as `--task` declares it."""

    name: str
    kind: TaskKind
    columns: tuple[str, ...]


def parse_task(text: str) -> DeclaredTask:
    """The task in one `--task`. Raises InputError, saying what was expected."""
    name, equals, rest = text.partition("=")
    kind, colon, listed = rest.partition(":")
    name, kind = name.strip(), kind.strip()
    if not equals or not name or not kind:
        raise InputError(f"{_SYNTAX}. Got {text!r}.")
    if kind == "segmentation":
        raise InputError(f"a segmentation task comes with a table's mask column, not with --task. Got {text!r}.")
    if kind not in DECLARABLE:
        raise InputError(f"{suggest('kind of task', kind, DECLARABLE)} Got --task {text!r}.")
    columns = tuple(column.strip() for column in listed.split(",")) if colon else (name,)
    if not all(columns) or len(set(columns)) < len(columns):
        raise InputError(f"{_SYNTAX}, with every column named once. Got {text!r}.")
    if len(columns) > 1 and kind != "multilabel":
        raise InputError(f"a {kind} task has one column, only multilabel takes several. Got --task {text!r}.")
    return DeclaredTask(name, cast(TaskKind, kind), columns)


def parse_tasks(texts: Sequence[str]) -> tuple[DeclaredTask, ...]:
    """All `--task`. Raises InputError if one name is declared twice."""
    declared = tuple(parse_task(text) for text in texts)
    names = [task.name for task in declared]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--task {name} is given twice; a task has one definition.")
    return declared


def parse_positive(texts: Sequence[str]) -> dict[str, str]:
    """All `--positive`, as task → value."""
    positive: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name or not value:
            raise InputError(f"--positive is TASK=VALUE. Got {text!r}.")
        if name in positive:
            raise InputError(f"--positive {name} is given twice; a task has one positive value.")
        positive[name] = value
    return positive


def parse_level(text: str | None) -> Level:
    """The `--level`, `sample` unless given."""
    if text is None:
        return "sample"
    if text not in get_args(Level):
        raise InputError(str(suggest("level", text, get_args(Level))))
    return cast(Level, text)
