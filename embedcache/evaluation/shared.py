"""`embedcache leaks STORE --against OTHER`: what two stores share, so that one is no test of what was fitted on the other.

Pictures are found as within one store (`leaks`), by vectors that both hold; where the recipes differ these can not be compared,
and files are, where the private index of this machine knows those of both. What equal ids mean depends on who made them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from embedcache.errors import InputError
from embedcache.evaluation.elsewhere import open_alike
from embedcache.evaluation.leaks import (
    Decided,
    Sources,
    TwinPair,
    decide,
    equal_rows,
    find_sources,
    mirrored,
    parts_of,
    sample_vectors,
)
from embedcache.evaluation.store_inputs import patient_notes
from embedcache.evaluation.twins import Twins, Vectors, find_twins
from embedcache.store.catalog import find_stores
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import factorise
from embedcache.types import StringArray, strings

Ids = Literal["one", "perhaps", "apart"]
"""Of equal ids in two stores: of one and the same; perhaps so, perhaps numbers that two datasets both gave; can not be equal."""

_KINDS = {"cls_token": "cls", "patch_mean": "mean", "pooled": "pooled"}
_Vector = tuple[str, int]
"""Kind and layer of vectors, as the store names them."""


@dataclass(frozen=True)
class SharedPatient:
    """An id of a patient that is in both stores."""

    patient: str
    first_samples: int
    second_samples: int


@dataclass(frozen=True)
class SharedReport:
    """What was found in both of two stores."""

    store: str
    against: str
    samples: tuple[int, int]
    """Of each store, those with features."""
    ids: Ids
    """What equal ids of patients and samples mean here."""
    patients: tuple[SharedPatient, ...]
    sample_ids: tuple[str, ...]
    """Ids of samples that are in both."""
    pairs: tuple[TwinPair, ...]
    """Of one picture, one sample of each store; `parts` as the labels of each name them, `one_patient` by the ids."""
    candidates: tuple[TwinPair, ...]
    """The same, `near` only: nobody looked at their pixels, so they may be two pictures that are alike."""
    blank: int
    """Samples of both whose vectors are of one value, as those of an empty image; they are compared with nothing."""
    looked_at: int
    """Pairs that were decided by their pixels."""
    near: float | None
    """The cosine from which a pair that nobody looked at is a candidate; None where no vectors were compared."""
    left_out: int
    """Candidates that were too many to hold."""
    notes: tuple[str, ...] = ()
    """What can not be seen here, and what equal ids do not prove."""

    @property
    def exit_code(self) -> int:
        """1 where a picture is in both, or an id of a patient or sample that means the same in both; else 0."""
        return 1 if self.pairs or (self.ids == "one" and (self.patients or self.sample_ids)) else 0


def find_shared(store: str | Path, against: str | Path, pixels: bool = True) -> SharedReport:
    """Look for pictures, patients and samples that are in two stores. Stores need no labels.

    against: a store, or a folder above several of which one has the recipe of the first. pixels: look at the sources where the
    private index of this machine knows them. Memory as for `find_leaks`, of both stores together. Raises InputError, StoreError.
    """
    first = FeatureCache.open(store)
    paths = find_stores(against)
    second = FeatureCache.open(paths[0]) if len(paths) == 1 else open_alike(first, against)
    if first.path.resolve() == second.path.resolve():
        raise InputError(f"{store} and {against} are one store; name another one, or leave --against out.")
    vector = _common_vector(first, second)
    kind, layer = (_KINDS[vector[0]], vector[1] or None) if vector is not None else (None, None)
    a, b = (sample_vectors(cache, kind, layer) for cache in (first, second))
    sample, patient = (strings([*a[i].tolist(), *b[i].tolist()]) for i in (0, 1))
    parts = [_parts(cache, read[0], read[1]) for cache, read in ((first, a), (second, b))]
    rows = _Rows(sample, patient, strings([*parts[0].tolist(), *parts[1].tolist()]), len(a[0]))
    sources = _sources(first, second, a[0], b[0])
    if vector is None:
        twins, decided, blank = _by_files(rows, sources)
    else:
        X = _rounded(np.concatenate([a[2], b[2]]), vector, (first, second))
        twins, decided, blank = _by_vectors(first, rows, sources, X, pixels)
    pairs = _pairs(rows, twins, decided)
    ids = _meaning(first, second)
    return SharedReport(
        store=str(first.path),
        against=str(second.path),
        samples=(len(a[0]), len(b[0])),
        ids=ids,
        patients=_shared_patients(a[1], b[1]) if ids != "apart" else (),
        sample_ids=tuple(sorted({*a[0].tolist()} & {*b[0].tolist()})) if ids != "apart" else (),
        pairs=tuple(pair for pair in pairs if pair.how != "near"),
        candidates=tuple(pair for pair in pairs if pair.how == "near"),
        blank=blank,
        looked_at=decided.looked_at,
        near=round(twins.near, 4) if vector is not None else None,
        left_out=twins.left_out,
        notes=(
            *_vector_notes(
                first, second, vector, all((side != "").any() for side in np.split(sources["digest"], [rows.apart]))
            ),
            *_id_notes(first, second, ids),
            *_patient_notes(first, second),
        ),
    )


# --- ids ------------------------------------------------------------------------------------------


def _meaning(first: FeatureCache, second: FeatureCache) -> Ids:
    """A pseudonym is made of key, dataset and id; a public dataset has ids of its own; those that were kept are the user's."""
    a, b = first.root, second.root
    if a.id_scheme != b.id_scheme or a.key_id != b.key_id:
        return "apart"
    if a.dataset.name == b.dataset.name:
        return "one"
    return "perhaps" if a.id_scheme == "kept" else "apart"


def _id_notes(first: FeatureCache, second: FeatureCache, ids: Ids) -> tuple[str, ...]:
    """What equal ids do not prove, or why unequal ones say nothing."""
    a, b = first.root, second.root
    name = a.dataset.name
    if ids == "one" and a.id_scheme == "public":
        return ()
    if ids == "one":
        return (
            f"both datasets are called {name}: if they are two that were given one name, and each numbers its patients for "
            "itself, equal ids are no one patient.",
        )
    if ids == "perhaps":
        return (
            f"the ids of {name} and {b.dataset.name} were kept as they are: equal ones are one patient only if both datasets "
            "number them alike, so they alone are no leak here.",
        )
    if a.id_scheme != b.id_scheme:
        why = (
            f"{name} has ids that are {_scheme(a.id_scheme)}, and {b.dataset.name} ones that are {_scheme(b.id_scheme)}"
        )
    elif a.key_id != b.key_id:
        why = "the pseudonyms of the two were made with two keys"
    elif a.id_scheme == "public":
        why = f"{name} and {b.dataset.name} are two public datasets with ids of their own"
    else:
        why = f"pseudonyms are made of the dataset's name too, and one is {name}, the other {b.dataset.name}"
    return (f"{why}: ids were not compared, and whether a patient is in both can be seen by pictures only.",)


def _scheme(name: str) -> str:
    return {"public": "public", "kept": "kept as they are"}.get(name, "pseudonyms")


def _shared_patients(first: StringArray, second: StringArray) -> tuple[SharedPatient, ...]:
    counts = []
    for column in (first, second):
        words, number = factorise(column)
        counts.append(dict(zip(words.tolist(), np.bincount(number, minlength=len(words)).tolist(), strict=True)))
    a, b = counts
    return tuple(SharedPatient(name, a[name], b[name]) for name in sorted(a.keys() & b.keys()))


def _patient_notes(first: FeatureCache, second: FeatureCache) -> list[str]:
    return [note for cache in (first, second) for note in patient_notes(cache, f" of {cache.root.dataset.name}")]


# --- pictures -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """Samples of both stores, those of the first one before."""

    sample: StringArray
    patient: StringArray
    parts: StringArray
    apart: int
    """Where the second store begins."""


def _common_vector(first: FeatureCache, second: FeatureCache) -> _Vector | None:
    """The vectors that tell most, of those that both hold; None where tokens can not be compared."""
    if first.fingerprint != second.fingerprint:
        return None
    held = [{(spec.kind, spec.layer) for p in cache.passes for spec in p.arrays} for cache in (first, second)]
    both = [(kind, layer) for kind, layer in held[0] & held[1] if kind in _KINDS]
    order = list(_KINDS)
    return min(both, key=lambda vector: (order.index(vector[0]), -vector[1]), default=None)


def _rounded(X: Vectors, vector: _Vector, caches: tuple[FeatureCache, FeatureCache]) -> Vectors:
    """As float16 has them where one of the stores is in float16, so that equal tokens are equal."""
    kind, layer = vector
    dtypes = [cache.tokens(layer, kind).dtype for cache in caches]
    return X if dtypes[0] == dtypes[1] else X.astype(min(dtypes, key=lambda dtype: dtype.itemsize)).astype(X.dtype)


def _vector_notes(first: FeatureCache, second: FeatureCache, vector: _Vector | None, known: bool) -> list[str]:
    """Why tokens were not compared, and what was; `known`: whether files of both are."""
    if vector is not None:
        return []
    why = "have two recipes" if first.fingerprint != second.fingerprint else "hold no vectors of one kind and layer"
    what = (
        "only files, so a picture that is in two files is not found"
        if known
        else "nor files: this machine does not know them"
    )
    return [f"the two stores {why}, so their tokens were not compared, {what}; extract both with the same options."]


def _parts(cache: FeatureCache, sample: StringArray, patient: StringArray) -> StringArray:
    labels = cache.labels() if cache.dataset_folder is not None else None
    return parts_of(cache, sample, patient, labels, None)[0]


def _sources(first: FeatureCache, second: FeatureCache, a: StringArray, b: StringArray) -> Sources:
    known = find_sources(first, a), find_sources(second, b)
    return {name: np.concatenate([side[name] for side in known]) for name in known[0]}


def _by_files(rows: _Rows, sources: Sources) -> tuple[Twins, Decided, int]:
    """Pairs of one file, each sample of the second store with the first one that has it."""
    digests = sources["digest"].tolist()
    where = {digest: i for i, digest in reversed(list(enumerate(digests[: rows.apart]))) if digest}
    second = [j for j in range(rows.apart, len(digests)) if digests[j] in where]
    first = [where[digests[j]] for j in second]
    ones = np.ones(len(first), dtype=np.float32)
    twins = Twins(np.array(first, dtype=np.int64), np.array(second, dtype=np.int64), ones, 1.0, 1.0, 0)
    return twins, Decided(np.full(len(first), "same file", dtype="U13"), 0), 0


def _by_vectors(
    cache: FeatureCache, rows: _Rows, sources: Sources, X: Vectors, pixels: bool
) -> tuple[Twins, Decided, int]:
    """Candidates by their vectors, decided as within a store; positions are those of `rows`."""
    seen = np.flatnonzero(np.ptp(X, axis=1) > 0)
    vectors = X if len(seen) == len(X) else X[seen]
    apart = int(np.count_nonzero(seen < rows.apart))
    blank = len(X) - len(seen)
    none = np.zeros(0, dtype=np.int64)
    if apart in (0, len(seen)):  # one side is blank
        return Twins(none, none, np.zeros(0, np.float32), 1.0, 1.0, 0), Decided(np.zeros(0, dtype="U13"), 0), blank
    identical = equal_rows(vectors)
    _, numbers = factorise(rows.patient[seen])
    twins = find_twins(vectors, numbers, mirrored(cache, vectors), apart)
    look = np.full(len(twins.first), pixels)
    decided = decide(lambda: {name: values[seen] for name, values in sources.items()}, twins, identical, look)
    moved = Twins(seen[twins.first], seen[twins.second], twins.cosine, twins.candidate, twins.near, twins.left_out)
    return moved, decided, blank


def _pairs(rows: _Rows, twins: Twins, decided: Decided) -> list[TwinPair]:
    """Most alike first."""
    found = []
    for k in np.flatnonzero(decided.how != "").tolist():
        a, b = int(twins.first[k]), int(twins.second[k])
        names, parts = (str(rows.sample[a]), str(rows.sample[b])), (str(rows.parts[a]), str(rows.parts[b]))
        one_patient = bool(rows.patient[a] == rows.patient[b])
        found.append(TwinPair(*names, parts, str(decided.how[k]), round(float(twins.cosine[k]), 4), one_patient))
    return found
