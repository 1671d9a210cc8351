"""Choosing samples: expressions held against a plain Python filter, lists, limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache.datasets import open_dataset
from embedcache.datasets.selection import labels_of, matching, select
from embedcache.errors import InputError
from embedcache.types import Samples, strings

AGES = st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=15)


def samples(n):
    ids = strings([f"s{i}" for i in range(n)])
    return Samples(ids, ids, ids, strings([""] * n), np.arange(1, n + 1), "cases.csv")


def columns(ages, sexes=None):
    return {
        "age": np.array([np.nan if a is None else a for a in ages], np.float64),
        "sex": strings(["" if s is None else s for s in (sexes or [None] * len(ages))]),
    }


def comparison(draw_op, number):
    return st.tuples(st.sampled_from(draw_op), number)


tests = st.recursive(
    st.tuples(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), st.integers(0, 5)),
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["and", "or"]), inner, inner),
    ),
    max_leaves=6,
)


def written(test):
    """A test as an expression of `--where`."""
    if test[0] == "not":
        return f"not ({written(test[1])})"
    if test[0] in ("and", "or"):
        return f"({written(test[1])}) {test[0]} ({written(test[2])})"
    return f"age {test[0]} {test[1]}"


def holds(test, age):
    """The same test in plain Python for one known age."""
    if test[0] == "not":
        return not holds(test[1], age)
    if test[0] == "and":
        return holds(test[1], age) and holds(test[2], age)
    if test[0] == "or":
        return holds(test[1], age) or holds(test[2], age)
    return {
        "==": age == test[1], "!=": age != test[1], "<": age < test[1],
        "<=": age <= test[1], ">": age > test[1], ">=": age >= test[1],
    }[test[0]]  # fmt: skip


@given(tests, AGES)
def test_an_expression_is_a_plain_filter_in_which_missing_never_matches(test, ages):
    expected = [age is not None and holds(test, age) for age in ages]
    assert matching(written(test), columns(ages), len(ages)).tolist() == expected


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("1 < age <= 3", [False, True, True, False]),
        ("3 >= age", [True, True, True, False]),
        ("age in (1, 3)", [True, False, True, False]),
        ("age not in [1, 3]", [False, True, False, False]),
        ("age == -1 or sex == 'M'", [True, False, False, True]),
        ("sex == \"F\"", [False, True, False, False]),
        ("sex in {'F', 'M'} and not age > 1", [True, False, False, False]),
        ("'M' in sex", [True, False, False, True]),
        ("'M' not in sex", [False, True, False, False]),
        ("sex != 'M'", [False, True, False, False]),
        ("not sex == 'M'", [False, True, False, False]),
        ("age == age", [True, True, True, False]),
        ("  age > 2 ", [False, False, True, False]),
    ],
)  # fmt: skip
def test_expressions(where, expected):
    found = matching(where, columns([1, 2, 3, None], ["M", "F", None, "M"]), 4)
    assert found.tolist() == expected


def test_columns_with_blanks_are_written_in_backticks_or_with_underscores():
    table = {"View Position": strings(["PA", "AP"]), "a": np.zeros(2), "a b": np.ones(2), "a-b": np.ones(2)}
    assert matching("`View Position` == 'PA'", table, 2).tolist() == [True, False]
    assert matching("View_Position == 'PA' and a == 0", table, 2).tolist() == [True, False]
    assert matching("View_Position == '`a b`' or `a-b` == 1", table, 2).tolist() == [True, True]
    with pytest.raises(InputError, match=r"'a_b' may be 'a b' or 'a-b'; write it in backticks"):
        matching("a_b == 1", table, 2)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("age >", "is no expression: an expression has columns"),
        ("", "is no expression"),
        ("age", "age is no comparison"),
        ("age + 1 == 2", r"age \+ 1 is not allowed"),
        ("__import__('os').system('true') == 1", "is not allowed"),
        ("age.real == 1", r"age\.real is not allowed"),
        ("age[0] == 1", "is not allowed"),
        ("(lambda: 1)() == 1", "is not allowed"),
        ("1 == 1", "1 is compared, but no column is"),
        ("agee == 1", "unknown column 'agee'; did you mean 'age'"),
        ("age == '1'", "age is a number, and '1' a text; quote texts, and only texts"),
        ("sex == 1", "1 is a number, and sex a text"),
        ("age is None", "compared by a word that is not known here"),
        ("age == True", "True is no value here"),
        ("age in ()", "is empty"),
        ("1 in age", "must be a list of values, or a column of texts after a text"),
        ("`a c` == 1", "unknown column 'a c'"),
    ],
)
def test_anything_else_is_one_clear_line(where, message):
    with pytest.raises(InputError, match=message) as raised:
        matching(where, columns([1, 2]), 2)
    assert "\n" not in str(raised.value)


def test_list_expression_and_limit_narrow_together(tmp_path):
    (tmp_path / "list.txt").write_text("s4\n\ns1\ns3\n")
    some = samples(5)
    assert select(some, {}).tolist() == [0, 1, 2, 3, 4]
    assert select(some, {}, sample_list=tmp_path / "list.txt").tolist() == [1, 3, 4]
    chosen = select(some, columns([1, 1, 1, 1, 2]), limit=1, where="age == 1", sample_list=tmp_path / "list.txt")
    assert chosen.tolist() == [1]


def test_a_list_may_be_a_csv_with_a_column_sample(tmp_path):
    (tmp_path / "list.csv").write_text("split,sample\ntrain,s2\ntest,s0\n")
    assert select(samples(3), {}, sample_list=tmp_path / "list.csv").tolist() == [0, 2]


def test_bad_lists_and_empty_selections_are_one_clear_line(tmp_path):
    file = tmp_path / "list.txt"
    with pytest.raises(InputError, match=r"there is no sample list list\.txt"):
        select(samples(2), {}, sample_list=file)
    file.write_text("\n")
    with pytest.raises(InputError, match=r"list\.txt is empty"):
        select(samples(2), {}, sample_list=file)
    file.write_text("s1\ns7\ns8\n")
    with pytest.raises(
        InputError, match=r"2 of the 3 ids in list\.txt are no sample of the dataset, the first is id 2 of"
    ):
        select(samples(2), {}, sample_list=file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"list\.txt is no text file"):
        select(samples(2), {}, sample_list=file)
    with pytest.raises(InputError, match="no sample of 2 is selected"):
        select(samples(2), columns([1, 2]), where="age > 7")
    with pytest.raises(InputError, match=r"--limit must be at least 1\. Got 0"):
        select(samples(2), {}, limit=0)


def test_where_reads_the_columns_of_a_table(table):
    rows = [
        {"path": f"{i}.png", "Patient Age": a, "zip": z}
        for i, (a, z) in enumerate([(50, "01"), ("", "02"), (70, "01")])
    ]
    dataset = open_dataset("table", str(table(rows)))
    assert select(dataset.samples(), dataset.columns(), where="Patient_Age > 10").tolist() == [0, 2]
    # a number with a leading zero is a text
    assert select(dataset.samples(), dataset.columns(), where="zip == '01'").tolist() == [0, 2]


def test_labels_of_a_selection(table):
    rows = [{"path": f"{i}.png", "patient": p, "edema": i % 2} for i, p in enumerate("AABC")]
    dataset = open_dataset("table", str(table(rows)))
    chosen = dataset.samples().take([0, 2])
    assert labels_of(dataset.labels(), chosen).sample.tolist() == ["0.png", "2.png"]
