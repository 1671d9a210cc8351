"""What the headers of samples' DICOM files call them, for labels that are joined by it. None of it enters a store."""

from collections.abc import Callable, Sequence

import numpy as np

from embedcache.datasets.joining import OtherIds
from embedcache.errors import ImageError, InputError
from embedcache.images.tree import DicomFile, files_of, slice_instances
from embedcache.types import Samples, strings


def read_dicom_ids(samples: Samples) -> OtherIds:
    """Of samples whose headers nobody has read yet; those of another format have no such ids."""
    return dicom_ids(samples, [files_of(path) for path in samples.path.tolist()])


def dicom_ids(samples: Samples, files: Sequence[Sequence[DicomFile]]) -> OtherIds:
    """Of samples whose files' headers were read: `files` has those of each sample."""
    if not any(files):
        return OtherIds()
    return OtherIds(
        of_sample={
            "StudyInstanceUID": strings([of[0].study if of else "" for of in files]),
            "AccessionNumber": strings([of[0].accession if of else "" for of in files]),
            "SeriesInstanceUID": strings([of[0].series if of else "" for of in files]),
            "PatientID": strings([of[0].patient if of else "" for of in files]),
        },
        instance=strings([file.instance for of in files for file in of]),
        sample=np.repeat(np.arange(len(files)), [len(of) for of in files]),
        slice_order=_slice_order(samples),
    )


def _slice_order(samples: Samples) -> Callable[[int], list[str]]:
    known: dict[int, list[str]] = {}

    def order(i: int) -> list[str]:
        if i not in known:
            try:
                known[i] = slice_instances(str(samples.path[i]))
            except ImageError as error:
                raise InputError(
                    f"{samples.where(i)} has labels of slices, and can not be read: {error.reason}"
                ) from error
        return known[i]

    return order
