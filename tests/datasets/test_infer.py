"""What is made of a column, how it is shown, and how the switches have it otherwise."""

import json

import numpy as np
import pyarrow as pa
import pytest

from embedcache.datasets import DatasetOptions
from embedcache.datasets.columns import Table
from embedcache.datasets.describe import describe_labels
from embedcache.datasets.identifying import identifying
from embedcache.datasets.infer import answers, find_tasks, said_of_columns
from embedcache.errors import InputError


def one(values, name="x", **options):
    table = Table("t.csv", pa.table({name: [str(v) for v in values]}))
    return find_tasks(table, [], DatasetOptions(**options))[0], table


def values(finding_and_table):
    return answers(*finding_and_table)[:, 0].tolist()


@pytest.mark.parametrize(
    ("words", "positive"),
    [
        (("0", "1"), "1"), (("true", "FALSE"), "true"), (("yes", "no"), "yes"), (("neg", "pos"), "pos"),
        (("1.0", "0.0"), "1.0"), (("benign", "malignant"), "malignant"), (("TB", "Normal"), "TB"), (("f", "m"), "m"),
    ],
)  # fmt: skip
def test_two_values_are_binary_and_the_positive_is_said(words, positive):
    finding, table = one([words[0], words[1], words[1], "", "NA", words[1]])
    assert (finding.task.kind, finding.task.positive) == ("binary", positive)
    assert repr(positive) in finding.reason
    expected = [
        float(w == positive) if w in words else np.nan for w in [words[0], words[1], words[1], "", "NA", words[1]]
    ]
    np.testing.assert_array_equal(answers(finding, table)[:, 0], expected)


def test_the_class_of_a_yes_no_column_is_its_name_else_the_positive():
    assert one(["0", "1"], "Edema")[0].task.classes == ("Edema",)
    assert one(["a", "b", "b"], "Edema")[0].task.classes == ("b",)


def test_the_other_value_keeps_its_name_where_there_is_one_that_says_something():
    assert one(["M", "F", "F", ""], "sex")[0].task.values == ("F", "M")
    assert one(["M", "F", "F"], "sex", positive=("sex=F",))[0].task.values == ("M", "F")
    assert one(["0", "1"], "Edema")[0].task.values == ("not Edema", "Edema")
    assert one(["a", "b", "c"] * 3, positive=("x=b",))[0].task.values == ("not b", "b")


def test_the_positive_can_be_turned():
    found = one(["0", "1", "1"], "Edema", positive=("Edema=0",))
    assert found[0].task.classes == ("Edema=0",)
    assert values(found) == [1, 0, 0]
    found = one(["a", "b", "c"] * 3, positive=("x=b",))
    assert (found[0].task.kind, values(found)[:3]) == ("binary", [0, 1, 0])


def test_few_words_are_classes_in_order():
    finding, table = one(["c", "a", "b"] * 3 + ["?"])
    assert (finding.task.kind, finding.task.classes) == ("multiclass", ("a", "b", "c"))
    np.testing.assert_array_equal(answers(finding, table)[:, 0], [2, 0, 1] * 3 + [np.nan])
    assert one([10, 9, 2] * 3)[0].task.classes == ("2", "9", "10")


def test_many_numbers_are_numeric():
    found = one([1.5, 2, 3.25, 4, ""])
    assert found[0].task.kind == "numeric"
    np.testing.assert_array_equal(values(found), [1.5, 2, 3.25, 4, np.nan])
    assert one(range(30))[0].task.kind == "numeric"
    assert one([0.25, 0.5, 0.75] * 5)[0].task.kind == "numeric"


def test_cells_with_a_separator_are_multilabel():
    finding, table = one(["A|B", "No Finding", "B", "", "NA"])
    assert (finding.task.kind, finding.task.classes) == ("multilabel", ("A", "B"))
    assert "'No Finding' means no label" in finding.reason
    nan = [np.nan, np.nan]
    # where there is a word for nothing found, an empty cell is missing
    np.testing.assert_array_equal(answers(finding, table), [[1, 1], [0, 0], [0, 1], nan, nan])
    finding, table = one(["A;B", "", "B"])
    assert "an empty cell means no label" in finding.reason
    np.testing.assert_array_equal(answers(finding, table), [[1, 1], [0, 0], [0, 1]])
    assert one(["A/B", "A", "B"], sep="/")[0].task.classes == ("A", "B")


@pytest.mark.parametrize(
    "name",
    [
        "id", "Patient ID", "PatientID", "StudyInstanceUID", "sop_instance_uid", "PatientName", "patient_birth_date",
        "BirthDate", "dateofbirth", "MRN", "AccessionNumber", "InstitutionName", "address", "email", "phone", "file_name",
        "StudyDate", "AcquisitionTime", "split", "sha256", "patientid", "Report",
    ],
)  # fmt: skip
def test_a_column_that_names_someone_is_no_label(name):
    finding, _ = one(["0", "1", "0", "1"], name)
    assert finding.task is None
    assert "its name is that of an identifier" in finding.reason
    assert "takes it all the same" in finding.switch


@pytest.mark.parametrize("name", ["covid", "fluid", "thyroid", "Infiltration", "sex", "grade", "candidate", "valid"])
def test_a_label_that_ends_like_an_identifier_is_one(name):
    assert not identifying(name)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["q", "w", "e", "r"], "no two values are alike"),
        (["q"] * 4, "one value only"),
        (["1"] * 4, "one value only"),
        (["", "NA", "?"], "it holds no value"),
        ([f"w{i}" for i in range(25)] * 2, "25 distinct values in 50 rows"),
        (["2020-01-31", "2020-02-01"] * 3, "dates"),
        (["20200131", "20200201"] * 3, "dates"),
        ([10000001, 10000002, 10000005], "long whole numbers"),
        (["0012", "0013", "0014"], "no two values are alike"),
    ],
)
def test_what_is_no_label_is_refused_with_its_reason(cells, reason):
    finding, table = one(cells)
    assert finding.task is None
    assert reason in finding.reason
    with pytest.raises(InputError, match=r"column 'x' of t\.csv is not a label"):
        answers(finding, table)


def test_declared_tasks_are_the_only_ones_and_take_refused_columns():
    table = Table("t.csv", pa.table({"a": ["0", "1"], "b": ["1", ""], "StudyDate": ["1", "2"]}))
    findings = find_tasks(table, [], DatasetOptions(tasks=("both=multilabel:a,b", "StudyDate=numeric")))
    assert [(f.task.name, f.task.kind, f.task.classes) for f in findings] == [
        ("both", "multilabel", ("a", "b")), ("StudyDate", "numeric", ()),
    ]  # fmt: skip
    np.testing.assert_array_equal(answers(findings[0], table), [[0, 1], [1, np.nan]])


BAD = [
    ({"tasks": ("x",)}, r"--task is NAME=KIND\[:COLUMN\[,COLUMN\.\.\.\]\]\. Got 'x'"),
    ({"tasks": ("x=",)}, "Got 'x='"),
    ({"tasks": ("x=binray",)}, "unknown kind of task 'binray'; did you mean 'binary'"),
    ({"tasks": ("x=segmentation",)}, "a segmentation task comes with a table's mask column"),
    ({"tasks": ("y=binary:x,x",)}, "every column named once"),
    ({"tasks": ("y=numeric:x,z",)}, "only multilabel takes several"),
    ({"tasks": ("x=binary", "x=numeric")}, "--task x is given twice"),
    ({"tasks": ("x=numeric",)}, r"row 3 of t\.csv: column 'x' holds 'c', which is no number"),
    ({"tasks": ("y=multilabel:x,z",)}, r"row 3 of t\.csv: column 'x' holds 'c', which is neither yes nor no"),
    ({"tasks": ("x=binary",)}, "holds 3 distinct values; say which counts as 1 with --positive x=VALUE"),
    ({"tasks": ("x=multiclass",), "positive": ("x=c",)}, "only a binary task has a positive value"),
    ({"tasks": ("e=multiclass",)}, r"--task e: column 'e' of t\.csv holds no value"),
    ({"tasks": ("one=multiclass",)}, "holds one class only"),
    ({"positive": ("x",)}, "--positive is TASK=VALUE. Got 'x'"),
    ({"positive": ("x=1", "x=0")}, "--positive x is given twice"),
    ({"positive": ("w=1",)}, "--positive w: unknown task 'w'"),
    ({"positive": ("x=d",)}, "--positive x=d: column 'x' has no such value. It has '0', '1', 'c'"),
    ({"level": "image"}, "unknown level 'image'"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_a_bad_switch_is_one_clear_line(options, message):
    data = {"x": ["0", "1", "c", "0", "1", "c"], "z": ["0", "1"] * 3, "e": [""] * 6, "one": ["k"] * 6}
    with pytest.raises(InputError, match=message) as raised:
        find_tasks(Table("t.csv", pa.table(data)), [], DatasetOptions(**options))
    assert "\n" not in str(raised.value)


def test_what_labels_show_prints(table):
    file = table(
        [{"path": f"{i}.png", "StudyDate": "20200101", "edema": e, "kind": k} for i, (e, k) in enumerate(
            [("1", "a"), ("", "a"), ("0", "b"), ("1", "c"), ("1", "b"), ("0", "c"), ("1", "c"), ("0", "a"), ("0", "a")])]
    )  # fmt: skip
    date, edema, kind = describe_labels(str(file))
    assert (date["column"], date["task"]) == ("StudyDate", None)
    assert edema["classes"] == {"edema": 4}
    assert (edema["missing"], edema["level"], edema["positive"]) == (1, "sample", "1")
    assert kind["classes"] == {"a": 4, "b": 2, "c": 3}
    assert edema["switch"] == "--positive edema=VALUE, --task edema=KIND"
    json.dumps([date, edema, kind])


def test_a_switch_that_is_shown_is_quoted_for_a_shell(table):
    (line,) = describe_labels(table([{"Finding Labels": "A|B"}, {"Finding Labels": "A"}], files=False))
    assert line["switch"] == "--sep \"|\", --task 'Finding Labels=KIND'"


@pytest.mark.parametrize("word", ["N/A", "n/a", "#N/A", "<NA>", "n.a.", "Unknown", "-", "NaT", "null", "?"])
def test_a_word_for_not_known_is_no_class_no_negative_and_no_finding(word):
    finding, table = one(["yes", "no", word, "no"])
    assert finding.task.kind == "binary"
    np.testing.assert_array_equal(answers(finding, table)[:, 0], [1, 0, np.nan, 0])
    finding, table = one(["benign", "malignant", word, "benign"])
    assert finding.task.classes == ("malignant",)
    np.testing.assert_array_equal(answers(finding, table)[:, 0], [0, 1, np.nan, 0])
    finding, table = one([1.5, word, 2.25])
    assert finding.task.kind == "numeric"
    finding, table = one(["A|B", "No Finding", word, "B"])
    assert finding.task.classes == ("A", "B")
    assert np.isnan(answers(finding, table)[2]).all()


def test_the_values_that_count_as_0_are_named():
    finding, _ = one(["a", "b", "none", "n/a"] * 3, positive=("x=b",))
    assert finding.reason == "3 distinct values; 'b' counts as 1, and 'a', 'none' as 0 (given)"


UNCERTAIN = ["1.0", "0.0", "-1.0", "", "1.0", "0.0"] * 2


@pytest.mark.parametrize(("policy", "value"), [(None, np.nan), ("ignore", np.nan), ("zeros", 0.0), ("ones", 1.0)])
def test_minus_one_beside_yes_and_no_is_uncertain(policy, value):
    finding, table = one(UNCERTAIN, uncertain=policy)
    assert (finding.task.kind, finding.task.classes, finding.task.positive) == ("binary", ("x",), "1.0")
    np.testing.assert_array_equal(answers(finding, table)[:6, 0], [1, 0, value, np.nan, 1, 0])
    assert "-1 (uncertain)" in finding.reason
    assert "--uncertain zeros|ones|ignore" in finding.switch
    finding, table = one(UNCERTAIN, uncertain=policy, positive=("x=1.0",))
    np.testing.assert_array_equal(answers(finding, table)[:4, 0], [1, 0, value, np.nan])
    finding, table = one(UNCERTAIN, uncertain=policy, tasks=("x=binary",))
    np.testing.assert_array_equal(answers(finding, table)[:4, 0], [1, 0, value, np.nan])


def test_minus_one_is_uncertain_in_several_columns_of_one_task():
    table = Table("t.csv", pa.table({"a": ["1", "0", "-1"], "b": ["1", "-1", ""]}))
    options = {"tasks": ("f=multilabel:a,b",)}
    (finding,) = find_tasks(table, [], DatasetOptions(**options))
    np.testing.assert_array_equal(answers(finding, table), [[1, 1], [0, np.nan], [np.nan, np.nan]])
    (finding,) = find_tasks(table, [], DatasetOptions(uncertain="ones", **options))
    np.testing.assert_array_equal(answers(finding, table), [[1, 1], [0, 1], [1, np.nan]])


def test_minus_one_that_says_something_else_stays():
    found = one(["-1", "1", "-1", "1", "1"])
    assert values(found) == [0, 1, 0, 1, 1], "how some write no and yes"
    assert one(["-1", "0", "1", "2"] * 3)[0].task.kind == "multiclass"
    assert one(UNCERTAIN, tasks=("x=multiclass",))[0].task.classes == ("-1.0", "0.0", "1.0")
    assert values(one(["-1", "0", "1"] * 3, positive=("x=-1",)))[:3] == [1, 0, 0]
    assert np.isnan(values(one(["-1", "1", "-1", "1", "1"], uncertain="ignore"))[0])


def test_an_uncertain_that_nothing_asks_for_is_refused():
    with pytest.raises(
        InputError, match=r"--uncertain ones: no column of yes and no that t\.csv has as a label holds -1"
    ):
        one(["0", "1", "1"], uncertain="ones")
    with pytest.raises(InputError, match="did you mean 'zeros'"):
        one(UNCERTAIN, uncertain="zero")


@pytest.mark.parametrize(
    "name", ["PatientSex", "Patient Gender", "Patient Age", "patient_age", "PatientAge", "SubjectSex"]
)
def test_sex_and_age_of_a_patient_name_nobody(name):
    assert not identifying(name)
    assert identifying("Patient Name at Age")


def told(columns, **options):
    table = Table("t.csv", pa.table(columns))
    return said_of_columns(find_tasks(table, [], DatasetOptions(**options)), table, DatasetOptions(**options))


def test_columns_of_one_value_are_named_in_one_line():
    columns = {"effusion": ["0"] * 4, "view": ["AP", "AP", "", "AP"], "ill": ["0", "1"] * 2, "empty": [""] * 4}
    assert told(columns) == (
        "of t.csv columns 'effusion', 'view' hold one value only, so there is no task of them; list rows with other values too, "
        "or declare it (--task effusion=KIND), with every other task beside it",
    )
    (one,) = told({"effusion": ["0"] * 4})
    assert one.startswith("of t.csv column 'effusion' holds one value only, so there is no task of it;")
    assert told(columns, tasks=("ill=binary",)) == (), "whoever declares tasks has seen the columns"
    assert one_finding(columns, tasks=("effusion=binary", "ill=binary")) == ["effusion", "ill"], "as the line says"


def one_finding(columns, **options):
    table = Table("t.csv", pa.table(columns))
    return [f.task.name for f in find_tasks(table, [], DatasetOptions(**options)) if f.task]


@pytest.mark.parametrize(
    ("name", "words", "kind"),
    [
        ("Finding Labels", ["Mass", "Edema", "Hernia"], "multiclass"), ("findings", ["Mass", "Edema"], "binary"),
        ("dx", ["Mass", "Edema", "No Finding"], "multiclass"),
    ],
)  # fmt: skip
def test_a_column_that_may_hold_lists_in_its_full_table_is_told(name, words, kind):
    (line,) = told({name: words * 4})
    assert line.startswith(
        f"of t.csv column {name!r} is taken as {kind}, one label per row, since no cell holds '|' or ';';"
    )
    task = f"'{name}=multilabel'" if " " in name else f"{name}=multilabel"
    assert f"(--task {task}), with every other task beside it" in line
    again, _ = one(words * 4, name, tasks=(f"{name}=multilabel",))
    assert again.task.classes == tuple(sorted(set(words) - {"No Finding"}))
    assert "since no cell holds ', '" in told({name: words * 4}, sep=", ")[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [("label", ["a", "b", "c"]), ("labels", ["0", "1", "2"]), ("findings", ["yes", "no"]), ("findings", ["a|b", "b"])],
)
def test_other_columns_are_not_told(name, words):
    assert told({name: words * 4}) == ()


def test_who_named_the_positive_is_told_nothing():
    assert told({"findings": ["Mass", "Edema", "Hernia"] * 4}, positive=("findings=Mass",)) == ()
