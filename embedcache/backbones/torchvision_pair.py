"""torchvision beside a torch that it was not built for: importable, since no operator of its own is needed here.

timm imports torchvision, and so do transformers' models where it is installed. Its registry builds need CUDA's libraries;
beside a torch for the CPU, or of another version, its extension does not load, and then its import ends with
"operator torchvision::nms does not exist". Declaring the two operators that the import asks for is enough; they are never
called. On a healthy pair nothing happens here. `embedcache doctor` names a pair that does not fit.
"""

import functools
import importlib.util
from pathlib import Path

import torch

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
DECLARED = ("nms", "qnms")

_library: list[torch.library.Library] = []
"""A library's operators are gone with it."""


@functools.cache
def complete_torchvision() -> bool:
    """Declare what torchvision's import asks for, if it is installed and its extension does not load.

    Call it before torchvision, timm or a model of transformers is imported. Returns whether the pair was mended.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    extension = next(Path(spec.submodule_search_locations[0]).glob("_C.*"), None)
    try:
        if extension is not None:
            torch.ops.load_library(str(extension))  # type: ignore[no-untyped-call]  # torchvision itself does the same first thing
            return False
    except OSError:
        pass  # what it needs is not here: CUDA, or another torch
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in DECLARED:
        library.define(name + SCHEMA)  # type: ignore[no-untyped-call]
    _library.append(library)
    return True
