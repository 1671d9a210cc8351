"""A table of the user's own: columns found by name, splits, and one clear line for whatever is wrong."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedcache.datasets import DatasetOptions, open_dataset
from embedcache.datasets import table as table_module
from embedcache.errors import InputError, UnknownNameError
from embedcache.images import count_slices
from embedcache.types import strings

CASES = [
    {"path": "a/1.png", "patient": "P9", "split": "Train", "edema": "1"},
    {"path": "a/2.png", "patient": "P9", "split": "training", "edema": ""},
    {"path": "b/3.png", "patient": "P4", "split": "val", "edema": "0"},
    {"path": "b/4.png", "patient": "P5", "split": "test", "edema": "1"},
]


def opened(path, **options):
    return open_dataset("table", str(path), DatasetOptions(**options))


def test_rows_become_samples_in_the_tables_order(table, tmp_path):
    dataset = opened(table(CASES))
    samples = dataset.samples()
    assert samples.id.tolist() == ["a/1.png", "a/2.png", "b/3.png", "b/4.png"]
    assert samples.patient_id.tolist() == ["P9", "P9", "P4", "P5"]
    assert samples.split.tolist() == ["train", "train", "validation", "test"]
    assert all(os.path.isabs(p) and os.path.exists(p) for p in samples.path.tolist())
    assert samples.where(2) == "row 3 of cases.csv"
    assert (dataset.info.name, dataset.info.public_ids, dataset.notices) == ("cases", False, ())


def test_labels_keep_missing_values_apart_from_zero(table):
    labels = opened(table(CASES)).labels()
    assert labels.get("edema").kind == "binary"
    assert labels.value.tolist()[:1] + labels.value.tolist()[2:] == [1, 0, 1]
    assert np.isnan(labels.value[1])
    assert labels.split.tolist() == ["train", "train", "validation", "test"]


def test_without_labels_each_sample_has_a_row_for_its_split(table):
    labels = opened(table([{k: row[k] for k in ("path", "patient", "split")} for row in CASES])).labels()
    assert labels.tasks == ()
    assert labels.task.tolist() == [""] * 4
    assert labels.split.tolist() == ["train", "train", "validation", "test"]


def test_without_patients_every_sample_is_one_and_that_is_said(table):
    dataset = opened(table([{"path": "1.png"}, {"path": "2.png"}]))
    assert dataset.samples().patient_id.tolist() == ["1.png", "2.png"]
    assert "every sample counts as a patient of its own" in dataset.notices[0]


@pytest.mark.parametrize(
    "header",
    [
        "mrn",
        "MRN",
        "medical_record_number",
        "Subject ID",
        "patient_no",
        "pid",
        "case_patient",
        "ptid",
        "participant_id",
    ],
)
def test_the_column_of_patients_is_found_by_its_name(table, header):
    dataset = opened(table([{"path": "1.png", header: "a"}, {"path": "2.png", header: "a"}]))
    assert dataset.samples().patient_id.tolist() == ["a", "a"]
    assert (dataset.notices, dataset.info.patients_assumed) == ((), False)


@pytest.mark.parametrize(
    "header", ["study_id", "accession", "accession_number", "case_code", "hadm_id", "StudyInstanceUID"]
)
def test_a_study_is_no_patient(table, header):
    dataset = opened(table([{"path": "1.png", header: "a"}, {"path": "2.png", header: "a"}]))
    assert dataset.samples().patient_id.tolist() == ["1.png", "2.png"]
    assert dataset.info.patients_assumed


def test_a_named_column_of_patients_wins_over_a_known_one(table):
    rows = [{"path": f"{i}.png", "mrn": "a", "who": f"w{i}"} for i in (1, 2)]
    assert opened(table(rows), patient_column="who").samples().patient_id.tolist() == ["w1", "w2"]


@pytest.mark.parametrize("header", ["Path", "FILE NAME", "image_path", "Dicom", "Image Index"])
def test_the_column_of_paths_is_found_by_its_name(table, png, tmp_path, header):
    png(tmp_path / "1.png")
    assert opened(table([{header: "1.png"}])).samples().id.tolist() == ["1.png"]


def test_columns_can_be_named(table, png, tmp_path):
    png(tmp_path / "1.png")
    row = {"where": "1.png", "key": "007", "who": "0012", "part": "test", "path": "gone.png", "seg": "m.png"}
    dataset = opened(
        table([row], files=False),
        path_column="where", id_column="key", patient_column="who", split_column="part", mask_column="seg", name="mine",
    )  # fmt: skip
    sample = dataset.samples()[0]
    assert (sample.id, sample.patient_id, sample.split) == ("007", "0012", "test")
    assert dataset.masks().tolist() == [str(tmp_path / "m.png")]
    assert dataset.info.name == "mine"


def test_relative_paths_start_from_the_root_dir_if_given(table, png, tmp_path):
    png(tmp_path / "elsewhere" / "1.png")
    dataset = opened(table([{"path": "1.png"}], files=False), root_dir=str(tmp_path / "elsewhere"))
    assert dataset.samples().path.tolist() == [str(tmp_path / "elsewhere" / "1.png")]


def test_a_path_may_be_a_folder_that_holds_a_series(table, tmp_path):
    (tmp_path / "series").mkdir()
    assert len(opened(table([{"path": "series"}], files=False)).samples()) == 1


def test_a_path_may_name_an_image_in_a_file(tmp_path):
    np.savez(tmp_path / "all.npz", images=np.zeros((2, 4, 4), np.uint8))
    (tmp_path / "cases.csv").write_text("path\nall.npz#images:0\nall.npz#images:1\n")
    samples = open_dataset("table", str(tmp_path / "cases.csv")).samples()
    assert [count_slices(path) for path in samples.path.tolist()] == [1, 1]


def test_parquet_reads_as_csv_does(table, tmp_path):
    csv = opened(table(CASES))
    columns = {k: [row[k] or None for row in CASES] for k in CASES[0]}
    columns["edema"] = pa.array([1.0, None, 0.0, 1.0])  # as pandas stores whole numbers with missing ones
    columns["patient"] = pa.array(columns["patient"]).dictionary_encode()
    pq.write_table(pa.table(columns), tmp_path / "cases.parquet")
    parquet = opened(tmp_path / "cases.parquet")
    assert parquet.samples().id.tolist() == csv.samples().id.tolist()
    assert parquet.samples().patient_id.tolist() == csv.samples().patient_id.tolist()
    assert parquet.labels().tasks == csv.labels().tasks
    np.testing.assert_array_equal(parquet.labels().value, csv.labels().value)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_delimiters_and_a_byte_order_mark(png, tmp_path, mark):
    png(tmp_path / "1.png")
    (tmp_path / "t.csv").write_text(f"path{mark}patient\n1.png{mark}A,B\n", encoding="utf-8-sig")
    assert opened(tmp_path / "t.csv").samples().patient_id.tolist() == ["A,B"]


def test_one_missing_file_is_left_to_extraction_all_are_an_error(table, tmp_path):
    file = table(CASES)
    (tmp_path / "a/1.png").unlink()
    assert len(opened(file).samples()) == 4
    with pytest.raises(
        InputError, match=r"not one of the 2 files in column 'path' of none\.csv is there; relative paths"
    ):
        opened(table([{"path": "x.png"}, {"path": "y.png"}], "none.csv", files=False))


BAD = {
    "two ids": (
        [{"path": "1.png", "id": "A"}, {"path": "2.png", "id": "B"}, {"path": "3.png", "id": "A"}],
        r"row 1 of cases\.csv and row 3 of cases\.csv have the same id; make ids unique, or name another",
    ),
    "patient in two splits": (
        [{"path": f"{i}.png", "patient": p, "split": s} for i, (p, s) in enumerate(
            [("A", ""), ("B", "test"), ("A", "train"), ("A", "test")])],
        r"one patient is in two splits: row 3 of cases\.csv is in train, row 4 of cases\.csv in test; put all rows",
    ),
    "unknown split": (
        [{"path": "1.png", "split": "train"}, {"path": "2.png", "split": "holdout"}],
        r"row 2 of cases\.csv has split 'holdout' in column 'split'; a split is train, validation or test",
    ),
    "no path column": ([{"a": "1"}], r"cases\.csv has no column of paths; name it with --path-column\. It has: a\."),
    "no path in a row": (
        [{"path": "1.png", "x": 1}, {"path": "", "x": 2}],
        r"row 2 of cases\.csv has no path in column 'path'; fill it, or leave the row out",
    ),
    "no patient in a row": (
        [{"path": "1.png", "patient": "NA"}],
        r"row 1 of cases\.csv has no patient in column 'patient'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_one_clear_line(table, case):
    rows, message = BAD[case]
    with pytest.raises(InputError, match=message) as raised:
        opened(table(rows))
    assert "\n" not in str(raised.value)


def test_a_patient_in_two_splits_is_named_by_rows_only(table):
    rows = [
        {"path": "1.png", "patient": "Jane", "split": "test"},
        {"path": "2.png", "patient": "Jane", "split": "train"},
    ]
    with pytest.raises(InputError) as raised:
        opened(table(rows))
    assert "Jane" not in str(raised.value)
    assert ".png" not in str(raised.value)


def test_a_bad_file_is_one_clear_line(tmp_path, table):
    with pytest.raises(InputError, match=r"there is no table gone\.csv"):
        opened(tmp_path / "gone.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match=r"empty\.csv is empty: it has no header line"):
        opened(tmp_path / "empty.csv")
    (tmp_path / "head.csv").write_text("path,edema\n")
    with pytest.raises(InputError, match=r"head\.csv is empty: it has no row below its header"):
        opened(tmp_path / "head.csv")
    (tmp_path / "twice.csv").write_text("path,path\n1.png,2.png\n")
    with pytest.raises(InputError, match=r"twice\.csv has two columns called 'path'"):
        opened(tmp_path / "twice.csv")
    (tmp_path / "ragged.csv").write_text("path,a\n1.png,2\nJane.png\n3.png,4\n")
    with pytest.raises(
        InputError, match=r"row 2 of ragged\.csv has 1 cells, the header has 2; quote cells that hold ','"
    ):
        opened(tmp_path / "ragged.csv")
    (tmp_path / "bytes.csv").write_bytes(b"path,\xff\xfe\n\xff,2\n")
    with pytest.raises(InputError, match=r"bytes\.csv is not UTF-8 text"):
        opened(tmp_path / "bytes.csv")
    (tmp_path / "late.csv").write_bytes(b"path,a\n" + b"1.png,2\n" * 2000 + b"\xff,2\n")
    with pytest.raises(InputError, match=r"late\.csv can not be read as CSV or Parquet: its text is not UTF-8"):
        opened(tmp_path / "late.csv")
    (tmp_path / "bytes.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"bytes\.parquet can not be read as CSV or Parquet: it is damaged"):
        opened(tmp_path / "bytes.parquet")


def test_a_named_column_that_is_not_there_suggests_the_nearest(table):
    with pytest.raises(InputError, match=r"unknown column of cases\.csv 'patiant'; did you mean 'patient'\?"):
        opened(table(CASES), patient_column="patiant")
    with pytest.raises(InputError, match=r"--task edemma: unknown column of cases\.csv 'edemma'; did you mean 'edema'"):
        opened(table(CASES), tasks=("edemma=binary",))


def test_a_name_must_be_a_folders(table):
    with pytest.raises(InputError, match=r"a dataset's name is letters, digits.*Got --name '\.\./x'"):
        opened(table(CASES), name="../x")
    assert opened(table(CASES, "my cases (2).csv")).info.name == "my-cases-2"


def test_an_unknown_dataset_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown dataset 'tabel'; did you mean 'table'"):
        open_dataset("tabel", ".")


# --- a second table with the labels ------------------------------------------------------------------


def test_labels_in_a_second_table_join_on_ids(table, tmp_path):
    (tmp_path / "l.csv").write_text("image,edema\nb/4.png,0\na/1.png,1\nother.png,1\n")
    dataset = opened(table(CASES), label_table=str(tmp_path / "l.csv"), join_on="image")
    labels = dataset.labels()
    of_sample = dict(zip(labels.sample.tolist(), labels.value.tolist(), strict=True))
    assert (of_sample["a/1.png"], of_sample["b/4.png"]) == (1, 0)
    assert np.isnan(of_sample["a/2.png"])
    assert dataset.notices == ("1 of the 3 rows of l.csv match no sample",)


def test_what_is_made_of_odd_columns_is_told_of_either_table(table, tmp_path):
    own = [{**row, "findings": "Mass"} for row in CASES]
    (notice,) = opened(table(own)).notices
    assert notice.startswith("of cases.csv column 'findings' holds one value only")
    (tmp_path / "l.csv").write_text("image,view\nb/4.png,AP\na/1.png,AP\n")
    (notice,) = opened(table(own), label_table=str(tmp_path / "l.csv"), join_on="image").notices
    assert notice.startswith("of l.csv column 'view' holds one value only")


def test_labels_joined_on_patients_are_at_their_level(table, tmp_path):
    (tmp_path / "l.csv").write_text("subject,died\nP9,yes\nP4,no\n")
    labels = opened(table(CASES), label_table=str(tmp_path / "l.csv"), join_on="subject").labels()
    assert labels.get("died").level == "patient"
    mine = labels.task == "died"
    assert set(labels.sample[mine].tolist()) == {""}
    found = dict(zip(labels.patient[mine].tolist(), labels.value[mine].tolist(), strict=True))
    assert (found["P9"], found["P4"], np.isnan(found["P5"])) == (1, 0, True)
    # every sample still has a row for its split
    assert sorted(labels.sample[~mine].tolist()) == ["a/1.png", "a/2.png", "b/3.png", "b/4.png"]


def test_uncertain_labels_of_a_table_and_of_a_second_one(table, tmp_path):
    rows = [{"path": f"{i}.png", "ill": word} for i, word in enumerate(["1", "0", "-1", ""])]
    assert np.isnan(opened(table(rows)).labels().value[2])
    assert opened(table(rows), uncertain="ones").labels().value[:3].tolist() == [1, 0, 1]
    (tmp_path / "l.csv").write_text("id,sick\n" + "".join(f"{row['path']},{row['ill']}\n" for row in rows))
    joined = opened(table(rows), uncertain="zeros", label_table=str(tmp_path / "l.csv")).labels()
    assert joined.value[joined.task == "sick"][:3].tolist() == [1, 0, 0]


def test_a_switch_that_a_table_does_not_use_is_refused(table):
    with pytest.raises(InputError, match="dataset table does not take --channel"):
        opened(table(CASES), channel="0")
    with pytest.raises(InputError, match="--uncertain ignore: no column"):
        opened(table(CASES), uncertain="ignore")


def test_labels_of_slices(table, tmp_path):
    (tmp_path / "l.csv").write_text("id,slice,tumour\na/1.png,4,1\na/1.png,0,0\n")
    labels = opened(table(CASES), label_table=str(tmp_path / "l.csv"), level="slice").labels()
    mine = labels.task == "tumour"
    assert labels.slice[mine].tolist() == [4, 0]
    assert labels.value[mine].tolist() == [1, 0]


BAD_JOINS = {
    "id,x\nnobody,1\n": r"no row of l\.csv matches: its column 'id' holds neither the ids nor the patients of cases\.csv",
    "id,x\na/1.png,1\na/1.png,0\n": r"row 1 of l\.csv and row 2 of l\.csv are of the same sample or patient",
    "who,x\nP9,1\n": r"l\.csv has no column of ids; name the column to join on with --join-on",
}


@pytest.mark.parametrize("content", BAD_JOINS)
def test_a_bad_join_is_one_clear_line(table, tmp_path, content):
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(InputError, match=BAD_JOINS[content]):
        opened(table(CASES), label_table=str(tmp_path / "l.csv"))


def test_bad_slice_labels_are_one_clear_line(table, tmp_path):
    file = table(CASES)
    with pytest.raises(InputError, match="labels of slices are in a second table"):
        opened(file, level="slice")
    for content, message in {
        "id,tumour\na/1.png,1\n": r"l\.csv has no column of slice numbers; name it with --slice-column",
        "id,slice,tumour\na/1.png,x,1\n": r"column 'slice' of l\.csv must hold slice numbers",
        "id,slice,tumour\na/1.png,3,1\na/1.png,3,0\n": r"row 1 of l\.csv and row 2 of l\.csv are of the same slice",
    }.items():
        (tmp_path / "l.csv").write_text(content)
        with pytest.raises(InputError, match=message):
            opened(file, label_table=str(tmp_path / "l.csv"), level="slice")
    with pytest.raises(InputError, match="--join-on joins a second table of labels; name it with --labels FILE"):
        opened(file, join_on="id")


def test_patient_level_labels_must_agree(table):
    with pytest.raises(InputError, match=r"row 1 of cases\.csv and row 2 of cases\.csv are one patient with different"):
        opened(
            table([{**row, "edema": i} for row, i in zip(CASES, (1, 0, 1, 0), strict=True)]), level="patient"
        ).labels()
    labels = opened(table(CASES), level="patient").labels()
    mine = labels.task == "edema"
    assert dict(zip(labels.patient[mine].tolist(), labels.value[mine].tolist(), strict=True)) == {
        "P9": 1,
        "P4": 0,
        "P5": 1,
    }


@given(
    st.lists(st.text("ab./~ ", max_size=6) | st.sampled_from(["images/1.png", "../x", "/abs/./y", "a/..", ".hidden"]))
)
@example(["", ".", "..", "/", "a//b", "./a", "a/.", "a./b", "a/", "../../.."])
def test_paths_are_joined_and_made_plain_as_the_system_does(written):
    base = Path("/data/./x/..")
    found = table_module._paths(strings(written), base)
    assert found.tolist() == [path and os.path.normpath(os.path.join(str(base), path)) for path in written]
