"""Which slice a row of a second table speaks of, counted as the store does: from feet to head, along the slices' normal."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.datasets.columns import Table
from embedcache.datasets.joining import OtherIds
from embedcache.datasets.keys import Link
from embedcache.errors import ImageError, InputError, suggest
from embedcache.images.grids import file_slices
from embedcache.types import IntArray, Samples, StringArray

INSTANCE = "SOPInstanceUID"
ANATOMY, FILE = "anatomy", "file"
"""`--slice-order`: numbers count from feet to head, or as a NIfTI file or an array stores its slices."""

Places = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Joined:
    """A second table and the samples that it speaks of."""

    table: Table
    key: StringArray
    """(rows,)."""
    link: Link
    others: OtherIds
    samples: Samples
    slices: str | None
    """The column of slice numbers."""
    order: str | None
    """`anatomy`, `file`, or None where the user did not say: as `anatomy`, and told where it may be otherwise."""

    def __post_init__(self) -> None:
        if self.order not in (None, ANATOMY, FILE):
            raise InputError(str(suggest("--slice-order", str(self.order), (ANATOMY, FILE))))

    def refuse_several(self) -> None:
        """Raise InputError where a row names several samples, of which one only can be meant."""
        if self.link.by not in ("sample", "patient", "SeriesInstanceUID", INSTANCE):
            raise InputError(
                f"{self.table.name} names a study, which has several series; labels of slices are joined by {INSTANCE}, or by "
                "the sample and the slice's number."
            )
        rows = self.link.row[self.link.row >= 0]
        if self.link.by == "patient" and len(np.unique(rows)) < len(rows):
            raise InputError(
                f"{self.table.name} names patients, some of whom have several samples in {self.samples.listing}; labels of "
                "slices, and boxes, are joined by the sample."
            )

    def places(self, rows: IntArray) -> tuple[IntArray, Places, tuple[str, ...]]:
        """Of these rows of the table those that name a slice, the number of each, and what is to be said of them.

        A file of several frames is several slices. Raises InputError for a row that names no slice, or several samples.
        """
        if self.link.by == INSTANCE:
            return *_places_of_files(self.key, self.link.found, rows, self.others), ()
        self.refuse_several()
        if self.slices is None:
            raise InputError(f"{self.table.name} has no column of slice numbers; name it with --slice-column.")
        column = self.table.column(self.slices)
        numbers = column.numbers()
        if numbers is None or not _whole(numbers[column.codes][rows]).all():
            raise InputError(
                f"column {self.slices!r} of {self.table.name} must hold slice numbers, counted from 0 and from feet to head (or "
                "as the file does: --slice-order file)."
            )
        place = numbers[column.codes][rows].astype(np.int32)
        if self.order == ANATOMY:
            return rows, place, ()
        if self.order == FILE:
            return rows, self._as_shown(self.link.found[rows], place), ()
        turned = sum(_is_turned(str(self.samples.path[i])) for i in np.unique(self.link.found[rows]).tolist())
        said = (
            f"{turned} samples store their slices from head to feet, and the slice numbers of {self.table.name} are taken as "
            "counted from feet to head; if they count as the files do, say --slice-order file"
        )
        return rows, place, (said,) if turned else ()

    def _as_shown(self, owner: IntArray, place: Places) -> Places:
        found = place.copy()
        for i in np.unique(owner).tolist():
            where, mine = self.samples.where(i), owner == i
            try:
                of_file = file_slices(str(self.samples.path[i]))
            except ImageError as error:
                raise InputError(f"--slice-order {FILE}: {where} can not be read: {error.reason}") from error
            if of_file is None:
                raise InputError(
                    f"--slice-order {FILE}: the slices of {where} have no order in one file (a DICOM series is joined by "
                    f"{INSTANCE}; others by --slice-order {ANATOMY})."
                )
            if place[mine].max() >= len(of_file):
                raise InputError(
                    f"{self.table.name} names slice {place[mine].max()} of {where}, which has {len(of_file)}, counted from 0."
                )
            found[mine] = of_file[place[mine]]
        return found


def _is_turned(path: str) -> bool:
    try:
        of_file = file_slices(path)
    except ImageError:  # extraction tells of it
        return False
    return of_file is not None and int(of_file[0]) != 0


def refuse_same_slice(table: Table, rows: IntArray, owner: IntArray, place: Places) -> None:
    """Raise InputError where two rows of the table are of one slice."""
    order = np.lexsort((place, owner))
    twice = np.flatnonzero((np.diff(owner[order]) == 0) & (np.diff(place[order]) == 0))
    if len(twice):
        i, j = sorted(int(rows[order[twice[0] + step]]) for step in (0, 1))
        raise InputError(f"{table.where(i)} and {table.where(j)} are of the same slice; keep one of them.")


def _whole(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    whole: npt.NDArray[np.bool_] = (numbers == np.floor(numbers)) & (numbers >= 0)
    return whole


def _places_of_files(key: StringArray, found: IntArray, rows: IntArray, others: OtherIds) -> tuple[IntArray, Places]:
    """Of rows that name files: a file is one slice, or the several of its frames; one of a localiser is none."""
    taken, place = [], []
    orders: dict[int, dict[str, list[int]]] = {}
    for i in rows.tolist():
        sample = int(found[i])
        if sample not in orders:
            assert others.slice_order is not None
            at: dict[str, list[int]] = {}
            for k, uid in enumerate(others.slice_order(sample)):
                at.setdefault(uid, []).append(k)
            orders[sample] = at
        for k in orders[sample].get(str(key[i]), ()):
            taken.append(i)
            place.append(k)
    return np.array(taken, dtype=np.int64), np.array(place, dtype=np.int32)
