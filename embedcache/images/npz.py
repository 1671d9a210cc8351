"""`.npz`: one file of many images, as MedMNIST is distributed. A sample's path names one: `FILE.npz#train_images:12`.

`#KEY` alone is a whole array, and no fragment is the only array of the file. Members are deflated as a whole, so a process
keeps what it unpacked: an array of up to HELD_BYTES at once, of a larger one its place in the stream, which serves images in
ascending order without unpacking anything twice.
"""

import hashlib
import math
import os
import zipfile
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import ImageError
from embedcache.images.arrays import ArrayHeader, array_header
from embedcache.images.parsed import DEFLATE_RATIO, reading

HELD_BYTES = 2**30
"""The largest array that is kept unpacked. Only the last one is kept, so this bounds a process."""

_DAMAGED = "the .npz file is cut short or damaged."


@dataclass(eq=False)
class _Member:
    """One array of one file, open."""

    identity: tuple[str, int, int, str]
    """Path, bytes and time of the file, and the key."""
    header: ArrayHeader
    file: IO[bytes]
    whole: npt.NDArray[Any] | None = field(default=None, repr=False)


_last: list[_Member] = []
"""The member that was read last: one process reads one file after another."""


def read_npz(path: str, fragment: str) -> tuple[npt.NDArray[Any], str]:
    """The array that a fragment names, and the SHA-256 (hex) of its type, shape and bytes. Raises ImageError."""
    member, index = _member(path, fragment)
    header = member.header
    if index is None or member.whole is not None or header.stop - header.offset <= HELD_BYTES or header.fortran:
        values = _whole(member)
        values = values if index is None else values[index]
    else:
        shape = header.shape[1:]
        size = math.prod(shape) * header.dtype.itemsize
        with reading(_DAMAGED, "decode"):
            member.file.seek(header.offset + index * size)
            values = np.frombuffer(member.file.read(size), header.dtype).reshape(shape)
    values = np.ascontiguousarray(values)
    said = f"{values.dtype.str} {values.shape}".encode()
    return values, hashlib.sha256(said + values.tobytes()).hexdigest()


def npz_shape(path: str, fragment: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the array that a fragment names, from its header. Raises ImageError(stage="open")."""
    member, index = _member(path, fragment)
    return member.header.shape if index is None else member.header.shape[1:], member.header.dtype


def split_fragment(fragment: str) -> tuple[str, int | None]:
    """`train_images:12` → its key and index. Raises ImageError(stage="open") for an index that is no number."""
    key, colon, index = fragment.partition(":")
    if not colon:
        return key, None
    if not index.isdecimal():
        raise ImageError("what follows # in its path must be KEY or KEY:INDEX, INDEX from 0.", "open")
    return key, int(index)


def _member(path: str, fragment: str) -> tuple[_Member, int | None]:
    key, index = split_fragment(fragment)
    stat = os.stat(path)
    identity = (path, stat.st_size, stat.st_mtime_ns, key)
    if not _last or _last[0].identity != identity:
        _let_go()
        _last.append(_open(identity))
    member = _last[0]
    if index is not None and (not member.header.shape or index >= member.header.shape[0]):
        raise ImageError(f"it is number {index} of an array of shape {member.header.shape}.", "open")
    return member, index


def _let_go() -> None:
    while _last:
        _last.pop().file.close()


def _open(identity: tuple[str, int, int, str]) -> _Member:
    path, _, _, key = identity
    with reading(_DAMAGED, "open"), zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist()]
        name = f"{key}.npy" if key else names[0] if len(names) == 1 else ""
        if name not in names:
            # a reason is stored, and an array may be called after a patient: none is named
            asked = "no array of that name" if key else "several arrays, and the path names none with #KEY"
            raise ImageError(f"the .npz file has {asked}; arrays that are there: {len(names)}.", "open")
        info = archive.getinfo(name)
        file = archive.open(info)  # stays open when the archive is closed
        header = array_header(file)  # type: ignore[arg-type]
    if header.stop != info.file_size or info.file_size > DEFLATE_RATIO * (info.compress_size + 1):
        file.close()
        raise ImageError("the array's header says another size than the .npz file holds.", "open")
    return _Member(identity, header, file)


def _whole(member: _Member) -> npt.NDArray[Any]:
    """All values, unpacked once; kept where they are small enough."""
    if member.whole is not None:
        return member.whole
    header = member.header
    with reading(_DAMAGED, "decode"):
        member.file.seek(header.offset)
        data = member.file.read()  # to the end, where the checksum is verified
        values = np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if header.fortran else "C")
    if values.nbytes <= HELD_BYTES:
        member.whole = values
    return values
