"""What a commit says, as canonical JSON that ends with its own SHA-256 (FORMAT.md, section 5)."""

import json
from dataclasses import asdict
from typing import Any

from embedcache.errors import StoreError
from embedcache.store.encoding import decode_strings, encode_strings
from embedcache.store.fingerprint import canonical, sha256
from embedcache.types import Commit, Quarantined

CIRCUMSTANCES = ("host", "started", "finished", "sha256")
"""The keys in which the commits of two equal stores may differ."""


def seal(document: dict[str, Any]) -> dict[str, Any]:
    """`document` with the key `sha256` over all others."""
    return {**document, "sha256": sha256(canonical(document))}


def unseal(document: Any, name: str) -> dict[str, Any]:
    """The document without its `sha256`. Raises StoreError, naming the object, if it does not hold."""
    if not isinstance(document, dict) or "sha256" not in document:
        raise StoreError(f"object {name} carries no checksum of its own; run `embedcache verify`.")
    rest = {key: value for key, value in document.items() if key != "sha256"}
    try:
        holds = sha256(canonical(rest)) == document["sha256"]
    except (ValueError, RecursionError):  # NaN, half of a surrogate pair, endless nesting: nothing that we wrote
        holds = False
    if not holds:
        raise StoreError(f"object {name} fails its own checksum; run `embedcache verify`.")
    return rest


def commit_document(commit: Commit) -> dict[str, Any]:
    """A commit as sealed, plain JSON values."""
    document = {**asdict(commit), "rows": list(commit.rows), "quarantined": [asdict(q) for q in commit.quarantined]}
    return seal({**document, "versions": dict(commit.versions), "objects": dict(commit.objects)})


def parse_commit(document: Any, name: str) -> Commit:
    """A commit from plain JSON values; its checksum is checked."""
    d = unseal(document, name)
    try:
        d["rows"] = tuple(d["rows"])
        d["quarantined"] = tuple(Quarantined(**q) for q in d["quarantined"])
        commit = Commit(**d)
        holds = _is_sound(commit)
    except (KeyError, TypeError, ValueError, AttributeError):
        holds = False
    if not holds:
        raise StoreError(f"object {name} is no commit that FORMAT.md allows; run `embedcache verify`.")
    return commit


def _is_sound(c: Commit) -> bool:
    """Whether all values are of their types and the rows are the shard's own; by hand, for there may be 10^5 commits."""
    texts = (c.device, c.host, c.started, c.finished, *c.versions.values(), *(q.stage for q in c.quarantined))
    start, stop = c.rows
    numbers = (c.shard, start, stop, c.batch_size, *(q.row for q in c.quarantined))
    return (
        all(type(number) is int for number in numbers)
        and all(type(text) is str for text in (*texts, *c.objects.values(), *(q.reason for q in c.quarantined)))
        and 0 <= start < stop
        and start == c.shard * (stop - start)
        and all(start <= q.row < stop for q in c.quarantined)
    )


def encode_commit(commit: Commit) -> bytes:
    """The element of `commits_<pass>` as a Zarr chunk."""
    return encode_strings([canonical(commit_document(commit))])


def decode_commit(data: bytes, name: str) -> Commit:
    """A commit from its Zarr chunk."""
    return parse_commit(sealed_json(data, name), name)


def encode_log(commits: list[Commit]) -> bytes:
    """The one element of `commit_log_<pass>`: all commits of the pass in shard order."""
    return encode_strings([canonical([commit_document(c) for c in sorted(commits, key=lambda c: c.shard)])])


def decode_log(data: bytes, name: str) -> list[Commit]:
    """All commits of a finalised pass."""
    commits = sealed_json(data, name)
    if not isinstance(commits, list):
        raise StoreError(f"object {name} is no list of commits; run `embedcache verify`.")
    return [parse_commit(d, name) for d in commits]


def sealed_json(data: bytes, name: str) -> Any:
    """The JSON value in the one string of a chunk. Raises StoreError, naming the object."""
    texts = decode_strings(data, name)
    if len(texts) != 1:
        raise StoreError(f"object {name} holds {len(texts)} strings instead of one; run `embedcache verify`.")
    return load_json(texts[0], name)


def load_json(text: str, name: str) -> Any:
    """JSON text of an object. Raises StoreError, naming it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"object {name} is no JSON; run `embedcache verify`.") from error
