import shutil

import numpy as np
import pydicom
import pytest

from embedcache.errors import ImageError
from embedcache.images import count_slices, open_image, parse_window
from embedcache.images.windows import physical
from embedcache.testing.files import write_dicom, write_series

RNG = np.random.default_rng(2)
VOLUME = RNG.integers(-1000, 2000, (7, 5, 6)).astype(np.int16)


def test_slices_are_ordered_along_their_normal(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME, slopes=np.arange(1, 8) / 2, intercepts=-np.arange(7))
    image = open_image(str(folder))
    volume = image.read(0, 7)
    assert image.n_slices == count_slices(str(folder)) == 7
    np.testing.assert_array_equal(volume.pixels, VOLUME)
    np.testing.assert_array_equal(volume.calibration.slope, np.arange(1, 8) / 2)
    np.testing.assert_array_equal(volume.calibration.intercept, -np.arange(7))
    assert image.spacing == (2.0, 0.7, 0.7)
    assert image.warnings == ()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_names_and_instance_numbers_do_not_matter(tmp_path, seed):
    folder = write_series(tmp_path / "s", VOLUME, seed=seed)
    np.testing.assert_array_equal(open_image(str(folder)).read(0, 7).pixels, VOLUME)


@pytest.mark.parametrize(
    "orientation",
    [(1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1), (0.8, 0.6, 0, 0, 0, -1)],
    ids=["axial", "coronal", "sagittal", "oblique"],
)
def test_the_affine_gives_each_slices_own_position(tmp_path, orientation):
    origin = (12.0, -30.0, 45.0)
    folder = write_series(tmp_path / "s", VOLUME, orientation=orientation, origin=origin, spacing=(3.0, 0.5, 0.25))
    image = open_image(str(folder))
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lps = origin + 4 * 3.0 * np.cross(row, column) + 2 * 0.5 * column + 5 * 0.25 * row
    np.testing.assert_allclose(image.affine @ [4, 2, 5, 1], [*(lps * [-1, -1, 1]), 1], atol=1e-9)
    # a part of the image has an affine of its own
    np.testing.assert_allclose(image.read(3, 6).affine @ [1, 2, 5, 1], image.affine @ [4, 2, 5, 1], atol=1e-9)


def test_without_positions_the_instance_number_decides_with_a_warning(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME, positions=False, instances=range(1, 8))
    image = open_image(str(folder))
    np.testing.assert_array_equal(image.read(0, 7).pixels, VOLUME)
    assert image.warnings == ("slices do not say their positions: ordered by InstanceNumber",)
    assert image.affine is None


def test_slices_that_are_not_parallel_come_by_instance_number(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME[:2], instances=[1, 2])
    write_dicom(
        folder / "scout.dcm", VOLUME[2], modality="CT", instance=3, position=(0, 0, 1), orientation=(1, 0, 0, 0, 0, -1)
    )
    image = open_image(str(folder))
    np.testing.assert_array_equal(image.read(0, 3).pixels, VOLUME[:3])
    assert image.warnings == ("slices are not parallel: ordered by InstanceNumber",)


def test_a_missing_slice_is_said(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME)
    (gone,) = [f for f in folder.iterdir() if pydicom.dcmread(f).ImagePositionPatient[2] == 4]
    gone.unlink()
    image = open_image(str(folder))
    assert image.warnings == ("slices are unevenly spaced: one is missing, or the distance changes",)
    assert image.affine is None
    np.testing.assert_array_equal(image.read(0, 6).pixels, np.delete(VOLUME, 2, axis=0))


def test_two_series_in_a_folder_are_refused(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME)
    write_dicom(folder / "other.dcm", VOLUME[0], series="another", position=(0, 0, 99))
    with pytest.raises(ImageError, match="2 DICOM series"):
        open_image(str(folder))


def test_slices_of_two_sizes_are_refused(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME)
    write_dicom(folder / "other.dcm", VOLUME[0, :4], modality="CT", position=(0, 0, 99))
    with pytest.raises(ImageError, match=r"several sizes \(Rows, Columns\)"):
        open_image(str(folder))


def test_a_cut_slice_spoils_its_series_and_is_named_without_its_file(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME)
    file = sorted(folder.iterdir())[2]
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ImageError, match=r"file 3 of 7 of the series, by name: its pixel data is cut short") as error:
        open_image(str(folder))
    assert file.name not in error.value.reason


def test_other_files_in_the_folder_are_no_part_of_it(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME)
    before = open_image(str(folder))
    for name in ("LICENSE", "notes.txt", ".DS_Store", "report.pdf", "labels.csv"):
        (folder / name).write_text("words")
    after = open_image(str(folder))
    assert after.digest == before.digest
    assert count_slices(str(folder)) == 7
    np.testing.assert_array_equal(after.read(0, 7).pixels, VOLUME)


def test_a_text_file_that_claims_to_be_a_slice_is_an_error(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME)
    (folder / "readme.dcm").write_text("words")
    with pytest.raises(ImageError, match="its first bytes are text"):
        open_image(str(folder))


def test_the_digest_is_of_the_contents_not_of_the_names(tmp_path):
    a, b = write_series(tmp_path / "a", VOLUME), tmp_path / "b"
    b.mkdir()
    for i, file in enumerate(sorted(a.iterdir())):
        shutil.copy(file, b / f"{100 - i}.dcm")
    assert open_image(str(a)).digest == open_image(str(b)).digest
    c = write_series(tmp_path / "c", VOLUME + 1)
    assert open_image(str(a)).digest != open_image(str(c)).digest


def test_windows_over_a_series(tmp_path):
    windows = [(float(i), 10.0) for i in range(7)]
    folder = write_series(tmp_path / "s", VOLUME, windows=windows, slopes=np.arange(1, 8) / 2)
    image = open_image(str(folder))
    hu = physical(VOLUME, image.read(0, 7).calibration)
    np.testing.assert_array_equal(image.limits(parse_window("auto"), 2, 4)[:, 0], [[-3, 7], [-2, 8]])
    np.testing.assert_array_equal(
        image.limits(parse_window("min-max"), 2, 4)[:, 0], [[h.min(), h.max()] for h in hu[2:4]]
    )
    np.testing.assert_array_equal(image.limits(parse_window("min-max@volume"), 2, 4)[:, 0], [[hu.min(), hu.max()]] * 2)
    np.testing.assert_allclose(
        image.limits(parse_window("percentile:5,95@volume"), 6, 7)[0, 0], np.percentile(hu, [5, 95])
    )


def test_the_shared_ct_series(shared_data):
    folder = shared_data / "ct_lung_a0002" / "dicom"
    image = open_image(str(folder))
    volume = image.read(0, image.n_slices)
    assert image.n_slices == count_slices(str(folder)) == 30
    assert image.spacing == pytest.approx((8.0, 0.646484375, 0.646484375))
    datasets = sorted((pydicom.dcmread(f) for f in folder.iterdir()), key=lambda d: d.ImagePositionPatient[2])
    hu = physical(volume.pixels, volume.calibration)
    for i, dataset in enumerate(datasets):
        np.testing.assert_array_equal(hu[i], dataset.pixel_array + float(dataset.RescaleIntercept))
        x, y, z = dataset.ImagePositionPatient
        np.testing.assert_allclose(image.affine @ [i, 0, 0, 1], [-x, -y, z, 1], atol=1e-3)  # positions have 3 places


def test_a_mosaic_is_said(shared_data):
    path = sorted((shared_data / "dcm_qa_nih" / "In" / "Siemens_mr_0003").glob("*.dcm"))[0]
    assert "a Siemens mosaic is read as one slice" in open_image(str(path)).warnings


def test_several_volumes_at_one_place_keep_position_then_number(shared_data):
    image = open_image(str(shared_data / "dcm_qa_nih" / "In" / "GE_mr_0004"))
    assert image.n_slices == 150
    assert image.warnings == ("several images lie at one position: no distance between slices",)
