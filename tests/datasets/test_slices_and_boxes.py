"""Labels of slices by their numbers, in either order; and boxes as the public tables have them."""

from pathlib import Path

import numpy as np
import pytest

from embedcache.datasets import DatasetOptions, open_dataset
from embedcache.datasets.describe import describe_labels
from embedcache.errors import InputError
from embedcache.images import open_image
from embedcache.testing.files import write_nifti, write_series

HEAD_FIRST = np.diag([1.0, 1.0, -1.0, 1.0])


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Two volumes of 6 slices, of which the file's slice 1 is bright; one is stored from head to feet."""
    voxels = np.zeros((4, 4, 6), np.int16)
    voxels[:, :, 1] = 500
    write_nifti(tmp_path / "up.nii", voxels)
    write_nifti(tmp_path / "down.nii", voxels, HEAD_FIRST)
    (tmp_path / "cases.csv").write_text("path,id\nup.nii,up\ndown.nii,down\n")
    (tmp_path / "slices.csv").write_text(
        "id,slice,bright\n" + "".join(f"{name},{k},{int(k == 1)}\n" for name in ("up", "down") for k in range(6))
    )
    return tmp_path / "cases.csv"


def joined(table: Path, second: str, **options: str):
    return open_dataset("table", str(table), DatasetOptions(label_table=str(table.with_name(second)), **options))


@pytest.mark.parametrize("name", ["up", "down"])
def test_numbers_of_the_file_follow_its_slices(volumes: Path, name: str) -> None:
    dataset = joined(volumes, "slices.csv", level="slice", slice_order="file")
    assert not dataset.notices[1:]
    labels = dataset.labels()
    mine = (labels.task == "bright") & (labels.sample == name)
    bright = dict(zip(labels.slice[mine].tolist(), labels.value[mine].tolist(), strict=True))
    pixels = open_image(str(volumes.with_name(f"{name}.nii"))).read(0, 6).pixels
    assert [bright[k] for k in range(6)] == [float(pixels[k].max() == 500) for k in range(6)]


def test_numbers_count_from_feet_to_head_unless_said_and_a_file_that_does_not_is_told(volumes: Path) -> None:
    dataset = joined(volumes, "slices.csv", level="slice")
    assert dataset.notices[-1].startswith("1 samples store their slices from head to feet")
    assert "--slice-order file" in dataset.notices[-1]
    labels = dataset.labels()
    mine = (labels.task == "bright") & (labels.value == 1)
    assert labels.slice[mine].tolist() == [1, 1]
    said = joined(volumes, "slices.csv", level="slice", slice_order="anatomy")
    assert not any("head to feet" in notice for notice in said.notices)


def test_numbers_of_a_file_that_has_none_are_refused(volumes: Path) -> None:
    write_series(volumes.with_name("series"), np.zeros((3, 4, 4), np.int16))
    volumes.write_text("path,id\nup.nii,up\nseries,down\n")
    with pytest.raises(
        InputError, match=r"--slice-order file: the slices of row 2 of cases\.csv have no order in one file"
    ):
        joined(volumes, "slices.csv", level="slice", slice_order="file")
    write_nifti(volumes.with_name("up.nii"), np.zeros((4, 4, 5), np.int16))
    volumes.write_text("path,id\nup.nii,up\n")
    with pytest.raises(InputError, match=r"names slice 5 of row 1 of cases\.csv, which has 5, counted from 0"):
        joined(volumes, "slices.csv", level="slice", slice_order="file")
    with pytest.raises(InputError, match="did you mean 'file'"):
        joined(volumes, "slices.csv", level="slice", slice_order="files")


RSNA = "patientId,x,y,width,height,Target\n1.png,,,,,0\n2.png,3,4,5,6,1\n2.png,30,4,5,6,1\n"
VINDR = (
    "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
    "1.png,No finding,14,R1,,,,\n1.png,No finding,14,R2,,,,\n"
    "2.png,Aortic enlargement,0,R1,1,2,3,4\n2.png,Cardiomegaly,3,R2,1,2,3,4\n2.png,No finding,14,R3,,,,\n"
    "3.png,Cardiomegaly,3,R1,1,2,3,4\n"
)
PICTURES = [{"path": f"{i}.png"} for i in range(1, 5)]


@pytest.mark.parametrize(
    ("content", "classes", "expected"),
    [
        (RSNA, ("box",), {"1.png": [0], "2.png": [1]}),
        (VINDR, ("Aortic enlargement", "Cardiomegaly"), {"1.png": [0, 0], "2.png": [1, 1], "3.png": [0, 1]}),
    ],
)
def test_boxes_of_radiographs_are_labels_of_samples(table, content, classes, expected) -> None:
    cases = table(PICTURES)
    cases.with_name("boxes.csv").write_text(content)
    dataset = joined(cases, "boxes.csv")
    labels = dataset.labels()
    task = labels.get("box")
    assert (task.level, task.classes) == ("sample", classes)
    mine = labels.task == "box"
    found = {
        name: [float(labels.value[mine & (labels.sample == name) & (labels.klass == c)][0]) for c in classes]
        for name in dict.fromkeys(labels.sample[mine].tolist())
    }
    assert found == expected, "an image that no row names was not looked at"
    assert "a row without a box says that there is none" in describe_labels(dataset)[0]["reason"]
    sliced = joined(cases, "boxes.csv", level="slice").labels()
    assert sliced.get("box").level == "slice"
    assert set(sliced.slice[sliced.task == "box"].tolist()) == {0}


def test_boxes_of_volumes_are_labels_of_slices_or_of_samples(volumes: Path) -> None:
    volumes.with_name("boxes.csv").write_text("id,slice,xmin,ymin,xmax,ymax\nup,4,1,1,2,2\ndown,,,,,\n")
    labels = joined(volumes, "boxes.csv").labels()
    mine = labels.task == "box"
    assert labels.value[mine].tolist() == [0, 0, 0, 0, 1, 0] + [0] * 6
    whole = joined(volumes, "boxes.csv", level="sample").labels()
    assert whole.value[whole.task == "box"].tolist() == [1, 0]
    with pytest.raises(InputError, match=r"boxes are labels of slices or of samples\. Got --level patient"):
        joined(volumes, "boxes.csv", level="patient")


BAD = {
    "id,slice,x,y,w,h\nup,6,1,1,2,2\n": r"row 1 of boxes\.csv has a box on slice 6, and its sample has 6, counted from 0",
    "id,x,y,w,h\nup,1,1,2,2\n": r"boxes\.csv has no column of slice numbers",
    "id,slice,x,y,w,h\nup,1,,,,\n": r"no row of boxes\.csv that matches a sample has a box",
    "id,slice,x,y,w,h\nup,1,1,,2,2\n": r"row 1 of boxes\.csv has no number in column 'y'",
}


@pytest.mark.parametrize("content", BAD)
def test_boxes_that_do_not_fit_are_one_clear_line(volumes: Path, content: str) -> None:
    volumes.with_name("boxes.csv").write_text(content)
    with pytest.raises(InputError, match=BAD[content]):
        joined(volumes, "boxes.csv")


def test_boxes_of_a_patient_with_several_images_are_refused(table) -> None:
    cases = table([{"path": "1.png", "patient": "a"}, {"path": "2.png", "patient": "a"}])
    cases.with_name("boxes.csv").write_text("patient,x,y,w,h\na,1,1,2,2\n")
    with pytest.raises(InputError, match=r"boxes\.csv names patients, some of whom have several samples in cases\.csv"):
        joined(cases, "boxes.csv")


def test_declared_columns_of_a_table_of_boxes_are_labels(table) -> None:
    cases = table(PICTURES)
    cases.with_name("boxes.csv").write_text("id,x,y,w,h,ill\n1.png,1,1,2,2,1\n2.png,,,,,0\n")
    labels = joined(cases, "boxes.csv", tasks=("ill=binary",)).labels()
    assert [task.name for task in labels.tasks] == ["ill"]
