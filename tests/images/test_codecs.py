"""What imagecodecs decodes against what Pillow and pydicom give without it."""

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import pixel_array
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless

from embedcache.errors import ImageError
from embedcache.images import codecs, nifti
from embedcache.images.dicom import read_dataset
from embedcache.images.elements import syntax_of
from embedcache.images.pixels import grey_pixels
from embedcache.images.raster import parse_raster
from embedcache.images.series import parse_dicom
from embedcache.testing.files import write_dicom

imagecodecs = pytest.importorskip("imagecodecs")
RNG = np.random.default_rng(5)


@pytest.fixture
def decoded_by_it(monkeypatch):
    """The names of the functions that decoded something."""
    names = []
    call = codecs._call

    def counting(name, data):
        pixels = call(name, data)
        if pixels is not None:
            names.append(name)
        return pixels

    monkeypatch.setattr(codecs, "_call", counting)
    return names


def outcome(parse, data):
    """Pixels and warnings, or the reason."""
    try:
        parsed = parse(data)
        pixels = parsed.decode(0, parsed.n_slices)
    except ImageError as error:
        return error.stage, error.reason
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    return pixels.dtype, pixels.shape, pixels.tobytes(), parsed.warnings


def both(parse, data, monkeypatch):
    """The outcome with imagecodecs and without."""
    fast = outcome(parse, data)
    with monkeypatch.context() as patch:
        patch.setattr(codecs, "installed", lambda: None)
        return fast, outcome(parse, data)


def parse_one(data):
    return parse_dicom([data])


# --- PNG --------------------------------------------------------------------------------------------

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
COLOURS = ("PLTE", bytes(range(256)) * 3)


def chunk(kind, content):
    body = kind.encode() + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(depth, colour, before=(), after=(), interlace=0, size=(7, 5)):
    """A PNG of random samples, every row with a filter of its own."""
    width, height = size
    row = (width * CHANNELS[colour] * depth + 7) // 8
    rows = b"".join(bytes([RNG.integers(5)]) + RNG.bytes(row) for _ in range(height * (1 if not interlace else 4)))
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    packed = zlib.compress(rows)
    chunks = [("IHDR", head), *before, ("IDAT", packed[:20]), ("IDAT", packed[20:]), *after, ("IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


ORIENTED = Image.Exif()
ORIENTED[0x0112] = 6
XMP = ("iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')
FAST = {
    "grey": png(8, GREY),
    "grey 16": png(16, GREY),
    "RGB": png(8, RGB),
    "grey with alpha": png(8, GREY_ALPHA),
    "RGB with alpha": png(8, RGBA),
    "palette": png(8, PALETTE, [COLOURS]),
    "a palette that is too short": png(8, PALETTE, [("PLTE", bytes(range(30)))]),
    "a palette with alpha": png(8, PALETTE, [COLOURS, ("tRNS", RNG.bytes(200))]),
    "a palette with one transparent colour": png(8, PALETTE, [COLOURS, ("tRNS", b"\xff\0")]),
    "a transparent grey": png(8, GREY, [("tRNS", b"\0\x20")], size=(60, 60)),
    "a transparent colour": png(8, RGB, [("tRNS", b"\0\1\0\2\0\3")]),
    "what changes no pixel": png(
        8, RGB, [("gAMA", b"\0\0\xb1\x8f"), ("sBIT", b"\5\6\5"), ("bKGD", b"\0\1\0\2\0\3"), ("tEXt", b"Software\0x")]
    ),
}
SLOW = {
    **{f"grey {depth}": png(depth, GREY) for depth in (1, 2, 4)},
    **{f"palette {depth}": png(depth, PALETTE, [COLOURS]) for depth in (1, 2, 4)},
    "RGB 16": png(16, RGB),
    "RGBA 16": png(16, RGBA),
    "grey 16 with alpha": png(16, GREY_ALPHA),
    "a transparent grey of 16": png(16, GREY, [("tRNS", b"\1\x20")]),
    "interlaced": png(8, GREY, interlace=1),
    "EXIF": png(8, RGB, [("eXIf", ORIENTED.tobytes()[6:])]),
    "EXIF behind": png(8, RGB, after=[("eXIf", ORIENTED.tobytes()[6:])]),
    "XMP": png(8, GREY, [XMP]),
    "XMP behind": png(8, GREY, after=[XMP]),
    "colour profile": png(8, RGB, [("iCCP", b"x\0\0" + zlib.compress(b"x"))]),
    "a text that Pillow takes for more": png(8, GREY, [("tEXt", b"xmp\0x")]),
    "a chunk that must be known": png(8, GREY, [("ABCD", b"x")]),
}


@pytest.mark.parametrize("name", FAST)
def test_plain_png_are_decoded_by_it_as_by_pillow(name, monkeypatch, decoded_by_it):
    fast, slow = both(parse_raster, FAST[name], monkeypatch)
    assert fast == slow
    assert len(fast) == 4
    assert decoded_by_it == ["png_decode"]


@pytest.mark.parametrize("name", SLOW)
def test_other_png_are_left_to_pillow(name, monkeypatch, decoded_by_it):
    fast, slow = both(parse_raster, SLOW[name], monkeypatch)
    assert fast == slow
    assert not decoded_by_it


@pytest.mark.parametrize("name", ["grey", "a palette with alpha", "RGB"])
def test_a_cut_png_is_refused_as_by_pillow(name, monkeypatch):
    whole = outcome(parse_raster, FAST[name])
    for n in range(8, len(FAST[name])):
        fast, slow = both(parse_raster, FAST[name][:n], monkeypatch)
        assert fast == slow
        assert len(fast) == 2 or fast == whole


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(FAST)), at=st.floats(0, 1), byte=st.integers(0, 255), mend=st.booleans())
def test_a_spoilt_png_is_read_or_refused_as_by_pillow(name, at, byte, mend):
    """With a CRC that is wrong, and with one that is right all the same."""
    data = bytearray(FAST[name])
    data[8 + int(at * (len(data) - 9))] = byte
    if mend:
        data = with_right_crcs(data)
    with pytest.MonkeyPatch.context() as patch:
        fast, slow = both(parse_raster, bytes(data), patch)
    assert fast == slow


def with_right_crcs(data):
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        data[end : end + 4] = (
            zlib.crc32(data[at + 4 : end]).to_bytes(4) if end + 4 <= len(data) else data[end : end + 4]
        )
        at = end + 4
    return data


def test_a_png_above_pillows_limit_is_left_to_it(monkeypatch, decoded_by_it):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 34)
    assert len(outcome(parse_raster, FAST["grey"])) == 4
    assert not decoded_by_it
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert "decompression bombs" in outcome(parse_raster, FAST["grey"])[1]


def test_real_radiographs(shared_data, monkeypatch, decoded_by_it):
    paths = sorted((shared_data / "nih_chestxray14" / "images").glob("*.png"))[:2]
    paths += sorted((shared_data / "cxr_hannover_lungmask").rglob("*.png"))[:4]
    for path in paths:
        fast, slow = both(parse_raster, path.read_bytes(), monkeypatch)
        assert fast == slow
    assert decoded_by_it


# --- gzip -------------------------------------------------------------------------------------------


CONTENT = RNG.bytes(700) + bytes(3000)


@pytest.mark.parametrize("n", [1, 540, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 1])
@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(CONTENT),
        gzip.compress(CONTENT[:1000]) + gzip.compress(CONTENT[1000:]),
        gzip.compress(CONTENT) + b"rubbish",
        gzip.compress(CONTENT) + bytes(20),
        gzip.compress(CONTENT)[:-1],
        gzip.compress(CONTENT)[:-9] + gzip.compress(CONTENT)[-8:],
        gzip.compress(CONTENT)[:-8] + b"\1\2\3\4" + gzip.compress(CONTENT)[-4:],
    ],
    ids=["whole", "two members", "rubbish behind", "padding behind", "cut", "a byte is missing", "wrong checksum"],
)
def test_gzip_is_read_or_refused_as_by_zlib(data, n, monkeypatch):
    def unzipped():
        try:
            return nifti._unzipped(data, n)
        except ImageError as error:
            return error.reason

    fast = unzipped()
    monkeypatch.setattr(codecs, "installed", lambda: None)
    assert fast == unzipped()


def test_gzip_of_the_size_that_is_expected_is_decoded_by_it():
    assert codecs.gunzip(gzip.compress(CONTENT), len(CONTENT)) == CONTENT
    assert codecs.gunzip(gzip.compress(CONTENT), 10) is None


# --- frames of DICOM ----------------------------------------------------------------------------------


def frames(path):
    """The data set and its count of frames where its pixels are read at all."""
    try:
        dataset = read_dataset(path.read_bytes())
    except ImageError:
        return None, 0
    return dataset, min(int(dataset.get("NumberOfFrames") or 1), 3)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_every_frame_that_is_not_left_to_pydicom_is_as_it_says(dicom_files, decoded_by_it):
    native = 0
    for path in dicom_files:
        dataset, n = frames(path)
        for index in range(n):
            try:
                ours = grey_pixels(dataset, index, int(dataset.get("NumberOfFrames") or 1))
            except (ImageError, ValueError, AttributeError):  # spoilt on purpose; pydicom refuses them too
                with pytest.raises((ValueError, AttributeError, RuntimeError)):
                    pixel_array(dataset, index=index)
                continue
            if ours is not None:
                theirs = pixel_array(dataset, index=index)
                assert ours.dtype == theirs.dtype, path.name
                np.testing.assert_array_equal(ours, theirs, path.name)
                native += not syntax_of(dataset).is_encapsulated
    assert native > 20
    assert len(decoded_by_it) >= 6


@pytest.mark.parametrize("stored", [5, 8, 11, 12, 16])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("spoilt", [True, False])
def test_bits_that_do_not_count_are_dropped_as_by_pydicom(tmp_path, stored, signed, spoilt):
    low, high = (-(1 << (stored - 1)), (1 << (stored - 1)) - 1) if signed else (0, (1 << stored) - 1)
    pixels = RNG.integers(low, high, (3, 4, 5), endpoint=True).astype(np.int16 if signed else np.uint16)
    path = write_dicom(tmp_path / "a.dcm", pixels)
    dataset = dcmread(path)
    dataset.BitsStored, dataset.HighBit = stored, stored - 1
    if spoilt:
        dataset.PixelData = (pixels.view(np.uint16) ^ np.uint16(0xFFFF << stored & 0xFFFF)).tobytes()
    dataset.save_as(path)
    ours = read_dataset(Path(path).read_bytes())
    for index in range(3):
        np.testing.assert_array_equal(grey_pixels(ours, index, 3), pixel_array(dataset, index=index))
        np.testing.assert_array_equal(grey_pixels(ours, index, 3), pixels[index])


def compressed(tmp_path, pixels, stream, syntax, bits):
    path = write_dicom(tmp_path / "a.dcm", pixels)
    dataset = dcmread(path)
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    return Path(path).read_bytes()


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [True, False])
def test_jpeg_ls(tmp_path, monkeypatch, decoded_by_it, bits, signed):
    pixels = RNG.integers(0, 1 << bits, (9, 14)).astype(np.uint8 if bits == 8 else np.uint16)
    stored = pixels.view(f"i{pixels.itemsize}") if signed else pixels
    for level, syntax in ((0, JPEGLSLossless), (2, JPEGLSNearLossless)):
        # the encoder takes the bits from the highest value
        pixels[0, 0] = (1 << bits) - 1
        stream = imagecodecs.jpegls_encode(pixels, level)
        fast, slow = both(parse_one, compressed(tmp_path, stored, stream, syntax, bits), monkeypatch)
        assert fast == slow
        assert len(fast) == 4
        if not level and not signed:
            assert fast[2] == pixels.tobytes()
    assert decoded_by_it == ["jpegls_decode"] * 2


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [True, False])
def test_lossless_jpeg(tmp_path, monkeypatch, decoded_by_it, bits, signed):
    pixels = (np.add.outer(np.arange(20), np.arange(30)) * 3 + RNG.integers(0, 5, (20, 30))).astype(
        np.uint8 if bits == 8 else np.uint16
    )
    stored = pixels.view(f"i{pixels.itemsize}") if signed else pixels
    stream = imagecodecs.ljpeg_encode(pixels, bitspersample=bits)
    fast, slow = both(parse_one, compressed(tmp_path, stored, stream, JPEGLosslessSV1, bits), monkeypatch)
    assert fast == slow
    assert fast[2] == stored.tobytes()
    assert decoded_by_it == ["jpeg8_decode"]


LOSSLESS = ["JPEG-LL.dcm", "MR_small_jpeg_ls_lossless.dcm"]


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_cut_stream_is_refused(pydicom_file, name, part):
    dataset = dcmread(pydicom_file(name))
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([stream[: int(len(stream) * part)]])
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    assert "cut short" in outcome(parse_one, buffer.getvalue())[1]


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_stream_that_claims_another_size_is_refused_before_it_is_decoded(pydicom_file, name, monkeypatch):
    dataset = dcmread(pydicom_file(name))
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    head = codecs.jpeg_head(stream)
    at = stream.index(struct.pack(">HH", head.rows, head.columns))
    for rows, columns in ((65535, 65535), (head.rows, 65535), (head.rows + 1, head.columns)):
        dataset.PixelData = encapsulate([stream[:at] + struct.pack(">HH", rows, columns) + stream[at + 4 :]])
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        fast, slow = both(parse_one, buffer.getvalue(), monkeypatch)
        assert fast == slow
        assert f"{rows}x{columns}" in fast[1]


@pytest.mark.parametrize("byte", [0, 1, 8, 128, 255])
def test_a_lossless_stream_with_a_spoilt_header_is_read_or_refused_as_by_pydicom(pydicom_file, monkeypatch, byte):
    dataset = dcmread(pydicom_file("JPEG-LL.dcm"))
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    samples = codecs.jpeg_head(stream).samples
    (table,) = [segment for marker, segment in codecs.jpeg_head(stream).segments if marker == 0xC4]
    symbols = stream.index(table) + 17
    for at in range(2, samples):
        # another size is refused before; with other symbols it is another stream, of as many bits
        if 7 <= at < 11 or symbols <= at < symbols + len(table) - 17:
            continue
        dataset.PixelData = encapsulate([stream[:at] + bytes([byte]) + stream[at + 1 :]])
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        fast, slow = both(parse_one, buffer.getvalue(), monkeypatch)
        assert fast == slow, at


def test_without_it_the_others_are_there(pydicom_file, monkeypatch, decoded_by_it):
    monkeypatch.setattr(codecs, "installed", lambda: None)
    for name in LOSSLESS:
        path = pydicom_file(name)
        np.testing.assert_array_equal(parse_one(Path(path).read_bytes()).decode(0, 1)[0], dcmread(path).pixel_array)
    assert len(outcome(parse_raster, FAST["grey"])) == 4
    assert not decoded_by_it


def test_a_jpeg_2000_frame_of_another_size_is_refused_before_it_is_decoded(tmp_path):
    """A decoder would take memory for what the stream claims."""
    path = write_dicom(tmp_path / "a.dcm", RNG.integers(0, 4000, (64, 80)).astype(np.uint16))
    dataset = dcmread(path)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    assert codecs.jpeg_2000_size(stream) == (64, 80)
    claimed = stream[:8] + struct.pack(">2L", 60_000, 60_000) + stream[16:]
    dataset.PixelData = encapsulate([claimed])
    dataset.save_as(path)
    with pytest.raises(ImageError, match="60000x60000 pixels, and its header 64x80"):
        parse_dicom([path.read_bytes()]).decode(0, 1)
