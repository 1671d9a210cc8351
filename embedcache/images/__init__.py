"""A file or a folder that holds one series → a calibrated Volume of slices in their stored dtype.

`open_image` reads the bytes once and decodes slices when asked, as `ImageOptions` say; `parse_window` names an intensity
mapping whose numbers `OpenedImage.limits` computes; `geometry` says where a pixel lands on a backbone's input and back;
`read_segmentation` lays a DICOM segmentation on the slices of its image. Pillow, pydicom, nibabel, SimpleITK and h5py are each
imported when the first file of their kind is opened, so a decode worker starts quickly; the last two are extras.
"""

from typing import TYPE_CHECKING, Any

from embedcache.images.files import SourceState, stat_source
from embedcache.images.options import ImageOptions
from embedcache.images.source import OpenedImage, count_slices, open_image
from embedcache.images.windows import parse_window

if TYPE_CHECKING:
    from embedcache.images.segmentation import read_segmentation

__all__ = [
    "ImageOptions",
    "OpenedImage",
    "SourceState",
    "count_slices",
    "open_image",
    "parse_window",
    "read_segmentation",
    "stat_source",
]


def __getattr__(name: str) -> Any:
    if name == "read_segmentation":  # imported when it is first used: pydicom takes 0.4 s
        from embedcache.images.segmentation import read_segmentation

        return read_segmentation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
