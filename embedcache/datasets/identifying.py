"""Which columns of a table are no labels by their names: they say who, when or where."""

import re

from embedcache.datasets.columns import plain_name

_WHO = "id uid uuid guid pid name birth dob mrn ssn accession patient subject person phone telephone email mail"
_WHERE_AND_WHEN = "address institution hospital zip postcode url date datetime time timestamp"
_WHICH_FILE = "path file filename filepath hash md5 sha1 sha256 checksum digest"
_PROSE_AND_PARTS = "comment comments note notes report split fold"
_IDENTIFYING = frozenset(" ".join([_WHO, _WHERE_AND_WHEN, _WHICH_FILE, _PROSE_AND_PARTS]).split(" "))
_IDENTIFYING_PARTS = ("birth", "accession", "address", "institution", "telephone", "filename", "filepath")
# whole endings only: `uid`, `id` and `date` also end fluid, covid and candidate
_IDENTIFYING_ENDS = (
    "patientid", "imageid", "studyid", "seriesid", "sampleid", "subjectid", "caseid", "instanceuid", "studyuid", "seriesuid",
    "studydate", "seriesdate", "scandate", "examdate", "visitdate",
)  # fmt: skip

_OF_A_PERSON = frozenset({"sex", "gender", "age"})


def identifying(name: str) -> bool:
    """Whether a column of this name is no label, but says who, when or where."""
    spaced = re.sub(r"([a-z0-9])([A-Z])|([A-Z]+)([A-Z][a-z])", r"\1\3 \2\4", name)
    tokens = set(re.split(r"[^a-z0-9]+", spaced.lower()))
    if tokens & _OF_A_PERSON:  # PatientSex names nobody
        tokens -= {"patient", "subject", "person"}
    plain = plain_name(name)
    return (
        bool(tokens & _IDENTIFYING)
        or any(part in plain for part in _IDENTIFYING_PARTS)
        or plain.endswith(_IDENTIFYING_ENDS)
    )
