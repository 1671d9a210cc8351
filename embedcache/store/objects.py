"""The one narrow door to storage: every object of a store is put, read, listed and synced here.

Local files now; an object store later behind the same five functions. A put is whole or absent: bytes go to a
temporary file outside the store (zarr warns about foreign files inside a group), are fsynced, and get
their final name by rename.
"""

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedcache.errors import StoreError
from embedcache.store.processes import own_token, token_is_dead


@dataclass(frozen=True)
class Objects:
    """The objects below `root`; names are `/`-separated paths relative to it."""

    root: Path
    scratch: Path
    """Same file system as `root`; temporary files of killed writers are left here, never in the store."""
    fence: Callable[[], None] = field(default=lambda: None, compare=False)
    """Called before anything is replaced or removed; a lock's holder raises here if the lock is no longer its own."""
    own_folders: set[str] = field(default_factory=set, compare=False, repr=False)
    """Folders of arrays below `root` that were seen to be no links."""

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Write an object whole, replacing what has its name. Its directory is not yet synced: see `sync`."""
        temporary = self._temporary(data)
        target = self._prepare(name)
        try:
            self.fence()  # after the slow part: writing may have taken longer than the lock lives
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

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
        with open(self._open(name), "rb", buffering=0) as file:
            return file.readall()

    def stream(self, name: str) -> Iterator[bytes]:
        """The bytes of an object in pieces of 8 MiB: a shard may be 256 MiB."""
        with open(self._open(name), "rb", buffering=0) as file:
            while piece := file.read(8 * 2**20):
                yield piece

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator["OpenObject"]:
        """An object, open for reading parts of it into memory that is there. Raises FileNotFoundError if there is none."""
        descriptor = self._open(name)
        try:
            yield OpenObject(name, self.root, descriptor)
        finally:
            os.close(descriptor)

    def size(self, name: str) -> int:
        """Bytes of an object. Raises FileNotFoundError if there is none."""
        return self._path(name).stat().st_size

    def exists(self, name: str) -> bool:
        """Whether there is an object of that name."""
        return self._path(name).is_file()

    def walk(self, prefix: str = "") -> Iterator[str]:
        """Names of the objects directly and indirectly below `prefix`, in no order."""
        base = self._path(prefix) if prefix else self.root
        for folder, folders, files in os.walk(base):
            # a link to a folder is not followed, and listed like a file: it is no part of the store either
            for file in [*files, *(name for name in folders if os.path.islink(os.path.join(folder, name)))]:
                yield (Path(folder) / file).relative_to(self.root).as_posix()

    def list_names(self, prefix: str) -> list[str]:
        """Base names directly below `prefix`; [] if there is no such prefix."""
        self._refuse_links(f"{prefix}/")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return os.listdir(self._path(prefix))
        return []

    def delete(self, name: str) -> None:
        """Remove an object; a missing one is no error."""
        self.fence()
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
        """Remove what killed processes of this host left. What other hosts left is for `gc`, when nobody writes."""
        with contextlib.suppress(FileNotFoundError):
            for token in os.listdir(self.scratch):
                if token_is_dead(token):
                    shutil.rmtree(self.scratch / token, ignore_errors=True)

    def _path(self, name: str) -> Path:
        if name.startswith("/") or "\0" in name or ".." in name.split("/"):
            raise StoreError(f"object name {name!r} points outside store {self.root.name}.")
        return self.root / name

    def _open(self, name: str) -> int:
        """A descriptor of an object, which must be a plain file: a store that one received must not lead to other files.

        `root` itself, and what is above it, may well be a link.
        """
        path = self._path(name)
        self._refuse_links(name)
        try:
            # a pipe in an object's place must not stop us for ever
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._foreign(name, "a symbolic link") from None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self._foreign(name, "no plain file")
        return descriptor

    def check_place(self, name: str) -> None:
        """Raise StoreError if an object of this name could not be put: something that is no part of a store is in its way."""
        self._refuse_links(name)
        path = self._path(name)
        if path.is_dir() and not path.is_symlink():
            raise self._foreign(name, "a folder")
        for folder in path.parents:
            if folder.exists() and not folder.is_dir():
                raise self._foreign(folder.relative_to(self.root).as_posix(), "a file, not a folder")
            if folder == self.root:
                break

    def _refuse_links(self, name: str) -> None:
        """Raise StoreError if a folder between `root` and the object is a link."""
        parts = name.split("/")[:-1]
        for i, part in enumerate(parts, 1):
            above = "/".join(parts[:i])
            if above in self.own_folders:
                continue
            if os.path.islink(f"{self.root}/{above}"):
                raise self._foreign(above, "a symbolic link")
            if not part.isdigit():  # there are a few arrays, and perhaps a million shards
                self.own_folders.add(above)

    def _foreign(self, name: str, what: str) -> StoreError:
        return StoreError(
            f"{name} of store {self.root.name} is {what}, and a store is made of plain files; "
            "remove it, or link to the whole store instead."
        )

    def _prepare(self, name: str) -> Path:
        target = self._path(name)
        self._refuse_links(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _temporary(self, data: bytes | bytearray | memoryview) -> Path:
        folder = self.scratch / own_token()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / secrets.token_hex(8)
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


@dataclass(frozen=True)
class OpenObject:
    """An object while it is open: see `Objects.reading`."""

    name: str
    root: Path
    descriptor: int

    @property
    def what(self) -> str:
        """How messages name it."""
        return f"object {self.name} of store {self.root.name}"

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return os.fstat(self.descriptor).st_size

    def read_into(self, buffers: Sequence[memoryview], length: int, start: int) -> None:
        """Fill the buffers, `length` bytes in all, one after another from byte `start` on.

        Raises StoreError if the object ends before.
        """
        got = os.preadv(self.descriptor, buffers, start)
        if got == length:
            return
        # a signal, a network file system, or more than the 2 GiB of one read
        rest = [buffer.cast("B") for buffer in buffers]
        while got:
            start += got
            while rest and got >= len(rest[0]):
                got -= len(rest.pop(0))
            if not rest:
                return
            rest[0] = rest[0][got:]
            got = os.preadv(self.descriptor, rest, start)
        raise StoreError(f"{self.what} is shorter than its index says; run `embedcache verify`.")


def sync_folder(folder: Path) -> None:
    """fsync a directory, so that the names in it survive a power loss."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
