import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from embedcache.errors import ImageError
from embedcache.images import SourceState, count_slices, open_image, parse_window, stat_source
from embedcache.testing.files import write_dicom, write_nifti, write_png, write_series

PIXELS = np.arange(20, dtype=np.uint8).reshape(4, 5)
VOLUME = np.arange(120, dtype=np.int16).reshape(4, 5, 6)


def test_state_and_digest_of_a_file(tmp_path):
    path = write_png(tmp_path / "a.png", PIXELS)
    state = stat_source(str(path))
    assert state == SourceState(path.stat().st_size, path.stat().st_mtime_ns)
    image = open_image(str(path))
    assert image.state == state
    assert image.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_state_of_a_series_is_all_bytes_and_the_newest_time(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME)
    files = sorted(folder.iterdir())
    os.utime(files[2], ns=(1, 2**61))
    (folder / "notes.txt").write_text("not counted")
    state = stat_source(str(folder))
    assert state == SourceState(sum(f.stat().st_size for f in files), 2**61)
    assert open_image(str(folder)).state == state


def test_stat_opens_no_file(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME)
    script = (
        "import sys\n"
        "from embedcache.images import stat_source\n"
        f"inside = {str(folder)!r}\n"
        "def hook(event, args):\n"
        "    if event == 'open' and str(args[0]).startswith(inside + '/'):\n"
        "        raise SystemExit('opened')\n"
        "sys.addaudithook(hook)\n"
        "print(stat_source(inside).size)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == stat_source(str(folder)).size


def test_the_room_starts_without_any_decoder():
    script = (
        "import sys, embedcache.images\n"
        "print(sorted({'PIL', 'pydicom', 'nibabel', 'torch', 'scipy'} & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_decode_process_starts_without_any_decoder():
    """There are as many as cores, in every extraction; with nibabel comes pydicom, which takes longer than all else."""
    script = (
        "import sys, embedcache.extraction.decoder, embedcache.images.resample, embedcache.images.grids\n"
        "print(sorted({'PIL', 'pydicom', 'nibabel', 'torch', 'scipy'} & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_reader_of_png_loads_pillow_alone(tmp_path):
    path = str(write_png(tmp_path / "a.png", PIXELS))
    script = (
        "import sys\n"
        "from embedcache.images import count_slices, open_image, parse_window\n"
        f"count_slices({path!r})\n"
        "assert 'PIL' not in sys.modules\n"
        f"image = open_image({path!r})\n"
        "image.read(0, 1), image.limits(parse_window('auto'), 0, 1)\n"
        "print({'PIL', 'pydicom', 'nibabel'} & set(sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "{'PIL'}"


def test_the_content_decides_not_the_suffix(tmp_path):
    write_png(tmp_path / "a.dcm", PIXELS)
    assert open_image(str(tmp_path / "a.dcm")).kind == "raster"
    write_dicom(tmp_path / "a.png", PIXELS)
    assert open_image(str(tmp_path / "a.png")).kind == "dicom"
    write_nifti(tmp_path / "a.nii", VOLUME)
    (tmp_path / "a.nii").rename(tmp_path / "a.jpg")
    assert open_image(str(tmp_path / "a.jpg")).kind == "nifti"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.png", b"", "empty"),
        ("a.png", b"these are words\n" * 100, "its first bytes are text"),
        ("a.dcm", "gr\u00fc\u00dfe ".encode() * 300, "its first bytes are text"),
        ("a.nii.gz", b"<html>", "its first bytes are text"),
        ("a.png", b"PK\x03\x04" + bytes(50), r"50 4b 03 04"),
        ("a.png", b"\x08\x00\x05\x00CS", r"08 00 05 00"),
    ],
)
def test_what_is_not_an_image(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    for read in (open_image, count_slices):
        with pytest.raises(ImageError, match=says) as error:
            read(str(path))
        assert error.value.stage == "open"
        assert str(tmp_path) not in error.value.reason
        assert name not in error.value.reason


@pytest.mark.parametrize("read", [stat_source, count_slices, open_image])
def test_a_file_that_is_not_there(tmp_path, read):
    for path in (tmp_path / "gone.png", write_png(tmp_path / "a.png", PIXELS) / "below"):
        with pytest.raises(ImageError, match="no such file") as error:
            read(str(path))
        assert str(tmp_path) not in error.value.reason


@pytest.mark.parametrize("read", [stat_source, count_slices, open_image])
def test_a_folder_without_images(tmp_path, read):
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "inner").mkdir()
    with pytest.raises(ImageError, match="no DICOM file"):
        read(str(tmp_path))


def test_slices_that_are_not_there(tmp_path):
    image = open_image(str(write_nifti(tmp_path / "a.nii", VOLUME)))
    for start, stop in ((0, 7), (-1, 2), (3, 3)):
        with pytest.raises(IndexError, match="of an image of 6"):
            image.read(start, stop)
        with pytest.raises(IndexError, match="of an image of 6"):
            image.limits(parse_window("auto"), start, stop)


def test_reading_in_parts_is_reading_at_once(tmp_path):
    path = str(write_series(tmp_path / "s", VOLUME, slopes=[1, 2, 3, 4]))
    whole = open_image(path).read(0, 4)
    image = open_image(path)
    for start, stop in ((1, 3), (0, 4), (2, 3), (1, 4)):
        part = image.read(start, stop)
        np.testing.assert_array_equal(part.pixels, whole.pixels[start:stop])
        np.testing.assert_array_equal(part.calibration.slope, whole.calibration.slope[start:stop])


def test_pixels_are_fit_for_torch(tmp_path):
    for path in (
        write_png(tmp_path / "a.png", PIXELS),
        write_dicom(tmp_path / "a.dcm", VOLUME),
        write_nifti(tmp_path / "a.nii", VOLUME),
    ):
        image = open_image(str(path))
        pixels = image.read(0, image.n_slices).pixels
        assert pixels.flags.c_contiguous
        assert pixels.flags.writeable
        assert pixels.dtype.isnative
