"""A coded column is the column of texts that it stands for, whatever is asked of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache.coded import CodedTexts
from embedcache.store.texts import factorise, joint_codes, locate
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
