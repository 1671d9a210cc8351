"""float16 as float32, against numpy's own conversion, bit by bit."""

import numpy as np
import pytest

from embedcache.half import widen, widened

EVERY = np.arange(2**16, dtype=np.uint16).view(np.float16)


def bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.uint32)


@pytest.mark.parametrize("shape", [(2**16,), (256, 256), (4, 128, 128), (1, 2**16), (2**16, 1)])
def test_every_float16_is_the_float32_that_numpy_makes_of_it(shape: tuple[int, ...]) -> None:
    values = EVERY.reshape(shape)
    found = widened(values)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(bits(found), bits(values.astype(np.float32)))


def test_numbers_alone_too_in_many_blocks_and_any_byte_order() -> None:
    finite = EVERY[np.isfinite(EVERY)]
    many = np.resize(finite, (700, 1_000))
    np.testing.assert_array_equal(bits(widened(many)), bits(many.astype(np.float32)))
    swapped = many.astype(">f2")
    np.testing.assert_array_equal(bits(widened(swapped)), bits(many.astype(np.float32)))


def test_views_are_read_and_written_where_they_lie() -> None:
    values = EVERY.reshape(256, 256)
    out = np.zeros((512, 300), dtype=np.float32)
    widen(out[::2, 10:138], values[:, ::2])
    np.testing.assert_array_equal(bits(out[::2, 10:138]), bits(values[:, ::2].astype(np.float32)))
    assert not out[1::2].any()
    assert not out[:, :10].any()
    assert not out[:, 138:].any()


def test_what_is_no_float16_stays_what_it_is() -> None:
    for dtype in (np.float32, np.float64, np.int8):
        values = np.arange(6, dtype=dtype)
        assert widened(values) is values
    out = np.zeros(6, dtype=np.float32)
    widen(out, np.arange(6, dtype=np.float64))
    assert out.tolist() == [0, 1, 2, 3, 4, 5]
    assert widened(np.zeros((0, 4), dtype=np.float16)).shape == (0, 4)
    assert widened(np.zeros((4, 0), dtype=np.float16)).shape == (4, 0)
