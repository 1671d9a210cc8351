"""What became of the sources since they were last seen: redated, changed, gone. Decided by content, not by dates."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from embedcache.datasets.index import IndexRow, PrivateIndex
from embedcache.errors import ImageError
from embedcache.extraction.apart import count_each, look
from embedcache.extraction.config import ExtractConfig
from embedcache.images import ImageOptions, stat_source
from embedcache.images.files import SourceState
from embedcache.types import IntArray, Samples, strings

Tell = Callable[[str], None]
"""Receives one line for the user: a notice, never an identifier."""


def changed_sources(samples: Samples, sources: PrivateIndex, config: ExtractConfig, tell: Tell) -> dict[str, IndexRow]:
    """Sample id → what its source is now, for sources whose content is not what the index recorded.

    A new date alone changes nothing, and is noted in the index. Of a source that is gone or can no longer be opened what
    is stored stays as it is; the user is told how many there are.
    """
    changed: dict[str, IndexRow] = {}
    redated, gone = [], 0
    suspected = [(str(samples.path[i]), sources.get(str(samples.id[i]))) for i in sources.suspects(samples).tolist()]
    # of what has no digest nothing was committed yet, so there is nothing to contradict: a digest is settled before the commit
    compared = [(path, known) for path, known in suspected if known is not None and known.digest]
    found = look([path for path, _ in compared], "examine", ImageOptions(), config)
    for (path, known), image in zip(compared, found, strict=True):
        if image is None:
            gone += 1
            continue
        seen = replace(known, path=path, size=image.size, mtime_ns=image.mtime_ns)
        if image.digest == known.digest:
            redated.append(seen)
        else:
            changed[known.id] = replace(seen, digest=image.digest, slices=image.slices)
    if gone:
        tell(f"{gone} sources can no longer be opened where they were; what is stored of them stays")
    if redated:
        tell(f"{len(redated)} sources have a new date and the same content")
        sources.put(redated)
        sources.save()
    return changed


def slice_counts(
    samples: Samples, sources: PrivateIndex, changed: Mapping[str, IndexRow], config: ExtractConfig
) -> tuple[IntArray, list[IndexRow]]:
    """Slices of each sample (0 where it can not be opened): from the private index, else from the files' headers.

    changed: what sources are now that are no longer as the index has them. Also returns what the index does not know yet.
    The index keeps the counts of images as they are stored only: those of another plane or time point are always counted,
    once for each store, whose plan remembers them.
    """
    moved = config.image_options.moves_slices
    known = sources.lookup(samples.id, ("slices",))
    counts = known["slices"].astype(np.int64)
    if moved:
        counts[:] = 0
    elif changed:
        for i in np.flatnonzero(np.isin(samples.id, strings(list(changed)))).tolist():
            counts[i] = changed[str(samples.id[i])].slices
    unknown = np.flatnonzero(counts <= 0)
    # the state before the count: a file that changes in between is suspected by the next run
    states = [_state(path) for path in samples.path[unknown].tolist()]
    counts[unknown] = count_each(samples.path[unknown].tolist(), config)
    learned = []
    for i, state in zip(unknown.tolist(), states, strict=True):
        if moved and known["found"][i]:
            continue
        sample = samples[i]
        row = sources.get(sample.id)
        digest, slices = row.digest if row else "", 0 if moved else int(counts[i])
        if not counts[i]:
            state = SourceState(0, 0)
        learned.append(IndexRow(sample.id, sample.path, state.size, state.mtime_ns, digest, slices))
    return counts, learned


def _state(path: str) -> SourceState:
    try:
        return stat_source(path)
    except ImageError:
        return SourceState(0, 0)
