"""What of an archive becomes a sample, under which id, with which columns."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from embedcache.datasets import open_dataset
from embedcache.datasets.base import DatasetOptions
from embedcache.datasets.dicom_tree import years
from embedcache.testing.files import write_dicom, write_series

SLICE = np.zeros((8, 8), np.uint16)


def opened(root: Path):
    return open_dataset("dicom-tree", str(root), DatasetOptions())


def change(path: Path, **elements: object) -> Path:
    dataset = dcmread(path)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


def test_scouts_and_dose_sheets_are_left_out_and_counted(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", np.zeros((3, 8, 8), np.int16), series="study")
    study = dcmread(next((tmp_path / "ct").iterdir())).StudyInstanceUID
    for i in range(2):
        scout = write_dicom(tmp_path / f"scout{i}.dcm", SLICE, modality="CT", series="scout", instance=i)
        change(scout, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], StudyInstanceUID=study)
    sheet = write_dicom(tmp_path / "sheet.dcm", SLICE, modality="CT", series="sheet")
    change(sheet, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", StudyInstanceUID=study)
    dataset = opened(tmp_path)
    assert dataset.columns()["files"].tolist() == [3]
    assert "2 localisers were left out" in dataset.notices
    assert "1 Secondary Captures beside the images of their study were left out" in dataset.notices


@pytest.mark.parametrize("modality", ["CR", "CT"])
def test_a_secondary_capture_that_is_all_there_is_stays(tmp_path: Path, modality: str) -> None:
    """Challenges publish radiographs so."""
    change(write_dicom(tmp_path / "a.dcm", SLICE, modality=modality), SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    assert len(opened(tmp_path).samples()) == 1


@pytest.mark.parametrize(("modality", "samples"), [("DR", 2), ("OT", 2), ("DX", 2), ("CT", 1)])
def test_only_what_lies_in_the_patient_is_stacked(tmp_path: Path, modality: str, samples: int) -> None:
    for i in range(2):
        write_dicom(tmp_path / f"{i}.dcm", SLICE, modality=modality, instance=i)
    assert len(opened(tmp_path).samples()) == samples


def test_a_second_image_of_a_series_leaves_the_first_its_id(tmp_path: Path) -> None:
    write_dicom(tmp_path / "left.dcm", SLICE, modality="MG", instance=1)
    (before,) = opened(tmp_path).samples().id.tolist()
    write_dicom(tmp_path / "right.dcm", SLICE, modality="MG", instance=2)
    after = opened(tmp_path).samples()
    assert before in after.id.tolist()
    assert len(after) == 2


def test_columns_choose_views_sides_and_groups(tmp_path: Path) -> None:
    change(
        write_dicom(tmp_path / "a.dcm", SLICE, modality="MG", thickness=40.0),
        ViewPosition="MLO", ImageLaterality="L", PatientSex="F", PatientAge="063Y", ManufacturerModelName="Model 1",
        ImageType=["DERIVED", "PRIMARY"],
    )  # fmt: skip
    write_dicom(tmp_path / "b.dcm", SLICE, modality="MG", series="other", patient_id="z")
    columns = {name: values.tolist() for name, values in opened(tmp_path).columns().items()}
    assert columns["view"] == ["MLO", ""]
    assert columns["laterality"] == ["L", ""]
    assert columns["sex"] == ["F", ""]
    assert columns["model"] == ["Model 1", ""]
    assert columns["image_type"][0] == "DERIVED\\PRIMARY"
    assert columns["age"][0] == 63
    assert np.isnan(columns["age"][1])
    assert columns["slice_thickness"][0] == 40


@pytest.mark.parametrize(("age", "expected"), [("006M", 0.5), ("010D", 10 / 365.25), ("052W", 364 / 365.25)])
def test_ages_are_years(age: str, expected: float) -> None:
    assert years(age) == pytest.approx(expected)


@pytest.mark.parametrize("age", ["", "63", "Y", "xxxY"])
def test_an_age_that_is_none_is_missing(age: str) -> None:
    assert np.isnan(years(age))
