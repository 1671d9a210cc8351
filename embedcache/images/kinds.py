"""Which form of file this is, by its content; a suffix decides only for DICOM files without their preamble, and
for `.npz`, which is any zip file.
"""

import re
import string
from typing import Literal

from embedcache.errors import ImageError

Form = Literal["raster", "dicom", "nifti", "nrrd", "metaimage", "npy", "npz", "mat5", "mat73"]
"""The form of a file, which decides who reads it."""

HEAD_BYTES = 1024
"""As many first bytes as `sniff` wants to see."""

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""In either byte order; the last two are BigTIFF's."""
_RASTER_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", *TIFF_MAGIC, b"BM")
_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = b"PK\x03\x04"
_NIFTI1_MAGIC = (b"n+1\0", b"ni1\0")
_NIFTI2_MAGIC = (b"n+2\0", b"ni2\0")
_MAGIC: dict[bytes, Form] = {
    b"NRRD00": "nrrd",
    b"\x93NUMPY": "npy",
    b"MATLAB 5.0 MAT-file": "mat5",
    b"MATLAB 7.3 MAT-file": "mat73",
    b"\x89HDF\r\n\x1a\n": "mat73",
}
_METAIMAGE = re.compile(
    rb"(ObjectType\s*=\s*Image|NDims\s*=\s*\d+|Comment\s*=.*\n\s*(ObjectType|NDims)\s*=)\s", re.IGNORECASE
)
_HEADER_SIZES = {n.to_bytes(4, order) for n in (348, 540) for order in ("little", "big")}
# A DICOM data set without the 128-byte preamble starts with an element of group 0002 or 0008, in either byte order.
_FIRST_GROUPS = (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08")
_TEXT = frozenset(string.printable.encode())


def sniff(head: bytes, suffix: str) -> Form:
    """The form of a file that begins with `head`. Raises ImageError(stage="open") if it is none that is read here."""
    if not head:
        raise ImageError("the file is empty (0 bytes).", "open")
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(_RASTER_MAGIC):
        return "raster"
    if head.startswith(_GZIP_MAGIC):
        return "nifti"
    for magic, form in _MAGIC.items():
        if head.startswith(magic):
            return form
    if head.startswith(_ZIP_MAGIC) and suffix.lower() == ".npz":  # many a file is a zip file
        return "npz"
    if _METAIMAGE.match(head):
        return "metaimage"
    if head[344:348] in _NIFTI1_MAGIC or head[4:8] in _NIFTI2_MAGIC or head[:4] in _HEADER_SIZES:
        return "nifti"
    if head.startswith(_FIRST_GROUPS) and may_be_dicom(suffix):
        return "dicom"
    if is_text(head):
        raise ImageError("the file is not an image: its first bytes are text.", "open")
    raise ImageError(
        f"the file is not an image that is read here: its first bytes are {head[:4].hex(' ')}, which begin no PNG, "
        "JPEG, TIFF, BMP, DICOM, NIfTI, NRRD, MetaImage, NumPy or MATLAB file.",
        "open",
    )


def may_be_dicom(suffix: str) -> bool:
    """Whether DICOM files are named so: `.dcm`, `.dicom`, `.ima`, no suffix, or the last number of a UID."""
    return suffix.lower() in ("", ".dcm", ".dicom", ".ima") or re.fullmatch(r"\.\d+", suffix) is not None


def is_text(head: bytes) -> bool:
    """Whether `head` reads as text: UTF-8 (a character may be cut at the end) without control characters."""
    try:
        decoded = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        decoded = head[: error.start].decode("utf-8")
    return bool(decoded) and all(ord(c) > 127 or ord(c) in _TEXT for c in decoded)
