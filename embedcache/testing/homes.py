"""A user's private home with a key of pseudonyms that is the same in every run."""

import hashlib
from pathlib import Path

from embedcache.datasets.identifiers import KEY_FILE, Key, encode
from embedcache.datasets.private import FILE_MODE, private_folder


def make_home(folder: Path, name: str) -> Path:
    """Make `folder` a home whose key is drawn from `name`, and return it. For tests alone: such a key is no secret.

    A fresh key would give fresh pseudonyms, and so other crops, splits and resamples in every run of a test.
    """
    path = private_folder(folder) / KEY_FILE
    path.write_bytes(encode(Key(hashlib.sha256(name.encode()).digest())))
    path.chmod(FILE_MODE)
    return folder
