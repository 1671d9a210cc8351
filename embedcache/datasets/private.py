"""The user's own data directory: the key of the pseudonyms and the private indexes lie here, never beside a cache."""

import os
from pathlib import Path

import platformdirs

ENVIRONMENT = "EMBEDCACHE_HOME"
FOLDER_MODE = 0o700
FILE_MODE = 0o600


def data_dir() -> Path:
    """`$EMBEDCACHE_HOME`, or the platform's place for a user's data. It need not exist."""
    given = os.environ.get(ENVIRONMENT)
    return Path(given).absolute() if given else Path(platformdirs.user_data_dir("embedcache"))


def private_folder(path: Path) -> Path:
    """Make `path` a folder that only the user can enter, and return it."""
    path.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    if path.stat().st_mode & 0o077:
        path.chmod(FOLDER_MODE)
    return path
