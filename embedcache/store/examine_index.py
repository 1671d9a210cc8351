"""The index arrays of a damaged store: each chunk that is wrong, out of the other arrays, the commits and known ids."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import StoreError
from embedcache.store import layout
from embedcache.store.encoding import decode_strings, join_strings
from embedcache.store.fingerprint import plan_digest, sha256
from embedcache.store.index import StoredIndex, chunks_of, is_possible
from embedcache.store.rebuild import number_candidates, text_candidates
from embedcache.store.root import Root
from embedcache.store.survey import Survey
from embedcache.store.writer import StoreFiles, encode_numeric, row_status
from embedcache.types import Commit, Plan

TEXTS = ("sample_id", "patient_id")
INDEX_ARRAYS = ("slice_index", "slice_start", "slice_count", "superseded", "row_status", *TEXTS)


def mend_index(survey: Survey, root: Root) -> None:
    """Each damaged chunk from the other arrays, from the commits and from known ids, as often as one helps another."""
    bad = {
        path: {k for k in chunks_of(length_of(root, path)) if not _chunk_holds(survey, root, path, k)}
        for path in INDEX_ARRAYS
    }
    progress = True
    while progress and any(bad.values()):
        progress = False
        arrays = _sound_arrays(survey, root, bad)
        commits = {name: list(known.values()) for name, known in survey.commits.items()}
        for path in INDEX_ARRAYS:
            for k in sorted(bad[path]):
                if _mend_chunk(survey, root, path, k, arrays, commits):
                    bad[path].discard(k)
                    progress = True
    arrays = _sound_arrays(survey, root, bad)
    if (
        bad["row_status"]
        and len(arrays) == len(INDEX_ARRAYS) - 1
        and survey.sealed is not None
        and not all(root.complete.values())
    ):
        _restate_rows(survey, root, arrays)
        bad["row_status"].clear()
        arrays = _sound_arrays(survey, root, bad)
    for path, chunks in bad.items():
        needed = "the dataset with --dataset and --root, and the key of its pseudonyms"
        if path not in TEXTS:
            needed = "another array of the index, which is damaged too; restore it from a copy of the store"
        for k in sorted(chunks):
            survey.give_up(layout.chunk_name(path, k), f"is damaged; it needs {needed}")
    if len(arrays) == len(INDEX_ARRAYS):
        index = _stored_index(root, arrays)
        if plan_digest(index.plan) == root.plan_digest and is_possible(index, root.slices):
            survey.found.index = index
        else:
            survey.give_up(
                "", "the index is not the plan that the root names, and nothing tells which part of it is wrong"
            )


def _mend_chunk(
    survey: Survey,
    root: Root,
    path: str,
    k: int,
    arrays: Mapping[str, npt.NDArray[Any]],
    commits: Mapping[str, list[Commit]],
) -> bool:
    """Put a chunk back if one of its candidates has the SHA-256 that it must have."""
    name = layout.chunk_name(path, k)
    digests = survey.vouched.get(name, ())
    candidates: Iterator[bytes]
    if path in TEXTS:
        how = "from the ids of the dataset"
        candidates = text_candidates(path, k, survey.read(name), root, arrays, survey.ids)
    else:
        how = "from the rest of the index and the commits"
        candidates = (encode_numeric(path, values)[name] for values in number_candidates(path, root, arrays, commits))
    for candidate in candidates:
        if sha256(candidate) in digests:
            return survey.mend(name, candidate, f"{how}; its SHA-256 is the manifest's")
    here = survey.objects.root.resolve()
    dataset = here.parent.parent
    for other in sorted(dataset.glob("*/*.zarr")) if dataset.name == root.dataset.name else ():
        data = Survey(StoreFiles(other).objects, survey.ids).read(name)
        if other != here and data is not None and sha256(data) in digests and _is_chunk(root, path, data):
            return survey.mend(name, data, "from another store of the dataset; its SHA-256 is the manifest's")
    return False


def _restate_rows(survey: Survey, root: Root, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Of a store that is not complete: the rows' status as its commits say, under a manifest that names it."""
    status = np.zeros(root.rows, dtype=np.uint8)
    index = _stored_index(root, {**arrays, "row_status": status})
    status = row_status(index, [list(known.values()) for known in survey.commits.values()])
    committed = np.zeros(root.rows, dtype=np.bool_)
    for known in survey.commits.values():
        for commit in known.values():
            committed[slice(*commit.rows)] = True
    status[(status == layout.OK) & ~committed] = layout.PENDING
    how = "as the commits say; nothing vouches for it, and the next extraction writes it anew"
    survey.restate(encode_numeric("row_status", status), how)


def _sound_arrays(survey: Survey, root: Root, bad: Mapping[str, set[int]]) -> dict[str, npt.NDArray[Any]]:
    """The index arrays of which every chunk holds."""
    found: dict[str, npt.NDArray[Any]] = {}
    for path in INDEX_ARRAYS:
        length = length_of(root, path)
        step = min(length, layout.INDEX_CHUNK)
        if bad[path]:
            continue
        chunks = [survey.read(layout.chunk_name(path, k)) or b"" for k in chunks_of(length)]
        if path in TEXTS:
            found[path] = join_strings([decode_strings(chunk, path)[:step] for chunk in chunks], length)
        else:
            found[path] = np.concatenate([np.frombuffer(c, _dtype(path), count=step) for c in chunks])[:length]
    return found


def _chunk_holds(survey: Survey, root: Root, path: str, k: int) -> bool:
    """Whether a chunk has its length and is what the manifest names; where that is lost, whether it can be read."""
    name = layout.chunk_name(path, k)
    data = survey.read(name)
    return data is not None and survey.holds(name, data) and _is_chunk(root, path, data)


def _is_chunk(root: Root, path: str, data: bytes) -> bool:
    """Whether these bytes can be a chunk of an index array; a longer one is of an extension that was stopped."""
    step = min(length_of(root, path), layout.INDEX_CHUNK)
    if path not in TEXTS:
        return len(data) >= step * _dtype(path).itemsize
    try:
        return len(decode_strings(data, path)) >= step
    except StoreError:
        return False


def length_of(root: Root, path: str) -> int:
    """Elements of an index array."""
    return root.samples if path in layout.SAMPLE_ARRAYS else root.rows


def _dtype(path: str) -> np.dtype[Any]:
    return np.dtype({**layout.SAMPLE_ARRAYS, **layout.SLICE_ARRAYS}[path]).newbyteorder("<")


def _stored_index(root: Root, arrays: Mapping[str, npt.NDArray[Any]]) -> StoredIndex:
    plan = Plan(
        arrays["sample_id"], arrays["patient_id"], arrays["slice_start"], arrays["slice_count"], arrays["slice_index"],
        root.quantum,
    )  # fmt: skip
    return StoredIndex(plan, arrays["row_status"], arrays["superseded"])
