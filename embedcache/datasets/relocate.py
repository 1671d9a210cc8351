"""`embedcache relocate`: tell the private index that sources lie elsewhere now."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from embedcache.datasets.index import PrivateIndex
from embedcache.errors import ImageError, InputError
from embedcache.images import stat_source


@dataclass(frozen=True)
class RelocateReport:
    """What became of the sources below the old folder."""

    moved: int
    missing: tuple[str, ...]
    """Ids of samples whose file is not at the new place; they stay as they were."""
    different: tuple[str, ...]
    """Ids of samples whose file there has another size; they stay as they were."""

    @property
    def exit_code(self) -> int:
        """1 where something was not moved, else 0."""
        return 1 if self.missing or self.different else 0


def relocate(dataset_folder: str | Path, old: str | Path, new: str | Path) -> RelocateReport:
    """Note for every sample of `<cache>/<dataset>` whose source lay below `old` that it lies below `new`.

    Each is looked for, and must have its size; its content is compared when it is read again, as after any new date.
    Raises InputError if nothing lay below `old` or `new` is no folder.
    """
    # as the user has named them; links are not followed, since the index holds paths as they were named, too
    before, after = (os.path.abspath(os.path.expanduser(place)) for place in (old, new))
    if not os.path.isdir(after):
        raise InputError(f"there is no folder {new}; --root takes the old and the new root of the sources.")
    index = PrivateIndex.open(Path(dataset_folder))
    moved, missing, different = [], [], []
    for row in index.rows():
        if not (row.path + os.sep).startswith(before.rstrip(os.sep) + os.sep):
            continue
        path = os.path.normpath(os.path.join(after, os.path.relpath(row.path, before)))
        try:
            size = stat_source(path).size
        except ImageError:
            missing.append(row.id)
            continue
        if size == row.size:
            moved.append(replace(row, path=path))
        else:
            different.append(row.id)
    if not (moved or missing or different):
        raise InputError(
            f"the private index of {Path(dataset_folder).name} on this machine knows no source below {old}; "
            "it is kept where `extract` ran."
        )
    index.put(moved)
    index.save()
    return RelocateReport(len(moved), tuple(missing), tuple(different))
