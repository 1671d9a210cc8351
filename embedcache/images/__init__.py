"""A file or a folder that holds one series → a calibrated Volume of slices in their stored dtype.

`open_image` reads the bytes once and decodes slices when asked; `parse_window` names an intensity mapping whose
numbers `OpenedImage.limits` computes; `geometry` says where a pixel lands on a backbone's input and back. Pillow,
pydicom and nibabel are each imported when the first file of their kind is opened, so a decode worker starts quickly.
"""

from embedcache.images.source import OpenedImage, SourceState, count_slices, open_image, stat_source
from embedcache.images.windows import parse_window

__all__ = ["OpenedImage", "SourceState", "count_slices", "open_image", "parse_window", "stat_source"]
