"""What each of the study's datasets says of its samples: order, patients, parts, tasks, masks."""

import builtins
from collections import Counter

import numpy as np
import pytest

from embedcache.datasets import DatasetOptions, open_dataset
from embedcache.datasets.amos22 import study_parts
from embedcache.datasets.systematic import systematic_parts
from embedcache.errors import InputError, MissingPackageError
from embedcache.testing import make_replica
from embedcache.types import strings


def opened(name, tmp_path, **options):
    return open_dataset(name, str(make_replica(name, tmp_path)), DatasetOptions(**options))


def parts_of(samples):
    return Counter(samples.split.tolist())


def test_systematic_sampling_counts_patients_and_parts_none():
    patients = strings([f"p{i:03}" for i in np.random.default_rng(0).integers(0, 40, 100)])
    part = systematic_parts(patients, 3, 4)
    of_patient = dict(zip(patients.tolist(), part.tolist(), strict=True))
    assert [of_patient[p] for p in patients.tolist()] == part.tolist()
    in_order = [of_patient[p] for p in sorted(of_patient)]
    assert {i for i, name in enumerate(in_order) if name == "test"} == set(range(2, len(in_order), 3))
    assert [name for name in in_order if name != "test"][:8] == [*["train"] * 3, "validation"] * 2
    order = np.random.default_rng(1).permutation(100)
    assert systematic_parts(patients[order], 3, 4).tolist() == part[order].tolist()


def test_published_sizes_give_the_studys_parts():
    def counts(n, *strides):
        return Counter(systematic_parts(strings([f"{i:04}" for i in range(n)]), *strides).tolist())

    assert counts(138, 3, 4) == {"test": 46, "validation": 23, "train": 69}
    assert counts(566, 5, 5) == {"test": 113, "validation": 90, "train": 363}
    assert counts(210, 3) == {"test": 70, "train": 140}
    assert counts(20, 4, 5) == {"test": 5, "validation": 3, "train": 12}
    amos = study_parts(300)
    assert Counter(amos.tolist()) == {"train": 80, "validation": 20, "test": 50, "": 150}
    assert np.flatnonzero(amos == "test").tolist() == list(range(5, 300, 6))
    assert study_parts(0).tolist() == []
    with pytest.raises(InputError, match="n at least 2"):
        counts(5, 1)


# --- chexpert ----------------------------------------------------------------------------------------


def test_chexpert_lists_frontal_images_and_valid_is_the_test(tmp_path):
    dataset = opened("chexpert", tmp_path)
    samples = dataset.samples()
    assert samples.id[0] == "train/patient00001/study1/view1_frontal.jpg"
    assert all("frontal" in name for name in samples.id.tolist())
    assert parts_of(samples) == {"train": 7, "test": 4}
    assert samples.patient_id[0] == "patient00001"
    assert dataset.columns()["Age"].tolist() == [68.0] * 11
    assert dataset.columns()["AP/PA"].tolist() == ["AP"] * 11


def test_chexpert_valid_validates_where_the_test_set_is(tmp_path):
    root = make_replica("chexpert", tmp_path)
    test = root / "test" / "patient64741" / "study1"
    test.mkdir(parents=True)
    (root / "valid/patient64541/study1/view1_frontal.jpg").rename(test / "view1_frontal.jpg")
    findings = "Cardiomegaly,Edema,Consolidation,Atelectasis,Pleural Effusion"
    (root / "test_labels.csv").write_text(f"Path,{findings}\ntest/patient64741/study1/view1_frontal.jpg,1.0,0,0,0,1\n")
    dataset = open_dataset("chexpert", str(root))
    assert parts_of(dataset.samples()) == {"train": 7, "validation": 3, "test": 1}
    labels = dataset.labels()
    assert labels.value[labels.sample == "test/patient64741/study1/view1_frontal.jpg"].tolist() == [1, 0, 0, 0, 1]


@pytest.mark.parametrize(("policy", "uncertain"), [("zeros", 0.0), ("ones", 1.0), ("ignore", np.nan), (None, 0.0)])
def test_chexpert_takes_uncertain_as_it_is_told(tmp_path, policy, uncertain):
    dataset = opened("chexpert", tmp_path, uncertain=policy)
    labels = dataset.labels()
    mine = labels.sample == "train/patient00001/study1/view1_frontal.jpg"
    # the replica's patient 1: the k-th of the 14 columns is word (1 + k) % 4 of 1.0, 0.0, -1.0, blank
    words = [[1.0, 0.0, uncertain, 0.0][(1 + k) % 4] for k in (2, 5, 6, 8, 10)]
    np.testing.assert_array_equal(labels.value[mine], words)
    assert f"uncertain as {policy or 'zeros'}" in labels.get("findings").column


def test_chexpert_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(InputError, match="unknown --uncertain policy 'one'; did you mean 'ones'"):
        opened("chexpert", tmp_path, uncertain="one")
    with pytest.raises(InputError, match="dataset montgomery does not take --uncertain"):
        opened("montgomery", tmp_path / "m", uncertain="ones")


# --- the others --------------------------------------------------------------------------------------


def test_montgomery_has_two_lungs_and_a_reading(tmp_path):
    dataset = opened("montgomery", tmp_path)
    samples = dataset.samples()
    assert samples.id.tolist() == [f"MCUCXR_{i:04}_{i % 2}" for i in range(1, 13)]
    assert samples.split.tolist()[:4] == ["train", "train", "test", "train"]
    left, right = str(dataset.masks()[0]).split("\n")
    assert "leftMask" in left
    assert "rightMask" in right
    assert dataset.mask_values() == {1: "left lung", 2: "right lung"}
    assert dataset.labels().value.tolist() == [i % 2 for i in range(1, 13)]


@pytest.mark.parametrize(
    ("name", "text", "sex", "age"),
    [
        ("montgomery", "Patient's Sex: M\nPatient's Age: 027Y\nnormal", "M", 27),
        ("montgomery", "Patient's Sex: F \nPatient's Age: 004M\nmiliary nodules", "F", 4 / 12),
        ("shenzhen", "male 45yrs\nnormal", "M", 45),
        ("shenzhen", "Female , 70yrs\nright PTB with 3 cavities", "F", 70),
        ("shenzhen", "male 13-month-old\nSTB", "M", 13 / 12),
        ("shenzhen", "normal", "", np.nan),
        ("shenzhen", None, "", np.nan),
    ],
)
def test_sex_and_age_are_columns_and_the_finding_is_not(tmp_path, name, text, sex, age):
    root = make_replica(name, tmp_path)
    first = str(open_dataset(name, str(root)).samples().id[0])
    path = next(root.rglob(f"{first}.txt"))
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    columns = open_dataset(name, str(root)).columns()
    assert set(columns) == {"sex", "age"}
    assert columns["sex"][0] == sex
    assert columns["age"][0] == pytest.approx(age, nan_ok=True)
    assert len(columns["age"]) == len(open_dataset(name, str(root)).samples())


def test_shenzhen_leaves_out_what_has_no_mask(tmp_path):
    dataset = opened("shenzhen", tmp_path)
    assert len(dataset.samples()) == 11
    assert "CHNCXR_0006_0" not in dataset.samples().id.tolist()
    assert "2 images without a mask are left out" in dataset.notices
    assert dataset.notices[0] == "11 of the 566 published images with a mask are here: a subset"


def test_sars_has_a_label_per_patient_positives_first(tmp_path):
    dataset = opened("sars-cov-2-ct", tmp_path)
    samples, labels = dataset.samples(), dataset.labels()
    assert len(samples) == 30
    assert samples.id[0] == "Covid/Patient (1)/Covid (1).png"
    assert labels.get("covid-19").level == "patient"
    mine = labels.task == "covid-19"
    assert set(labels.sample[mine].tolist()) == {""}
    positive = dict(zip(labels.patient[mine].tolist(), labels.value[mine].tolist(), strict=True))
    assert len(positive) == mine.sum() == 10
    assert positive["Covid/Patient (2)"] == 1
    assert positive["Others/Patient (2)"] == 0
    assert parts_of(samples) == {"train": 21, "test": 9}


def test_amos_is_ct_only_from_both_folders(tmp_path):
    dataset = opened("amos22", tmp_path)
    samples = dataset.samples()
    assert samples.id.tolist() == [f"amos_{i:04}" for i in (1, 4, 5, 6, 7, 8, 9, 13, 18)]
    assert len(dataset.mask_values()) == 15
    assert (dataset.columns()["paper_subset"] == (samples.split != "")).all()
    assert dataset.columns()["folder"].tolist()[5] == "imagesVa"


def test_msd_heart_lists_labelled_volumes(tmp_path):
    dataset = opened("msd-heart", tmp_path)
    assert dataset.samples().id[0] == "la_003"
    assert len(dataset.samples()) == 8
    assert dataset.notices[-1] == "2 volumes of imagesTs have no public mask, and are left out"


def test_brain_tumor_reads_labels_and_patients(tmp_path):
    pytest.importorskip("h5py")
    dataset = opened("brain-tumor", tmp_path)
    samples, labels = dataset.samples(), dataset.labels()
    assert samples.id.tolist() == [str(i) for i in range(1, 16)]
    assert samples.patient_id.tolist()[:4] == ["100000", "100000", "100000", "100001"]
    assert labels.get("tumour").classes == ("meningioma", "glioma", "pituitary tumor")
    assert labels.klass.tolist()[:3] == ["meningioma", "glioma", "pituitary tumor"]
    assert parts_of(samples) == {"train": 12, "test": 3}


def test_brain_tumor_without_h5py_says_which_extra(tmp_path, monkeypatch):
    (tmp_path / "1.mat").write_bytes(b"")
    real = builtins.__import__

    def without(name, *rest):
        if name == "h5py":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match=r"embedcache\[volumes\]"):
        open_dataset("brain-tumor", str(tmp_path))


def test_a_second_table_of_labels_joins_a_published_dataset(tmp_path):
    root = make_replica("montgomery", tmp_path)
    table = tmp_path / "ages.csv"
    table.write_text("image,age\n" + "".join(f"MCUCXR_{i:04}_{i % 2},{30 + i}\n" for i in range(1, 13)))
    labels = open_dataset(
        "montgomery", str(root), DatasetOptions(label_table=str(table), tasks=("age=numeric",))
    ).labels()
    assert [task.name for task in labels.tasks] == ["tuberculosis", "age"]
    assert labels.value[labels.task == "age"].tolist() == list(range(31, 43))
