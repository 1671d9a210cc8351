"""What a dataset lists: samples, each of a patient and somewhere on the user's disk."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcache.errors import InputError
from embedcache.types.columns import IntArray, StringArray


@dataclass(frozen=True)
class Sample:
    """A radiograph or a volume."""

    id: str
    """The store's id: a public dataset's own, or a pseudonym."""
    patient_id: str
    path: str
    """A file, or a folder that holds one series. Private: no store, log or message may carry it."""
    split: str
    """What the dataset says: `train`, `validation`, `test`, or "" where it says nothing."""
    where: str
    """How a message names it to the user without a path: `row 12 of cases.csv`."""


MOST_ROWS = 3
"""That a message about several samples names."""


@dataclass(frozen=True)
class Samples:
    """Many samples by column, in the dataset's order: 10^7 of them fit in memory."""

    id: StringArray
    patient_id: StringArray
    path: StringArray
    split: StringArray
    row: IntArray
    """Position in the user's list, counted as the user would (a table's first data row is 1)."""
    listing: str
    """What `row` counts in, for messages: the base name of the table, or `the folder`."""

    def __post_init__(self) -> None:
        lengths = {len(self.id), len(self.patient_id), len(self.path), len(self.split), len(self.row)}
        if len(lengths) != 1:
            raise InputError(f"the columns of a sample list must be equally long. Got lengths {sorted(lengths)}.")

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, i: int) -> Sample:
        return Sample(str(self.id[i]), str(self.patient_id[i]), str(self.path[i]), str(self.split[i]), self.where(i))

    def where(self, i: int) -> str:
        """How a message names sample `i`: by its row, never by its path."""
        return f"row {int(self.row[i])} of {self.listing}"

    def where_all(self, index: npt.ArrayLike) -> str:
        """As `where`, of several: the first rows, and how many more there are."""
        rows = np.sort(self.row[np.asarray(index, dtype=np.int64)]).tolist()
        if len(rows) < 2:
            return f"row {rows[0]} of {self.listing}"
        more = f" and {len(rows) - MOST_ROWS:,} more" if len(rows) > MOST_ROWS else ""
        return f"rows {', '.join(map(str, rows[:MOST_ROWS]))}{more} of {self.listing}"

    def take(self, index: npt.ArrayLike) -> "Samples":
        """The samples at `index` (integers or a mask), in that order."""
        i = np.asarray(index)
        return Samples(self.id[i], self.patient_id[i], self.path[i], self.split[i], self.row[i], self.listing)


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset is, for the store's attributes and for the user."""

    name: str
    version: str = ""
    licence: str = ""
    citation: str = ""
    homepage: str = ""
    public_ids: bool = False
    """True for the adapter of a public dataset: its ids and order enter the store as they are."""
    patients_assumed: bool = False
    """True where nothing names the patients of some or all samples, so that each of these counts as one of its own."""
