"""Pseudonyms: what stands in a store for the ids and patients of a user's own data, under a key that never leaves them."""

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from embedcache.datasets.base import first_pair
from embedcache.datasets.private import FILE_MODE, data_dir, private_folder
from embedcache.errors import InputError
from embedcache.store.files import locked, replace_file
from embedcache.store.texts import factorise
from embedcache.types import DatasetInfo, Labels, Samples, StringArray, strings

KEY_FILE = "ids.key"
_LOCK = "ids.lock"
_HEADER = "embedcache id key 1"
_KEY_BYTES = 32

IdKind = Literal["sample", "patient"]


@dataclass(frozen=True)
class Key:
    """The secret under which ids become pseudonyms."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """16 hex digits that name the key and tell nothing of it: they are written into stores."""
        return hashlib.sha256(b"embedcache id key\0" + self.secret).hexdigest()[:16]

    def pseudonym(self, kind: IdKind, dataset: str, natural_id: str) -> str:
        """32 hex digits of HMAC-SHA256 for one id."""
        # the length keeps two pairs of data set and id apart that would read alike when joined
        message = f"{kind}\0{len(dataset)}\0{dataset}\0{natural_id}".encode()
        return hmac.digest(self.secret, message, "sha256").hex()[:32]

    def pseudonyms(self, kind: IdKind, dataset: str, natural_ids: StringArray) -> StringArray:
        """The pseudonym of each id; equal ids are computed once."""
        words, codes = factorise(natural_ids)
        return strings([self.pseudonym(kind, dataset, word) for word in words.tolist()])[codes]


def load_key(create: bool = True) -> Key:
    """The user's key; made at first need, unless `create` is off: then InputError if there is none.

    Two processes that need it first at the same time get the same key.
    """
    path = data_dir() / KEY_FILE
    if path.exists():
        return _read(path)
    if not create:
        raise InputError(
            "there is no key of pseudonyms on this machine yet; `embedcache ids key import FILE` brings one."
        )
    with locked(private_folder(data_dir()) / _LOCK, FILE_MODE):
        if not path.exists():
            replace_file(path, _encode(Key(secrets.token_bytes(_KEY_BYTES))), FILE_MODE)
        return _read(path)


def export_key(path: Path) -> Key:
    """Write the user's key to a new file of mode 0600, to carry it to another machine.

    Raises InputError if there is no key or the file exists.
    """
    key = load_key(create=False)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    except FileExistsError:
        raise InputError(f"{path.name} exists, and a key is never written over a file; give a new name.") from None
    except FileNotFoundError:
        raise InputError(f"there is no folder {path.parent.name} to write {path.name} into; make it first.") from None
    with os.fdopen(fd, "wb") as file:
        file.write(_encode(key))
        file.flush()
        os.fsync(file.fileno())
    return key


def import_key(path: Path, replace: bool = False) -> Key:
    """Make the key in an exported file the user's own, and return it. The same key again changes nothing.

    Raises InputError if the file is no key, or if there is another key and `replace` is off; else that one is kept
    beside the new one as `ids-<its id>.key`.
    """
    key = _read(path)
    folder = private_folder(data_dir())
    own = folder / KEY_FILE
    with locked(folder / _LOCK, FILE_MODE):
        if own.exists():
            old = _read(own)
            if old == key:
                return key
            if not replace:
                raise InputError(
                    f"this machine has another key of pseudonyms, {old.id}, and {path.name} holds {key.id}; stores made under "
                    f"the one are not continued under the other. --replace takes the new one and keeps the old aside."
                )
            replace_file(folder / f"ids-{old.id}.key", _encode(old), FILE_MODE)
        replace_file(own, _encode(key), FILE_MODE)
    return key


def assign_ids(
    info: DatasetInfo, samples: Samples, labels: Labels, keep: bool, key: Key | None
) -> tuple[Samples, Labels, StringArray]:
    """The samples and labels under the ids that a store may hold, and the natural id of each sample in its new place.

    A public dataset's ids stay, as all do with `keep`. Others become pseudonyms, and the samples are put into the order
    of their pseudonyms: the user's own order would link them again by rank.
    Raises InputError if pseudonyms are needed and no key is given, or if two ids get one pseudonym.
    """
    if info.public_ids or keep:
        return samples, labels, samples.id
    if key is None:
        raise InputError(f"dataset {info.name} needs a key for its pseudonyms; or keep its ids with --ids keep.")
    ids = key.pseudonyms("sample", info.name, samples.id)
    order = np.argsort(ids, kind="stable")
    renamed = replace(samples, id=ids, patient_id=key.pseudonyms("patient", info.name, samples.patient_id)).take(order)
    pair = first_pair(renamed.id)
    if pair:
        raise InputError(f"{renamed.where(pair[0])} and {renamed.where(pair[1])} have the same id; make ids unique.")
    sample = key.pseudonyms("sample", info.name, labels.sample)
    mapped = replace(
        labels,
        sample=np.where(labels.sample == "", "", sample),
        patient=key.pseudonyms("patient", info.name, labels.patient),
    )
    return renamed, mapped, samples.id[order]


def _encode(key: Key) -> bytes:
    text = key.secret.hex()
    return f"{_HEADER}\n{text}\n{_checksum(text)}\n".encode()


def _checksum(text: str) -> str:
    return hashlib.sha256(f"{_HEADER}\n{text}".encode()).hexdigest()[:16]


def _read(path: Path) -> Key:
    try:
        lines = path.read_text("ascii").splitlines()
    except FileNotFoundError:
        raise InputError(f"there is no key file {path.name}; `embedcache ids key export FILE` writes one.") from None
    except UnicodeDecodeError:
        lines = []
    if len(lines) != 3 or lines[0] != _HEADER:
        raise InputError(f"{path.name} is no key of pseudonyms; take the file that `embedcache ids key export` wrote.")
    if lines[2] != _checksum(lines[1]) or len(lines[1]) != 2 * _KEY_BYTES:
        raise InputError(f"{path.name} is damaged: its checksum does not fit; copy the exported key again.")
    return Key(bytes.fromhex(lines[1]))
