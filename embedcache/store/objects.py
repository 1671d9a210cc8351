"""The one narrow door to storage: every object of a store is put, read, listed and synced here.

Local files now; an object store later behind the same five functions. A put is whole or absent: bytes go to a
temporary file outside the store (zarr warns about foreign files inside a group), are fsynced, and get
their final name by rename.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from embedcache.errors import StoreError


@dataclass(frozen=True)
class Objects:
    """The objects below `root`; names are `/`-separated paths relative to it."""

    root: Path
    scratch: Path
    """Same file system as `root`; temporary files of killed writers are left here, never in the store."""

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Write an object whole, replacing what has its name. Its directory is not yet synced: see `sync`."""
        temporary = self._temporary(data)
        target = self._prepare(name)
        os.replace(temporary, target)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write an object whole unless its name is taken. Returns whether it was written. Atomic between processes."""
        temporary = self._temporary(data)
        target = self._prepare(name)
        try:
            # a hard link fails where the name exists, and is atomic on local and on network file systems
            os.link(temporary, target)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def get(self, name: str) -> bytes:
        """The bytes of an object. Raises FileNotFoundError if there is none."""
        return self._path(name).read_bytes()

    def stream(self, name: str) -> Iterator[bytes]:
        """The bytes of an object in pieces of 8 MiB: a shard may be 256 MiB."""
        with open(self._path(name), "rb", buffering=0) as file:
            while piece := file.read(8 * 2**20):
                yield piece

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`. Raises StoreError if the object is shorter."""
        with open(self._path(name), "rb", buffering=0) as file:
            data = os.pread(file.fileno(), length, start)
        if len(data) != length:
            raise StoreError(
                f"object {name} of store {self.root.name} is shorter than its index says; run `embedcache verify`."
            )
        return data

    def size(self, name: str) -> int:
        """Bytes of an object. Raises FileNotFoundError if there is none."""
        return self._path(name).stat().st_size

    def exists(self, name: str) -> bool:
        """Whether there is an object of that name."""
        return self._path(name).is_file()

    def walk(self, prefix: str = "") -> Iterator[str]:
        """Names of the objects directly and indirectly below `prefix`, in no order."""
        base = self._path(prefix) if prefix else self.root
        for folder, _, files in os.walk(base):
            for file in files:
                yield (Path(folder) / file).relative_to(self.root).as_posix()

    def list_names(self, prefix: str) -> list[str]:
        """Base names directly below `prefix`; [] if there is no such prefix."""
        with contextlib.suppress(FileNotFoundError):
            return os.listdir(self._path(prefix))
        return []

    def delete(self, name: str) -> None:
        """Remove an object; a missing one is no error."""
        self._path(name).unlink(missing_ok=True)

    def sync(self, names: Iterable[str]) -> None:
        """Make the names of these objects durable: fsync their directories up to the root's parent."""
        folders: set[Path] = set()
        for name in names:
            folder = self._path(name).parent
            while folder != self.root.parent and folder not in folders:
                folders.add(folder)
                folder = folder.parent
        for folder in sorted(folders, reverse=True):
            sync_folder(folder)

    def clear_scratch(self) -> None:
        """Remove what killed writers left. Only under the store's exclusive lock."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _path(self, name: str) -> Path:
        if name.startswith("/") or ".." in name.split("/"):
            raise StoreError(f"object name {name!r} points outside store {self.root.name}.")
        return self.root / name

    def _prepare(self, name: str) -> Path:
        target = self._path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _temporary(self, data: bytes | bytearray | memoryview) -> Path:
        self.scratch.mkdir(parents=True, exist_ok=True)
        path = self.scratch / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            with open(path, "xb", buffering=0) as file:
                view = memoryview(data).cast("B")
                written = 0
                while written < len(view):  # a raw write may be short, on a full disk for one
                    written += file.write(view[written:])
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path


def sync_folder(folder: Path) -> None:
    """fsync a directory, so that the names in it survive a power loss."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
