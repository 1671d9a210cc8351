"""The pages of a TIFF: a file of several is a volume, a page a slice.

Thumbnails and transparency masks that a writer put beside the pages (TIFF 6.0, NewSubfileType) are none of them.
"""

from typing import BinaryIO

from PIL import Image

from embedcache.errors import ImageError
from embedcache.images.parsed import reading

_NEW_SUBFILE_TYPE, _PHOTOMETRIC_INTERPRETATION, _ORIENTATION = 254, 262, 274
_BESIDE = 0b101
"""Bits of NewSubfileType: a reduced version of another page, a transparency mask of one."""


def count_pages(file: BinaryIO) -> int:
    """Slices of the TIFF `file`, from the directories of its pages. Raises ImageError(stage="open")."""
    with reading("the image file is damaged: its header can not be read.", "open"):
        try:
            with Image.open(file, formats=("TIFF",)) as image:
                return len(pages(image))
        except Image.DecompressionBombError:
            return 1  # whoever opens it says what is wrong


def pages(image: Image.Image) -> list[int]:
    """Which frames of an opened TIFF are its slices; `image` is left at the first of them.

    Raises ImageError(stage="open") if they are not of one size and type.
    """
    frames = range(getattr(image, "n_frames", 1))
    found, forms = [], set()
    for i in frames:
        image.seek(i)
        tags = image.tag_v2  # type: ignore[attr-defined]
        if int(tags.get(_NEW_SUBFILE_TYPE, 0)) & _BESIDE and len(frames) > 1:
            continue
        found.append(i)
        forms.add((image.size, image.mode, tags.get(_PHOTOMETRIC_INTERPRETATION), tags.get(_ORIENTATION, 1)))
    if len(forms) > 1:
        raise ImageError(
            f"its {len(found)} pages have several sizes, pixel types or orientations; save each as a file of its own.",
            "open",
        )
    if not found:
        raise ImageError("all of its pages are thumbnails or masks of others.", "open")
    image.seek(found[0])
    return found
