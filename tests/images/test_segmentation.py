from pathlib import Path

import numpy as np
import pydicom
import pytest

from embedcache.errors import ImageError
from embedcache.images import open_image, read_segmentation
from embedcache.images.options import ImageOptions
from embedcache.images.segmentation import segment_labels
from embedcache.testing.files import write_png, write_series
from tests.images.dicom_makers import write_enhanced, write_segmentation

RNG = np.random.default_rng(7)
VOLUME = RNG.integers(0, 2000, (4, 8, 6)).astype(np.int16)


@pytest.fixture
def series(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME, origin=(3, 4, 5))
    return str(folder)


def position(i):
    return 3.0, 4.0, 5.0 + 2.0 * i


def instance(series, i):
    """SOPInstanceUID of the slice at position i."""
    datasets = [pydicom.dcmread(f, stop_before_pixels=True) for f in Path(series).iterdir()]
    return sorted(datasets, key=lambda d: d.ImagePositionPatient[2])[i].SOPInstanceUID


def pattern(seed=1):
    return np.random.default_rng(seed).integers(0, 2, (8, 6)).astype(np.uint8)


@pytest.mark.parametrize("by", ["position", "instance", "both"])
def test_binary_frames_go_to_their_slices(tmp_path, series, by):
    a, b = pattern(1), pattern(2)
    c = (1 - b).astype(np.uint8)
    path = write_segmentation(
        tmp_path / "m.dcm",
        [(2, b), (1, a), (1, c)],
        positions=[position(i) for i in (3, 0, 3)] if by != "instance" else None,
        sources=[instance(series, i) for i in (3, 0, 3)] if by != "position" else None,
    )
    mask = read_segmentation(str(path), series)
    expected = np.zeros(VOLUME.shape, np.uint8)
    expected[0] = a
    expected[3] = 2 * b + c
    assert mask.values.dtype == np.uint8
    np.testing.assert_array_equal(mask.values, expected)
    assert mask.classes == ("first", "second")


def test_chosen_segments_are_the_classes_in_their_order(tmp_path, series):
    a, b = pattern(1), pattern(2)
    path = write_segmentation(tmp_path / "m.dcm", [(1, a), (2, b)], positions=[position(1)] * 2)
    only = read_segmentation(str(path), series, segments=[2])
    np.testing.assert_array_equal(only.values[1], b)
    assert only.classes == ("second",)
    with pytest.raises(ImageError, match="two segments of the segmentation share a pixel"):
        read_segmentation(str(path), series)
    with pytest.raises(ImageError, match=r"no segment 3; it has \[1, 2\]"):
        read_segmentation(str(path), series, segments=[3])


def test_a_pixel_of_a_fractional_one_is_of_the_segment_that_covers_most_of_it(tmp_path, series):
    a, b = (np.random.default_rng(s).integers(0, 101, (8, 6)).astype(np.uint8) for s in (1, 2))
    path = write_segmentation(tmp_path / "m.dcm", [(1, a), (2, b)], kind="FRACTIONAL", positions=[position(2)] * 2)
    mask = read_segmentation(str(path), series)
    expected = np.where(np.maximum(a, b) < 50, 0, np.where(b > a, 2, 1))
    np.testing.assert_array_equal(mask.values[2], expected)
    assert not mask.values[[0, 1, 3]].any()


def test_a_label_map_names_its_segments_itself(tmp_path, series):
    pixels = np.random.default_rng(3).integers(0, 3, (8, 6)).astype(np.uint8)
    path = write_segmentation(tmp_path / "m.dcm", [(None, pixels)], kind="LABELMAP", positions=[position(1)])
    np.testing.assert_array_equal(read_segmentation(str(path), series).values[1], pixels)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_it_is_cut_along_the_plane_of_its_image(tmp_path, series, plane):
    """A segmentation whose pixels are the image's own, bit for bit, stays so in every plane."""
    options = ImageOptions(plane)
    bits = (VOLUME & 1).astype(np.uint8)
    path = write_segmentation(
        tmp_path / "m.dcm", [(1, bits[i]) for i in (2, 0, 3, 1)], positions=[position(i) for i in (2, 0, 3, 1)]
    )
    image = open_image(series, options)
    expected = image.read(0, image.n_slices).pixels & 1
    np.testing.assert_array_equal(read_segmentation(str(path), series, options=options).values, expected)


def test_no_segment_is_an_empty_mask(tmp_path, series):
    path = write_segmentation(tmp_path / "m.dcm", [(1, pattern())], positions=[position(1)])
    mask = read_segmentation(str(path), series, segments=[])
    assert mask.classes == ()
    assert mask.values.shape == VOLUME.shape
    assert not mask.values.any()


def test_the_names_of_segments_without_an_image(tmp_path, series):
    path = write_segmentation(tmp_path / "m.dcm", [(1, pattern())], labels=("Liver", ""), positions=[position(1)])
    assert segment_labels(str(path)) == {1: "Liver", 2: "segment 2"}
    assert segment_labels(series) is None
    assert segment_labels(str(next(Path(series).iterdir()))) is None
    assert segment_labels(str(write_png(tmp_path / "a.png", pattern()))) is None


def test_an_image_of_another_format_is_refused(tmp_path, series):
    path = write_segmentation(tmp_path / "m.dcm", [(1, pattern())], positions=[position(1)])
    with pytest.raises(ImageError, match="an image that is no DICOM file"):
        read_segmentation(str(path), str(write_png(tmp_path / "a.png", pattern())))


def test_on_the_frames_of_an_enhanced_image(tmp_path):
    image = write_enhanced(tmp_path / "image.dcm", VOLUME[np.newaxis], origin=(3, 4, 5), seed=4)
    path = write_segmentation(tmp_path / "m.dcm", [(1, pattern())], positions=[position(2)])
    mask = read_segmentation(str(path), str(image))
    np.testing.assert_array_equal(mask.values[2], pattern())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"positions": [(3, 4, 6)]}, "frame 1 of the segmentation lies on no slice"),
        ({"positions": [(9, 4, 5)]}, "frame 1 of the segmentation lies on no slice"),
        ({"positions": [(3, 4, 5)], "spacing": (2.0, 0.5, 0.5)}, "frame 1 of the segmentation lies on no slice"),
        (
            {"positions": [(3, 4, 5)], "orientation": (-1, 0, 0, 0, 1, 0)},
            "frame 1 of the segmentation lies on no slice",
        ),
        ({"sources": ["1.2.3"]}, "frame 1 of the segmentation lies on no slice"),
    ],
)
def test_a_frame_that_lies_on_no_slice_is_named(tmp_path, series, changes, reason):
    path = write_segmentation(tmp_path / "m.dcm", [(1, pattern())], **changes)
    with pytest.raises(ImageError, match=reason) as error:
        read_segmentation(str(path), series)
    assert error.value.stage == "open"


def test_what_contradicts_itself_is_refused(tmp_path, series):
    path = write_segmentation(
        tmp_path / "m.dcm", [(1, pattern())], positions=[position(1)], sources=[instance(series, 2)]
    )
    with pytest.raises(ImageError, match="another slice than the one at its position"):
        read_segmentation(str(path), series)


def test_another_size_and_no_segmentation_are_refused(tmp_path, series):
    path = write_segmentation(tmp_path / "m.dcm", [(1, pattern()[:4])], positions=[position(0)])
    with pytest.raises(ImageError, match="has 4x6 pixels, and its image 8x6"):
        read_segmentation(str(path), series)
    with pytest.raises(ImageError, match="no segmentation"):
        read_segmentation(str(next(Path(series).iterdir())), series)
    with pytest.raises(ImageError, match="no such file") as error:
        read_segmentation(str(tmp_path / "secret.dcm"), series)
    assert "secret" not in str(error.value)


def test_the_liver_of_pydicoms_files(tmp_path, pydicom_file):
    """A published segmentation, on a series made at the positions that it names."""
    dataset = pydicom.dcmread(pydicom_file("liver.dcm"))
    origin = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    spacing = (float(measures.SpacingBetweenSlices), *map(float, measures.PixelSpacing))
    places = [
        float(g.PlanePositionSequence[0].ImagePositionPatient[2]) for g in dataset.PerFrameFunctionalGroupsSequence
    ]
    folder = write_series(
        tmp_path / "s", np.zeros((5, 512, 512), np.uint8), origin=(*origin[:2], min(places) - 1), spacing=spacing
    )
    mask = read_segmentation(pydicom_file("liver.dcm"), str(folder))
    assert mask.classes == ("Liver",)
    np.testing.assert_array_equal(mask.values[1:4], dataset.pixel_array[np.argsort(places)])
    assert mask.values.any()
    assert not mask.values[[0, 4]].any()
