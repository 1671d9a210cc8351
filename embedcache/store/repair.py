"""Mending a damaged store out of what is left of it (FORMAT.md, sections 5 to 7).

A store says most things twice: the manifest holds every metadata document and the root's attributes, the log repeats the
commits, and the index arrays follow from one another. What is damaged is made anew from the other place, and taken only
where its SHA-256 is the one that the manifest or a seal names; where nothing is left that vouches, the report says how
it is known. All is found out before anything is written. Tokens can not be mended so: they are computed again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from embedcache.store import layout
from embedcache.store.examine import examine
from embedcache.store.leases import refuse_workers
from embedcache.store.locks import exclusive
from embedcache.store.rebuild import KnownIds
from embedcache.store.survey import MANIFEST, Findings, Left, Mended
from embedcache.store.writer import StoreFiles


@dataclass(frozen=True)
class MendReport:
    """What became of a damaged store without its sources."""

    store: str
    mended: tuple[Mended, ...]
    left: tuple[Left, ...]
    shards: Mapping[str, Mapping[int, str]]
    """Pass → shard → why its tokens must be computed again; they stay as they are until then."""


def mend(
    path: str | Path,
    ids: KnownIds | None = None,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
) -> MendReport:
    """Put back all of the store at `path` that can be made out of the rest of it, and of `ids` that it may hold.

    dry_run: only say what would be done. Raises StoreError if this is no store of ours, and StoreBusyError while another
    process works on it.
    """
    files = StoreFiles(layout.store_folder(path))
    if dry_run:
        return _report(files, examine(files, ids, progress))
    with exclusive(files.leases, files.path.name) as lock:
        refuse_workers(files.leases, files.path.name)
        guarded = replace(files, fence=lock.check)
        found = examine(guarded, ids, progress)
        put_back(guarded, found)
    return _report(files, found)


def _report(files: StoreFiles, found: Findings) -> MendReport:
    return MendReport(files.path.name, tuple(found.mended), tuple(found.left), found.shards)


def put_back(files: StoreFiles, found: Findings) -> None:
    """Write what was found, in the order of every other change of a store: objects, documents, manifest, root."""
    objects = files.objects
    last = [*MANIFEST, layout.ROOT_DOCUMENT]
    documents = [name for name in found.new if name.endswith("/zarr.json")]
    first = [name for name in found.new if name not in {*last, *documents}]
    for names in (first, documents, last[:2], last[2:]):
        put = [name for name in names if name in found.new]
        for name in put:
            objects.put(name, found.new[name])
        objects.sync(put)
    for name in found.gone:
        objects.delete(name)
    objects.sync(found.gone)
