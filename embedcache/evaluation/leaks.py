"""`embedcache leaks`: what would let a probe see its test set before the test.

Patients in two parts, one picture in two parts, and tasks whose labels are somebody's number. Pictures are found by the cached
vectors (`twins`), and looked at (`same_pixels`) where the private index of this machine knows the sources. Vectors that are only
alike say nothing for certain: where nobody looked, such pairs are candidates, and no leak.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.datasets.index import PrivateIndex
from embedcache.errors import InputError
from embedcache.evaluation.same_pixels import Pictures
from embedcache.evaluation.split_files import find_split
from embedcache.evaluation.splits import given_parts, part_rows, read_split
from embedcache.evaluation.store_inputs import patient_notes
from embedcache.evaluation.twins import Twins, Vectors, find_twins
from embedcache.store.catalog import find_stores
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import factorise
from embedcache.types import IntArray, Labels, StringArray, Task, strings

Sources = dict[str, npt.NDArray[Any]]
"""Columns of the private index: `found`, `path`, `digest`, `slices`."""

FEWEST = 20
"""A task is taken for a number of its samples or patients only if so many have one each: with fewer it may be chance."""


@dataclass(frozen=True)
class TornPatient:
    """A patient in more than one part."""

    patient: str
    """The store's id."""
    samples: dict[str, int]
    """Part → samples."""


@dataclass(frozen=True)
class TwinPair:
    """Two samples that show one picture, or may do so, and that are, or could be, in two parts."""

    first: str
    """A sample by the store's id."""
    second: str
    parts: tuple[str, str]
    """"" where nothing names a part."""
    how: str
    """`same file`, `same features`, `same picture` (looked at) or `near` (alike by their vectors, not looked at)."""
    cosine: float
    """Of the whitened vectors."""
    one_patient: bool


@dataclass(frozen=True)
class IdTask:
    """A task whose labels tell samples or patients apart, as an id does."""

    task: str
    reason: str


@dataclass(frozen=True)
class LeakReport:
    """What was found in one dataset of a cache, by one of its stores."""

    store: str
    parts: str
    """Where the parts come from: the split file, `the labels`, or "" where nothing names any."""
    samples: int
    torn_patients: tuple[TornPatient, ...]
    pairs: tuple[TwinPair, ...]
    """Of one picture across parts; where nothing names parts, across patients, since any split by patient may part them."""
    candidates: tuple[TwinPair, ...]
    """The same, `near` only: nobody looked at their pixels, so they may be two pictures that are alike."""
    within: dict[str, int]
    """Pairs that can not be parted, counted by how they were found."""
    id_tasks: tuple[IdTask, ...]
    blank: int
    """Samples whose vectors are of one value, as those of an empty image; they are compared with nothing."""
    looked_at: int
    """Pairs across parts that were decided by their pixels; of the others only equal files and vectors are certain."""
    near: float
    """The cosine from which a pair that nobody looked at is a candidate."""
    left_out: int
    """Candidates that were too many to hold."""
    notes: tuple[str, ...] = ()
    """What can not be seen here: patients in several parts, where the dataset named none."""

    @property
    def exit_code(self) -> int:
        """1 where something leaks, else 0, as for candidates that nobody looked at."""
        return 1 if self.torn_patients or self.pairs or self.id_tasks else 0


def find_leaks(where: str | Path, split: str | Path | None = None, pixels: bool = True) -> tuple[LeakReport, ...]:
    """Look for leaks in a store, or in every dataset of a cache by its most fitting finished store.

    split: a split file or the name of an imported one; else the labels' parts. pixels: look at the sources where the private
    index of this machine knows them. Raises InputError if there is no finished store, StoreError for one that is damaged.
    Memory is twice the store's vectors in float32 (n x d x 4 bytes), 300 MiB, and 200 bytes for each row of the label table.
    """
    reports = tuple(_examine(store, split, pixels) for store in _choose(where))
    if not reports:
        raise InputError(f"there is no finished store at {where}; `embedcache ls` shows what there is.")
    return reports


def _choose(where: str | Path) -> list[FeatureCache]:
    """One store of each dataset: its pixels, which can be mirrored, else the first by path."""
    paths = find_stores(where)
    if paths == [Path(where)]:
        return [FeatureCache.open(paths[0])]
    chosen: dict[Path, FeatureCache] = {}
    for path in paths:
        cache = FeatureCache.open(path, allow_partial=True)
        if not any(cache.root.complete.values()):
            continue
        folder = path.parents[1]
        if folder not in chosen or (side_of(cache) and not side_of(chosen[folder])):
            chosen[folder] = FeatureCache.open(path)
    return [chosen[folder] for folder in sorted(chosen)]


def _examine(cache: FeatureCache, split: str | Path | None, pixels: bool) -> LeakReport:
    labels = cache.labels() if cache.dataset_folder is not None else None
    sample, patient, X = sample_vectors(cache)
    parts, named_by = parts_of(cache, sample, patient, labels, split)
    seen = np.flatnonzero(np.ptp(X, axis=1) > 0)
    vectors = X if len(seen) == len(X) else X[seen]
    identical = equal_rows(vectors)
    del X
    _, numbers = factorise(patient[seen])
    twins = find_twins(vectors, numbers, mirrored(cache, vectors))
    parted = _parted(twins, patient[seen], parts[seen])
    decided = decide(lambda: find_sources(cache, sample[seen]), twins, identical, parted & pixels)
    pairs, within = _sorted_out(twins, decided, parted, sample[seen], patient[seen], parts[seen])
    return LeakReport(
        store=str(cache.path),
        parts=named_by,
        samples=len(sample),
        torn_patients=_torn(patient, parts),
        pairs=tuple(pair for pair in pairs if pair.how != "near"),
        candidates=tuple(pair for pair in pairs if pair.how == "near"),
        within=within,
        id_tasks=_id_tasks(labels) if labels is not None else (),
        blank=len(sample) - len(seen),
        looked_at=decided.looked_at,
        near=round(twins.near, 4),
        left_out=twins.left_out,
        notes=patient_notes(cache),
    )


# --- parts and patients ---------------------------------------------------------------------------


def parts_of(
    cache: FeatureCache, sample: StringArray, patient: StringArray, labels: Labels | None, split: str | Path | None
) -> tuple[StringArray, str]:
    """The part of each sample, and who says so. A split that tears a patient is read: that is what is looked for."""
    if split is not None:
        file = find_split(Path(split), cache)
        return strings(part_rows(read_split(file, cache.samples().id, whole=False), sample).tolist()), file.name
    parts = given_parts(sample, patient, labels) if labels is not None else strings([""] * len(sample))
    return parts, "the labels" if (parts != "").any() else ""


def _torn(patient: StringArray, parts: StringArray) -> tuple[TornPatient, ...]:
    where: dict[str, Counter[str]] = {}
    for name, part in zip(patient.tolist(), parts.tolist(), strict=True):
        if part:
            where.setdefault(name, Counter())[part] += 1
    return tuple(TornPatient(name, dict(sorted(n.items()))) for name, n in sorted(where.items()) if len(n) > 1)


# --- pictures -------------------------------------------------------------------------------------


def sample_vectors(
    cache: FeatureCache, kind: str | None = None, layer: int | None = None
) -> tuple[StringArray, StringArray, Vectors]:
    """Ids, patients and one vector a sample: of this kind and layer, else CLS of the last layer, else its mean patch token."""
    kinds = {spec.kind for p in cache.passes for spec in p.arrays}
    if kind is None:
        kind = "cls" if "cls_token" in kinds else "mean" if "patch_mean" in kinds else "pooled"
    # pooling takes a copy in float64, which radiographs do not need
    found = cache.features(kind, layer, pool="mean" if (cache.index.plan.slice_count > 1).any() else None)
    return strings(found.sample_id.tolist()), strings(found.groups.tolist()), found.X


def side_of(cache: FeatureCache) -> int:
    """The side of a store of pixels, 0 for another."""
    return cache.recipe.image.size[0] if cache.recipe.model.family == "pixels" else 0


def mirrored(cache: FeatureCache, X: Vectors) -> Vectors | None:
    """The vectors of the images turned left to right, where they are pixels."""
    side = side_of(cache)
    return np.array(X.reshape(-1, side, side)[:, :, ::-1], order="C").reshape(X.shape) if side else None


def equal_rows(X: Vectors) -> IntArray:
    """(n,): equal numbers for equal vectors."""
    known: dict[bytes, int] = {}  # by digests: the rows themselves would be a second copy of X
    return np.array(
        [known.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), i) for i, row in enumerate(X)],
        dtype=np.int64,
    )


def _parted(twins: Twins, patient: StringArray, parts: StringArray) -> npt.NDArray[np.bool_]:
    """Of each candidate, whether its two samples are in two parts, or are of two patients where one has no part."""
    a, b = twins.first, twins.second
    told = (parts[a] != "") & (parts[b] != "")
    parted: npt.NDArray[np.bool_] = np.where(told, parts[a] != parts[b], patient[a] != patient[b])
    return parted


def find_sources(cache: FeatureCache, sample: StringArray) -> Sources:
    """What the private index of this machine knows of where the samples lie."""
    return PrivateIndex.open(cache.path.resolve().parents[1]).lookup(sample, ("path", "digest", "slices"))


@dataclass(frozen=True)
class Decided:
    """What candidates turned out to be."""

    how: npt.NDArray[np.str_]
    """Of each candidate; "" where it is no twin."""
    looked_at: int


def decide(sources: Callable[[], Sources], twins: Twins, identical: IntArray, look: npt.NDArray[np.bool_]) -> Decided:
    """By files and vectors, and by pixels where `look` says so and the sources are known here."""
    first, second = twins.first, twins.second
    how = np.full(len(first), "", dtype="U13")
    how[twins.cosine >= twins.near] = "near"
    how[identical[first] == identical[second]] = "same features"
    if not look.any():
        return Decided(how, 0)
    known = sources()
    how[(known["digest"][first] == known["digest"][second]) & (known["digest"][first] != "")] = "same file"
    look = look & known["found"][first] & known["found"][second] & np.isin(how, ("", "near"))
    pictures = Pictures(lambda i: str(known["path"][i]), lambda i: int(known["slices"][i]))
    looked_at = 0
    # by the first of the pair: what was read and cropped of it serves all of its pairs
    for k in sorted(np.flatnonzero(look).tolist(), key=lambda k: (first[k], second[k])):
        same = pictures.same(int(first[k]), int(second[k]))
        if same is not None:
            looked_at += 1
            how[k] = "same picture" if same else ""
    return Decided(how, looked_at)


def _sorted_out(
    twins: Twins,
    decided: Decided,
    parted: npt.NDArray[np.bool_],
    sample: StringArray,
    patient: StringArray,
    parts: StringArray,
) -> tuple[tuple[TwinPair, ...], dict[str, int]]:
    """The pairs across parts, most alike first, and counts of the others."""
    pairs = []
    for k in np.flatnonzero((decided.how != "") & parted).tolist():
        a, b = int(twins.first[k]), int(twins.second[k])
        names, both = (str(sample[a]), str(sample[b])), (str(parts[a]), str(parts[b]))
        cosine, one_patient = round(float(twins.cosine[k]), 4), bool(patient[a] == patient[b])
        pairs.append(TwinPair(*names, both, str(decided.how[k]), cosine, one_patient))
    within = Counter(decided.how[(decided.how != "") & ~parted].tolist())
    return tuple(pairs), dict(sorted(within.items()))


# --- labels ---------------------------------------------------------------------------------------


def _id_tasks(labels: Labels) -> tuple[IdTask, ...]:
    found = []
    for task in labels.tasks:
        reason = _like_an_id(task, labels)
        if reason:
            found.append(IdTask(task.name, reason))
    return tuple(found)


def _like_an_id(task: Task, labels: Labels) -> str:
    """Why a task's labels are like an id, "" where they are not.

    Only classes and whole numbers can be: no two measured fractions are alike either. A value of its own for each of
    FEWEST samples or more is an id of samples; one that all samples of a patient share, and no two patients, an id of patients.
    """
    if task.kind not in ("multiclass", "numeric") or task.level == "slice":
        return ""
    rows = np.flatnonzero(
        (labels.task == task.name) & ~np.isnan(labels.value) & ((labels.klass != "") | (task.kind == "numeric"))
    )
    values = strings([f"{v!r}" for v in labels.value[rows].tolist()]) if task.kind == "numeric" else labels.klass[rows]
    if task.kind == "numeric" and (labels.value[rows] != np.rint(labels.value[rows])).any():
        return ""
    n_values = len(set(values.tolist()))
    patients = len(set(labels.patient[rows].tolist()))
    if len(rows) >= FEWEST and n_values == len(rows):
        whose = "patients" if task.level == "patient" else "samples"
        return f"each of {len(rows)} {whose} has a value of its own"
    owned = len(set(zip(labels.patient[rows].tolist(), values.tolist(), strict=True)))
    if patients >= FEWEST and n_values == owned == patients:
        return f"each of {patients} patients has one value of its own"
    return ""
