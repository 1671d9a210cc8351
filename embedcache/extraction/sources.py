"""What became of the sources since they were last seen: redated, changed, gone. Decided by content, not by dates."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from embedcache.datasets.index import IndexRow, PrivateIndex
from embedcache.errors import ImageError
from embedcache.images import ImageOptions, count_slices, open_image, stat_source
from embedcache.images.files import SourceState
from embedcache.types import IntArray, Samples, strings

Tell = Callable[[str], None]
"""Receives one line for the user: a notice, never an identifier."""


def changed_sources(samples: Samples, sources: PrivateIndex, tell: Tell) -> dict[str, IndexRow]:
    """Sample id → what its source is now, for sources whose content is not what the index recorded.

    A new date alone changes nothing, and is noted in the index. Of a source that is gone or can no longer be opened what
    is stored stays as it is; the user is told how many there are.
    """
    changed: dict[str, IndexRow] = {}
    redated, gone = [], 0
    for i in sources.suspects(samples).tolist():
        known = sources.get(str(samples.id[i]))
        assert known is not None
        if not known.digest:
            continue  # nothing of it was committed yet, so there is nothing to contradict
        path = str(samples.path[i])
        try:
            image = open_image(path)
        except ImageError:
            gone += 1
            continue
        seen = replace(known, path=path, size=image.state.size, mtime_ns=image.state.mtime_ns)
        if image.digest == known.digest:
            redated.append(seen)
        else:
            changed[known.id] = replace(seen, digest=image.digest, slices=image.n_slices)
    if gone:
        tell(f"{gone} sources can no longer be opened where they were; what is stored of them stays")
    if redated:
        tell(f"{len(redated)} sources have a new date and the same content")
        sources.put(redated)
        sources.save()
    return changed


def slice_counts(
    samples: Samples, sources: PrivateIndex, changed: Mapping[str, IndexRow], options: ImageOptions
) -> tuple[IntArray, list[IndexRow]]:
    """Slices of each sample (0 where it can not be opened): from the private index, else from the files' headers.

    changed: what sources are now that are no longer as the index has them. Also returns what the index does not know yet.
    The index keeps the counts of images as they are stored only: those of another plane or time point are always counted,
    once for each store, whose plan remembers them.
    """
    known = sources.lookup(samples.id, ("slices",))
    counts = known["slices"].astype(np.int64)
    if options.moves_slices:
        counts[:] = 0
    elif changed:
        for i in np.flatnonzero(np.isin(samples.id, strings(list(changed)))).tolist():
            counts[i] = changed[str(samples.id[i])].slices
    learned = []
    for i in np.flatnonzero(counts <= 0).tolist():
        sample = samples[i]
        try:
            state = stat_source(sample.path)
            counts[i] = count_slices(sample.path, options)
        except ImageError:
            state, counts[i] = SourceState(0, 0), 0
        if options.moves_slices and known["found"][i]:
            continue
        row = sources.get(sample.id)
        digest, slices = row.digest if row else "", 0 if options.moves_slices else int(counts[i])
        learned.append(IndexRow(sample.id, sample.path, state.size, state.mtime_ns, digest, slices))
    return counts, learned
