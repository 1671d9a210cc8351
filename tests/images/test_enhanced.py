import numpy as np
import pydicom
import pytest

from embedcache.errors import ImageError
from embedcache.images.options import ImageOptions
from embedcache.images.series import count_dicom, parse_dicom
from tests.images.dicom_makers import write_enhanced

RNG = np.random.default_rng(5)
VOLUME = RNG.integers(-1000, 2000, (3, 6, 5, 4)).astype(np.int16)


def parsed(path, **options):
    ours = parse_dicom([path.read_bytes()], ImageOptions(**options))
    assert count_dicom([str(path)], ImageOptions(**options)) == ours.n_slices
    return ours


@pytest.mark.parametrize("shared_orientation", [True, False])
def test_frames_are_sorted_by_the_positions_of_their_functional_groups(tmp_path, shared_orientation):
    windows = [(float(10 * i), 101.0) for i in range(6)]
    ours = parsed(
        write_enhanced(
            tmp_path / "a.dcm",
            VOLUME[:1],
            slopes=[1.0 + i for i in range(6)],
            intercepts=[-float(i) for i in range(6)],
            windows=windows,
            origin=(5, 6, 7),
            shared_orientation=shared_orientation,
        )
    )
    np.testing.assert_array_equal(ours.decode(0, 6), VOLUME[0])
    np.testing.assert_array_equal(ours.decode(2, 4), VOLUME[0, 2:4])
    np.testing.assert_array_equal(ours.calibration.slope, np.arange(1, 7))
    np.testing.assert_array_equal(ours.calibration.intercept, -np.arange(6))
    assert ours.calibration.voi == tuple((c - 0.5, w - 1) for c, w in windows)
    assert ours.spacing == (2.0, 0.7, 0.7)
    np.testing.assert_allclose(ours.affine @ [3, 2, 1, 1], [-(5 + 0.7), -(6 + 2 * 0.7), 7 + 3 * 2, 1])
    assert ours.warnings == ()


@pytest.mark.parametrize("time", [0, 1, 2])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_dimension_index_tells_time_points(tmp_path, time, seed):
    ours = parsed(write_enhanced(tmp_path / "a.dcm", VOLUME, modality="MR", seed=seed), time=time)
    np.testing.assert_array_equal(ours.decode(0, 6), VOLUME[time])
    assert ours.warnings == (f"3 time points (images at one position): number {time} is read",)


def test_a_time_point_that_is_not_there(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", VOLUME)
    with pytest.raises(ImageError, match="time point 3 was asked for, and the series has 3"):
        parsed(path, time=3)


def test_enhanced_and_classic_give_one_volume(tmp_path):
    """The same frames as one file or as many are the same image."""
    several = [write_enhanced(tmp_path / f"{i}.dcm", VOLUME[:1, i : i + 1], origin=(0, 0, 2.0 * i)) for i in range(6)]
    from_one = parsed(write_enhanced(tmp_path / "all.dcm", VOLUME[:1]))
    blobs = []
    for path in several:
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID = "1.2.3"
        dataset.save_as(path)
        blobs.append(path.read_bytes())
    from_many = parse_dicom(blobs[::-1])
    np.testing.assert_array_equal(from_many.decode(0, 6), from_one.decode(0, 6))
    np.testing.assert_allclose(from_many.affine, from_one.affine)
