"""`embedcache labels sync`: read a dataset's labels again, for the samples that its stores hold."""

from dataclasses import dataclass

import numpy as np

from embedcache.datasets import open_dataset
from embedcache.datasets.identifiers import assign_ids, load_key
from embedcache.datasets.selection import labels_of
from embedcache.errors import InputError
from embedcache.extraction.config import ExtractConfig
from embedcache.extraction.sources import Tell
from embedcache.store.catalog import list_stores
from embedcache.store.labels import LABELS, write_labels
from embedcache.store.reader import FeatureCache


@dataclass(frozen=True)
class SyncReport:
    """The refreshed label table."""

    path: str
    samples: int
    tasks: tuple[str, ...]
    digest: str


def sync_labels(config: ExtractConfig, tell: Tell = lambda _: None, anew: bool = False) -> SyncReport:
    """Refresh `<cache>/<dataset>/labels.parquet` from the dataset, for every sample that a store of it holds.

    anew: a table that is there, and may be damaged, is replaced instead of merged with.
    Reads no image and no weights; `config.backbones` is not used. Raises InputError where the dataset has no store yet.
    """
    opened = open_dataset(config.dataset, config.root, config.options)
    folder = config.cache_folder / opened.info.name
    stored: set[str] = set()
    for store in list_stores(folder) if folder.is_dir() else ():
        stored |= set(FeatureCache.open(store.path, allow_partial=True).index.plan.sample_id.tolist())
    if not stored:
        raise InputError(
            f"dataset {opened.info.name} has no store in {config.cache}; `embedcache extract` writes labels itself."
        )
    keep = config.ids == "keep"
    key = None if opened.info.public_ids or keep else load_key(create=False)
    samples, labels, _ = assign_ids(opened.info, opened.samples(), opened.labels(), keep, key)
    held = samples.take(np.array([name in stored for name in samples.id.tolist()]))
    if not len(held):
        raise InputError(
            f"none of the {len(samples)} samples of {opened.info.name} is in its stores: is this the same root, and the same key?"
        )
    for notice in opened.notices:
        tell(notice)
    chosen = labels_of(labels, held)
    digest = write_labels(folder, chosen, anew)
    return SyncReport(str(folder / LABELS), len(held), tuple(t.name for t in chosen.tasks), digest)
