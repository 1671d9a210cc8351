"""What is damaged in a store, and what it was before: every object is read, nothing is written."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from embedcache.errors import NewerFormatError, StoreError
from embedcache.store import commits as commit_codec
from embedcache.store import layout
from embedcache.store.documents import documents, root_document
from embedcache.store.examine_index import INDEX_ARRAYS, length_of, mend_index
from embedcache.store.fingerprint import canonical, sha256
from embedcache.store.index import (
    chunks_of,
    committed_shards,
    decode_manifest,
    encode_manifest,
    is_ours,
    open_root,
    vouchers,
)
from embedcache.store.labels import read_labels
from embedcache.store.lost_rows import LOST, lost_rows
from embedcache.store.objects import Objects
from embedcache.store.rebuild import KnownIds, merged_copies
from embedcache.store.root import Root
from embedcache.store.survey import MANIFEST, Findings, Mended, Survey
from embedcache.store.writer import StoreFiles, log_name, row_status
from embedcache.types import Commit, Pass, Shard


def examine(files: StoreFiles, ids: KnownIds | None = None, progress: Callable[[int], None] | None = None) -> Findings:
    """Read every byte of a store; find what is damaged, and what it was. Raises StoreError if this is no store of ours."""
    if not is_ours(files.objects):
        raise StoreError(f"{files.path.name} is no store: neither its root document nor a manifest says so.")
    survey = Survey(files.objects, _labelled_ids(files.path) | (ids or KnownIds.none()), progress or (lambda _: None))
    read_sealed(survey)
    root = survey.found.root
    if root is None:
        survey.give_up(layout.ROOT_DOCUMENT, "is damaged, and so are both copies of the manifest that repeats it")
        return survey.found
    mend_documents(survey, root)
    for p in root.passes.values():
        mend_log(survey, root, p)
    mend_index(survey, root)
    for p in root.passes.values():
        check_shards(survey, root, p)
        if root.complete[p.id]:
            restate_log(survey, p)
    if survey.sealed is None:
        compose_manifest(survey, root)
    return survey.found


def known_root(objects: Objects) -> Root:
    """What the root of a store says, or said before it was damaged: the manifest repeats it under a seal.

    Raises StoreError if neither holds, NewerFormatError for a store of a newer format.
    """
    survey = Survey(objects, KnownIds.none())
    read_sealed(survey)
    if survey.found.root is None:
        raise StoreError(f"the root of {objects.root.name} is damaged, and so are both copies of its manifest.")
    return survey.found.root


def _labelled_ids(store: Path) -> KnownIds:
    """The ids in the label table beside a store, if it lies in a cache and the table holds."""
    try:
        labels = read_labels(store.resolve().parent.parent)
    except StoreError:
        return KnownIds.none()
    of_sample = labels.sample != ""
    return KnownIds(np.asarray(labels.sample[of_sample]), np.asarray(labels.patient[of_sample]))


# --- what everything else hangs on


def read_sealed(survey: Survey) -> None:
    """The manifest from a copy that holds, or from two that do not; the root from it, or if that is lost from itself."""
    copies = [survey.read(name) for name in MANIFEST]
    whole = [data for data in copies if data is not None and _manifest_holds(data)]
    how = "from the other copy"
    if not whole and copies[0] is not None and copies[1] is not None:
        merged = merged_copies(copies[0], copies[1], _manifest_holds)
        whole, how = [merged] if merged else [], "from what holds of both copies; the seal fits"
    if whole:
        survey.sealed = decode_manifest(whole[0], MANIFEST[0])
        survey.vouched = vouchers(survey.sealed)
        survey.found.root = Root.parse(survey.sealed["root_attributes"], survey.objects.root.name)
        for name, data in zip(MANIFEST, copies, strict=True):
            if data is None or not _manifest_holds(data) or (data != whole[0] and len(whole) > 1):
                survey.mend(name, whole[0], how)
    else:
        try:
            survey.found.root = open_root(survey.objects)
        except NewerFormatError:
            raise
        except StoreError:
            return
    assert survey.found.root is not None
    document = canonical(root_document(survey.found.root)).encode()
    if survey.read(layout.ROOT_DOCUMENT) != document:
        survey.mend(
            layout.ROOT_DOCUMENT,
            document,
            "from the attributes in the manifest" if whole else "from its own attributes",
        )


def mend_documents(survey: Survey, root: Root) -> None:
    """The documents of groups and arrays: they follow from the root."""
    for path, document in documents(root).items():
        name, expected = f"{path}/zarr.json", canonical(document).encode()
        data = survey.read(name)
        if data != expected and (data is None or sha256(data) not in survey.vouched.get(name, ())):
            survey.mend(name, expected, "from the root document, which repeats it")


# --- commits


def mend_log(survey: Survey, root: Root, p: Pass) -> None:
    """Every commit of a pass that holds, in the log or by itself; then the log of a complete pass from the commits."""
    known: dict[int, Commit] = {}
    for shard in committed_shards(survey.objects, p.id):
        commit = _commit(survey.read(_commit_name(p, shard)), _commit_name(p, shard))
        if commit is not None and commit.shard == shard:
            known[shard] = commit
    survey.commits[p.id] = known
    if not root.complete[p.id]:
        return
    name = log_name(p.id)
    data = survey.read(name)
    try:
        logged = commit_codec.decode_log(data or b"", name)
    except StoreError:
        logged = _salvaged(data or b"", name)
        data = None
    if data is not None and survey.holds(name, data):
        known.update({commit.shard: commit for commit in logged})
        return
    for commit in logged:
        known.setdefault(commit.shard, commit)
    anew = commit_codec.encode_log(list(known.values()))
    if sha256(anew) in survey.vouched.get(name, ()):
        survey.mend(name, anew, "from the commits; its SHA-256 is the manifest's")


def restate_log(survey: Survey, p: Pass) -> None:
    """A damaged log that the commits alone do not give as it was: it also named shards that `gc` removed since."""
    name = log_name(p.id)
    data = survey.read(name)
    if data is not None and _log_holds(data, name) and survey.holds(name, data):
        return
    known = survey.commits[p.id]
    needed = [] if survey.found.index is None else [shard.index for shard in survey.found.index.plan.shards_of(p)]
    if survey.sealed is None or not needed or not known.keys() >= set(needed):
        survey.give_up(name, "is damaged, and so is a commit that it repeats")
        return
    anew = commit_codec.encode_log([known[shard] for shard in needed])
    survey.restate(
        {name: anew}, "from the commits that the pass must have, each by its own seal; nothing vouches for the list"
    )


def check_shards(survey: Survey, root: Root, p: Pass) -> None:
    """The commits, each by itself, and the objects that they vouch for."""
    known = survey.commits[p.id]
    there = set(survey.objects.list_names(f"{layout.commits_path(p.id)}/c"))
    for shard in planned_shards(survey, root, p):
        name = _commit_name(p, shard.index)
        commit = known.get(shard.index)
        if commit is None and root.complete[p.id]:
            survey.remake(p, shard.index, "its commit is damaged, and the log does not repeat it")
        if commit is None and not root.complete[p.id] and str(shard.index) in there:
            survey.found.gone.append(name)
            survey.found.mended.append(Mended(name, "removed: the shard is pending again, as others of this pass"))
        if commit is None:
            continue
        if not root.complete[p.id] and str(shard.index) not in there:
            continue  # pending
        expected = commit_codec.encode_commit(commit)
        if survey.read(name) != expected:
            survey.mend(name, expected, "from the log; its own seal holds")
        for spec in p.arrays:
            object_name = layout.shard_name(spec, shard.index)
            if survey.digest(object_name) != commit.objects.get(spec.path):
                survey.remake(p, shard.index, f"{spec.path} is not what the commit names")
        index, damaged = survey.found.index, survey.found.shards.get(p.id, {})
        if index is not None and shard.index not in damaged and lost_rows(survey.objects, root, index, p, commit):
            survey.remake(p, shard.index, LOST)


def planned_shards(survey: Survey, root: Root, p: Pass) -> list[Shard]:
    """The shards that a pass must have; where the index is lost, those that the log or a key names."""
    if survey.found.index is not None:
        return list(survey.found.index.plan.shards_of(p))
    r = p.rows_per_shard
    named = {*survey.commits[p.id], *committed_shards(survey.objects, p.id)}
    return [Shard(k, k * r, (k + 1) * r) for k in sorted(named) if k < root.rows // r and not p.is_dropped(k)]


def compose_manifest(survey: Survey, root: Root) -> None:
    """A manifest of a store whose root and objects agree, where both copies are lost."""
    index = survey.found.index
    logs = [list(known.values()) for known in survey.commits.values()]
    agrees = index is not None and not survey.found.left and not survey.found.shards
    if agrees and index is not None and all(root.complete.values()):
        agrees = np.array_equal(row_status(index, logs), index.row_status)
    if not agrees:
        survey.give_up("manifest", "both copies are damaged, and what is left of the store does not agree with itself")
        return
    names = [layout.chunk_name(path, k) for path in INDEX_ARRAYS for k in chunks_of(length_of(root, path))]
    names += [log_name(name) for name, complete in root.complete.items() if complete]
    digests = {name: sha256(data) for name in names if (data := survey.read(name)) is not None}
    texts = {f"{path}/zarr.json": canonical(d) for path, d in documents(root).items()}
    manifest = {"documents": texts, "root_attributes": root.attributes(), "objects": digests}
    how = "composed anew from the root and the objects: the plan's digest and the commits' seals fit, nothing else vouches"
    for name in MANIFEST:
        survey.mend(name, encode_manifest(manifest), how)


def _manifest_holds(data: bytes) -> bool:
    """Whether a copy of the manifest is as it was written, byte for byte."""
    try:
        return encode_manifest(decode_manifest(data, "manifest")) == data
    except StoreError:
        return False


def _log_holds(data: bytes, name: str) -> bool:
    try:
        return bool(commit_codec.decode_log(data, name))
    except StoreError:
        return False


def _commit_name(p: Pass, shard: int) -> str:
    return layout.chunk_name(layout.commits_path(p.id), shard)


def _commit(data: bytes | None, name: str) -> Commit | None:
    """A commit that holds, or None."""
    try:
        return None if data is None else commit_codec.decode_commit(data, name)
    except StoreError:
        return None


def _salvaged(data: bytes, name: str) -> list[Commit]:
    """The commits in a damaged log that hold by their own seals."""
    text = data.decode(errors="replace")
    found = []
    for match in re.finditer(r'\{"batch_size":', text):
        try:
            document, _ = json.JSONDecoder().raw_decode(text, match.start())
            found.append(commit_codec.parse_commit(document, name))
        except (ValueError, RecursionError):
            continue
    return found
