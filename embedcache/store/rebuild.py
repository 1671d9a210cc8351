"""What a damaged index object may have been: candidates out of the other index arrays, the commits and known ids.

Nothing here decides. The caller takes a candidate only where its bytes have the SHA-256 that the manifest names.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.store import layout
from embedcache.store.encoding import encode_strings
from embedcache.store.index import StoredIndex
from embedcache.store.root import Root
from embedcache.store.writer import row_status
from embedcache.types import Commit, Plan, StringArray, strings

MAX_TRIES = 2_000
"""Candidates for one damaged id: enough for a few wrong bytes, and soon over."""
MAX_TEXT_BYTES = 4_096
"""An id is not longer than this."""

Arrays = Mapping[str, npt.NDArray[Any]]
"""Index array → its values, of those of which every chunk holds."""


@dataclass(frozen=True)
class KnownIds:
    """Ids that a store may hold, each sample with its patient: two columns of one length."""

    sample: StringArray
    patient: StringArray

    @classmethod
    def none(cls) -> "KnownIds":
        """Nothing is known."""
        return cls(strings([]), strings([]))

    def __or__(self, other: "KnownIds") -> "KnownIds":
        """Both, those of `other` first and as they are there."""
        patients = dict(zip(other.sample.tolist(), other.patient.tolist(), strict=True))
        for sample, patient in zip(self.sample.tolist(), self.patient.tolist(), strict=True):
            patients.setdefault(sample, patient)
        return KnownIds(strings(list(patients)), strings(list(patients.values())))


# --- numbers --------------------------------------------------------------------------------------


def number_candidates(
    path: str, root: Root, arrays: Arrays, commits: Mapping[str, list[Commit]]
) -> Iterator[npt.NDArray[Any]]:
    """What the numeric array `path` may have held, the likeliest first. `commits`: pass → those that hold."""
    if path == "slice_index":
        yield from _slice_index(root, arrays)
    elif path in ("slice_start", "slice_count"):
        yield from _starts_and_counts(path, root, arrays)
    elif path == "superseded":
        yield from _superseded(root, arrays, commits)
    elif path == "row_status":
        yield from _row_status(root, arrays, commits)


def _slice_index(root: Root, arrays: Arrays) -> Iterator[npt.NDArray[Any]]:
    if "slice_start" in arrays and "slice_count" in arrays:
        start, count = arrays["slice_start"], arrays["slice_count"]
        index = np.full(root.rows, -1, dtype="<i4")
        offset = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        index[np.repeat(start, count) + offset] = offset
        yield index


def _owned(arrays: Arrays) -> npt.NDArray[np.bool_] | None:
    """Shape (rows,): which rows a sample owns, by one of the two arrays that say it."""
    if "slice_index" in arrays:
        return np.asarray(arrays["slice_index"] >= 0)
    if "row_status" in arrays:
        return np.asarray(arrays["row_status"] != layout.PADDING)
    return None


def _starts_and_counts(path: str, root: Root, arrays: Arrays) -> Iterator[npt.NDArray[Any]]:
    owned = _owned(arrays)
    if owned is None:
        return
    rows = np.flatnonzero(owned)
    if "slice_index" in arrays:
        start = np.flatnonzero(arrays["slice_index"] == 0)
        if len(start) == root.samples:
            yield from _start_or_count(path, start, rows)
    if path == "slice_count" and "slice_start" in arrays:
        yield from _start_or_count(path, arrays["slice_start"], rows)
    if path == "slice_start" and "slice_count" in arrays:
        first = np.cumsum(arrays["slice_count"]) - arrays["slice_count"]
        if first[-1] < len(rows):
            yield rows[first].astype("<i8")


def _start_or_count(path: str, start: npt.NDArray[Any], rows: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Of samples that begin at `start`: that itself, or how many of the owned `rows` each has."""
    if path == "slice_start":
        yield start.astype("<i8")
    else:
        yield np.diff(np.searchsorted(rows, start), append=len(rows)).astype("<i8")


def _superseded(root: Root, arrays: Arrays, commits: Mapping[str, list[Commit]]) -> Iterator[npt.NDArray[Any]]:
    yield np.zeros(root.samples, dtype=np.bool_)
    older = np.zeros(root.samples, dtype=np.bool_)
    if "sample_id" in arrays:
        last = {name: i for i, name in enumerate(arrays["sample_id"].tolist())}
        older[:] = True
        older[list(last.values())] = False
        yield older
    if {"row_status", "slice_start", "slice_count"} <= arrays.keys():
        # all rows set aside, and not by commits alone
        aside = arrays["row_status"] == layout.QUARANTINED
        by_commit = np.zeros(root.rows, dtype=np.bool_)
        by_commit[[bad.row for found in commits.values() for commit in found for bad in commit.quarantined]] = True
        whole = np.array([aside[rows].all() for rows in _ranges(arrays)])
        yield (whole & np.array([not by_commit[rows].all() for rows in _ranges(arrays)])) | older
        yield whole | older


def _ranges(arrays: Arrays) -> Iterable[slice]:
    start = arrays["slice_start"]
    return map(slice, start.tolist(), (start + arrays["slice_count"]).tolist())


def _row_status(root: Root, arrays: Arrays, commits: Mapping[str, list[Commit]]) -> Iterator[npt.NDArray[Any]]:
    if not {"slice_index", "slice_start", "slice_count", "superseded"} <= arrays.keys():
        return
    none = strings([])
    plan = Plan(none, none, arrays["slice_start"], arrays["slice_count"], arrays["slice_index"], root.quantum)
    index = StoredIndex(plan, np.zeros(root.rows, dtype=np.uint8), arrays["superseded"])
    complete = [commits[name] for name, whole in root.complete.items() if whole]
    finished = row_status(index, complete)
    begun = row_status(
        index, [found for name, found in commits.items() if root.complete[name] or name in root.reopened]
    )
    untouched = row_status(index, [])
    planned = np.where(untouched == layout.OK, layout.PENDING, untouched).astype(np.uint8)
    if complete:
        yield finished
    yield planned
    yield begun
    # rows that were added since were never finished, and no commit says since when
    for cut in range(root.quantum, min(root.rows, MAX_TRIES * root.quantum), root.quantum):
        yield np.concatenate([begun[:cut], planned[cut:]])


# --- texts ----------------------------------------------------------------------------------------


def text_candidates(
    path: str, k: int, data: bytes | None, root: Root, arrays: Arrays, ids: KnownIds
) -> Iterator[bytes]:
    """What chunk `k` of `sample_id` or `patient_id` may have held, as bytes. `data`: the damaged chunk, None if it is gone."""
    step = min(root.samples, layout.INDEX_CHUNK)
    part = slice(k * step, min((k + 1) * step, root.samples))
    length = part.stop - part.start
    patients = dict(zip(ids.sample.tolist(), ids.patient.tolist(), strict=True))
    samples = arrays["sample_id"][part].tolist() if path == "patient_id" and "sample_id" in arrays else None
    if samples is not None and all(name in patients for name in samples):
        yield _encode([patients[name] for name in samples], step)
    column = getattr(ids, path.removesuffix("_id")).tolist()
    if len(column) == root.samples:
        yield _encode(column[part], step)
    if path == "sample_id" and {"patient_id", "superseded"} <= arrays.keys():
        placed = ids_by_patient(arrays["patient_id"].tolist(), arrays["superseded"].tolist(), ids)
        if placed is not None:
            yield _encode(placed[part], step)
    if data is None:
        return
    found = salvage(data, length, step - length, frozenset(name.encode() for name in column))
    if found is None:
        return
    wrong = [i for i, (_, known) in enumerate(found) if not known]
    values = [text.decode(errors="replace") for text, _ in found]
    held = {name for i, name in enumerate(values) if found[i][1]}
    of_patient = arrays["patient_id"][part].tolist() if path == "sample_id" and "patient_id" in arrays else None

    def alike(i: int) -> list[str]:
        """Known ids in the place of text `i`, the likeliest first."""

        def rank(name: str) -> tuple[bool, bool, int]:
            other_patient = of_patient is not None and patients.get(name) != of_patient[i]
            return other_patient, name in held, _distance(name.encode(), found[i][0])

        if samples is not None and samples[i] in patients:
            return [patients[samples[i]]]
        return sorted(set(column), key=rank)[:MAX_TRIES]

    if not wrong or not column:
        yield _encode(values, step)  # only what lies between the texts was damaged
        return
    choices = [alike(i) for i in wrong]
    for i, names in zip(wrong, choices, strict=True):
        values[i] = names[0]
    yield _encode(values, step)
    for i, names in zip(wrong, choices, strict=True):
        for name in names[1:]:
            yield _encode([*values[:i], name, *values[i + 1 :]], step)


def ids_by_patient(patients: Sequence[str], superseded: Sequence[bool], ids: KnownIds) -> list[str] | None:
    """The sample in each place, given its patient: a patient's samples come in the dataset's order, and one that is
    superseded comes again later. None where a patient has fewer samples than places.
    """
    waiting: dict[str, list[str]] = {}
    for sample, patient in zip(ids.sample.tolist(), ids.patient.tolist(), strict=True):
        waiting.setdefault(patient, []).append(sample)
    found = []
    for patient, again in zip(patients, superseded, strict=True):
        if not waiting.get(patient):
            return None
        found.append(waiting[patient].pop(0))
        if again:
            waiting[patient].append(found[-1])
    return found


def salvage(data: bytes, count: int, padding: int, known: frozenset[bytes]) -> list[tuple[bytes, bool]] | None:
    """The `count` texts of a damaged chunk of strings, and whether each is known; None if it can not be taken apart.

    The number of texts is not believed, nor the length of one that is not known: the next known one is looked for.
    """
    found: list[tuple[bytes, bool]] = []
    at, end = 4, len(data) - 4 * padding  # padding is texts of no length
    for i in range(count):
        text = _text_at(data, at)
        if text in known:
            found.append((text, True))
            at += 4 + len(text)
            continue
        after = range(at + 4, min(at + 4 + MAX_TEXT_BYTES, end + 1))
        stop = end if i == count - 1 else next((j for j in after if _text_at(data, j) in known), None)
        if stop is None and text is not None and at + 4 + len(text) <= end:
            stop = at + 4 + len(text)  # two in a row that are not known: then its length has to be believed
        if stop is None or stop < at + 4:
            return None
        found.append((data[at + 4 : stop], False))
        at = stop
    return found if at == end else None


def _text_at(data: bytes, at: int) -> bytes | None:
    if at + 4 > len(data):
        return None
    (length,) = struct.unpack_from("<I", data, at)
    return data[at + 4 : at + 4 + length] if at + 4 + length <= len(data) else None


def _distance(a: bytes, b: bytes) -> int:
    """In how many places two texts differ; those of other lengths are farthest."""
    return sum(x != y for x, y in zip(a, b, strict=False)) + 1_000 * abs(len(a) - len(b))


def _encode(values: Sequence[str], step: int) -> bytes:
    return encode_strings([*values, *[""] * (step - len(values))])


# --- sealed texts ---------------------------------------------------------------------------------


def merged_copies(a: bytes, b: bytes, holds: Callable[[bytes], bool]) -> bytes | None:
    """Of two damaged copies of one object that differ in a few bytes: the mixture that `holds`, if there is one."""
    if len(a) != len(b):
        return None
    places = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    if len(places) > 10:
        return None
    for choice in range(1 << len(places)):
        mixed = bytearray(a)
        for bit, i in enumerate(places):
            mixed[i] = (b if choice >> bit & 1 else a)[i]
        if holds(bytes(mixed)):
            return bytes(mixed)
    return None
