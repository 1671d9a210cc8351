"""`scan` against pydicom's own reading: where it gives a data set, every element of it is pydicom's."""

import io
import struct
from contextlib import suppress
from itertools import filterfalse
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from embedcache.images.scanning import scan

# of values that are spoilt, some of these files' own among them
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def is_passed_over(tag):
    return tag.group == 0x10 or (tag.group % 2 == 1 and tag.group not in (0x19, 0x29))


def value(dataset, tag):
    """Of an element, or the name of what pydicom raises for it."""
    try:
        found = dataset[tag].value
    except Exception as error:  # noqa: BLE001 pydicom raises nearly anything for a value that is spoilt
        return type(error).__name__
    return bytes(found) if isinstance(found, memoryview) else found


class Refused(Exception):
    """By pydicom."""


def check(data):
    """Whether the file is plain; if it is, that every element is as pydicom reads it. Raises Refused where pydicom does."""
    ours = scan(data)
    if ours is None:
        return False
    try:
        theirs = dcmread(io.BytesIO(data), force=True)
    except (OSError, ValueError, struct.error) as error:
        raise Refused from error
    tags = list(theirs.keys())
    assert list(ours.keys()) == [tag for tag in tags if not is_passed_over(tag)]
    assert ours.original_encoding == theirs.original_encoding
    assert ours.original_character_set == theirs.original_character_set
    assert ours.file_meta == theirs.file_meta
    for tag in filterfalse(is_passed_over, tags):
        assert value(ours, tag) == value(theirs, tag), tag
    return True


def test_every_file_at_hand_is_read_alike(dicom_files):
    plain = sum(check(path.read_bytes()) for path in dicom_files)
    assert (
        plain >= 100
    )  # of 146 that pydicom ships; the others are big-endian, deflated, without meta information, broken


@pytest.mark.parametrize("name", ["ExplVR_BigEnd.dcm", "image_dfl.dcm", "no_meta.dcm", "meta_missing_tsyntax.dcm"])
def test_other_kinds_of_files_are_left_to_pydicom(pydicom_file, name):
    assert scan(Path(pydicom_file(name)).read_bytes()) is None


def test_native_pixels_are_not_copied_and_compressed_ones_whole(pydicom_file):
    data = Path(pydicom_file("CT_small.dcm")).read_bytes()
    pixels = scan(data).get_item(Tag("PixelData")).value
    assert isinstance(pixels, memoryview)
    assert pixels.obj is data
    name = pydicom_file("emri_small_jpeg_2k_lossless.dcm")
    assert scan(Path(name).read_bytes()).PixelData == dcmread(name).PixelData


def test_the_patient_is_passed_over(pydicom_file):
    found = scan(Path(pydicom_file("CT_small.dcm")).read_bytes())
    assert "PatientName" not in found
    tags = list(found.keys())
    assert not [tag for tag in tags if is_passed_over(tag)]


@pytest.mark.parametrize("name", ["CT_small.dcm", "eCT_Supplemental.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_a_cut_file_is_read_alike_or_left_to_pydicom(pydicom_file, name):
    data = Path(pydicom_file(name)).read_bytes()
    assert check(data)
    for n in (*range(100, 1200), *range(1200, len(data), len(data) // 40)):
        check(data[:n])


SPOILT = [
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "emri_small_jpeg_2k_lossless.dcm",
    "eCT_Supplemental.dcm",
    "liver_1frame.dcm",
]


def test_a_spoilt_character_set_is_left_to_pydicom(pydicom_file):
    data = Path(pydicom_file("CT_small.dcm")).read_bytes()
    assert data.count(b"ISO_IR 100") == 1
    assert scan(data.replace(b"ISO_IR 100", b"\0SO_IR 100")) is None


@pytest.mark.parametrize("delimiter", [b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\xfe\xff\x00\xe0"])
def test_the_end_of_an_item_outside_of_any_is_left_to_pydicom(pydicom_file, delimiter):
    data = Path(pydicom_file("CT_small.dcm")).read_bytes()
    at = data.index(b"\x28\x00\x10\x00US")  # before Rows: what follows is not read by pydicom
    assert scan(data) is not None
    assert scan(data[:at] + delimiter + bytes(4) + data[at:]) is None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(SPOILT), data=st.data())
def test_a_spoilt_header_is_read_alike_or_left_to_pydicom(pydicom_file, name, data):
    spoilt = bytearray(Path(pydicom_file(name)).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        spoilt[data.draw(st.integers(132, min(len(spoilt), 4000) - 1))] = data.draw(st.integers(0, 255))
    # pydicom may refuse what is read here: it looks into every sequence without a length, and not only at where it ends
    with suppress(Refused):
        check(bytes(spoilt))


TEXTS = st.text(
    st.characters(codec="latin-1", exclude_characters="\\\r\n\f\x1b", exclude_categories=["Cc"]), max_size=12
)
ELEMENTS = {
    "Manufacturer": TEXTS.map(str.strip),
    "SeriesDescription": TEXTS.map(str.strip),
    "Rows": st.integers(0, 65535),
    "ImagePositionPatient": st.lists(st.integers(-500, 500), min_size=3, max_size=3),
    "RescaleSlope": st.floats(-100, 100).map(lambda v: f"{v:.8g}"),
    "RedPaletteColorLookupTableData": st.binary(max_size=9).map(lambda b: b + b"\0" * (len(b) % 2)),
    "InstanceNumber": st.integers(-(2**31), 2**31 - 1),
}
SEQUENCES = ("ReferencedImageSequence", "SourceImageSequence", "VOILUTSequence")


@st.composite
def datasets(draw, depth=0):
    dataset = Dataset()
    for keyword, values in ELEMENTS.items():
        if draw(st.booleans()):
            if keyword == "RedPaletteColorLookupTableData":
                dataset.add_new(keyword, "OW", draw(values))
            else:
                setattr(dataset, keyword, draw(values))
    if depth < 3:
        for keyword in draw(st.lists(st.sampled_from(SEQUENCES), unique=True, max_size=2)):
            items = draw(st.lists(datasets(depth + 1), max_size=2))
            setattr(dataset, keyword, items)
            dataset[keyword].is_undefined_length = draw(st.booleans())
            for item in dataset[keyword].value:
                item.is_undefined_length_sequence_item = draw(st.booleans())
    return dataset


@settings(max_examples=100, deadline=None)
@given(dataset=datasets(), implicit=st.booleans(), pixels=st.binary(max_size=20))
def test_what_pydicom_writes_is_read_alike(dataset, implicit, pixels):
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.add_new("PixelData", "OW", pixels + b"\0" * (len(pixels) % 2))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["a"])
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    assert check(buffer.getvalue())
