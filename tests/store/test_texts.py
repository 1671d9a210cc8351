"""Texts as numbers, held against plain Python."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from embedcache.coded import CodedTexts
from embedcache.store.packed import PackedTexts
from embedcache.store.texts import factorise, from_arrow, joint_codes, locate, sort, to_arrow
from embedcache.types import fixed_width, strings

ids = st.lists(st.text("01é", min_size=16, max_size=16) | st.just("0" * 16))  # the way of long texts of one length
texts = ids | st.lists(st.one_of(st.sampled_from(["", "a", "b"]), st.text(st.characters(codec="utf-8"), max_size=3)))


@given(texts)
def test_words_are_sorted_and_codes_give_the_values_back(values):
    words, codes = factorise(strings(values))
    assert words.tolist() == sorted(set(values))
    assert words[codes].tolist() == values


awkward = texts | st.lists(st.text("ab\0é", max_size=4)) | st.just(["a" * 300, "b"])


@given(awkward)
def test_columns_change_their_form_and_not_their_texts(values):
    column = strings(values)
    assert column.tolist() == values
    wide = fixed_width(column)
    assert wide.dtype == np.array(values, dtype=str).dtype
    assert wide.tolist() == np.array(values, dtype=str).tolist()  # which know of no zeros at an end
    assert strings(wide).tolist() == wide.tolist()
    assert to_arrow(column).to_pylist() == values
    assert from_arrow(pa.array(["x", *values, "y"], pa.string())[1:-1]).tolist() == values
    packed = PackedTexts.of(column)
    assert packed.data == "".join(values).encode()
    assert packed.lengths.tolist() == [len(value.encode()) for value in values]


@given(texts, texts)
def test_joint_codes_are_equal_where_values_are(a, b):
    n, left, right = joint_codes(strings(a), strings(b))
    assert n == len({*a, *b})
    assert (left[:, None] == right[None, :]).tolist() == [[x == y for y in b] for x in a]


@given(texts, texts)
def test_locate_is_the_first_place_of_a_list(values, among):
    found = locate(strings(values), strings(among)).tolist()
    assert found == [among.index(v) if v in among else -1 for v in values]


@given(texts, st.booleans())
def test_texts_that_ascend_are_located_and_numbered_without_being_sorted(values, twice):
    ascending = sorted(set(values))
    column = strings([text for text in ascending for _ in range(1 + twice)])
    places = np.arange(len(ascending)) * (1 + twice)
    assert locate(column, column.copy()).tolist() == np.repeat(places, 1 + twice).tolist()
    words, codes = factorise(column)
    assert words.tolist() == ascending
    assert codes.tolist() == np.repeat(np.arange(len(ascending)), 1 + twice).tolist()


def test_ids_in_order_are_hashed_by_nobody(monkeypatch):
    column = strings([f"{i:08d}" for i in range(100)])

    def no(*_):
        raise AssertionError("sorted or hashed")

    monkeypatch.setattr("embedcache.store.texts.PackedTexts.of", no)
    assert locate(column, column.copy()).tolist() == list(range(100))
    assert factorise(column)[1].tolist() == list(range(100))


def test_locate_survives_what_ends_numpys_own_search():
    among = strings([f"{i:032x}" for i in range(200_000)])
    np.testing.assert_array_equal(locate(among[5:8], among), [5, 6, 7])


@given(texts)
def test_the_order_is_that_of_a_sorted_list(values):
    assert sort(strings(values)).tolist() == sorted(range(len(values)), key=lambda i: values[i])


def test_the_first_row_of_a_coded_column_is_found_and_nothing_where_there_is_none() -> None:
    column = CodedTexts(strings(["never", "a", "b"]), np.array([2, 1, 1, 2, 1]))
    assert locate(strings(["a", "b", "never", "gone"]), column).tolist() == [1, 0, -1, -1]
