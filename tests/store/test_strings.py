"""Chunks of strings, held against the plain way of writing and reading them, which knows no fixed widths."""

import contextlib
import hashlib
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedcache.errors import StoreError
from embedcache.store.encoding import ALIKE_AT_LEAST, decode_strings, encode_strings, join_strings, pad_strings
from embedcache.store.fingerprint import _text_digest
from embedcache.store.packed import PackedTexts
from embedcache.types import strings

alike = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.text(st.characters(codec="ascii"), min_size=n, max_size=n), min_size=1, max_size=3)
)
mixed = st.lists(st.text(st.characters(codec="utf-8"), max_size=4), max_size=6)
columns = st.builds(
    lambda first, often, rest, more: first * often + rest * more,
    alike,
    st.sampled_from([0, 1, ALIKE_AT_LEAST, 2 * ALIKE_AT_LEAST]),
    mixed,
    st.sampled_from([0, 1, ALIKE_AT_LEAST]),
)
NAME = "sample_id/c/0"


def plainly(values: list[str]) -> bytes:
    """As FORMAT.md has it, string by string."""
    texts = [value.encode() for value in values]
    return struct.pack("<I", len(texts)) + b"".join(struct.pack("<I", len(text)) + text for text in texts)


@given(columns)
@example(["a\0"] * ALIKE_AT_LEAST)
@example(["a"] * ALIKE_AT_LEAST + ["a\0"])
@example([""] * ALIKE_AT_LEAST)
@example(["é"] * ALIKE_AT_LEAST)
@example(["x" * 300] * ALIKE_AT_LEAST + ["x" * 301])
@example(["ab"] * ALIKE_AT_LEAST + [""] * ALIKE_AT_LEAST)
def test_strings_are_written_and_read_as_one_by_one(values: list[str]) -> None:
    assert encode_strings(strings(values)) == encode_strings(values) == plainly(values)
    assert decode_strings(plainly(values), NAME).tolist() == values


@given(columns)
@example(["a\0"] * ALIKE_AT_LEAST)
def test_the_digest_of_a_column(values: list[str]) -> None:
    expected = hashlib.sha256("".join(value + "\n" for value in values).encode()).hexdigest()
    assert _text_digest(strings(values)) == expected


@given(columns, st.integers(0, 100))
def test_padded_and_joined(values: list[str], more: int) -> None:
    padded = pad_strings(strings(values), len(values) + more)
    assert padded.tolist() == values + [""] * more
    chunks = [decode_strings(encode_strings(padded), NAME), decode_strings(plainly(values), NAME)]
    assert join_strings(chunks, len(values)).tolist() == values
    assert join_strings(chunks, 10**6).tolist() == values + [""] * more + values
    assert join_strings([], 5).tolist() == []


@given(st.data(), columns.filter(bool))
def test_a_damaged_chunk_is_refused_or_reads_as_the_plain_way_reads_it(data: st.DataObject, values: list[str]) -> None:
    raw = bytearray(plainly(values))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    found = None
    with contextlib.suppress(StoreError):
        found = decode_strings(bytes(raw), NAME).tolist()
    assert found is None or plainly(found) == bytes(raw)


@pytest.mark.parametrize("cut", [0, 3, 4, 40, -1])
def test_a_chunk_that_is_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(StoreError, match="damaged strings"):
        decode_strings(plainly([f"{i:032x}" for i in range(100)])[:cut], NAME)
    with pytest.raises(StoreError, match="bytes are left over"):
        decode_strings(plainly([f"{i:032x}" for i in range(100)]) + b"\0", NAME)


@given(columns)
def test_packed_texts_are_ordered_as_texts_are(values: list[str]) -> None:
    packed = PackedTexts.of(strings(values))
    assert packed.data == "".join(values).encode()
    order = packed.sort()
    widths = {len(value.encode()) for value in values}
    assert (order is None) == (len(widths) > 1 or widths <= {0})
    if order is not None:
        assert order.tolist() == sorted(range(len(values)), key=lambda i: values[i])


def test_ids_that_differ_in_any_of_their_parts_are_ordered() -> None:
    rng = np.random.default_rng(0)
    for first, last in ((0, 32), (0, 3), (20, 23), (30, 32), (5, 29)):
        ids = [
            ("0" * first + "".join(rng.choice(list("0123456789abcdef"), last - first))).ljust(32, "f")
            for _ in range(99)
        ]
        order = PackedTexts.of(strings(ids)).sort()
        assert order is not None
        assert order.tolist() == sorted(range(99), key=lambda i: ids[i])
    tied = [f"{'a' * 16}{i % 3}{'b' * 15}" for i in range(50)] + [f"{i % 2}{'b' * 31}" for i in range(50)]
    order = PackedTexts.of(strings(tied)).sort()
    assert order is not None
    assert order.tolist() == sorted(range(100), key=lambda i: tied[i])
