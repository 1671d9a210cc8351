"""`value_of` against `Dataset.get`."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from embedcache.errors import ImageError
from embedcache.images.dicom import pydicom_reading
from embedcache.images.elements import is_absent, value_of


def plain(value):
    if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
        return value
    return list(value)


def test_every_value_of_every_file_is_pydicoms(dicom_files):
    seen = 0
    for path in dicom_files:
        with pydicom_reading("pydicom can not read it", "open"):
            ours, theirs = (dcmread(path, force=True, stop_before_pixels=True) for _ in range(2))
            for tag in list(theirs.keys()):
                element = theirs.get_item(tag)
                keyword = element.keyword if not isinstance(element, RawDataElement) else theirs[tag].keyword
                if keyword and element.VR != "SQ":
                    assert plain(value_of(ours, keyword)) == plain(theirs.get(keyword)), (path.name, keyword)
                    seen += 1
    assert seen > 5000


CHARACTERS = st.sampled_from([*(bytes([n]) for n in b"0123456789"), *b"+ - . e E \\ _ , x".split(), b" ", b"\0", b"\\"])
BYTES = st.lists(CHARACTERS, max_size=10).map(b"".join)


VRS = {
    "RescaleSlope": "DS",
    "PixelSpacing": "DS",
    "InstanceNumber": "IS",
    "Rows": "US",
    "ImageType": "CS",
    "SOPClassUID": "UI",
}


@settings(max_examples=250, deadline=None)
@given(keyword=st.sampled_from(list(VRS)), value=BYTES)
@pytest.mark.parametrize("vr", [None, "the standard's", "LO", "UN"])
@pytest.mark.parametrize("little", [True, False])
def test_any_bytes_are_read_as_pydicom_reads_them(keyword, value, vr, little):
    name = VRS[keyword] if vr == "the standard's" else vr
    results = []
    for read in (value_of, lambda dataset, keyword: dataset.get(keyword)):
        dataset = Dataset()
        tag = Tag(keyword)
        dataset._dict[tag] = RawDataElement(tag, name, len(value), value, 0, vr is None, little)
        try:
            with pydicom_reading("no value", "open"):
                results.append(plain(read(dataset, keyword)))
        except ImageError as error:
            results.append(error.reason)
    assert results[0] == results[1]


def test_what_is_not_there(pydicom_file):
    dataset = dcmread(Path(pydicom_file("CT_small.dcm")))
    assert value_of(dataset, "NumberOfFrames") is None
    assert is_absent(dataset, "NumberOfFrames")
    assert not is_absent(dataset, "Rows")
    with pytest.raises(KeyError):
        value_of(dataset, "NoSuchElement")
