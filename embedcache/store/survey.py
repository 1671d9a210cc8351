"""What is known of a damaged store while it is looked at: its objects as they are, and as they were found to have been."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from embedcache.errors import StoreError
from embedcache.store import layout
from embedcache.store.fingerprint import sha256
from embedcache.store.index import StoredIndex, Vouchers, encode_manifest
from embedcache.store.objects import Objects
from embedcache.store.rebuild import KnownIds
from embedcache.store.root import Root
from embedcache.types import Commit, Pass

MANIFEST = tuple(layout.chunk_name("manifest", copy) for copy in range(2))


@dataclass(frozen=True)
class Mended:
    """One object that is as it was again."""

    object: str
    how: str
    """From what, and how it is known to be right."""


@dataclass(frozen=True)
class Left:
    """Something that stays damaged."""

    object: str
    reason: str
    """What is wrong with it, and what it would need."""


@dataclass
class Findings:
    """What is damaged in a store, and what can be put in its place. Nothing is written yet."""

    root: Root | None = None
    """As it was, wherever it is known from; None where nothing tells."""
    new: dict[str, bytes] = field(default_factory=dict)
    """Object → its bytes as they were."""
    gone: list[str] = field(default_factory=list)
    """Damaged commits of passes that are not complete: without them the shards are pending."""
    mended: list[Mended] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    shards: dict[str, dict[int, str]] = field(default_factory=dict)
    """Pass → shard → why its tokens must be computed again."""
    index: StoredIndex | None = None
    """As it was."""
    commits: dict[str, dict[int, Commit]] = field(default_factory=dict)
    """Pass → shard → its commit, of those that hold, here or in a log."""


class Survey:
    """A store that is examined step by step; each step may use what the ones before it have put right."""

    def __init__(self, objects: Objects, ids: KnownIds, progress: Callable[[int], None] = lambda _: None) -> None:
        self.objects = objects
        self.ids = ids
        """That the store may hold."""
        self.progress = progress
        self.found = Findings()
        self.sealed: dict[str, Any] | None = None
        """The manifest, None while or where it is lost."""
        self.vouched: Vouchers = {}

    @property
    def commits(self) -> dict[str, dict[int, Commit]]:
        """Pass → shard → its commit."""
        return self.found.commits

    def read(self, name: str) -> bytes | None:
        """An object as it is, or as it will be; None if there is none, or something else than a file."""
        if name in self.found.new:
            return self.found.new[name]
        try:
            return self.objects.get(name)
        except (OSError, StoreError):
            return None

    def digest(self, name: str) -> str:
        """SHA-256 of an object, "" if it can not be read."""
        running = hashlib.sha256()
        try:
            for piece in self.objects.stream(name):
                running.update(piece)
                self.progress(len(piece))
        except (OSError, StoreError):
            return ""
        return running.hexdigest()

    def holds(self, name: str, data: bytes) -> bool:
        """Whether an object is one that the manifest names; where that is lost, it is taken as it is."""
        return self.sealed is None or sha256(data) in self.vouched.get(name, ())

    def mend(self, name: str, data: bytes, how: str) -> bool:
        """Note that an object will be put back; False, and noted as left, where something foreign is in its place."""
        try:
            self.objects.check_place(name)
        except StoreError as error:
            self.give_up(name, str(error))
            return False
        self.found.new[name] = data
        self.found.mended.append(Mended(name, how))
        return True

    def restate(self, changed: Mapping[str, bytes], how: str) -> None:
        """Note objects that nothing vouches for, and the manifest that will."""
        assert self.sealed is not None
        digests = {name: sha256(data) for name, data in changed.items()}
        self.sealed = {**self.sealed, "objects": {**self.sealed["objects"], **digests}}
        self.vouched = {**self.vouched, **{name: {digest} for name, digest in digests.items()}}
        for name, data in changed.items():
            self.mend(name, data, how)
        for name in MANIFEST:
            self.found.new[name] = encode_manifest(self.sealed)

    def give_up(self, name: str, reason: str) -> None:
        """Note that something stays damaged, for the first reason that is given."""
        if name not in {left.object for left in self.found.left}:
            self.found.left.append(Left(name, reason))

    def remake(self, p: Pass, shard: int, reason: str) -> None:
        """Note that a shard's tokens are lost."""
        self.found.shards.setdefault(p.id, {}).setdefault(shard, reason)
