"""DICOM trees with their joins, boxes on slices, nnU-Net folders, MedMNIST files."""

import csv
import json

import numpy as np
import pytest
from pydicom import dcmread

from embedcache.datasets import DatasetOptions, open_dataset
from embedcache.datasets.audit import audit_dataset
from embedcache.datasets.describe import describe_labels
from embedcache.errors import ImageError, InputError
from embedcache.images import ImageOptions, count_slices, open_image, stat_source
from embedcache.images.tree import scan_tree, slice_instances
from embedcache.testing import make_replica
from embedcache.testing.files import write_dicom, write_nifti, write_png, write_series
from tests.images.dicom_makers import write_segmentation


@pytest.fixture
def tree(tmp_path):
    return make_replica("dicom-tree", tmp_path)


def dicom(root, **options):
    return open_dataset("dicom-tree", str(root), DatasetOptions(**options))


def headers(root):
    """SOPInstanceUID → header, of all DICOM files below `root`."""
    found = [dcmread(p, stop_before_pixels=True) for p in root.rglob("*") if p.is_file() and p.name != "README"]
    return {str(d.SOPInstanceUID): d for d in found}


def by_slices(dataset):
    """Number of slices → the one sample that has so many."""
    samples = dataset.samples()
    return {count_slices(str(p)): i for i, p in enumerate(samples.path.tolist())}


def test_a_tree_is_grouped_by_series_and_radiographs_stand_alone(tree):
    dataset = dicom(tree)
    samples = dataset.samples()
    assert len(samples) == 5
    assert sorted(count_slices(str(p)) for p in samples.path.tolist()) == [1, 1, 3, 4, 5]
    assert sorted(dataset.columns()["modality"].tolist()) == ["CT", "CT", "CT", "DX", "DX"]
    assert "1 files of another kind were left out" in dataset.notices
    assert not dataset.info.public_ids


def test_a_path_names_a_series_only_where_its_folder_does_not(tree):
    paths = dicom(tree).samples().path.tolist()
    assert sum("#series:" in path for path in paths) == 2
    assert sum(path.endswith("0001") for path in paths) == 1
    for path in paths:
        image = open_image(path)
        assert image.state == stat_source(path)
        assert image.read(0, image.n_slices).pixels.ndim == 3


def test_a_series_in_a_mixed_folder_is_the_series_alone(tree, tmp_path):
    dataset = dicom(tree)
    i = by_slices(dataset)[5]
    path = str(dataset.samples().path[i])
    folder, uid = path.split("#series:")
    alone = tmp_path / "alone"
    alone.mkdir()
    for file in (tree / "DICOM" / "0000").iterdir():
        if str(dcmread(file, stop_before_pixels=True).SeriesInstanceUID) == uid:
            (alone / file.name).write_bytes(file.read_bytes())
    mixed, one = open_image(path), open_image(str(alone))
    assert mixed.digest == one.digest
    np.testing.assert_array_equal(mixed.read(0, 5).pixels, one.read(0, 5).pixels)
    assert folder.endswith("0000")


def test_a_series_over_several_folders_is_one_sample(tmp_path):
    write_series(tmp_path / "t" / "a", np.arange(6 * 64, dtype=np.uint16).reshape(6, 8, 8), series="s")
    (tmp_path / "t" / "b").mkdir()
    for i, file in enumerate(sorted((tmp_path / "t" / "a").iterdir())[:2]):
        file.rename(tmp_path / "t" / "b" / f"{i}")
    samples = dicom(tmp_path / "t").samples()
    assert len(samples) == 1
    assert count_slices(str(samples.path[0])) == 6
    assert np.diff(open_image(str(samples.path[0])).read(0, 6).pixels[:, 0, 0].astype(int)).tolist() == [64] * 5


def test_a_series_that_is_gone_says_so(tree):
    path = str(dicom(tree).samples().path[by_slices(dicom(tree))[5]])
    with pytest.raises(ImageError, match="no file of that DICOM series"):
        open_image(path + "9")
    for file in (tree / "DICOM" / "0000").iterdir():
        file.unlink()
    with pytest.raises(ImageError, match="there is no such file"):
        stat_source(path)


def test_what_is_no_image_is_left_out_and_counted(tree):
    (tree / "bad.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"torn")
    write_dicom(tree / "mask.dcm", np.zeros((4, 4), np.uint8), modality="SEG", series="seg")
    dataset = dicom(tree)
    assert len(dataset.samples()) == 5
    assert "1 DICOM files that are no images were left out (1 SEG)" in dataset.notices
    assert "1 files could not be read as DICOM, and were left out" in dataset.notices


def segmentation(tree, name, files, seed=0, **changes):
    """A segmentation of the series in `files`, one frame per file in shuffled order."""
    chosen = [dcmread(f, stop_before_pixels=True) for f in files]
    chosen = [chosen[i] for i in np.random.default_rng(seed).permutation(len(chosen))]
    asked = {"refers_to": (chosen[0].SeriesInstanceUID, [d.SOPInstanceUID for d in chosen]), **changes}
    frames = [(1, np.full((d.Rows, d.Columns), int(d.InstanceNumber) % 2, np.uint8)) for d in chosen]
    placed = all("ImagePositionPatient" in d for d in chosen)
    return write_segmentation(
        tree / name,
        frames,
        labels=("Liver",),
        positions=[d.ImagePositionPatient for d in chosen] if placed else None,
        sources=None if placed else [d.SOPInstanceUID for d in chosen],
        **asked,
    )


def test_a_segmentation_is_the_mask_of_the_series_that_it_names(tree):
    head = segmentation(tree, "far-away.dcm", (tree / "DICOM" / "0001").iterdir())
    lateral = segmentation(tree, "lat-seg.dcm", [tree / "lat.dcm"])
    dataset = dicom(tree)
    samples, masks = dataset.samples(), dataset.masks().tolist()
    assert len(samples) == 5
    assert set(masks) == {"", str(head), str(lateral)}
    assert samples.path[masks.index(str(head))] == str(tree / "DICOM" / "0001")
    # of two radiographs of one series, the one whose instance it names
    assert samples.path[masks.index(str(lateral))] == str(tree / "lat.dcm")
    assert "2 of 5 samples have a DICOM segmentation as their mask" in dataset.notices
    assert not any("left out (" in notice for notice in dataset.notices)
    assert audit_dataset("dicom-tree", str(tree)).problems == ()


def test_of_several_segmentations_none_is_the_mask(tree):
    files = list((tree / "DICOM" / "0001").iterdir())
    one = segmentation(tree, "a.dcm", files)
    (tree / "copy.dcm").write_bytes(one.read_bytes())
    assert str(one) in dicom(tree).masks().tolist()
    segmentation(tree, "b.dcm", files, refers_to=(dcmread(files[0]).SeriesInstanceUID, []))
    dataset = dicom(tree)
    assert dataset.masks() is None
    assert any("1 of 5 samples have several DICOM segmentations, and so no mask" in n for n in dataset.notices)


def test_a_segmentation_that_does_not_fit_is_one_line_of_the_audit(tree):
    files = list((tree / "DICOM" / "0001").iterdir())
    segmentation(tree, "a.dcm", files, spacing=(2.0, 9.0, 9.0))
    (problem,) = audit_dataset("dicom-tree", str(tree)).problems
    assert "of the tree can not be used: frame 1 of the segmentation lies on no slice of the image" in problem


def test_patients_that_are_not_named_are_their_studies(tmp_path):
    for name in "ab":
        write_dicom(tmp_path / f"{name}.dcm", np.zeros((4, 4), np.uint16), series=name, patient_id="")
    dataset = dicom(tmp_path)
    assert len(set(dataset.samples().patient_id.tolist())) == 2
    assert "2 of 2 series name no patient" in dataset.notices[0]


def test_a_link_to_a_folder_above_is_gone_through_once(tree):
    before = sorted(file.path for file in scan_tree(str(tree)).files)
    (tree / "again").symlink_to(tree, target_is_directory=True)
    (tree / "away").symlink_to(tree / "nowhere", target_is_directory=True)
    assert sorted(file.path for file in scan_tree(str(tree)).files) == before


def test_a_folder_without_dicom_says_so(tmp_path):
    with pytest.raises(InputError, match="holds no DICOM image at any depth"):
        dicom(tmp_path)
    with pytest.raises(InputError, match="gone is no folder of DICOM files"):
        dicom(tmp_path / "gone")


# --- joins -------------------------------------------------------------------------------------------


def accessions(root):
    """Give every file an AccessionNumber, one per study."""
    for path in root.rglob("*"):
        if path.is_file() and path.name != "README":
            dataset = dcmread(path)
            dataset.AccessionNumber = "A" + str(dataset.StudyInstanceUID)[-6:]
            dataset.save_as(path)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "AccessionNumber", "SeriesInstanceUID"])
def test_labels_join_by_what_the_headers_say(tree, tmp_path, keyword):
    accessions(tree)
    values = {str(d.get(keyword)): str(d.Modality) for d in headers(tree).values()}
    table = tmp_path / "labels.csv"
    table.write_text(f"{keyword},ct\n" + "".join(f"{v},{int(m == 'CT')}\n" for v, m in values.items()))
    dataset = dicom(tree, label_table=str(table), tasks=("ct=binary",))
    labels = dataset.labels()
    modality = dict(zip(dataset.samples().id.tolist(), dataset.columns()["modality"].tolist(), strict=True))
    assert [float(modality[s] == "CT") for s in labels.sample.tolist()] == labels.value.tolist()
    assert labels.get("ct").level == ("sample" if keyword == "SeriesInstanceUID" else "study")


def test_labels_of_slices_join_by_instance_in_anatomical_order(tree, tmp_path):
    dataset = dicom(tree)
    i = by_slices(dataset)[5]
    order = slice_instances(str(dataset.samples().path[i]))
    heights = [float(headers(tree)[uid].ImagePositionPatient[2]) for uid in order]
    assert heights == sorted(heights)
    table = tmp_path / "labels.csv"
    rows = [(uid, k % 2) for k, uid in enumerate(order)]
    np.random.default_rng(0).shuffle(rows)
    table.write_text("SOPInstanceUID,lesion\n" + "".join(f"{uid},{value}\n" for uid, value in rows))
    labels = dicom(tree, label_table=str(table), tasks=("lesion=binary",)).labels()
    mine = labels.task == "lesion"
    assert set(labels.sample[mine].tolist()) == {str(dataset.samples().id[i])}
    assert dict(zip(labels.slice[mine].tolist(), labels.value[mine].tolist(), strict=True)) == {
        k: k % 2 for k in range(5)
    }
    assert labels.get("lesion").level == "slice"


def test_labels_of_radiographs_join_by_instance_to_samples(tree, tmp_path):
    table = tmp_path / "labels.csv"
    chest = [uid for uid, d in headers(tree).items() if d.Modality == "DX"]
    table.write_text("SOPInstanceUID,effusion\n" + "".join(f"{uid},{k}\n" for k, uid in enumerate(chest)))
    labels = dicom(tree, label_table=str(table), tasks=("effusion=binary",)).labels()
    assert labels.get("effusion").level == "sample"
    assert np.nansum(labels.value) == 1


def test_a_join_that_matches_nothing_says_what_was_tried(tree, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("AccessionNumber,a\nX1,0\nX2,1\n")
    with pytest.raises(
        InputError, match="nor StudyInstanceUID, AccessionNumber, SeriesInstanceUID, PatientID, SOPInstanceUID"
    ):
        dicom(tree, label_table=str(table))
    # files that say no accession are not those of a row without one
    table.write_text("AccessionNumber,a\n,0\n,1\n")
    with pytest.raises(InputError, match=r"no row of labels\.csv matches"):
        dicom(tree, label_table=str(table))


def table_of(tree, tmp_path):
    """The samples of the tree as the rows of a table, as a user would list files and folders of one series."""
    chest = write_dicom(tmp_path / "lone.dcm", np.zeros((8, 8), np.uint16), series="lone", patient_id="lone")
    png = write_png(tmp_path / "picture.png", np.zeros((8, 8), np.uint8))
    table = tmp_path / "cases.csv"
    table.write_text(f"path\n{tree}/DICOM/0001\n{tree}/pa.dcm\n{chest}\n{png}\n")
    return table


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "AccessionNumber", "SeriesInstanceUID"])
def test_labels_of_a_table_of_dicom_files_join_by_what_their_headers_say(tree, tmp_path, keyword):
    accessions(tree)
    second = tmp_path / "labels.csv"
    head = dcmread(next((tree / "DICOM" / "0001").iterdir()))
    pa = dcmread(tree / "pa.dcm")
    second.write_text(f"{keyword},ct\n{head.get(keyword)},1\n{pa.get(keyword)},0\nnobody's,1\n")
    dataset = open_dataset(
        "table", str(table_of(tree, tmp_path)), DatasetOptions(label_table=str(second), tasks=("ct=binary",))
    )
    labels = dataset.labels()
    at = dict(zip(labels.sample.tolist(), labels.value.tolist(), strict=True))
    assert [at.get(str(sample)) for sample in dataset.samples().id[:2]] == [1, 0]
    assert all(np.isnan(at[str(sample)]) for sample in dataset.samples().id[2:])
    assert "1 of the 3 rows of labels.csv match no sample" in dataset.notices
    assert labels.get("ct").level == ("sample" if keyword == "SeriesInstanceUID" else "study")


def test_slices_of_a_table_of_series_are_labelled_by_their_instances(tree, tmp_path):
    order = slice_instances(str(tree / "DICOM" / "0001"))
    second = tmp_path / "labels.csv"
    second.write_text(
        "SOPInstanceUID,lesion\n" + "".join(f"{uid},{k % 2}\n" for k, uid in reversed(list(enumerate(order))))
    )
    table = str(table_of(tree, tmp_path))
    labels = open_dataset("table", table, DatasetOptions(label_table=str(second))).labels()
    mine = labels.task == "lesion"
    assert dict(zip(labels.slice[mine].tolist(), labels.value[mine].tolist(), strict=True)) == {0: 0, 1: 1, 2: 0}
    second.write_text(f"SOPInstanceUID,label,xmin,ymin,xmax,ymax\n{order[2]},A,1,1,5,5\n")
    options = DatasetOptions(label_table=str(second))
    dataset = open_dataset("table", table, options)
    (line,) = describe_labels(dataset, options)
    assert (line["task"], line["level"], line["classes"]) == ("box", "slice", {"A": 1})
    assert (
        line["reason"] == "a box of labels.csv on a slice gives it the label, and every other slice of its sample none"
    )
    labels = dataset.labels()
    assert labels.value[labels.task == "box"].tolist() == [0, 0, 1]


def test_headers_are_read_only_where_ids_do_not_match(tree, tmp_path, monkeypatch):
    table = table_of(tree, tmp_path)
    second = tmp_path / "labels.csv"
    second.write_text(f"path,a\n{tree}/pa.dcm,1\n{tree}/DICOM/0001,0\n")
    monkeypatch.setattr("embedcache.datasets.dicom_ids.files_of", None)
    labels = open_dataset("table", str(table), DatasetOptions(label_table=str(second))).labels()
    assert np.nansum(labels.value) == 1


def test_what_is_shown_of_a_joined_task_is_where_it_comes_from(tree, tmp_path):
    second = tmp_path / "labels.csv"
    series = {str(d.SeriesInstanceUID) for d in headers(tree).values()}
    second.write_text(
        "SeriesInstanceUID,grade\n" + "".join(f"{uid},{'ab'[k % 2]}\n" for k, uid in enumerate(sorted(series)))
    )
    (line,) = describe_labels(dicom(tree, label_table=str(second)))
    assert line["switch"].startswith("--positive grade=VALUE")
    assert line["reason"] != "the dataset's own"


# --- boxes -------------------------------------------------------------------------------------------


def boxes(tree, tmp_path, rows, head="SOPInstanceUID,label,xmin,ymin,xmax,ymax"):
    table = tmp_path / "boxes.csv"
    table.write_text(head + "\n" + "".join(f"{row}\n" for row in rows))
    return dicom(tree, label_table=str(table))


def test_boxes_are_labels_of_slices(tree, tmp_path):
    plain = dicom(tree)
    i = by_slices(plain)[4]
    order = slice_instances(str(plain.samples().path[i]))
    rows = [f"{order[1]},A,1,1,5,5", f"{order[1]},A,6,6,9,9", f"{order[2]},B,1,1,5,5"]
    labels = boxes(tree, tmp_path, rows).labels()
    task = labels.get("box")
    assert (task.kind, task.level, task.classes) == ("multilabel", "slice", ("A", "B"))
    mine = labels.task == "box"
    assert set(labels.sample[mine].tolist()) == {str(plain.samples().id[i])}, "a series without a box was not looked at"
    assert labels.value[mine & (labels.klass == "A")].tolist() == [0, 1, 0, 0]
    assert labels.value[mine & (labels.klass == "B")].tolist() == [0, 0, 1, 0]
    assert labels.slice[mine & (labels.klass == "A")].tolist() == [0, 1, 2, 3]


def test_a_box_without_a_side_is_refused(tree, tmp_path):
    uid = slice_instances(str(dicom(tree).samples().path[by_slices(dicom(tree))[4]]))[0]
    with pytest.raises(InputError, match=r"row 2 of boxes\.csv has no number in column 'xmax'"):
        boxes(tree, tmp_path, [f"{uid},A,1,1,5,5", f"{uid},A,1,1,,5"])
    with pytest.raises(InputError, match=r"row 1 of boxes\.csv says no class"):
        boxes(tree, tmp_path, [f"{uid},,1,1,5,5"])


def test_the_boxes_of_the_shared_series(shared_data):
    folder = shared_data / "ct_lung_a0002"
    if not folder.is_dir():
        pytest.skip("ct_lung_a0002 is not among the shared data")
    dataset = dicom(folder / "dicom", label_table=str(folder / "boxes.csv"))
    labels = dataset.labels()
    with open(folder / "boxes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    task = labels.get("box")
    assert task.kind == "binary"
    assert len(labels.value) == 30
    assert labels.value.sum() == len(rows) == 10
    # the README's join: boxes lie at ascending z of 176 to 248 mm, the slices ascend along z
    heights = sorted(
        float(dcmread(p, stop_before_pixels=True).ImagePositionPatient[2]) for p in (folder / "dicom").iterdir()
    )
    boxed = sorted(float(row["z_mm"]) for row in rows)
    assert [heights[k] for k in labels.slice[labels.value == 1].tolist()] == pytest.approx(boxed)


# --- nnU-Net and MedMNIST ------------------------------------------------------------------------------


def test_nnunet_reads_one_channel(tmp_path):
    root = make_replica("nnunet", tmp_path)
    first = open_dataset("nnunet", str(root))
    assert first.samples().id.tolist() == [f"liver_{i:03}" for i in range(5)]
    assert first.samples().path[0].endswith("liver_000_0000.nii.gz")
    assert first.mask_values() == {1: "liver", 2: "tumor"}
    assert "of the 2 channels (T1, T2) the first is read; name another with --channel" in first.notices
    for asked in ("T2", "1"):
        second = open_dataset("nnunet", str(root), DatasetOptions(channel=asked))
        assert second.samples().path[0].endswith("liver_000_0001.nii.gz")
    with pytest.raises(InputError, match="unknown --channel 'T3'"):
        open_dataset("nnunet", str(root), DatasetOptions(channel="T3"))


def test_channels_in_one_file_are_chosen_as_time_points(tmp_path):
    root = make_replica("msd-heart", tmp_path)
    document = json.loads((root / "dataset.json").read_text())
    document["modality"] = {"0": "FLAIR", "1": "T1w", "2": "T2w"}
    (root / "dataset.json").write_text(json.dumps(document))
    rng = np.random.default_rng(0)
    for path in (root / "imagesTr").iterdir():
        write_nifti(path, rng.integers(0, 900, (10, 12, 5, 3)).astype(np.int16))
    dataset = open_dataset("nnunet", str(root))
    said = "each file holds 3 channels (0 FLAIR, 1 T1w, 2 T2w): the one that --time says is read, or else 0"
    assert said in dataset.notices
    for asked in ("T2w", "2"):
        with pytest.raises(InputError, match=r"each file holds all channels .*: choose with --time 2"):
            open_dataset("nnunet", str(root), DatasetOptions(channel=asked))
    with pytest.raises(InputError, match="did you mean 'T1w'"):
        open_dataset("nnunet", str(root), DatasetOptions(channel="T1"))
    path = str(dataset.samples().path[0])
    assert open_image(path).warnings == ("only the first of 3 time points is read",)
    chosen = [open_image(path, ImageOptions(time=time)).read(0, 1).pixels for time in range(3)]
    assert not np.array_equal(chosen[0], chosen[2])


def test_nnunet_test_cases_need_masks(tmp_path):
    root = make_replica("nnunet", tmp_path)
    assert "1 cases of imagesTs have no mask, and are left out" in open_dataset("nnunet", str(root)).notices
    (root / "labelsTs").mkdir()
    (root / "labelsTr" / "liver_000.nii.gz").rename(root / "labelsTs" / "liver_900.nii.gz")
    dataset = open_dataset("nnunet", str(root))
    assert dataset.samples().split.tolist() == ["", "", "", "", "test"]
    assert dataset.missing == ("case 1 of 5, sorted by name, lacks a mask in labelsTr",)
    assert "4 of the 5 training cases of dataset.json are here" in dataset.notices


def test_nnunet_reads_a_decathlon_folder(tmp_path):
    root = make_replica("msd-heart", tmp_path)
    dataset = open_dataset("nnunet", str(root))
    assert len(dataset.samples()) == 8
    assert dataset.missing == ()
    assert dataset.mask_values() == {1: "left atrium"}


def test_nnunet_checks_its_document(tmp_path):
    root = make_replica("nnunet", tmp_path)
    document = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(document | {"labels": {"liver": "one"}}))
    with pytest.raises(InputError, match=r"label 'liver' in dataset\.json is neither"):
        open_dataset("nnunet", str(root))
    (root / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"has no dataset\.json"):
        open_dataset("nnunet", str(root))


def test_medmnist_has_its_own_parts_and_paths_into_one_file(tmp_path):
    root = make_replica("medmnist", tmp_path)
    dataset = open_dataset("medmnist", str(root))
    samples = dataset.samples()
    assert (len(samples), dataset.info.name, dataset.info.public_ids) == (22, "organamnist", True)
    assert samples.id[12] == "val/0"
    assert samples.split.tolist() == ["train"] * 12 + ["validation"] * 4 + ["test"] * 6
    with np.load(root) as file:
        stored = file["val_images"][3]
    np.testing.assert_array_equal(open_image(str(samples.path[15])).read(0, 1).pixels[0], stored)
    assert dataset.labels().get("label").classes == ("0", "1", "2")
    assert dataset.labels().klass.tolist()[:4] == ["0", "1", "2", "0"]


def test_a_file_of_ones_own_in_that_layout_gets_pseudonyms(tmp_path):
    root = make_replica("medmnist", tmp_path)
    root.rename(tmp_path / "clinic.npz")
    assert not open_dataset("medmnist", str(tmp_path / "clinic.npz")).info.public_ids


def test_medmnist_that_is_wrong_is_one_line(tmp_path):
    def saved(**arrays):
        base = {f"{p}_{w}": np.zeros((2, 4, 4) if w == "images" else (2, 1), np.uint8)
                for p in ("train", "val", "test") for w in ("images", "labels")}  # fmt: skip
        np.savez(tmp_path / "x.npz", **{k: v for k, v in (base | arrays).items() if v is not None})
        return open_dataset("medmnist", str(tmp_path / "x.npz"))

    with pytest.raises(InputError, match=r"x\.npz has no array val_labels"):
        saved(val_labels=None)
    with pytest.raises(InputError, match="2 images and 3 labels in part val"):
        saved(val_labels=np.zeros((3, 1)))
    with pytest.raises(InputError, match=r"label 2 of part test of x\.npz is no class number"):
        saved(test_labels=np.array([[0], [-1]]))
    with pytest.raises(InputError, match="neither 0 nor 1"):
        saved(**{f"{p}_labels": np.full((2, 3), 2) for p in ("train", "val", "test")})
    findings = saved(**{f"{p}_labels": np.eye(2, 3) for p in ("train", "val", "test")})
    assert findings.labels().get("label").kind == "multilabel"
    (tmp_path / "x.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"x\.npz is no \.npz file, or damaged"):
        open_dataset("medmnist", str(tmp_path / "x.npz"))
    with pytest.raises(InputError, match=r"there is no file gone\.npz"):
        open_dataset("medmnist", str(tmp_path / "gone.npz"))
