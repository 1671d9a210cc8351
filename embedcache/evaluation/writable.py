"""Whether something can be written where the user wants it: asked before the work, not after it."""

import tempfile
from pathlib import Path

from embedcache.errors import InputError


def check_folder(folder: Path, remedy: str = "name another folder with --results.") -> None:
    """Hold that results can be written into `folder`, which need not be there yet. Nothing is left behind.

    Raises InputError that names the folder and says `remedy`.
    """
    if why := _refusal(_nearest(folder)):
        raise InputError(f"results can not be written into {folder}: {why}; {remedy}")


def check_file(path: Path, what: str, makes_folders: bool = False) -> None:
    """Hold that `what` can be written as the file `path`: its folder takes files. Raises InputError.

    makes_folders: whether who writes it makes the folders that are not there.
    """
    if not path.name or path.is_dir():
        raise InputError(f"{what} can not be written as {str(path)!r}: that is a folder; name a file.")
    folder = _nearest(path.parent) if makes_folders else path.parent
    if not folder.exists():
        raise InputError(f"{what} can not be written as {path}: there is no folder {folder}; make it first.")
    if why := _refusal(folder):
        raise InputError(f"{what} can not be written as {path}: {why}; name another place.")


def _nearest(folder: Path) -> Path:
    """The folder itself, or the first above it that is there."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    return there


def _refusal(folder: Path) -> str:
    """Why no file can be made in a folder; "" where one can: permissions do not tell of a read-only disk, a try does."""
    if not folder.is_dir():
        return f"{folder} is a file"
    try:
        tempfile.TemporaryFile(dir=folder).close()  # it never has a name
    except OSError as error:
        return f"{folder} takes no files ({(error.strerror or type(error).__name__).lower()})"
    return ""
