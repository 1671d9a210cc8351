"""A dataset that was extracted, listed again, its samples under the ids that a store has for them."""

from dataclasses import dataclass
from pathlib import Path

from embedcache.datasets import REGISTRY, open_dataset
from embedcache.datasets.base import Dataset, DatasetOptions
from embedcache.datasets.identifiers import assign_ids, load_key
from embedcache.datasets.labelling import all_rows
from embedcache.errors import InputError
from embedcache.store.reader import FeatureCache
from embedcache.store.texts import locate
from embedcache.types import DatasetInfo, IntArray, Labels, Samples

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
"""Of a file that is read as a table where neither the user nor the store's name of the dataset says how."""


@dataclass(frozen=True)
class Listing:
    """What the dataset says of its samples now."""

    opened: Dataset
    samples: Samples
    """By the store's ids; some may not be in it."""
    labels: Labels
    """No labels: the parts that the dataset names."""
    natural: IntArray
    """(n,): the place of each in the dataset's own list."""


def list_again(cache: FeatureCache, dataset: str, root: str, options: DatasetOptions) -> Listing:
    """The dataset that was extracted into `cache`, or a table of its ids. Raises InputError without the key of its pseudonyms."""
    opened = open_dataset(dataset, root, options)
    keep = cache.root.id_scheme != "pseudonym"
    key = None if keep else load_key(create=False)
    if key is not None and key.id != cache.root.key_id:
        raise InputError(
            f"the pseudonyms of {cache.path.name} were made under key {cache.root.key_id}, and the key here is {key.id}; "
            "bring that key with `embedcache ids key import`."
        )
    # pseudonyms are made under the name of the store's dataset, whatever a table is called
    info = DatasetInfo(cache.root.dataset.name)
    natural = opened.samples()
    samples, labels, names_of = assign_ids(info, natural, all_rows((), natural), keep, key)
    return Listing(opened, samples, labels, locate(names_of, natural.id))


def dataset_at(cache: FeatureCache, root: str) -> str:
    """How `root` is read where the user does not say: as the dataset that the store names, a table by its file's name.

    A store has the name of the dataset and not how it was read, and a table or folder of the user's has any name. Raises
    InputError where that leaves it open.
    """
    name, registered = cache.root.dataset.name, REGISTRY.names()
    if name in registered:
        return name
    if Path(root).suffix.lower() in TABLE_SUFFIXES:
        return "table"
    raise InputError(
        f"{cache.path.name} is of {name}, a dataset of your own, and how that was read no store records; say with "
        f"--dataset (dataset=) how --root is read: {', '.join(registered)}."
    )
