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


def saved_pages(tmp_path, pages, **options):
    made = [Image.fromarray(page) for page in pages]
    return save(tmp_path, made[0], "a.tif", save_all=True, append_images=made[1:], **options)


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg", "quality": 100}])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "rgb"])
def test_the_pages_of_a_tiff_are_slices(tmp_path, options, dtype):
    if options.get("compression") == "jpeg" and dtype not in ("uint8", "rgb"):
        pytest.skip("JPEG has 8 bits")
    shape = (5, 16, 24, 3) if dtype == "rgb" else (5, 16, 24)
    values = RNG.integers(0, 255, shape).astype("uint8" if dtype == "rgb" else dtype)
    path = saved_pages(tmp_path, values, **options)
    image = open_image(str(path))
    assert image.warnings == ()
    assert image.n_slices == count_slices(str(path)) == 5
    whole = image.read(0, 5).pixels
    if "quality" not in options:
        np.testing.assert_array_equal(whole, values)
    # in any order, and each as if it were a file of its own
    for i in (3, 0, 4):
        np.testing.assert_array_equal(open_image(str(path)).read(i, i + 1).pixels[0], whole[i])
        alone = save(tmp_path, Image.fromarray(values[i]), f"{i}.tif", **options)
        assert count_slices(str(alone)) == 1
        np.testing.assert_array_equal(open_image(str(alone)).read(0, 1).pixels[0], whole[i])
        for window in ("auto", "min-max"):
            np.testing.assert_array_equal(
                image.limits(parse_window(window), i, i + 1), open_image(str(alone)).limits(parse_window(window), 0, 1)
            )
    np.testing.assert_array_equal(image.read(1, 4).pixels, whole[1:4])


@pytest.mark.parametrize("other", [GREY8[:-1], GREY8.astype(np.uint16)], ids=["size", "type"])
def test_pages_of_several_kinds_are_refused(tmp_path, other):
    path = saved_pages(tmp_path, [GREY8, other])
    for read in (open_image, count_slices):
        with pytest.raises(ImageError, match="its 2 pages have several sizes, pixel types or orientations") as error:
            read(str(path))
        assert error.value.stage == "open"


def test_a_thumbnail_is_no_page(tmp_path):
    first, small = Image.fromarray(GREY8), Image.fromarray(GREY8[::2, ::2])
    small.encoderinfo = {"tiffinfo": {254: 1}}
    path = save(tmp_path, first, "a.tif", save_all=True, append_images=[small])
    image = open_image(str(path))
    assert image.n_slices == count_slices(str(path)) == 1
    np.testing.assert_array_equal(image.read(0, 1).pixels[0], GREY8)


def test_a_cut_page_is_named_as_damage_and_the_others_are_read(tmp_path):
    values = RNG.integers(0, 255, (3, 40, 50)).astype(np.uint8)
    path = saved_pages(tmp_path, values)
    data = bytearray(path.read_bytes())
    with Image.open(path) as image:
        image.seek(2)
        (offset,) = image.tag_v2[273]
    struct.pack_into("<I", data, data.index(struct.pack("<I", offset)), len(data) + 1000)
    path.write_bytes(data)
    image = open_image(str(path))
    np.testing.assert_array_equal(image.read(0, 2).pixels, values[:2])
    with pytest.raises(ImageError, match="cut short or damaged"):
        image.read(2, 3)


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
