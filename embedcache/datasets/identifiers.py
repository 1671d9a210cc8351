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
from embedcache.store.texts import factorise, locate, sort
from embedcache.types import DatasetInfo, Labels, Samples, StringArray, Texts, strings

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
        return hmac.digest(self.secret, _prefix(kind, dataset) + natural_id.encode(), "sha256").hex()[:32]

    def pseudonyms(self, kind: IdKind, dataset: str, natural_ids: StringArray) -> StringArray:
        """The pseudonym of each id."""
        # HMAC as RFC 2104 has it, with what is common to all ids hashed once: twice as fast as `hmac.digest`
        block = self.secret.ljust(hashlib.sha256().block_size, b"\0")
        common_inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + _prefix(kind, dataset))
        common_outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))
        found = []
        for natural_id in natural_ids.tolist():
            inner, outer = common_inner.copy(), common_outer.copy()
            inner.update(natural_id.encode())
            outer.update(inner.digest())
            found.append(outer.hexdigest()[:32])
        return strings(found)


def _prefix(kind: IdKind, dataset: str) -> bytes:
    # the length keeps two pairs of data set and id apart that would read alike when joined
    return f"{kind}\0{len(dataset)}\0{dataset}\0".encode()


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
            replace_file(path, encode(Key(secrets.token_bytes(_KEY_BYTES))), FILE_MODE)
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
        file.write(encode(key))
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
            replace_file(folder / f"ids-{old.id}.key", encode(old), FILE_MODE)
        replace_file(own, encode(key), FILE_MODE)
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
    natural_patients, patient = factorise(samples.patient_id)
    patients = key.pseudonyms("patient", info.name, natural_patients)[patient]
    order = sort(ids)
    renamed = replace(samples, id=ids, patient_id=patients).take(order)
    if (renamed.id[1:] == renamed.id[:-1]).any():
        i, j = first_pair(renamed.id) or (0, 0)
        raise InputError(f"{renamed.where(i)} and {renamed.where(j)} have the same id; make ids unique.")

    def of_labels(kind: IdKind, values: Texts, natural: StringArray, pseudonyms: StringArray) -> StringArray:
        """Labels speak of these samples and patients, whose pseudonyms are there; "" stays."""
        place = locate(values, natural)
        found: StringArray = np.concatenate([pseudonyms, strings([""])])[place]
        others = np.flatnonzero((place < 0) & (values != ""))
        found[others] = key.pseudonyms(kind, info.name, np.asarray(values[others]))
        return found

    mapped = replace(
        labels,
        sample=of_labels("sample", labels.sample, samples.id, ids),
        patient=of_labels("patient", labels.patient, samples.patient_id, patients),
    )
    return renamed, mapped, samples.id[order]


def encode(key: Key) -> bytes:
    """What a key file holds: a header, the secret in hex, and a checksum of it."""
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
