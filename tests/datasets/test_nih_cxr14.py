"""ChestX-ray14 in NIH's own layout: a small replica, and the 2,911 shared radiographs."""

import numpy as np
import pytest

from embedcache.datasets import DatasetOptions, list_datasets, open_dataset
from embedcache.datasets.nih_cxr14 import FINDINGS
from embedcache.errors import InputError

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
ROWS = [
    ("00000002_000.png", "No Finding", "2", "PA"),
    ("00000001_000.png", "Cardiomegaly|Emphysema", "1", "PA"),
    ("00000001_001.png", "Hernia", "1", "AP"),
    ("00000003_000.png", "Mass", "3", "PA"),
]


def opened(root, **options):
    return open_dataset("nih-cxr14", str(root), DatasetOptions(**options))


@pytest.fixture
def root(tmp_path, png):
    """Four images in two of NIH's archive folders."""
    folder = tmp_path / "nih"
    for i, (name, *_) in enumerate(ROWS):
        png(folder / f"images_{1 + i // 2:03}" / "images" / name)
    write(folder, ROWS)
    (folder / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n00000002_000.png")
    (folder / "test_list.txt").write_text("00000003_000.png\n")
    return folder


def write(folder, rows, name="Data_Entry_2017.csv"):
    lines = [f"{image},{finding},0,{patient},58,M,{view}\n" for image, finding, patient, view in rows]
    (folder / name).write_text(HEADER + "".join(lines))


def test_images_are_in_the_tables_order_with_their_public_ids(root):
    dataset = opened(root)
    samples = dataset.samples()
    assert samples.id.tolist() == [row[0] for row in ROWS]
    assert samples.patient_id.tolist() == ["2", "1", "1", "3"]
    assert samples.split.tolist() == ["train", "train", "train", "test"]
    assert dataset.info.public_ids
    assert dataset.notices == ("4 of the 112,120 published images are here: a subset",)
    assert dataset.columns()["View Position"].tolist() == ["PA", "PA", "AP", "PA"]
    assert dataset.columns()["Patient Age"].tolist() == [58.0] * 4


def test_findings_are_the_fourteen_in_published_order(root):
    labels = opened(root).labels()
    assert labels.get("findings").classes == FINDINGS
    assert FINDINGS[0] == "Atelectasis"
    assert FINDINGS[-1] == "Hernia"
    matrix = labels.value.reshape(4, 14)
    assert [[FINDINGS[k] for k in np.flatnonzero(row)] for row in matrix] == [
        [], ["Cardiomegaly", "Emphysema"], ["Hernia"], ["Mass"],
    ]  # fmt: skip
    assert labels.klass.tolist() == list(FINDINGS) * 4


def test_the_later_table_is_preferred(root):
    write(root, ROWS[:2], "Data_Entry_2017_v2020.csv")
    dataset = opened(root)
    assert (len(dataset.samples()), dataset.info.version) == (2, "2017, table of 2020")
    assert "2 images have no row in Data_Entry_2017_v2020.csv" in dataset.notices[1]


def test_a_flat_folder_reads_alike(root):
    flat = root / "images"
    flat.mkdir()
    for file in sorted(root.glob("images_*/images/*.png")):
        file.rename(flat / file.name)
    assert opened(root).samples().path.tolist() == [str(flat / row[0]) for row in ROWS]


def test_missing_files_are_counted(root):
    next(root.glob("images_*/images/00000003_000.png")).unlink()
    dataset = opened(root)
    assert dataset.samples().row.tolist() == [1, 2, 3]
    assert "1 of the 4 images in Data_Entry_2017.csv have no file, the first is 00000003_000.png" in dataset.notices


def test_a_missing_list_is_said(root):
    (root / "test_list.txt").unlink()
    dataset = opened(root)
    assert dataset.samples().split.tolist() == ["train", "train", "train", ""]
    assert "test_list.txt is missing: its images have no split of their own" in dataset.notices


def test_what_is_missing_or_wrong_is_one_clear_line(root, tmp_path):
    with pytest.raises(
        InputError, match=r"there is no folder gone; --root is the folder that holds Data_Entry_2017\.csv"
    ):
        opened(tmp_path / "gone")
    with pytest.raises(InputError, match="dataset nih-cxr14 does not take --path-column"):
        opened(root, path_column="x")
    write(root, [*ROWS[:3], ("00000003_000.png", "Scoliosis", "3", "PA")])
    with pytest.raises(
        InputError, match=r"row 4 of Data_Entry_2017\.csv has the finding 'Scoliosis', which is none of the 14"
    ):
        opened(root)
    write(root, [*ROWS[:3], ("00000003_000.png", "Mass", "1", "PA")])
    with pytest.raises(
        InputError, match=r"one patient is in two splits: row 2 of .*, row 4 of Data_Entry_2017\.csv in test"
    ):
        opened(root)
    write(root, ROWS)
    (root / "test_list.txt").write_text("00000001_000.png\n")
    with pytest.raises(InputError, match=r"image 00000001_000\.png is in train_val_list\.txt and in test_list\.txt"):
        opened(root)
    (root / "Data_Entry_2017.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"Data_Entry_2017\.csv has no column 'Image Index'"):
        opened(root)
    (root / "Data_Entry_2017.csv").unlink()
    with pytest.raises(InputError, match=r"nih has neither Data_Entry_2017_v2020\.csv nor Data_Entry_2017\.csv"):
        opened(root)


def test_no_image_at_all_says_where_they_should_be(root):
    for file in root.glob("images_*/images/*.png"):
        file.unlink()
    with pytest.raises(
        InputError, match=r"none of the 4 images in Data_Entry_2017\.csv is in nih/images or nih/images_"
    ):
        opened(root)


def test_it_says_where_it_comes_from():
    info = {i.name: i for i in list_datasets()}["nih-cxr14"]
    assert "10.1109/CVPR.2017.369" in info.citation
    assert info.licence
    assert info.homepage.startswith("https://")


def test_the_shared_radiographs(shared):
    if not (shared / "nih_128").is_dir():
        pytest.skip("nih_128 is not among the shared data")
    dataset = opened(shared / "nih_128")
    samples, labels = dataset.samples(), dataset.labels()
    assert len(samples) == 2911
    assert len(np.unique(samples.patient_id)) == 780
    assert ((samples.split == "train").sum(), (samples.split == "test").sum()) == (2122, 789)
    test = labels.split == "test"
    positives = {f: int(labels.value[test & (labels.klass == f)].sum()) for f in FINDINGS}
    assert {f: positives[f] for f in ("Infiltration", "Atelectasis", "Effusion", "Nodule")} == {
        "Infiltration": 98, "Atelectasis": 68, "Effusion": 61, "Nodule": 50,
    }  # fmt: skip
