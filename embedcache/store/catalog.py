"""The stores of a cache: listed, shown, removed."""

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcache.errors import InputError, StoreError
from embedcache.store.fingerprint import recipe_document
from embedcache.store.index import is_ours
from embedcache.store.layout import ROOT_DOCUMENT
from embedcache.store.leases import refuse_workers
from embedcache.store.locks import exclusive
from embedcache.store.reader import FeatureCache
from embedcache.store.writer import StoreFiles
from embedcache.types import Quarantined


@dataclass(frozen=True)
class StoreSummary:
    """One line of `ls`."""

    path: str
    dataset: str
    backbone: str
    fingerprint: str
    view: int
    """Which view of the slices: 0 is as evaluation sees them."""
    samples: int
    slices: int
    """Rows: of `unit` volume these are whole volumes."""
    unit: str
    quarantined: int
    arrays: tuple[str, ...]
    state: str
    """`complete`, `3 of 8 shards`, or what is wrong with it."""
    bytes: int


@dataclass(frozen=True)
class QuarantinedSlice:
    """A slice that was set aside."""

    sample: str
    slice_index: int
    stage: str
    reason: str


@dataclass(frozen=True)
class StoreDetails:
    """What `show` says of one store."""

    store: str
    dataset: dict[str, Any]
    weights: dict[str, Any]
    identifiers: dict[str, Any]
    fingerprint: str
    recipe: dict[str, Any]
    samples: int
    patients: int
    slices: int
    """Rows: of `unit` volume these are whole volumes."""
    unit: str
    passes: dict[str, Any]
    bytes: int
    quarantine: tuple[QuarantinedSlice, ...]


def list_stores(cache: str | Path) -> tuple[StoreSummary, ...]:
    """Every store at or below `cache`, by path. A damaged one is listed with what is wrong. Raises InputError."""
    return tuple(summarise(path) for path in find_stores(cache))


def find_stores(cache: str | Path) -> list[Path]:
    """The folders of the stores at or below `cache`, sorted. Raises InputError if there is no such folder."""
    top = Path(cache)
    if not top.is_dir():
        raise InputError(f"there is no folder {cache}; `embedcache extract --cache` makes a cache.")
    if (top / ROOT_DOCUMENT).exists() or top.suffix == ".zarr":
        return [top]
    found = []
    for folder, names, _ in os.walk(top):
        for name in sorted(n for n in names if n.endswith(".zarr")):
            found.append(Path(folder) / name)
        names[:] = sorted(n for n in names if not n.endswith((".zarr", ".leases")))  # no walk through a million shards
    return sorted(found)


def summarise(path: Path) -> StoreSummary:
    """One store in a line."""
    used = disk_use(path)
    try:
        cache = FeatureCache.open(path, allow_partial=True)
        root, bad = cache.root, len(quarantined_rows(cache))
    except StoreError as error:
        return StoreSummary(str(path), "", "", "", 0, 0, 0, "", 0, (), str(error), used)
    arrays = tuple(sorted(a.path for p in root.passes.values() for a in p.arrays))
    return StoreSummary(
        str(path), root.dataset.name, root.recipe.model.source, root.fingerprint, root.recipe.image.view, root.samples,
        root.slices, root.unit, bad, arrays, state_of(cache), used,
    )  # fmt: skip


def quarantined_rows(cache: FeatureCache) -> dict[int, Quarantined]:
    """Rows that a pass has set aside, without those of superseded samples."""
    current = cache.index.plan.rows_of(~cache.index.superseded)
    return {q.row: q for p in cache.passes for c in cache.commits(p.id) for q in c.quarantined if current[q.row]}


def state_of(cache: FeatureCache) -> str:
    """`complete`, or how many shards are committed."""
    root, plan = cache.root, cache.index.plan
    if all(root.complete.values()) and root.complete:
        return "complete"
    done = sum(len(cache.commits(p.id)) for p in root.passes.values())
    planned = sum(1 for p in root.passes.values() for _ in plan.shards_of(p))
    return f"{done} of {planned} shards"


def show_store(path: str | Path) -> StoreDetails:
    """All that a store says of itself. Raises StoreError, InputError."""
    cache = FeatureCache.open(path, allow_partial=True)
    root, plan = cache.root, cache.index.plan
    owner = plan.owner()
    bad = quarantined_rows(cache)
    quarantine = tuple(
        QuarantinedSlice(str(plan.sample_id[owner[row]]), int(plan.slice_index[row]), bad[row].stage, bad[row].reason)
        for row in sorted(bad)
    )
    attributes = root.attributes()
    passes = {}
    for p in root.passes.values():
        passes[p.id] = {
            "arrays": [f"{a.path} {a.dtype} {list(a.shape)}" for a in p.arrays],
            "rows_per_shard": p.rows_per_shard,
            "batch_size": p.batch_size,
            "threads": p.threads,
            "device_kind": p.device_kind,
            "complete": root.complete[p.id],
            "shards": f"{len(cache.commits(p.id))} of {sum(1 for _ in plan.shards_of(p))}",
        }
    return StoreDetails(
        store=str(path),
        dataset=attributes["dataset"],
        weights=attributes["weights"],
        identifiers=attributes["identifiers"],
        fingerprint=root.fingerprint,
        recipe=recipe_document(root.recipe),
        samples=root.samples,
        patients=len(set(plan.patient_id.tolist())),
        slices=root.slices,
        unit=root.unit,
        passes=passes,
        bytes=disk_use(Path(path)),
        quarantine=quarantine,
    )


def remove_store(path: str | Path) -> int:
    """Remove a store and its leases; labels and results stay. Returns the bytes freed. Raises StoreBusyError, InputError."""
    folder = Path(path)
    files = StoreFiles(folder)
    # a Zarr group of someone else, or a folder above stores, is never removed
    if folder.suffix != ".zarr" or folder.is_symlink() or not folder.is_dir() or not is_ours(files.objects):
        raise InputError(f"{path} is no store of embedcache; `embedcache ls CACHE` lists them.")
    with exclusive(files.leases, folder.name) as lock:
        refuse_workers(files.leases, folder.name)
        freed = disk_use(folder)
        lock.check()
        # the root document goes first: a removal that is interrupted must not leave a store that looks whole
        (folder / ROOT_DOCUMENT).unlink(missing_ok=True)
        shutil.rmtree(folder)
    shutil.rmtree(files.leases, ignore_errors=True)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()
    return freed


def disk_use(path: Path) -> int:
    """Bytes that the files below `path` occupy on disk; one that goes away meanwhile occupies none."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total
