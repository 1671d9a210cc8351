"""Patients of samples whose list names none: as the headers of their DICOM files tell them apart.

A PatientID leaves this file as a pseudonym under the user's key only: nobody declared it, and a store may be told to keep ids.
"""

from dataclasses import dataclass

from embedcache.datasets.columns import is_missing
from embedcache.datasets.identifiers import load_key
from embedcache.types import StringArray, strings

_NO_DICOM = (
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".nii", ".nii.gz", ".npy", ".nrrd", ".nhdr", ".mha", ".mhd",
)  # fmt: skip
"""Names of files that are not even looked into: there may be a million."""
_DOMAIN = "DICOM header"


@dataclass(frozen=True)
class HeaderPatients:
    """Whose each sample is."""

    patient: StringArray
    """A pseudonym, or the sample's own id where no header tells."""
    told: int
    """Of how many samples it is known."""
    one_name: int
    """How many samples have headers that all name the same patient, and so tell none apart; else 0."""

    @property
    def said(self) -> str:
        """Why headers that are there are not followed; "" where they are, or where there are none."""
        if not self.one_name:
            return ""
        return f"the DICOM headers of {self.one_name} name one and the same patient, as those of anonymised files do"


def header_patients(ids: StringArray, paths: StringArray) -> HeaderPatients:
    """The patient of each sample, by PatientID or, where that is empty, by study.

    A sample that is no DICOM file, or that can not be read, is a patient of its own; so are all where the headers name one
    patient only, as those of anonymised files do. Paths in a `.npz` or `.mat` file are none of DICOM.
    """
    told = [_told(path) for path in paths.tolist()]
    known = [text for text in told if text]
    if not known or (len(known) > 1 and len(set(known)) == 1):
        return HeaderPatients(ids, 0, len(known))
    names = sorted(set(known))
    pseudonyms = load_key().pseudonyms("patient", _DOMAIN, strings(names)).tolist()
    of = dict(zip(names, pseudonyms, strict=True))
    pairs = zip(told, ids.tolist(), strict=True)
    return HeaderPatients(strings([of[text] if text else own for text, own in pairs]), len(known), 0)


def _told(path: str) -> str:
    if path.lower().endswith(_NO_DICOM) or "#" in path.rpartition(".")[2]:
        return ""
    from embedcache.images.tree import first_file  # pydicom takes 0.4 s

    file = first_file(path)
    if file is None:
        return ""
    if not is_missing(file.patient):
        return f"patient {file.patient}"
    return f"study {file.study}" if file.study else ""
