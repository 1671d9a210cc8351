"""Where the bytes of a sample lie: a file, one of the images in a file (`FILE#KEY:INDEX`), a folder with one DICOM series, or
one of the series in a folder (`FOLDER#series:UID`).
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, NamedTuple

from embedcache.errors import ImageError
from embedcache.images.kinds import HEAD_BYTES, Form, may_be_dicom, sniff

_CONTAINERS = (".npz", ".mat")
"""Files that hold several images, of which a path may name one after a `#`."""
SERIES = "#series:"
"""In the path of a series that shares its folder with other files."""
_HEADERS = (".mhd", ".nhdr")
"""Headers whose values lie in another file."""
_HEADER_BYTES = 2**16
_DETACHED = re.compile(rb"^\s*(?:data ?file\s*:|ElementDataFile\s*=)\s*(.*?)\s*$", re.MULTILINE | re.IGNORECASE)


class SourceState(NamedTuple):
    """What the private index keeps of a source to suspect a change cheaply; it never enters a store."""

    size: int
    """Bytes of all its files."""
    mtime_ns: int
    """Of its newest file."""


def stat_source(path: str) -> SourceState:
    """Size and time of a file, or of the files of a folder that holds one series. No image is opened.

    Raises ImageError(stage="open") if there is no such file, or no file in the folder that could be an image.
    """
    if "#" not in path and not path.lower().endswith(_HEADERS):
        found = stat_file(path)
        if S_ISREG(found.st_mode):  # nearly every source, asked for once each of 10^6 times: one system call
            return SourceState(found.st_size, found.st_mtime_ns)
    return state_of([stat_file(f) for f in source_files(path)])


def split_path(path: str) -> tuple[str, str]:
    """A sample's path as (file, fragment): `chestmnist.npz#train_images:12`. The fragment is "" where there is none."""
    file, mark, fragment = path.rpartition("#")
    if mark and Path(file).suffix.lower() in _CONTAINERS:
        return file, fragment
    return path, ""


def split_series(path: str) -> tuple[str, str] | None:
    """Folder and SeriesInstanceUID of a path that names one of the series at any depth below a folder; None for other paths."""
    folder, mark, uid = path.rpartition(SERIES)
    return (folder, uid) if mark else None


def place_of(path: str) -> str:
    """The file or folder that a sample's path lies in, without what the path names in it."""
    series = split_series(path)
    return series[0] if series else split_path(path)[0]


def is_series(path: str) -> bool:
    """Whether a path names a DICOM series rather than a file."""
    return os.path.isdir(path) or split_series(path) is not None


def source_files(path: str) -> list[str]:
    """All files of a sample; of a folder those that could belong to a series by their names, sorted."""
    if split_series(path):
        return series_files(path)
    file, _ = split_path(path)
    if S_ISREG(stat_file(file).st_mode):
        return [file, *detached_files(file)]
    return _files(file)


def open_file(path: str) -> Any:
    """The file, to read bytes from. Raises ImageError(stage="open") for what is none, too: a named pipe would be waited for."""
    try:
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 the caller closes it
    except OSError as error:
        raise _unreadable(error) from error
    if not S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ImageError("this is neither a file nor a folder.", "open")
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def stat_file(path: str) -> os.stat_result:
    """Raises ImageError(stage="open")."""
    try:
        return os.stat(path)
    except OSError as error:
        raise _unreadable(error) from error


def state_of(stats: Sequence[os.stat_result]) -> SourceState:
    """Of a source with these files."""
    return SourceState(sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats))


def form_of(path: str) -> Form:
    """What kind of file this is, by its first bytes. Raises ImageError(stage="open")."""
    with open_file(path) as file:
        return sniff(file.read(HEAD_BYTES), Path(path).suffix)


def _unreadable(error: OSError) -> ImageError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ImageError("there is no such file.", "open")
    # strerror alone: str(error) would carry the path
    return ImageError(f"the file can not be opened ({os.strerror(error.errno or 0)}).", "open")


def _files(path: str) -> list[str]:
    """The files of a folder that could belong to a series by their names, sorted."""
    if not S_ISDIR(stat_file(path).st_mode):
        raise ImageError("this is neither a file nor a folder.", "open")
    try:
        with os.scandir(path) as entries:
            names = sorted(e.name for e in entries if e.is_file() and _may_belong(e.name))
    except OSError as error:
        raise _unreadable(error) from error
    if not names:
        raise ImageError("the folder holds no DICOM file; a folder as a sample is one DICOM series.", "open")
    return [os.path.join(path, name) for name in names]


def detached_files(path: str) -> list[str]:
    """The file in which the values of a MetaImage or NRRD header lie, where that is not the header's own.

    Raises ImageError(stage="open") for more than one file, or one in another folder: a header must not lead elsewhere.
    """
    if Path(path).suffix.lower() not in _HEADERS:
        return []
    with open_file(path) as file:
        found = _DETACHED.search(file.read(_HEADER_BYTES))
    if found is None or found[1].upper() == b"LOCAL":
        return []
    name = os.fsdecode(found[1])
    if name != Path(name).name or name.upper().startswith("LIST") or re.search(r"[%\s]", name):
        raise ImageError("its header names several data files, or one in another folder; save it as one file.", "open")
    return [str(Path(path).with_name(name))]


def _may_belong(name: str) -> bool:
    return not name.startswith(".") and name != "DICOMDIR" and may_be_dicom(Path(name).suffix)


def series_files(folder: str) -> list[str]:
    """The DICOM files of `folder`. A file without a suffix that is something else (LICENSE) is no part of it."""
    if named := split_series(folder):
        from embedcache.images.tree import files_of_series  # pydicom takes 0.4 s

        return files_of_series(*named)
    files = []
    for path in _files(folder):
        try:
            form = form_of(path)
        except ImageError:
            if Path(path).suffix:
                raise
            continue
        if form == "dicom":
            files.append(path)
    if not files:
        raise ImageError("the folder holds no DICOM file; a folder as a sample is one DICOM series.", "open")
    return files
