"""Sources that are looked at in decode processes: a file that makes its reader crash or hang must not end the run that plans."""

import os
from collections.abc import Sequence
from typing import Literal

from embedcache.errors import ImageError
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.decode import DecodePool
from embedcache.extraction.pieces import Found, Request
from embedcache.images import ImageOptions
from embedcache.images.source import count_in_python
from embedcache.types import Window


def look(
    paths: Sequence[str],
    kind: Literal["count", "examine", "measure"],
    options: ImageOptions,
    config: ExtractConfig,
) -> list[Found | None]:
    """What decode processes find of each source, None where one can not be opened, or its process died or gave no answer."""
    if not paths:
        return []
    workers = min(len(paths), config.workers or len(os.sched_getaffinity(0)))
    requests = [Request(i, path, 0, 0, 1, kind) for i, path in enumerate(paths)]
    with DecodePool(workers, Window("range"), options, config.decode_timeout, 1, lambda: False) as pool:
        return [piece.found for piece in pool.pieces(requests)]


def count_each(paths: Sequence[str], config: ExtractConfig) -> list[int]:
    """Slices of each source, 0 where it can not be opened.

    Headers that are read in Python are read here: nearly all of 10^6 sources are. Only what a library written in C parses
    (MATLAB, NRRD and MetaImage files, a DICOM series that is cut across its slices) is counted by decode processes.
    """
    counts, apart = [0] * len(paths), []
    for i, path in enumerate(paths):
        try:
            counted = count_in_python(path, config.image_options)
        except ImageError:
            continue
        if counted is None:
            apart.append(i)
        else:
            counts[i] = counted
    found = look([paths[i] for i in apart], "count", config.image_options, config)
    for i, seen in zip(apart, found, strict=True):
        counts[i] = seen.slices if seen is not None else 0
    return counts
