"""What a second table may name samples by beside their ids and patients: the UIDs of a DICOM archive. None enters a store."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from embedcache.types import IntArray, StringArray


@dataclass(frozen=True)
class OtherIds:
    """Names of samples, studies and slices, for a join only."""

    of_sample: Mapping[str, StringArray] = field(default_factory=dict)
    """Keyword → per sample its value, "" where unknown. Several samples may share one: a study has several series."""
    instance: StringArray | None = None
    """(files,): SOPInstanceUID of each file."""
    sample: IntArray | None = None
    """(files,): the sample that each belongs to."""
    slice_order: Callable[[int], list[str]] | None = None
    """Sample → the SOPInstanceUID of each of its slices in anatomical order. Reads the headers of its files. Raises
    InputError."""
