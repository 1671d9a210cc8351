"""Patients that only the headers of DICOM files tell apart."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

import embedcache
from embedcache.datasets import DatasetOptions, open_dataset
from embedcache.errors import InputError
from embedcache.store.reader import FeatureCache
from embedcache.testing.files import write_dicom, write_png, write_series

PEOPLE = ["MRN-1", "MRN-1", "MRN-2", "", "", "unknown"]
"""PatientID of files 0.dcm to 5.dcm; the fourth and fifth are of one study."""


def write(folder: Path, people: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, person in enumerate(people):
        path = folder / f"{i}.dcm"
        write_dicom(path, np.full((4, 4), i, np.uint16))
        header = dcmread(path)
        header.PatientID, header.StudyInstanceUID = person, f"1.2.{min(i, 4) if i != 3 else 4}"
        if i == 5:
            header.StudyInstanceUID = "1.2.9"
        header.save_as(path)


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    write(tmp_path, PEOPLE)
    write_png(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    names = [*(f"{i}.dcm" for i in range(6)), "a.png", "gone.dcm"]
    (tmp_path / "cases.csv").write_text("path,ill\n" + "".join(f"{n},{i % 2}\n" for i, n in enumerate(names)))
    return tmp_path / "cases.csv"


def test_a_table_without_patients_takes_those_of_the_headers(cases: Path) -> None:
    dataset = open_dataset("table", str(cases))
    patients = dataset.samples().patient_id.tolist()
    assert patients[0] == patients[1]
    assert patients[3] == patients[4], "of a file without a PatientID its study"
    assert len({*patients[:4], patients[5]}) == 4
    assert patients[6:] == ["a.png", "gone.dcm"]
    assert "MRN" not in " ".join(patients)
    assert dataset.notices[0].startswith(
        "cases.csv has no column of patients, so 6 of 8 samples have theirs from PatientID in their DICOM headers, and each of "
        "the others counts as a patient of its own; if that is wrong, name the column with --patient-column"
    )
    assert "MRN" not in dataset.notices[0]
    declared = open_dataset("table", str(cases), DatasetOptions(patient_column="path"))
    assert declared.samples().patient_id.tolist()[0] == "0.dcm"


def test_a_patient_of_the_headers_is_in_one_part_only(cases: Path) -> None:
    rows = [f"{i}.dcm,{part}" for i, part in enumerate(["train", "test", "test"])]
    cases.write_text("path,split\n" + "\n".join(rows) + "\n")
    with pytest.raises(InputError, match=r"one patient is in two splits: row 1 of cases\.csv is in train, row 2"):
        open_dataset("table", str(cases))


def test_no_store_holds_what_the_header_calls_a_patient_even_where_ids_are_kept(cases: Path, tmp_path: Path) -> None:
    cases.write_text("path,ill\n0.dcm,1\n1.dcm,0\n2.dcm,1\n")
    embedcache.extract(
        embedcache.ExtractConfig(
            dataset="table", root=str(cases), backbones=("pixels:4",), cache=str(tmp_path / "cache"), ids="keep", threads=1,
            workers=1, device="cpu",
        )
    )  # fmt: skip
    (store,) = (tmp_path / "cache").glob("*/*/*.zarr")
    samples = FeatureCache.open(store).samples()
    assert samples.id.tolist() == ["0.dcm", "1.dcm", "2.dcm"]
    assert samples.patient_id[0] == samples.patient_id[1] != samples.patient_id[2]
    assert not any(b"MRN" in path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_headers_that_all_name_one_patient_say_nothing(tmp_path: Path) -> None:
    write(tmp_path, ["ANON"] * 4)
    (tmp_path / "cases.csv").write_text("path\n" + "".join(f"{i}.dcm\n" for i in range(4)))
    dataset = open_dataset("table", str(tmp_path / "cases.csv"))
    assert len(set(dataset.samples().patient_id.tolist())) == 4
    one = "the DICOM headers of 4 name one and the same patient, as those of anonymised files do"
    assert f"no column of patients and {one}, so every sample counts as a patient of its own" in dataset.notices[0]
    (tmp_path / "ill").mkdir()
    for path in tmp_path.glob("*.dcm"):
        path.rename(tmp_path / "ill" / path.name)
    folder = open_dataset("folder", str(tmp_path))
    assert len(set(folder.samples().patient_id.tolist())) == 4
    assert folder.notices[0].startswith(f"{one}, so every image counts as a patient of its own; if that is wrong")
    assert "ANON" not in " ".join((*dataset.notices, *folder.notices))


def test_a_folder_takes_them_too_and_a_series_has_one(tmp_path: Path) -> None:
    write(tmp_path / "root" / "ill", ["P1", "P2"])
    write(tmp_path / "root" / "well", ["P1", "P3"])
    dataset = open_dataset("folder", str(tmp_path / "root"))
    patients = dict(zip(dataset.samples().id.tolist(), dataset.samples().patient_id.tolist(), strict=True))
    assert patients["ill/0.dcm"] == patients["well/0.dcm"]
    assert len(set(patients.values())) == 3
    assert dataset.notices[0].startswith("4 of 4 images have their patient from PatientID")
    for name in ("one", "two"):
        write_series(tmp_path / name, np.zeros((2, 4, 4), np.int16), series=name)
        for path in (tmp_path / name).iterdir():
            header = dcmread(path)
            header.PatientID = name
            header.save_as(path)
    (tmp_path / "cases.csv").write_text("path\none\ntwo\n")
    assert len(set(open_dataset("table", str(tmp_path / "cases.csv")).samples().patient_id.tolist())) == 2


def test_a_second_table_may_still_be_joined_by_the_headers_patient(cases: Path) -> None:
    cases.write_text("path\n0.dcm\n1.dcm\n2.dcm\n")
    cases.with_name("people.csv").write_text("PatientID,died\nMRN-1,yes\nMRN-2,no\n")
    labels = open_dataset("table", str(cases), DatasetOptions(label_table=str(cases.with_name("people.csv")))).labels()
    assert labels.get("died").level == "patient"
    assert sorted(labels.value[labels.task == "died"].tolist()) == [0, 1]


def test_a_folder_whose_parts_share_a_patient_is_told(tmp_path: Path) -> None:
    write(tmp_path / "root" / "train" / "ill", ["P1", "P2"])
    write(tmp_path / "root" / "test" / "ill", ["P1", "P3"])
    dataset = open_dataset("folder", str(tmp_path / "root"))
    assert (
        "the DICOM headers name 1 patients who are in several parts: test samples leak into training" in dataset.notices
    )
    assert dataset.notices[0].startswith(
        "the parts of the folder stand, whatever the DICOM headers say of patients, so"
    )
    assert len(set(dataset.samples().patient_id.tolist())) == 4
