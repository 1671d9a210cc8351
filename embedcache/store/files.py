"""Whole-file writes for what lies beside the stores: the label table, the private index, the key of the pseudonyms."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedcache.store.objects import sync_folder


def replace_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Give `path` the content `data`, whole or not at all: a temporary file beside it, fsync, rename, fsync.

    `mode` is narrowed by the user's umask, as always.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


@contextmanager
def locked(path: Path, mode: int = 0o666) -> Iterator[None]:
    """Hold an exclusive advisory lock on the empty file `path` while the block runs; waits for another holder.

    The file stays: removing it would let two processes hold locks on two files of one name. The kernel drops the
    lock of a process that dies.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
