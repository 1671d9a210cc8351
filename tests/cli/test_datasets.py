"""`embedcache datasets`: the list, and the check of a folder."""

import json
from pathlib import Path

import pytest

from embedcache.testing import make_replica
from tests.cli.conftest import Cli


def test_the_list_names_size_licence_and_source(cli: Cli) -> None:
    entries = {entry["name"]: entry for entry in cli("datasets", "--json").document}
    eight = {"nih-cxr14", "chexpert", "montgomery", "shenzhen", "sars-cov-2-ct", "amos22", "msd-heart", "brain-tumor"}
    assert eight <= set(entries)
    assert {"table", "folder", "dicom-tree", "nnunet", "medmnist"} <= set(entries)
    for name in eight:
        entry = entries[name]
        assert entry["samples"] > 0
        assert entry["licence"]
        assert entry["citation"]
        assert entry["homepage"].startswith("http")
        assert entry["split"]
    assert entries["table"]["samples"] is None
    assert (entries["nih-cxr14"]["samples"], entries["nih-cxr14"]["patients"]) == (112_120, 30_805)
    text = cli("datasets").out
    assert "112,120 images, 30,805 patients" in text
    assert "CC BY 4.0" in text


def test_a_whole_folder_passes(cli: Cli, tmp_path: Path) -> None:
    done = cli("datasets", "check", "montgomery", make_replica("montgomery", tmp_path))
    assert done.code == 0
    assert done.out.splitlines() == [
        "notice: 12 of the 138 published images are here: a subset",
        "montgomery: 12 samples, 12 patients, train 6, validation 2, test 4",
        "tasks: tuberculosis",
        "12 samples opened; 0 problems",
    ]


def test_a_part_that_was_opened_says_so_and_many_problems_are_counted(cli: Cli, tmp_path: Path) -> None:
    root = make_replica("montgomery", tmp_path)
    assert cli("datasets", "check", "montgomery", root, "--files", "5").out.splitlines()[-1] == (
        "5 of 12 samples opened (--files 12 opens all); 0 problems"
    )
    there = next(root.rglob("*.png"))
    table = tmp_path / "gone.csv"
    table.write_text("path,patient\n" + "".join(f"gone{i}.png,p{i}\n" for i in range(30)) + f"{there},p\n")
    done = cli("datasets", "check", "table", table)
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[19] == "problem: row 20 of gone.csv can not be read: there is no such file."
    assert lines[20] == "problem: 10 more of them; --json lists all"
    assert lines[-1] == "1 of 31 samples opened; 30 problems"


def test_a_missing_piece_is_a_problem(cli: Cli, tmp_path: Path) -> None:
    root = make_replica("msd-heart", tmp_path)
    (root / "labelsTr" / "la_005.nii.gz").unlink()
    done = cli("datasets", "check", "msd-heart", root)
    assert done.code == 1
    assert done.out.splitlines()[0] == "problem: labelsTr/la_005.nii.gz is missing: dataset.json lists it"
    document = cli("datasets", "check", "msd-heart", root, "--json").document
    assert document["problems"] == ["labelsTr/la_005.nii.gz is missing: dataset.json lists it"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "montgomry", "."), "unknown dataset 'montgomry'; did you mean 'montgomery'?"),
        (("check", "montgomery", "gone"), "there is no folder gone"),
        (("check", "table", "x.csv", "--files", "0"), "--files must be at least 1"),
        (("chek",), "unknown command 'chek'; did you mean 'check'?"),
    ],
)
def test_bad_input_is_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("datasets", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    told = cli("datasets", *arguments, "--json")
    assert json.loads(told.err)["exit_code"] == 2
