"""A coded column is the column of texts that it stands for, whatever is asked of it."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache.coded import CodedTexts
from embedcache.store.texts import factorise, from_nullable, joint_codes, locate, to_numbers
from embedcache.types import strings

WORDS = ["", "b", "a", "a text that is longer than fifteen bytes", "c\0"]
columns = st.lists(st.integers(0, len(WORDS) - 1), max_size=30)


def both(codes: list[int]) -> tuple[CodedTexts, np.ndarray]:
    return CodedTexts(strings(WORDS), np.array(codes, dtype=np.int64)), strings([WORDS[c] for c in codes])


@given(columns, st.sampled_from([*WORDS, "absent"]))
def test_it_compares_lists_and_indexes_as_the_texts_do(codes: list[int], text: str) -> None:
    coded, plain = both(codes)
    assert (len(coded), coded.shape, coded.dtype) == (len(plain), plain.shape, plain.dtype)
    assert coded.tolist() == plain.tolist()
    np.testing.assert_array_equal(coded == text, plain == text)
    np.testing.assert_array_equal(coded != text, plain != text)
    np.testing.assert_array_equal(coded[::2] == coded[::2].copy(), np.ones(len(plain[::2]), dtype=bool))
    mask = plain != "a"
    assert coded[mask].tolist() == plain[mask].tolist()
    assert [coded[i] for i in range(len(coded))] == plain.tolist()
    assert np.where(coded == "", "none", coded).tolist() == np.where(plain == "", "none", plain).tolist()
    assert np.concatenate([coded, plain]).tolist() == 2 * plain.tolist()


@given(columns, columns)
def test_numbers_for_texts_are_those_of_the_texts(a: list[int], b: list[int]) -> None:
    (coded, plain), (coded_b, plain_b) = both(a), both(b)
    for found, expected in zip(factorise(coded), factorise(plain), strict=True):
        assert found.tolist() == expected.tolist()
    expected = locate(plain, plain_b)
    for values, among in ((coded, plain_b), (plain, coded_b), (coded, coded_b)):
        np.testing.assert_array_equal(locate(values, among), expected)
    assert joint_codes(coded, coded_b)[0] == joint_codes(plain, plain_b)[0]


def test_a_copy_can_be_assigned_to_and_the_column_can_not() -> None:
    coded, _ = both([1, 2, 1])
    changed = coded.copy()
    changed[0] = "new"
    assert (changed.tolist(), coded.tolist()) == (["new", "a", "b"], ["b", "a", "b"])
    with pytest.raises(TypeError):
        coded[0] = "new"  # type: ignore[index]
    with pytest.raises(ValueError, match="no array of texts to share"):
        np.array(coded, copy=False)


@given(st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)), max_size=40))
def test_columns_of_numbers_are_as_arrow_itself_makes_and_reads_them(values: list[int | None]) -> None:
    missing = np.array([v is None for v in values], dtype=bool)
    numbers = np.array([0 if v is None else v for v in values], dtype=np.int64)
    for kind in (pa.int32(), pa.int64(), pa.float64()):
        column = to_numbers(numbers, kind, missing)
        assert column.to_pylist() == values
        assert column.equals(pa.array(values, kind))
        np.testing.assert_array_equal(from_nullable(column, np.nan), [np.nan if v is None else v for v in values])
    assert to_numbers(numbers, pa.int64()).null_count == 0


def test_writing_and_reading_a_table_imports_no_pandas() -> None:
    program = (
        "import sys, numpy as np, pyarrow as pa\n"
        "from embedcache.evaluation.predictions import Predictions, encode_predictions\n"
        "from embedcache.store.labels import decode_labels, encode_labels\n"
        "from embedcache.types import Labels, Task, strings\n"
        "one = np.array([[1.0, np.nan]])\n"
        "s, slices = strings(['s']), np.array([-1], dtype=np.int32)\n"
        "encode_predictions(Predictions(s, slices, s, ('a', 'b'), one, one, s, one))\n"
        "two = strings(['a', 'b'])\n"
        "labels = Labels((Task('t', 'multilabel', ('a', 'b')),), strings(['t', 't']), strings(['s', 's']), strings(['p', 'p']),\n"
        "    np.array([-1, -1], dtype=np.int32), two, one[0], strings(['', '']))\n"
        "assert decode_labels(encode_labels(labels)).klass.tolist() == ['a', 'b']\n"
        "print('pandas' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )
