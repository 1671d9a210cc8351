"""What `labels show` prints: which columns were taken as labels, what was found in them, and how to have it otherwise."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.datasets.base import DEFAULT_OPTIONS, Dataset, DatasetOptions, Origin
from embedcache.datasets.columns import Table, read_table
from embedcache.datasets.infer import ColumnFinding, answers, find_tasks
from embedcache.datasets.table import TableDataset, find_roles
from embedcache.types import Labels

_ROLES = (
    ("path", "where each image lies", "an extraction needs one"),
    ("id", "what each sample is called", "the paths are the ids"),
    ("patient", "whose sample each is", "every sample counts as a patient of its own, but what DICOM headers say"),
    ("split", "the part of each sample", "parts are drawn by patient"),
    ("mask", "the mask of each image", "there are no masks"),
)


def describe_labels(what: Dataset | str | Path, options: DatasetOptions = DEFAULT_OPTIONS) -> list[dict[str, Any]]:
    """One JSON-able line per column of a table (a path, or a table dataset), or per task of another dataset.

    Keys: column, task, kind, level, positive, classes (name → count of ones), missing, reason, switch. A column that is
    not taken has task None. Counts are of the table's rows, or of samples (patients, slices). Needs no image and no
    column of paths. Raises InputError as `find_tasks` does.
    """
    if isinstance(what, str | Path):
        table = read_table(Path(what))
        return _of_table(table, find_tasks(table, find_roles(table, options).columns(), options))
    if isinstance(what, TableDataset) and (what.findings or not what.joined):
        return _of_table(what.joined.table if what.joined else what.table, what.findings)
    origins = what.joined.origins if isinstance(what, TableDataset) and what.joined else getattr(what, "origins", {})
    return _of_labels(what.labels(), origins)


def describe_roles(what: Dataset | str | Path, options: DatasetOptions = DEFAULT_OPTIONS) -> list[dict[str, Any]]:
    """One JSON-able line for each thing but labels that a table says of its samples; none of another dataset than a table.

    Keys: role (path, id, patient, split, mask), column (None: there is none), task (None: it is no label), reason, switch.
    """
    if isinstance(what, str | Path):
        roles = find_roles(read_table(Path(what)), options)
    elif isinstance(what, TableDataset):
        roles = what.roles
    else:
        return []
    lines = []
    for role, there, absent in _ROLES:
        column = getattr(roles, role)
        lines.append(
            {
                "role": role,
                "column": column,
                "task": None,
                "reason": absent if column is None else there,
                "switch": f"--{role}-column COLUMN",
            }
        )
    return lines


def _of_table(table: Table, findings: Sequence[ColumnFinding]) -> list[dict[str, Any]]:
    lines = []
    for finding in findings:
        task = finding.task
        line: dict[str, Any] = {"column": finding.column, "task": task.name if task else None}
        if task:
            values = answers(finding, table)
            if task.kind == "multiclass":
                counts = [int((values == k).sum()) for k in range(len(task.classes))]
            else:
                counts = [int((column == 1).sum()) for column in values.T]
            line |= {
                "kind": task.kind,
                "level": task.level,
                "positive": task.positive,
                "classes": dict(zip(task.classes, counts, strict=False)),
                "missing": int(np.isnan(values).any(axis=1).sum()),
            }
        lines.append(line | {"reason": finding.reason, "switch": finding.switch})
    return lines


def _of_labels(labels: Labels, origins: Mapping[str, Origin]) -> list[dict[str, Any]]:
    lines = []
    for task in labels.tasks:
        origin = origins.get(task.name, Origin("the dataset's own"))
        mine = labels.task == task.name
        ones, names = labels.value[mine] == 1, labels.klass[mine]
        missing = np.isnan(labels.value[mine]) & ((names == names[0]) | (names == ""))
        lines.append(
            {
                "column": task.column,
                "task": task.name,
                "kind": task.kind,
                "level": task.level,
                "positive": task.positive,
                "classes": {name: int((ones & (names == name)).sum()) for name in task.classes},
                "missing": int(missing.sum()),
                "reason": origin.reason,
                "switch": origin.switch,
            }
        )
    return lines
