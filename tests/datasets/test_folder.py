"""A folder per class, with and without parts above."""

import pytest

from embedcache.datasets import DatasetOptions, open_dataset
from embedcache.datasets.describe import describe_labels
from embedcache.errors import InputError


def opened(path, **options):
    return open_dataset("folder", str(path), DatasetOptions(**options))


@pytest.fixture
def root(tmp_path, png):
    folder = tmp_path / "scans"
    for name in ("tumour/b.png", "tumour/a.png", "normal/deep/c.png"):
        png(folder / name)
    return folder


def test_images_are_sorted_and_classes_are_their_folders(root):
    dataset = opened(root)
    assert dataset.samples().id.tolist() == ["normal/deep/c.png", "tumour/a.png", "tumour/b.png"]
    assert dataset.info.name == "scans"
    labels = dataset.labels()
    assert labels.get("class").classes == ("normal", "tumour")
    assert labels.klass.tolist() == ["normal", "tumour", "tumour"]
    assert labels.value.tolist() == [1, 1, 1]
    assert dataset.columns()["class"].tolist() == ["normal", "tumour", "tumour"]
    assert "every image counts as a patient of its own" in dataset.notices[0]


def test_a_positive_makes_it_binary(root):
    labels = opened(root, positive=("class=tumour",)).labels()
    assert labels.get("class").kind == "binary"
    assert labels.value.tolist() == [0, 1, 1]


def test_parts_above_the_classes_are_the_split(tmp_path, png):
    for name in ("train/a/1.png", "Val/b/2.png", "test/a/3.png"):
        png(tmp_path / "d" / name)
    samples = opened(tmp_path / "d").samples()
    assert dict(zip(samples.id.tolist(), samples.split.tolist(), strict=True)) == {
        "train/a/1.png": "train", "Val/b/2.png": "validation", "test/a/3.png": "test",
    }  # fmt: skip


def test_other_files_are_left_out_and_counted(root):
    for name in ("tumour/.hidden.png", "tumour/notes.txt", "README.md", "tumour/Thumbs.db"):
        (root / name).write_text("text")
    dataset = opened(root)
    assert len(dataset.samples()) == 3
    assert "4 files were left out" in dataset.notices[1]


def test_a_dicom_file_without_a_suffix_is_an_image(root):
    (root / "tumour" / "IM0001").write_bytes(bytes(128) + b"DICM")
    assert "tumour/IM0001" in opened(root).samples().id.tolist()


def test_labels_of_a_second_table_come_beside_the_class(root, tmp_path):
    (tmp_path / "l.csv").write_text("path,grade\ntumour/a.png,1\ntumour/b.png,0\n")
    labels = opened(root, label_table=str(tmp_path / "l.csv")).labels()
    assert [t.name for t in labels.tasks] == ["class", "grade"]


def test_of_two_classes_both_keep_their_names(root):
    (task,) = opened(root, positive=("class=tumour",)).labels().tasks
    assert task.values == ("normal", "tumour")


def test_its_labels_are_described(root):
    (line,) = describe_labels(opened(root))
    assert (line["task"], line["classes"], line["missing"]) == ("class", {"normal": 1, "tumour": 2}, 0)


def test_bad_folders_are_one_clear_line(root, tmp_path, png):
    with pytest.raises(InputError, match="there is no folder gone"):
        opened(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="folder empty holds no image in a folder per class"):
        opened(tmp_path / "empty")
    with pytest.raises(
        InputError, match="--positive class=cyst: the task of a folder is `class`, and its classes are normal"
    ):
        opened(root, positive=("class=cyst",))
    with pytest.raises(InputError, match="dataset folder does not take --patient-column"):
        opened(root, patient_column="x")
    png(root / "train" / "a" / "1.png")
    with pytest.raises(InputError, match="folder scans holds the part 'train' beside 'normal'"):
        opened(root)


def test_one_class_is_no_task_and_that_is_said(tmp_path, png):
    png(tmp_path / "d" / "a" / "1.png")
    dataset = opened(tmp_path / "d")
    assert dataset.labels().task.tolist() == [""]
    assert "one class only" in dataset.notices[-1]
