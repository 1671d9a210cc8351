"""A file or a folder that holds one series → a calibrated Volume of slices in their stored dtype.

`open_image` reads the bytes once and decodes slices when asked, as `ImageOptions` say; `parse_window` names an intensity
mapping whose numbers `OpenedImage.limits` computes; `geometry` says where a pixel lands on a backbone's input and back.
Pillow, pydicom, nibabel, SimpleITK and h5py are each imported when the first file of their kind is opened, so a decode worker
starts quickly; the last two are extras.
"""

from embedcache.images.files import SourceState, stat_source
from embedcache.images.options import ImageOptions
from embedcache.images.source import OpenedImage, count_slices, open_image
from embedcache.images.windows import parse_window

__all__ = ["ImageOptions", "OpenedImage", "SourceState", "count_slices", "open_image", "parse_window", "stat_source"]
