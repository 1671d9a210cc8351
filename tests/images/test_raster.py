import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from embedcache.errors import ImageError
from embedcache.images import count_slices, open_image, parse_window
from embedcache.testing.files import write_png

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (23, 31), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (23, 31), dtype=np.uint16)
RGB = RNG.integers(0, 256, (23, 31, 3), dtype=np.uint8)
SMOOTH = np.add.outer(np.arange(64), np.arange(96)).astype(np.uint8)


def pixels_of(path):
    image = open_image(str(path))
    return image.read(0, 1).pixels[0]


def save(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("pixels", [GREY8, GREY16, RGB, GREY8 > 99], ids=["uint8", "uint16", "rgb", "bool"])
def test_png_round_trip(tmp_path, pixels):
    expected = pixels if pixels.dtype != bool else pixels * np.uint8(255)
    got = pixels_of(write_png(tmp_path / "a.png", pixels))
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", ["a.tif", "a.bmp"])
@pytest.mark.parametrize("pixels", [GREY8, RGB], ids=["grey", "rgb"])
def test_lossless_formats_round_trip(tmp_path, name, pixels):
    np.testing.assert_array_equal(pixels_of(save(tmp_path, Image.fromarray(pixels), name)), pixels)


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_tiff_keeps_wide_grey(tmp_path, dtype):
    pixels = GREY16.astype(dtype)
    got = pixels_of(save(tmp_path, Image.fromarray(pixels), "a.tif"))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, pixels)


def test_jpeg_is_what_pillow_decodes(tmp_path):
    for pixels, mode in ((SMOOTH, "L"), (np.dstack([SMOOTH] * 3), "RGB")):
        path = save(tmp_path, Image.fromarray(pixels), "a.jpg")
        with Image.open(path) as theirs:
            np.testing.assert_array_equal(pixels_of(path), np.asarray(theirs.convert(mode)))


def test_cmyk_becomes_rgb(tmp_path):
    path = save(tmp_path, Image.fromarray(np.dstack([SMOOTH] * 3)).convert("CMYK"), "a.jpg")
    assert pixels_of(path).shape == (64, 96, 3)


def test_palette_becomes_its_colours(tmp_path):
    image = Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(pixels_of(save(tmp_path, image, "a.png")), np.asarray(image.convert("RGB")))


def test_alpha_lies_over_black(tmp_path):
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    rgba[0, 0] = 200, 100, 50, 0
    rgba[0, 1] = 200, 100, 50, 51
    got = pixels_of(write_png(tmp_path / "a.png", rgba))
    assert got[0, 0].tolist() == [0, 0, 0]
    assert got[0, 1].tolist() == [40, 20, 10]
    np.testing.assert_array_equal(got[1:], RGB[1:])


def test_grey_with_alpha_is_grey(tmp_path):
    both = np.dstack([GREY8, np.full(GREY8.shape, 255, np.uint8)])
    both[0, 0] = 200, 0
    got = pixels_of(write_png(tmp_path / "a.png", both))
    assert got.shape == GREY8.shape
    assert got[0, 0] == 0
    np.testing.assert_array_equal(got[1:], GREY8[1:])


def test_a_transparent_colour_is_black(tmp_path):
    path = save(tmp_path, Image.fromarray(np.array([[7, 9]], np.uint8)), "a.png", transparency=7)
    assert pixels_of(path).tolist() == [[0, 9]]


def test_colour_of_16_bits_says_that_it_loses_some(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + np.array([0x1234, 0x80FF, 0xFFFF], ">u2").tobytes()  # filter 0, one pixel of 16-bit RGB
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    )
    image = open_image(str(path))
    assert image.warnings == ("16-bit colour or alpha is read in 8 bits, all that Pillow gives",)
    assert image.read(0, 1).pixels.tolist() == [[[[0x12, 0x80, 0xFF]]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    path = save(tmp_path, Image.fromarray(stored), "a.png", exif=exif)
    # EXIF 2.32, tag 274: what must be done to the stored rows and columns
    shown = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).T,
        8: np.rot90(stored),
    }[orientation]
    np.testing.assert_array_equal(pixels_of(path), shown)


def test_a_photograph_lies_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to the right
    path = save(tmp_path, Image.fromarray(SMOOTH), "a.jpg", exif=exif)
    with Image.open(path) as theirs:
        np.testing.assert_array_equal(pixels_of(path), np.rot90(np.asarray(theirs), -1))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_white_is_zero_in_a_tiff(tmp_path, dtype):
    """However wide its values are, what is shown is the same: low values are bright."""
    pixels = np.array([[0, 100, 255]], np.uint8).astype(dtype)
    path = save(tmp_path, Image.fromarray(pixels), "a.tif")
    data = path.read_bytes()
    tag = struct.pack("<HHI", 262, 3, 1)  # PhotometricInterpretation, SHORT, one value
    assert data.count(tag + b"\1\0") == 1
    path.write_bytes(data.replace(tag + b"\1\0", tag + b"\0\0"))
    image = open_image(str(path))
    shown = image.read(0, 1).pixels[0].astype(int)
    (low, high), invert = image.limits(parse_window("min-max"), 0, 1)[0, 0], image.read(0, 1).calibration.invert
    unit = (shown - low) / (high - low)
    np.testing.assert_allclose(1 - unit if invert else unit, [[1, 155 / 255, 0]])


@pytest.mark.parametrize("mode", ["1", "P"])
def test_bits_and_palettes_in_a_tiff(tmp_path, mode):
    made = Image.fromarray(RGB).convert(mode)
    wanted = np.asarray(made.convert("L" if mode == "1" else "RGB"))
    np.testing.assert_array_equal(pixels_of(save(tmp_path, made, "a.tif")), wanted)


def test_only_the_first_page_is_read_and_says_so(tmp_path):
    pages = [Image.fromarray(GREY8), Image.fromarray(255 - GREY8)]
    path = save(tmp_path, pages[0], "a.tif", save_all=True, append_images=pages[1:])
    image = open_image(str(path))
    assert image.warnings == ("only the first of 2 pages or frames is read",)
    assert image.n_slices == count_slices(str(path)) == 1
    np.testing.assert_array_equal(image.read(0, 1).pixels[0], GREY8)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
    ],
    ids=["png", "jpeg", "progressive jpeg", "tiff", "tiff lzw", "bmp"],
)
def test_a_cut_file_is_never_half_an_image(tmp_path, kind, options):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (120, 130), dtype=np.uint8)).save(buffer, kind, **options)
    whole = buffer.getvalue()
    path = tmp_path / "a"
    path.write_bytes(whole)
    expected = pixels_of(path)
    reasons = []
    for n in [*range(1, len(whole), len(whole) // 60), *range(len(whole) - 30, len(whole))]:
        path.write_bytes(whole[:n])
        try:
            got = pixels_of(path)
        except ImageError as error:
            reasons.append(error.reason)
        else:
            # the bytes behind the pixels (a checksum, an end marker) may be missing
            np.testing.assert_array_equal(got, expected)
    assert len(reasons) > 55
    assert not any(str(tmp_path) in reason for reason in reasons)


def test_cut_files_stay_forbidden_when_pillow_was_told_otherwise(tmp_path, monkeypatch):
    path = write_png(tmp_path / "a.png", GREY8)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageError, match="LOAD_TRUNCATED_IMAGES"):
        pixels_of(path)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = write_png(tmp_path / "a.png", GREY8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="200 pixels"):
        pixels_of(path)


def test_a_broken_header_is_named(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 60)
    with pytest.raises(ImageError, match="header can not be read") as error:
        open_image(str(path))
    assert error.value.stage == "open"


def test_nih_radiographs_are_what_pillow_decodes(shared_data):
    paths = sorted((shared_data / "nih_chestxray14" / "images").glob("*.png"))[:3]
    assert len(paths) == 3
    for path in paths:
        image = open_image(str(path))
        with Image.open(path) as theirs:
            np.testing.assert_array_equal(image.read(0, 1).pixels[0], np.asarray(theirs))
        assert image.limits(parse_window("auto"), 0, 1).tolist() == [[[0, 255]]]
