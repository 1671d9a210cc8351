import io
import re

import numpy as np
import pydicom
import pytest

from embedcache.images.mosaic import Tile, find_mosaic
from embedcache.images.options import ImageOptions
from embedcache.images.series import count_dicom, parse_dicom
from embedcache.testing.files import write_dicom

RNG = np.random.default_rng(6)


@pytest.fixture
def siemens(shared_data):
    return sorted((shared_data / "dcm_qa_nih" / "In" / "Siemens_mr_0003").glob("*.dcm"))


def blob(dataset):
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def test_one_file_is_one_volume_of_five_slices(siemens):
    ours = parse_dicom([siemens[0].read_bytes()])
    assert ours.n_slices == count_dicom([str(siemens[0])]) == 5
    assert ours.spacing == (12, 3, 3)
    assert ours.warnings == ()
    whole = pydicom.dcmread(siemens[0]).pixel_array
    np.testing.assert_array_equal(ours.decode(3, 5)[0], whole[72:144, :72])


def test_two_files_are_two_time_points(siemens):
    first = [parse_dicom([f.read_bytes()]).decode(0, 5) for f in siemens]
    for time in (0, 1):
        ours = parse_dicom([f.read_bytes() for f in siemens[::-1]], ImageOptions(time=time))
        np.testing.assert_array_equal(ours.decode(0, 5), first[time])


def test_a_turned_normal_turns_the_order_of_the_tiles(siemens):
    """Slices that were numbered from the head down: the last tile lies lowest, the first one where the header says."""
    dataset = pydicom.dcmread(siemens[0])
    header = dataset[0x0029, 0x1010].value
    start = header.index(b"SliceNormalVector")
    one = re.compile(rb"[ -]?1\.00000000").search(header, start)
    dataset[0x0029, 0x1010].value = header[: one.start()] + b"-1.0000000" + header[one.start() + 10 :]
    assert find_mosaic(dataset).normal.tolist() == [0, 0, -1]
    turned, plain = parse_dicom([blob(dataset)]), parse_dicom([siemens[0].read_bytes()])
    np.testing.assert_array_equal(turned.decode(0, 5), plain.decode(0, 5)[::-1])
    np.testing.assert_allclose(turned.affine[:, 3] - plain.affine[:, 3], [0, 0, -4 * 12, 0], atol=1e-9)


def made(tmp_path, n_images):
    tiles = RNG.integers(0, 4096, (9, 4, 5)).astype(np.uint16)
    image = tiles.reshape(3, 3, 4, 5).transpose(0, 2, 1, 3).reshape(12, 15)
    path = write_dicom(tmp_path / "a.dcm", image, modality="MR", spacing=(2, 1), thickness=3, position=(10, 20, 30))
    dataset = pydicom.dcmread(path)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    if n_images is not None:
        dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", n_images)
    dataset.save_as(path)
    return tiles, path


@pytest.mark.parametrize("n", [5, 8, 9])
def test_tiles_run_row_by_row_and_empty_ones_are_left_out(tmp_path, n):
    tiles, path = made(tmp_path, n)
    ours = parse_dicom([path.read_bytes()])
    assert ours.n_slices == count_dicom([str(path)]) == n
    np.testing.assert_array_equal(ours.decode(0, n), tiles[:n])
    # the centre of the tile is the centre of the mosaic: (15 - 5) / 2 columns of 1 mm, (12 - 4) / 2 rows of 2 mm
    np.testing.assert_allclose(ours.affine @ [0, 0, 0, 1], [-(10 + 5), -(20 + 8), 30, 1])
    np.testing.assert_allclose(ours.affine @ [n - 1, 0, 0, 1], [-(10 + 5), -(20 + 8), 30 + 3 * (n - 1), 1])


@pytest.mark.parametrize("n", [None, 0, 200])
def test_a_mosaic_that_does_not_say_its_tiles_is_one_slice(tmp_path, n):
    _, path = made(tmp_path, n)
    ours = parse_dicom([path.read_bytes()])
    assert ours.n_slices == count_dicom([str(path)]) == 1
    assert ours.warnings == ("a Siemens mosaic that does not say its tiles is read as one slice",)


def test_a_tile_is_a_part_of_the_image():
    image = np.arange(30).reshape(5, 6)
    np.testing.assert_array_equal(Tile(1, 2, 2, 3).cut(image), image[1:3, 2:5])
