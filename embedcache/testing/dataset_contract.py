"""What every dataset must hold to, ours and other packages': `check_dataset(adapter, root)`."""

import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np

from embedcache.datasets.base import DEFAULT_OPTIONS, Adapter, Dataset, DatasetOptions
from embedcache.datasets.identifiers import Key, assign_ids
from embedcache.errors import ImageError
from embedcache.images import stat_source
from embedcache.types import PARTS, Labels, Samples


def check_dataset(adapter: Adapter, root: str | Path, options: DatasetOptions = DEFAULT_OPTIONS) -> None:
    """Open a dataset at `root`, a small one (each of its files is looked for), and hold it to what others rely on.

    Ids are unique and no paths of this machine; their order, and the labels, do not depend on the order in which the file
    system lists files; every patient is in one part; labels speak of known samples and patients in known values; columns
    are aligned with samples; every path is there. Raises AssertionError with a line per breach.
    """
    dataset = adapter(str(root), options)
    samples, labels = dataset.samples(), dataset.labels()
    breaches = [
        *_of_samples(samples, Path(root)),
        *_of_labels(samples, labels),
        *_of_columns(dataset, samples),
        *_of_masks(dataset, samples),
        *_of_order(adapter, root, options, samples, labels),
        *_of_pseudonyms(dataset, samples, labels),
    ]
    if breaches:
        raise AssertionError(f"dataset {adapter.info.name} breaks its contract: " + "; ".join(breaches))


def _of_samples(samples: Samples, root: Path) -> Iterator[str]:
    ids = samples.id.tolist()
    if not ids:
        yield "it lists no sample"
    if len(set(ids)) < len(ids):
        yield f"{len(ids) - len(set(ids))} ids are there twice"
    if "" in ids or "" in samples.patient_id.tolist():
        yield "a sample has no id or no patient"
    absolute = str(root.absolute())
    if any(text.startswith("/") or absolute in text for text in (*ids, *samples.patient_id.tolist())):
        yield "an id or a patient is a path of this machine"
    unknown = set(samples.split.tolist()) - {"", *PARTS}
    if unknown:
        yield f"{sorted(unknown)[0]!r} is no part; there is {', '.join(PARTS)}"
    parts: dict[str, set[str]] = {}
    for patient, part in zip(samples.patient_id.tolist(), samples.split.tolist(), strict=True):
        if part:
            parts.setdefault(patient, set()).add(part)
    torn = sum(len(found) > 1 for found in parts.values())
    if torn:
        yield f"{torn} patients are in several parts"
    relative = sum(not os.path.isabs(path) for path in samples.path.tolist())
    if relative:
        yield f"{relative} paths are not absolute"
    gone = [i for i, path in enumerate(samples.path.tolist()) if not _is_there(path)]
    if gone:
        yield f"{len(gone)} sources are not there, the first is that of {samples.where(gone[0])}"


def _is_there(path: str) -> bool:
    try:
        stat_source(path)
    except ImageError:
        return False
    return True


def _of_labels(samples: Samples, labels: Labels) -> Iterator[str]:
    if set(labels.sample.tolist()) - {"", *samples.id.tolist()}:
        yield "labels speak of samples that are not listed"
    if set(labels.patient.tolist()) - set(samples.patient_id.tolist()):
        yield "labels speak of patients that are not listed"
    names = [task.name for task in labels.tasks]
    if len(set(names)) < len(names):
        yield "two tasks have one name"
    if set(labels.task.tolist()) - {"", *names}:
        yield "labels belong to tasks that are not declared"
    told = set(labels.sample.tolist()) | {""}
    patients = set(labels.patient[labels.sample == ""].tolist())
    pairs = zip(samples.id.tolist(), samples.patient_id.tolist(), strict=True)
    if any(sample not in told and patient not in patients for sample, patient in pairs):
        yield "a sample has no row among the labels, not even one without a task"
    for task in labels.tasks:
        mine = labels.task == task.name
        values = labels.value[mine]
        if task.kind != "numeric" and not np.isin(values[~np.isnan(values)], (0, 1)).all():
            yield f"task {task.name!r} has a value that is neither 0 nor 1"
        if task.classes and set(labels.klass[mine].tolist()) - {"", *task.classes}:
            yield f"task {task.name!r} has a row of a class that it does not declare"
        if task.level == "slice" and (labels.slice[mine] < 0).any():
            yield f"task {task.name!r} is of slices, and has a row without one"
        if task.level == "patient" and (labels.sample[mine] != "").any():
            yield f"task {task.name!r} is of patients, and has a row of a sample"


def _of_columns(dataset: Dataset, samples: Samples) -> Iterator[str]:
    for name, values in dataset.columns().items():
        if len(values) != len(samples):
            yield f"column {name!r} has {len(values)} values for {len(samples)} samples"


def _of_masks(dataset: Dataset, samples: Samples) -> Iterator[str]:
    masks = getattr(dataset, "masks", lambda: None)()
    if masks is not None and len(masks) != len(samples):
        yield f"it has {len(masks)} masks for {len(samples)} samples"


def _of_order(
    adapter: Adapter, root: str | Path, options: DatasetOptions, samples: Samples, labels: Labels
) -> Iterator[str]:
    """Open it anew while the file system lists everything the other way round."""
    list_names, scan = os.listdir, os.scandir

    def backwards(place: str | Path = ".") -> list[str]:
        return sorted(list_names(place), reverse=True)

    class Scan:
        def __init__(self, place: str | Path = ".") -> None:
            with scan(place) as entries:
                self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

        def __enter__(self) -> "Scan":
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def __iter__(self) -> "Scan":
            return self

        def __next__(self) -> os.DirEntry[str]:
            return next(self.entries)

        def close(self) -> None:
            """As os.scandir has it."""

    with patch.object(os, "listdir", backwards), patch.object(os, "scandir", Scan):
        again = adapter(str(root), options)
        other, said = again.samples(), again.labels()
    for what, one, two in (
        ("ids", samples.id, other.id),
        ("patients", samples.patient_id, other.patient_id),
        ("parts", samples.split, other.split),
        ("paths", samples.path, other.path),
        ("labels' samples", labels.sample, said.sample),
    ):
        if one.tolist() != two.tolist():
            yield f"its {what} depend on the order in which files are listed"
    if not np.array_equal(labels.value, said.value, equal_nan=True):
        yield "its labels depend on the order in which files are listed"


def _of_pseudonyms(dataset: Dataset, samples: Samples, labels: Labels) -> Iterator[str]:
    """A user's own ids and patients must be gone once pseudonyms are given."""
    if dataset.info.public_ids:
        return
    renamed, mapped, _ = assign_ids(dataset.info, samples, labels, keep=False, key=Key(b"k" * 32))
    natural = {*samples.id.tolist(), *samples.patient_id.tolist()} - {""}
    stored = {*renamed.id.tolist(), *renamed.patient_id.tolist(), *mapped.sample.tolist(), *mapped.patient.tolist()}
    if natural & stored:
        yield "a natural id is left where pseudonyms should be"
