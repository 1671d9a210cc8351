"""MATLAB files: version 5 through scipy, version 7.3 (HDF5) through h5py. `FILE.mat#cjdata/image` names a variable.

Without a name it is the variable called `image`, or the only one that is an array of two or more axes. MATLAB's arrays are
(row, column[, slice]); 8-bit ones with three last values are RGB.
"""

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.errors import ImageError
from embedcache.images.arrays import array_image
from embedcache.images.mat5 import check_elements
from embedcache.images.parsed import DEFLATE_RATIO, Parsed, reading

_DAMAGED = "the MATLAB file is cut short or damaged."


def parse_mat5(data: bytes, name: str = "") -> Parsed:
    """The image in a MATLAB 5 file. Raises ImageError(stage="open")."""
    from scipy.io import loadmat  # 0.2 s, only where such a file is

    with reading(_DAMAGED, "open"):
        check_elements(data)
        found = loadmat(BytesIO(data), simplify_cells=True)  # type: ignore[arg-type]  # its stubs know files by path only
        arrays = dict(_arrays(found))
    return _image(arrays[_chosen(list(arrays), name)])


def parse_mat73(data: bytes, name: str = "") -> Parsed:
    """The image in a MATLAB 7.3 file. Raises ImageError(stage="open")."""
    h5py = _h5py()
    with reading(_DAMAGED, "open"), h5py.File(BytesIO(data), "r") as file:
        datasets = dict(_datasets(file))
        values = _values(datasets[_chosen(list(datasets), name)], len(data))
    return _image(values.T)  # HDF5 has MATLAB's axes in reverse


def _image(values: npt.NDArray[Any]) -> Parsed:
    if values.ndim == 3 and not (values.dtype == np.uint8 and values.shape[2] == 3):
        values = np.moveaxis(values, -1, 0)
    return array_image(values)


def _chosen(names: list[str], name: str) -> str:
    """The variable that is meant. Raises ImageError(stage="open")."""
    if name in names:
        return name
    images = [n for n in names if n.rpartition("/")[2] == "image"]
    for candidates in [] if name else [images, names]:
        if len(candidates) == 1:
            return candidates[0]
    # a reason is stored, and a variable may be called after a patient: none is named
    asked = "no variable of that name" if name else "no single image, and the path names none with #VARIABLE"
    raise ImageError(f"the MATLAB file has {asked}; arrays of two axes or more that are there: {len(names)}.", "open")


def _is_image(values: Any) -> bool:
    return len(values.shape) >= 2 and min(values.shape) > 1 and values.dtype.kind in "biuf"


def _arrays(found: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Variables, and fields of structures, that could be an image."""
    for key, value in found.items():
        if isinstance(value, dict):
            yield from _arrays(value, f"{above}{key}/")
        elif isinstance(value, np.ndarray) and _is_image(value):
            yield above + key, value


# --- HDF5 -----------------------------------------------------------------------------------------


def _h5py() -> Any:
    try:
        import h5py  # an extra
    except ImportError as error:
        raise ImageError("reading a MATLAB 7.3 file needs h5py: pip install 'embedcache[volumes]'.", "open") from error
    return h5py


def _datasets(group: Any, above: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Data sets that could be an image. Only hard links are followed, so that no file leads to another one."""
    h5py = _h5py()
    for key in group:
        if key.startswith("#") or not isinstance(group.get(key, getlink=True), h5py.HardLink):
            continue
        found = group[key]
        if isinstance(found, h5py.Group) and depth < 8:  # a group may hold itself
            yield from _datasets(found, f"{above}{key}/", depth + 1)
        elif isinstance(found, h5py.Dataset) and _is_image(found):
            yield above + key, found


def _values(dataset: Any, file_bytes: int) -> npt.NDArray[Any]:
    if dataset.external or dataset.is_virtual:
        raise ImageError("its values lie in another file.", "open")
    if dataset.nbytes > DEFLATE_RATIO * file_bytes:
        raise ImageError("its header says more values than the file can hold.", "open")
    return np.asarray(dataset[()])
