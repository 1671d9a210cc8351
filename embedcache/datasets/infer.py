"""Which columns of a table are labels, and of what kind. Everything that is inferred here is shown, and can be overridden."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedcache.datasets.base import DatasetOptions
from embedcache.datasets.columns import MISSING, Column, Table, is_missing, number, plain_name
from embedcache.datasets.identifying import identifying
from embedcache.datasets.tasks import DeclaredTask, parse_level, parse_positive, parse_tasks
from embedcache.datasets.uncertain import VALUE, Policy, is_uncertain, parse_policy
from embedcache.errors import InputError, suggest
from embedcache.types import Level, Task

MOST_CLASSES = 20
"""A column of more distinct words is no class label."""
MOST_FINDINGS = 100
ONE_VALUE = "it holds one value only"
LIST_NAMES = ("findings", "labels", "diagnoses", "pathologies", "abnormalities", "diseases")
"""Ends of the names of columns whose cells may hold several labels."""
SEPARATORS = ("|", ";")

POSITIVE_WORDS = frozenset({"1", "true", "yes", "y", "pos", "positive"})
NEGATIVE_WORDS = frozenset({"0", "false", "no", "n", "neg", "negative"})
HEALTHY_WORDS = frozenset({"normal", "benign", "healthy", "control", "absent", "none", "no finding", *NEGATIVE_WORDS})
"""Of two words, the one that is not the positive."""
NO_LABEL_WORDS = frozenset({"no finding", "none", "normal"})
"""A cell of a multilabel column that says: looked at, and nothing found."""

DEFAULT_POLICY: Policy = "ignore"
"""What -1 counts as in a column of yes and no, where nobody says."""
_DATE = re.compile(r"(19|20)\d\d([-/.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])")


@dataclass(frozen=True)
class ColumnFinding:
    """What was made of a column (of several, for a multilabel task over columns of yes and no)."""

    columns: tuple[str, ...]
    task: Task | None
    """None: not taken as a label."""
    reason: str
    """One line: what was seen."""
    switch: str
    """What to write on the command line to have it otherwise."""
    sep: str = ""
    """What separates the labels in a cell; "" where a cell holds one."""
    uncertain: Policy | None = None
    """What -1 counts as; None where it says nothing of the kind."""

    @property
    def column(self) -> str:
        """The columns' names for display."""
        return ", ".join(self.columns)


def find_tasks(table: Table, apart: Sequence[str], options: DatasetOptions) -> list[ColumnFinding]:
    """A finding for every column that is not in `apart` (path, id, patient...), or for every declared task.

    Raises InputError for a declared column that is not there or does not fit its kind, for a `--positive` of a task that is
    not there, and for an `--uncertain` that no column asks for.
    """
    level = parse_level(options.level)
    uncertain = parse_policy(options.uncertain) if options.uncertain else None
    declared = parse_tasks(options.tasks)
    positive = parse_positive(options.positive)
    if declared:
        findings = [_declared(table, task, positive.get(task.name), options.sep, level, uncertain) for task in declared]
    else:
        findings = [
            _inferred(table.column(name), positive.get(name), options.sep, level, uncertain)
            for name in table.names
            if name not in apart
        ]
    tasks = [f.task.name for f in findings if f.task]
    for name in positive:
        if name not in tasks:
            raise InputError(f"--positive {name}: {suggest('task', name, tasks)}")
    if uncertain and not any(f.uncertain for f in findings):
        raise InputError(
            f"--uncertain {uncertain}: no column of yes and no that {table.name} has as a label holds -1; leave it out."
        )
    return findings


def said_of_columns(findings: Sequence[ColumnFinding], table: Table, options: DatasetOptions) -> tuple[str, ...]:
    """What is told unasked, a line each: of inferred columns those of one value, and those that may hold lists elsewhere."""
    if options.tasks:
        return ()
    named = parse_positive(options.positive)
    lone = [f for f in findings if f.reason == ONE_VALUE]
    single = [
        f.task for f in findings if f.task and f.task.kind in ("binary", "multiclass") and f.task.name not in named
    ]
    marks = " or ".join(repr(mark) for mark in ([options.sep] if options.sep else SEPARATORS))
    said = []
    if lone:
        names, declared = _listed([f.column for f in lone]), lone[0].switch.partition(" takes")[0]
        hold, them = (f"columns {names} hold", "them") if len(lone) > 1 else (f"column {names} holds", "it")
        said.append(
            f"of {table.name} {hold} one value only, so there is no task of {them}; list rows with other values too, or "
            f"declare it ({declared}), with every other task beside it"
        )
    for task in single:
        if _may_hold_lists(table.column(task.column)):
            declared = shlex.quote(f"{task.name}=multilabel")
            said.append(
                f"of {table.name} column {task.column!r} is taken as {task.kind}, one label per row, since no cell holds "
                f"{marks}; if a cell may hold several, declare it (--task {declared}), with every other task beside it"
            )
    return tuple(said)


def _may_hold_lists(column: Column) -> bool:
    """Whether words of one label each look like the cells of a list, of which a few rows happen to hold one at most."""
    words = [word for word in column.words if not is_missing(word)]
    if column.numbers() is not None or _is_yes_no(column):
        return False
    return plain_name(column.name).endswith(LIST_NAMES) or any(word.lower() == "no finding" for word in words)


def answers(finding: ColumnFinding, table: Table) -> npt.NDArray[np.float64]:
    """Shape (rows, classes), (rows, 1) for binary, multiclass (the class's number) and numeric; NaN for missing.

    Raises InputError, naming the row, for a cell that does not fit the task.
    """
    task = finding.task
    if task is None:
        raise InputError(
            f"column {finding.column!r} of {table.name} is not a label: {finding.reason}; {finding.switch}."
        )
    columns = [table.column(name) for name in finding.columns]
    if task.kind == "multilabel" and len(columns) > 1:
        return np.column_stack([_yes_no(column, table, finding.uncertain)[column.codes] for column in columns])
    column = columns[0]
    if task.kind == "multilabel":
        return _several(column, task.classes, finding.sep)[column.codes]
    if task.kind == "numeric":
        values = _numeric(column, table)
    elif task.kind == "multiclass":
        place = {name: float(k) for k, name in enumerate(task.classes)}
        values = np.array([place.get(word, np.nan) for word in column.words])
    elif _is_yes_no(column) or finding.uncertain:
        values = _yes_no(column, table, finding.uncertain)
        if task.positive is not None and task.positive.lower() not in POSITIVE_WORDS and number(task.positive) != 1:
            values = 1 - values
    else:
        values = np.array([np.nan if is_missing(w) else float(w == task.positive) for w in column.words])
    return values[column.codes][:, None]


# --- what a column is --------------------------------------------------------------------------------


def _inferred(
    column: Column, positive: str | None, sep: str | None, level: Level, uncertain: Policy | None
) -> ColumnFinding:
    name = column.name
    words = [word for word in column.words if not is_missing(word)]
    known = int(column.counts()[[not is_missing(word) for word in column.words]].sum())
    if identifying(name):
        return _refused(name, "its name is that of an identifier, a date, a place or a part of the data set")
    if not words:
        return _refused(name, "it holds no value")
    if positive is not None:
        return _binary(column, name, positive, level, uncertain)
    if len(words) == 1:
        return _refused(name, ONE_VALUE)
    if _is_yes_no(column) or _is_unsure(column, uncertain):
        return _binary(column, name, None, level, uncertain)
    if all(_DATE.fullmatch(word) for word in words):
        return _refused(name, "its values are dates")
    numbers = column.numbers()
    whole = numbers is not None and all(value == int(value) for value in numbers[~np.isnan(numbers)])
    few = 2 <= len(words) <= MOST_CLASSES and len(words) <= max(2, known // 3) and len(words) < known
    if numbers is not None and not (few and whole):
        if whole and len(words) == known and min(len(word) for word in words) >= 7:
            return _refused(name, "its values are long whole numbers, no two alike, as identifiers are")
        return _taken(name, Task(name, "numeric", (), level, missing=MISSING, column=name), "numbers")
    used = next((mark for mark in ([sep] if sep else SEPARATORS) if any(mark in word for word in words)), None)
    if used is not None:
        findings = _findings(words, used)
        if findings and len(findings) <= MOST_FINDINGS and len(findings) <= max(MOST_CLASSES, known // 3):
            return _multilabel(column, name, used, level)
    if few:
        if len(words) == 2:
            return _binary(column, name, None, level, uncertain)
        classes = tuple(_ordered(words))
        task = Task(name, "multiclass", classes, level, missing=MISSING, column=name)
        return _taken(name, task, f"{len(classes)} distinct values")
    if len(words) == known:
        return _refused(name, "no two values are alike, as in an identifier or a text")
    return _refused(name, f"it holds {len(words)} distinct values in {known} rows, too many for classes")


def _declared(
    table: Table, declared: DeclaredTask, positive: str | None, sep: str | None, level: Level, uncertain: Policy | None
) -> ColumnFinding:
    for name in declared.columns:
        if name not in table.names:
            raise InputError(f"--task {declared.name}: {suggest(f'column of {table.name}', name, table.names)}")
    name, kind = declared.name, declared.kind
    if positive is not None and kind != "binary":
        raise InputError(f"--positive {name}: only a binary task has a positive value, and it is declared {kind}.")
    if len(declared.columns) > 1:
        columns = [table.column(each) for each in declared.columns]
        asked = uncertain or (DEFAULT_POLICY if any(_is_unsure(column, None) for column in columns) else None)
        unsure = asked is not None and any(_is_unsure(column, asked) for column in columns)
        policy = asked if unsure else None
        for column in columns:
            _yes_no(column, table, policy)
        task = Task(name, kind, declared.columns, level, missing=MISSING, column=", ".join(declared.columns))
        reason, switch = f"declared, a column per label{_said(policy)}", f"--task {shlex.quote(name)}=..."
        return ColumnFinding(declared.columns, task, reason, switch, uncertain=policy)
    column = table.column(declared.columns[0])
    words = [word for word in column.words if not is_missing(word)]
    if not words:
        raise InputError(f"--task {name}: column {column.name!r} of {table.name} holds no value.")
    if kind == "binary":
        if positive is None and len(words) > 2 and not _is_yes_no(column) and not _is_unsure(column, uncertain):
            raise InputError(
                f"--task {name}: column {column.name!r} of {table.name} holds {len(words)} distinct values; "
                f"say which counts as 1 with --positive {name}=VALUE."
            )
        finding = _binary(column, name, positive, level, uncertain)
    elif kind == "multilabel":
        mark = sep or next((m for m in SEPARATORS if any(m in word for word in words)), SEPARATORS[0])
        finding = _multilabel(column, name, mark, level)
    elif kind == "multiclass":
        if len(words) < 2:
            raise InputError(f"--task {name}: column {column.name!r} of {table.name} holds one class only.")
        task = Task(name, kind, tuple(_ordered(words)), level, missing=MISSING, column=column.name)
        finding = _taken(column.name, task, f"{len(words)} distinct values")
    else:
        _numeric(column, table)
        finding = _taken(column.name, Task(name, kind, (), level, missing=MISSING, column=column.name), "numbers")
    return replace(finding, reason=f"declared; {finding.reason}")


def _refused(name: str, reason: str) -> ColumnFinding:
    return ColumnFinding((name,), None, reason, f"{_switch(name, name)} takes it all the same")


def _switch(task: str, column: str) -> str:
    return f"--task {shlex.quote(f'{task}=KIND' if task == column else f'{task}=KIND:{column}')}"


def _taken(column: str, task: Task, reason: str, sep: str = "") -> ColumnFinding:
    return ColumnFinding((column,), task, reason, _switch(task.name, column), sep)


# --- binary ------------------------------------------------------------------------------------------


def _binary(column: Column, name: str, positive: str | None, level: Level, uncertain: Policy | None) -> ColumnFinding:
    words = [word for word in column.words if not is_missing(word)]
    if positive is not None and positive not in words:
        raise InputError(
            f"--positive {name}={positive}: column {column.name!r} has no such value. It has {_listed(words)}."
        )
    unsure = _is_unsure(column, uncertain) and (positive is None or _truth(positive) is not None)
    policy = (uncertain or DEFAULT_POLICY) if unsure else None
    if _is_yes_no(column) or policy:
        counts = dict(zip(column.words, column.counts().tolist(), strict=True))
        yes = sorted((w for w in words if _truth(w) == 1), key=lambda w: (-counts[w], w))
        chosen = positive or (yes[0] if yes else "1")
        label = name if _truth(chosen) == 1 else f"{name}={chosen}"
        reason = f"yes or no; {chosen!r} counts as 1{_said(policy)}"
    else:
        ordered = _ordered(words)
        ill = [word for word in ordered if word.lower() not in HEALTHY_WORDS]
        chosen = positive or (ill[0] if len(ill) == 1 else ordered[-1])
        label = chosen
        rule = "given" if positive else "the other means healthy" if len(ill) == 1 else "the last in order"
        rest = f", and {_listed([word for word in words if word != chosen])} as 0" if len(words) > 2 else ""
        reason = f"{len(words)} distinct values; {chosen!r} counts as 1{rest} ({rule})"
    other = next(word for word in words if word != chosen) if label == chosen and len(words) == 2 else None
    task = Task(
        name, "binary", (label,), level, positive=chosen, missing=MISSING, column=column.name, negative=other
    )  # fmt: skip
    switch = f"--positive {shlex.quote(name)}=VALUE, {_switch(name, column.name)}"
    if policy:
        switch = f"--uncertain zeros|ones|ignore, {switch}"
    return ColumnFinding((column.name,), task, reason, switch, uncertain=policy)


def _said(policy: Policy | None) -> str:
    if policy is None:
        return ""
    meaning = {"zeros": "counts as 0", "ones": "counts as 1", "ignore": "is missing"}[policy]
    return f"; -1 (uncertain) {meaning}"


def _truth(word: str) -> float | None:
    """1 or 0 for a word of yes or no, else None."""
    value = number(word)
    if word.lower() in POSITIVE_WORDS or value == 1:
        return 1.0
    return 0.0 if word.lower() in NEGATIVE_WORDS or value == 0 else None


def _is_yes_no(column: Column) -> bool:
    words = [word for word in column.words if not is_missing(word)]
    return bool(words) and all(_truth(word) is not None for word in words)


def _is_unsure(column: Column, asked: Policy | None) -> bool:
    """Whether -1 stands beside yes and no; unless asked for, beside both: -1 and 1 alone are how some write no and yes."""
    truths = {_truth(word) for word in column.words if not is_missing(word) and not is_uncertain(word)}
    there = any(is_uncertain(word) for word in column.words)
    return there and None not in truths and (truths == {0.0, 1.0} or (asked is not None and bool(truths)))


def _yes_no(column: Column, table: Table, uncertain: Policy | None) -> npt.NDArray[np.float64]:
    """1, 0 or NaN per word. Raises InputError, naming the row, for another word."""
    values = [np.nan if is_missing(word) else _truth(word) for word in column.words]
    if uncertain:
        values = [
            VALUE[uncertain] if is_uncertain(word) else value for word, value in zip(column.words, values, strict=True)
        ]
    if None in values:
        raise _unfit(column, values.index(None), table, "neither yes nor no (1/0, true/false, yes/no, pos/neg)")
    return np.array(values, dtype=np.float64)


# --- multilabel and numeric --------------------------------------------------------------------------


def _multilabel(column: Column, name: str, sep: str, level: Level) -> ColumnFinding:
    words = [word for word in column.words if not is_missing(word)]
    classes = tuple(_findings(words, sep))
    if not classes:
        raise InputError(f"--task {name}: column {column.name!r} holds no label, only words for none.")
    none = [word for word in words if word.lower() in NO_LABEL_WORDS]
    said = f"{none[0]!r} means no label" if none else "an empty cell means no label"
    task = Task(name, "multilabel", classes, level, missing=MISSING, column=column.name)
    finding = _taken(column.name, task, f"labels separated by {sep!r}; {said}", sep)
    return replace(finding, switch=f'--sep "{sep}", {finding.switch}')


def _findings(words: Sequence[str], sep: str) -> list[str]:
    """The labels in these cells, sorted."""
    parts = {part.strip() for word in words for part in word.split(sep)}
    return sorted(part for part in parts if part and part.lower() not in NO_LABEL_WORDS)


def _several(column: Column, classes: tuple[str, ...], sep: str) -> npt.NDArray[np.float64]:
    """Shape (words, classes). An empty cell means no label, unless the column has a word for that: then it is missing."""
    spoken = any(word.lower() in NO_LABEL_WORDS for word in column.words)
    values = np.zeros((len(column.words), len(classes)))
    place = {name: k for k, name in enumerate(classes)}
    for i, word in enumerate(column.words):
        if is_missing(word) and (word or spoken):
            values[i] = np.nan
            continue
        for part in word.split(sep):
            if part.strip() in place:
                values[i, place[part.strip()]] = 1
    return values


def _numeric(column: Column, table: Table) -> npt.NDArray[np.float64]:
    """The number per word, NaN for missing. Raises InputError, naming the row, for a word that is none."""
    values = [np.nan if is_missing(word) else number(word) for word in column.words]
    if None in values:
        raise _unfit(column, values.index(None), table, "no number")
    return np.array(values, dtype=np.float64)


def _unfit(column: Column, word: int, table: Table, what: str) -> InputError:
    row = int(np.flatnonzero(column.codes == word)[0])
    return InputError(f"{table.where(row)}: column {column.name!r} holds {column.words[word]!r}, which is {what}.")


def _ordered(words: Sequence[str]) -> list[str]:
    """Sorted as numbers if all are, else as texts."""
    values = {word: number(word) for word in words}
    if None in values.values():
        return sorted(words)
    return sorted(words, key=lambda word: (values[word], word))


def _listed(words: Sequence[str]) -> str:
    shown = ", ".join(repr(word) for word in _ordered(words)[:10])
    return shown if len(words) <= 10 else f"{shown} and {len(words) - 10} more"
