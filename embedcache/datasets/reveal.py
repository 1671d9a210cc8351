"""What a pseudonym stands for, told to the user who asks on the machine that made it."""

from collections.abc import Iterable
from pathlib import Path

from embedcache.datasets.index import PrivateIndex
from embedcache.errors import InputError


def reveal(dataset_folder: str | Path, ids: Iterable[str]) -> dict[str, str]:
    """Store id → path of its source, from this machine's private index of `<cache>/<dataset>`.

    Raises InputError for an id that the index does not know, as on a machine that only received the cache.
    """
    index = PrivateIndex.open(Path(dataset_folder))
    found = {}
    for name in ids:
        row = index.get(name)
        if row is None:
            raise InputError(
                f"the private index of {Path(dataset_folder).name} on this machine does not know {name}; "
                "it is kept where `extract` ran."
            )
        found[name] = row.path
    return found
