import re
import shutil
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.errors import ImageError
from embedcache.images import count_slices, open_image, parse_window
from embedcache.images.options import ImageOptions
from embedcache.images.series import count_dicom, parse_dicom
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
    assert image.warnings == ("slices are not parallel (2 orientations): ordered by InstanceNumber",)


def test_a_missing_slice_is_said(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME)
    (gone,) = [f for f in folder.iterdir() if pydicom.dcmread(f).ImagePositionPatient[2] == 4]
    gone.unlink()
    image = open_image(str(folder))
    assert image.warnings == ("1 slice is missing: gaps of up to 4 mm, else 2 mm",)
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
    with pytest.raises(ImageError, match=r"file 3 of the series, by name: its pixel data is cut short") as error:
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
    np.testing.assert_array_equal(image.limits(parse_window("auto"), 2, 4)[:, 0], [[-3, 6], [-2, 7]])
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


def test_time_points_of_a_real_series(shared_data):
    folder = shared_data / "dcm_qa_nih" / "In" / "GE_mr_0004"
    image = open_image(str(folder))
    assert image.n_slices == count_slices(str(folder)) == 15
    assert image.warnings == ("10 time points (images at one position): number 0 is read",)
    assert image.spacing == pytest.approx((5, 3.75, 3.75))


# --- what a series can have wrong: named, or refused under `strict` -----------------------------------


def parsed(folder, **options):
    blobs = [f.read_bytes() for f in sorted(folder.iterdir())]
    ours = parse_dicom(blobs, ImageOptions(**options))
    assert count_dicom(sorted(map(str, folder.iterdir())), ImageOptions(**options)) == ours.n_slices
    return ours


def assert_named(folder, text):
    """The series is read with `text` as its only warning, and strict reading refuses it in these words."""
    ours = parsed(folder)
    assert ours.warnings == (text,)
    with pytest.raises(ImageError, match=re.escape(text)) as error:
        parsed(folder, strict=True)
    assert error.value.stage == "open"
    with pytest.raises(ImageError, match=re.escape(text)):
        count_dicom(sorted(map(str, folder.iterdir())), ImageOptions(strict=True))
    return ours


def edited(folder, edit):
    """Every slice of a series after `edit(dataset)`; it is left out where that gives False."""
    for file in list(folder.iterdir()):
        dataset = pydicom.dcmread(file)
        if edit(dataset) is False:
            file.unlink()
        else:
            dataset.save_as(file)
    return folder


def height(dataset):
    return float(dataset.ImagePositionPatient[2])


def test_strict_reads_a_flawless_series(tmp_path):
    assert parsed(write_series(tmp_path / "s", VOLUME), strict=True).warnings == ()


def test_missing_slices_are_counted(tmp_path):
    folder = edited(write_series(tmp_path / "s", VOLUME), lambda d: height(d) not in (4, 10))
    ours = assert_named(folder, "2 slices are missing: gaps of up to 4 mm, else 2 mm")
    assert ours.affine is None
    assert ours.spacing == (2, 0.7, 0.7)


def test_a_variable_distance_is_said(tmp_path):
    def move(dataset):
        z = height(dataset)
        dataset.ImagePositionPatient = [0, 0, z if z < 8 else z + 0.7]

    ours = assert_named(
        edited(write_series(tmp_path / "s", VOLUME), move), "the distance between slices varies: 2 to 2.7 mm"
    )
    assert ours.affine is None


def test_gantry_tilt_is_said_and_is_in_the_affine(tmp_path):
    def shear(dataset):
        z = height(dataset)
        dataset.ImagePositionPatient = [0, z * np.tan(np.radians(15)), z]

    ours = assert_named(
        edited(write_series(tmp_path / "s", VOLUME), shear),
        "gantry tilt: slices are moved sideways by 15.0 degrees, which the affine says",
    )
    np.testing.assert_allclose(ours.affine @ [6, 0, 0, 1], [0, -12 * np.tan(np.radians(15)), 12, 1])
    np.testing.assert_array_equal(ours.decode(0, 7), VOLUME)


def test_slices_that_leave_the_line_are_said(tmp_path):
    def move(dataset):
        dataset.ImagePositionPatient = [5 if height(dataset) == 6 else 0, 0, height(dataset)]

    assert_named(
        edited(write_series(tmp_path / "s", VOLUME), move),
        "slices do not lie on one line: their positions move sideways",
    )


def test_a_file_that_was_sent_twice_counts_once(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME)
    shutil.copy(sorted(folder.iterdir())[2], folder / "copy.dcm")
    ours = assert_named(folder, "1 slice is there twice: the copies are left out")
    np.testing.assert_array_equal(ours.decode(0, 7), VOLUME)
    assert ours.affine is not None


def test_two_images_at_one_position_are_duplicates_not_time_points(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME)
    write_dicom(
        folder / "z.dcm", VOLUME[0], modality="CT", position=(0, 0, 4), spacing=(0.7, 0.7), thickness=2, instance=99
    )
    ours = assert_named(folder, "duplicate slices: 1 positions hold several images, and the first made is read")
    np.testing.assert_array_equal(ours.decode(0, 7), VOLUME)


def test_a_localiser_is_left_out_whatever_its_size(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME)
    path = write_dicom(folder / "scout.dcm", VOLUME[0, :3], modality="CT", position=(0, 0, 3), instance=50)
    dataset = pydicom.dcmread(path)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    dataset.save_as(path)
    ours = assert_named(folder, "1 localiser is left out")
    np.testing.assert_array_equal(ours.decode(0, 7), VOLUME)


def test_a_series_of_localisers_only_is_read(tmp_path):
    def localiser(dataset):
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    assert parsed(edited(write_series(tmp_path / "s", VOLUME), localiser)).n_slices == 7


def test_slices_of_two_pixel_spacings_have_no_geometry(tmp_path):
    def zoom(dataset):
        dataset.PixelSpacing = [0.7, 0.7] if height(dataset) < 6 else [0.5, 0.5]

    ours = assert_named(
        edited(write_series(tmp_path / "s", VOLUME), zoom), "slices have several pixel spacings (PixelSpacing)"
    )
    assert ours.affine is ours.spacing is None


AT_DETECTOR = "ImagerPixelSpacing is at the detector: no true distance in the patient"


@pytest.mark.parametrize("corrected", [None, (0.14, 0.14), (0.12, 0.12)])
def test_the_spacing_at_the_detector_is_no_distance_in_the_patient(tmp_path, corrected):
    path = write_dicom(tmp_path / "a.dcm", VOLUME[0], modality="DX", spacing=corrected)
    dataset = pydicom.dcmread(path)
    dataset.ImagerPixelSpacing = [0.14, 0.14]
    dataset.save_as(path)
    if corrected == (0.12, 0.12):
        assert parsed(tmp_path).warnings == ()
    else:
        ours = open_image(str(path), ImageOptions(strict=True))
        assert ours.warnings == (AT_DETECTOR,)
        assert ours.spacing is ours.affine is None
        assert count_slices(str(path), ImageOptions(strict=True)) == 1


def test_the_spacing_at_the_detector_is_a_fault_where_it_became_a_geometry(tmp_path):
    def at_detector(dataset):
        dataset.ImagerPixelSpacing = dataset.PixelSpacing

    assert_named(edited(write_series(tmp_path / "s", VOLUME), at_detector), AT_DETECTOR)


def test_a_segmentation_is_no_image(pydicom_file):
    for read in (open_image, count_slices):
        with pytest.raises(ImageError, match="a mask, no image"):
            read(pydicom_file("liver.dcm"))


# --- time points --------------------------------------------------------------------------------------

TIMES = RNG.integers(0, 4096, (3, 4, 5, 6)).astype(np.uint16)


def write_times(folder, told, order):
    """TIMES as one file per slice; InstanceNumber from `order(time, slice)`, and what tells the time from `told`."""
    folder.mkdir()
    for t in range(3):
        for i in range(4):
            path = write_dicom(
                folder / f"{t}-{i}.dcm",
                TIMES[t, i],
                modality="MR",
                position=(0, 0, 2.0 * i),
                spacing=(1, 1),
                thickness=2,
                instance=order(t, i),
            )
            dataset = pydicom.dcmread(path)
            told(dataset, t)
            dataset.save_as(path)
    return folder


@pytest.mark.parametrize(
    "order",
    [lambda t, i: t * 4 + i, lambda t, i: i * 3 + t, lambda t, i: t * 4 + (3 - i)],
    ids=["time by time", "slice by slice", "downwards"],
)
@pytest.mark.parametrize("time", [0, 1, 2])
def test_instance_numbers_order_time_points_at_each_position(tmp_path, order, time):
    ours = parsed(write_times(tmp_path / "s", lambda d, t: None, order), time=time)
    np.testing.assert_array_equal(ours.decode(0, 4), TIMES[time])
    assert ours.time_point == time
    assert ours.affine is not None


@pytest.mark.parametrize("keyword", ["TemporalPositionIdentifier", "AcquisitionNumber"])
def test_what_the_header_says_of_time_wins_over_instance_numbers(tmp_path, keyword):
    scrambled = RNG.permutation(12)
    folder = write_times(
        tmp_path / "s", lambda d, t: setattr(d, keyword, 10 - t), lambda t, i: int(scrambled[t * 4 + i])
    )
    for time in range(3):
        np.testing.assert_array_equal(parsed(folder, time=time).decode(0, 4), TIMES[2 - time])


def test_images_side_by_side_are_no_time_points_without_a_word(tmp_path):
    folder = write_times(tmp_path / "s", lambda d, t: None, lambda t, i: t * 4 + i)

    def move(dataset):
        dataset.ImagePositionPatient = [30 if dataset.InstanceNumber < 4 else 0, 0, height(dataset)]

    assert "images at one height lie side by side, up to 30 mm apart" in parsed(edited(folder, move)).warnings
    with pytest.raises(ImageError, match="side by side"):
        parsed(folder, strict=True)


def test_a_time_point_that_is_cut_short_is_said(tmp_path):
    folder = write_times(tmp_path / "s", lambda d, t: None, lambda t, i: t * 4 + i)
    (folder / "2-3.dcm").unlink()
    with pytest.raises(ImageError, match="time point 2 was asked for, and the series has 2"):
        parsed(folder, time=2)
    ours = parsed(folder, time=1)
    np.testing.assert_array_equal(ours.decode(0, 4), TIMES[1])
    assert ours.warnings == (
        "2 time points (images at one position): number 1 is read",
        "positions hold 2 to 3 images: time points may be mixed up",
    )


@given(st.permutations(range(7)), st.integers(1, 3), st.floats(-500, 500))
@settings(max_examples=25, deadline=None)
def test_any_order_of_files_is_one_image(order, gap, origin):
    """Metamorphic: files in another order, and the whole patient moved, change neither slices nor distances."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_series(Path(name) / "s", VOLUME, spacing=(gap, 1, 1), origin=(0, 0, round(origin, 3)))
        files = sorted(folder.iterdir())
        ours = parse_dicom(files[i].read_bytes() for i in order)
    np.testing.assert_array_equal(ours.decode(0, 7), VOLUME)
    assert ours.spacing == pytest.approx((gap, 1, 1))
    assert ours.affine[2, 3] == pytest.approx(round(origin, 3))


def test_a_series_takes_the_memory_of_its_files_and_of_what_is_decoded(tmp_path):
    volume = RNG.integers(0, 4096, (30, 256, 256)).astype(np.int16)
    files = sorted(write_series(tmp_path / "s", volume).iterdir())
    tracemalloc.start()
    try:
        ours = parse_dicom(f.read_bytes() for f in files)
        held, most = tracemalloc.get_traced_memory()
        # the stored bytes once, a blob that is being read, and the headers
        assert held < 1.3 * volume.nbytes
        assert most < 1.4 * volume.nbytes
        tracemalloc.reset_peak()
        decoded = ours.decode(0, 30)
        _, most = tracemalloc.get_traced_memory()
        assert most < held + 1.2 * decoded.nbytes
    finally:
        tracemalloc.stop()


def test_no_warning_or_error_holds_an_identifier(tmp_path):
    def name(dataset):
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Planted^Name", "PLANTED-ID", "19010203"

    folder = edited(write_series(tmp_path / "s", VOLUME), name)
    shutil.copy(sorted(folder.iterdir())[2], folder / "copy.dcm")
    said = list(parsed(folder).warnings)
    with pytest.raises(ImageError) as error:
        parsed(folder, strict=True)
    said.append(str(error.value))
    instance = pydicom.dcmread(folder / "copy.dcm").SOPInstanceUID
    for secret in ("Planted", "PLANTED", "1901", instance, str(tmp_path)):
        assert not any(secret in text for text in said)
