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
    if sha256(canonical(rest)) != document["sha256"]:
        raise StoreError(f"object {name} fails its own checksum; run `embedcache verify`.")
    return rest


def commit_document(commit: Commit) -> dict[str, Any]:
    """A commit as sealed, plain JSON values."""
    document = {**asdict(commit), "rows": list(commit.rows), "quarantined": [asdict(q) for q in commit.quarantined]}
    return seal({**document, "versions": dict(commit.versions), "objects": dict(commit.objects)})


def parse_commit(document: Any, name: str) -> Commit:
    """A commit from plain JSON values; its checksum is checked."""
    d = unseal(document, name)
    d["rows"] = tuple(d["rows"])
    d["quarantined"] = tuple(Quarantined(**q) for q in d["quarantined"])
    return Commit(**d)


def encode_commit(commit: Commit) -> bytes:
    """The element of `commits_<pass>` as a Zarr chunk."""
    return encode_strings([canonical(commit_document(commit))])


def decode_commit(data: bytes, name: str) -> Commit:
    """A commit from its Zarr chunk."""
    return parse_commit(load_json(decode_strings(data, name)[0], name), name)


def encode_log(commits: list[Commit]) -> bytes:
    """The one element of `commit_log_<pass>`: all commits of the pass in shard order."""
    return encode_strings([canonical([commit_document(c) for c in sorted(commits, key=lambda c: c.shard)])])


def decode_log(data: bytes, name: str) -> list[Commit]:
    """All commits of a finalised pass."""
    return [parse_commit(d, name) for d in load_json(decode_strings(data, name)[0], name)]


def load_json(text: str, name: str) -> Any:
    """JSON text of an object. Raises StoreError, naming it."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise StoreError(f"object {name} is no JSON; run `embedcache verify`.") from error


def same_content(a: Commit, b: Commit) -> bool:
    """Whether two commits differ in nothing but their circumstances."""
    x, y = commit_document(a), commit_document(b)
    return all(x[key] == y[key] for key in x if key not in CIRCUMSTANCES)
