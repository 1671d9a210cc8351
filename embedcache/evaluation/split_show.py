"""`embedcache splits show`: what is in each part of a split, and what is wrong with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedcache.evaluation.split_files import find_split
from embedcache.evaluation.splits import part_rows, read_split, split_digest
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import factorise, locate
from embedcache.types import PARTS, IntArray, Labels, Split, StringArray, strings


@dataclass(frozen=True)
class PartContent:
    """One part of a split."""

    part: str
    samples: int
    patients: int
    slices: int | None
    """None without a store."""


@dataclass(frozen=True)
class Balance:
    """What is known in one part of one class of a task; of a numeric task, which has no classes."""

    task: str
    level: str
    """What the labels attach to, and so what is counted."""
    label: str
    """The class; "" of a numeric task."""
    part: str
    known: int
    positive: int | None
    """None of a numeric task."""
    mean: float | None
    """Of a numeric task; None of the others, and where nothing is known."""
    known_patients: int
    """Of whom anything is known: statistics are of patients."""
    positive_patients: int | None
    """Who have the class in any of their samples; None of a numeric task."""


@dataclass(frozen=True)
class ShownSplit:
    """A split file, read."""

    name: str
    digest: str
    """By which results name it."""
    draw: int
    seed: int | None
    """None where nothing was drawn."""
    parts: tuple[PartContent, ...]
    balance: tuple[Balance, ...]
    """Empty without a store, or without labels beside it."""
    unnamed: int | None
    """Samples of the store that are in no part; None without a store."""
    faults: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 where there is a fault, else 0."""
        return 1 if self.faults else 0


def show_split(file: str | Path, store: str | Path | None = None) -> ShownSplit:
    """What a split file, or one imported beside `store`, says of whom.

    With a store also its slices and the balance of its labels in each part. Raises InputError for a file that is no split:
    without its columns, with a sample twice, or a part that is none.
    """
    cache = None if store is None else FeatureCache.open(store)
    path = Path(file) if cache is None else find_split(Path(file), cache)
    split = read_split(path, whole=False)
    parts, unnamed = _parts(split, None, None), None
    balance: tuple[Balance, ...] = ()
    faults = [*_torn(split.sample, split.patient, split.part, "the file")]
    if cache is not None:
        samples = cache.samples()
        current = ~samples.superseded
        part = strings(part_rows(split, samples.id).tolist())
        parts = _parts(split, part[current], samples.slices[current])
        unnamed = int(((part == "") & current).sum())
        gone = int((locate(split.sample, samples.id) < 0).sum())
        if gone:
            faults.append(f"{gone} of its {len(split.sample)} samples are not in {cache.path.name}")
        inside = part != ""
        if not faults:  # the file may call patients otherwise than the store does
            faults += _torn(samples.id[inside], samples.patient_id[inside], part[inside], "the store")
        if cache.dataset_folder is not None:
            labels = cache.labels()
            owner = _owners(labels, samples.id[current], samples.patient_id[current])
            balance = tuple(_balance(labels, split, owner))
    return ShownSplit(split.name, split_digest(split), split.draw, split.seed, parts, balance, unnamed, tuple(faults))


def _parts(split: Split, part: StringArray | None, slices: npt.NDArray[np.int64] | None) -> tuple[PartContent, ...]:
    """All three parts; `part` and `slices` are of the store's samples."""
    found = []
    for name in PARTS:
        mine = split.part == name
        count = None if part is None or slices is None else int(slices[part == name].sum())
        found.append(PartContent(name, int(mine.sum()), len(np.unique(split.patient[mine])), count))
    return tuple(found)


def _torn(sample: StringArray, patient: StringArray, part: StringArray, according_to: str) -> Iterator[str]:
    """A line for the patients that are in several parts, naming two samples and no patient."""
    first: dict[str, tuple[str, str]] = {}
    torn: dict[str, tuple[str, str, str, str]] = {}
    for s, p, name in zip(sample.tolist(), patient.tolist(), part.tolist(), strict=True):
        other, other_part = first.setdefault(p, (s, name))
        if other_part != name:
            torn.setdefault(p, (other, other_part, s, name))
    if torn:
        one, part_one, two, part_two = next(iter(torn.values()))
        count = "1 patient is" if len(torn) == 1 else f"{len(torn)} patients are"
        yield (
            f"by {according_to}, {count} in several parts: sample {one!r} in {part_one} and sample {two!r} in {part_two}, "
            "for one; whoever is tested must not train"
        )


def _owners(labels: Labels, ids: StringArray, patients: StringArray) -> IntArray:
    """(rows of labels,): a number for each row's patient, as the store (ids, patients) says; else as the labels do."""
    place = locate(labels.sample, ids)
    words, number = factorise(patients)
    others = strings(labels.patient[place < 0])
    at = locate(others, words)
    owner = np.empty(len(place), dtype=np.int64)
    owner[place >= 0] = number[place[place >= 0]]
    owner[place < 0] = np.where(at >= 0, at, len(words) + factorise(others)[1])
    return owner


def _balance(labels: Labels, split: Split, owner: IntArray) -> Iterator[Balance]:
    by_sample = part_rows(split, labels.sample)
    of_patient = dict(zip(split.patient.tolist(), split.part.tolist(), strict=True))
    # the rows of a patient-level task name no sample
    rows = zip(by_sample.tolist(), labels.sample.tolist(), labels.patient.tolist(), strict=True)
    parts = np.array([part if sample else of_patient.get(patient, "") for part, sample, patient in rows], dtype="U10")

    def patients(which: npt.NDArray[np.bool_]) -> int:
        return int(np.count_nonzero(np.bincount(owner[which])))

    for task in labels.tasks:
        for part in PARTS:
            there = (labels.task == task.name) & (parts == part) & ~np.isnan(labels.value)
            if not task.classes:
                values = labels.value[there]
                mean = float(values.mean()) if len(values) else None
                yield Balance(task.name, task.level, "", part, len(values), None, mean, patients(there), None)
            for name in task.classes:
                mine = there & (labels.klass == name)
                # a multiclass label is one row, that of its class
                known = there if task.kind == "multiclass" else mine
                positive = mine & (labels.value == 1)
                yield Balance(
                    task.name,
                    task.level,
                    name,
                    part,
                    int(known.sum()),
                    int(positive.sum()),
                    None,
                    patients(known),
                    patients(positive),
                )
