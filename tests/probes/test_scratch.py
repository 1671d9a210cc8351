"""Memory that is used again goes to one matrix at a time."""

import gc
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import numpy as np

from embedcache.evaluation.selection import Rows
from embedcache.probes.scratch import Scratch
from embedcache.probes.standardizer import Standardizer


def test_memory_comes_again_when_nobody_refers_to_it() -> None:
    scratch = Scratch()
    first = scratch.empty((3, 4), 100)
    address = first.ctypes.data
    del first
    again = scratch.empty((10, 10), 100)
    assert again.shape == (10, 10)
    assert again.dtype == np.float32
    assert again.ctypes.data == address


def test_what_is_still_held_is_never_written_over() -> None:
    scratch = Scratch()
    kept = [scratch.empty((5, 4), 20) for _ in range(3)]
    kept.append(scratch.empty((5, 4), 20)[1:3].T)  # a view of a view holds it too
    kept.append(np.asarray(memoryview(scratch.empty((5, 4), 20))))
    last = scratch.empty((5, 4), 20)
    for i, matrix in enumerate(kept):
        matrix[:] = i
    last[:] = -1
    assert [set(matrix.ravel().tolist()) for matrix in kept] == [{float(i)} for i in range(len(kept))]


def test_more_than_was_announced_is_given_too() -> None:
    scratch = Scratch()
    scratch.empty((2, 2), 4)
    assert scratch.empty((50, 3), 4).shape == (50, 3)


def test_memory_is_touched_until_it_is_asked_for_and_never_after() -> None:
    scratch = Scratch()
    scratch.touch(3 << 20)
    first = scratch.empty((1 << 10, 3 << 10), 3 << 20)
    assert not first[:, ::1024].any()
    first[:] = 7
    scratch.touch(3 << 20)
    assert (first == 7).all()
    assert scratch.empty((2, 2), 4).ctypes.data != first.ctypes.data
    released = Scratch()
    released.release()
    released.touch(1 << 20)
    assert released.empty((2, 2), 4).shape == (2, 2)


def test_matrices_beside_a_touching_thread_hold_what_is_written_to_them() -> None:
    for delay in range(8):
        scratch = Scratch()
        with ThreadPoolExecutor(1) as pool:
            touching = pool.submit(scratch.touch, 40 << 20)
            sleep(delay / 1000)
            matrix = scratch.empty((40, 1 << 20), 40 << 20)
            matrix[:] = 1
            touching.result()
        assert (matrix == 1).all()


def test_parts_of_rows_are_scaled_into_the_same_memory() -> None:
    matrix = np.random.default_rng(0).normal(3, 2, (40, 6)).astype(np.float32)
    words = np.array([f"s{i}" for i in range(40)])
    rows = Rows(matrix, np.arange(40), np.zeros((40, 1)), words, words, np.full(40, -1, np.int32))
    scale = Standardizer.fit(matrix)
    columns = (slice(1, 5),)
    places = set()
    for start in range(0, 40, 8):
        mask = (np.arange(40) >= start) & (np.arange(40) < start + 8)
        X = rows.take(mask).features(columns, scale.of(columns))
        np.testing.assert_allclose(X, (matrix[mask, 1:5] - scale.mean[1:5]) / scale.std[1:5], rtol=1e-5, atol=1e-6)
        places.add(X.ctypes.data)
        del X
        gc.collect()
    assert len(places) == 1
    held = [rows.features(columns, scale.of(columns)) for _ in range(2)]
    assert held[0].ctypes.data != held[1].ctypes.data
