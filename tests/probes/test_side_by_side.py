"""Sums on threads are the sums of one thread, and the same each time."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from embedcache.probes import side_by_side
from embedcache.probes.logistic_path import solve_logistic
from embedcache.probes.side_by_side import Team


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_each_block_is_summed_once(size: int) -> None:
    values = np.random.default_rng(0).normal(size=(100, 3))
    blocks = [slice(start, start + 7) for start in range(0, 100, 7)]
    calls: list[int] = []

    def sums(some: Sequence[slice]) -> tuple[np.ndarray, np.ndarray]:
        calls.append(len(some))
        return sum((values[b].sum(axis=0) for b in some), np.zeros(3)), np.array([float(len(some))])

    with ThreadPoolExecutor(size) as pool:
        total, count = Team(pool, size).summed(sums, blocks)
    np.testing.assert_allclose(total, values.sum(axis=0), rtol=1e-12)
    assert count == len(blocks)
    assert (len(calls), sum(calls)) == (min(size, len(blocks)), len(blocks))


def test_the_caller_works_on_what_no_thread_has_begun() -> None:
    free = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(free.wait)  # its only thread is busy
        found = Team(pool, 2).each(lambda item: (item, threading.get_ident()), [1, 2, 3])
        free.set()
    assert found == [(item, threading.get_ident()) for item in (1, 2, 3)]


@pytest.mark.parametrize(("start", "stop", "count"), [(0, 11, 2), (3, 10, 4), (0, 2, 5), (0, 1, 1)])
def test_shares_are_equal_but_for_one_and_leave_nothing_out(start: int, stop: int, count: int) -> None:
    cuts = side_by_side.shares(start, stop, count)
    assert (cuts[0], cuts[-1], len(cuts)) == (start, stop, min(count, stop - start) + 1)
    sizes = np.diff(cuts)
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1


def test_blas_keeps_to_one_thread_inside_and_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_blas() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    monkeypatch.setattr(side_by_side, "cores", lambda: 3)
    before = of_blas()
    with side_by_side.threads_for(10**9) as team:
        assert team.size == 3
        assert set(of_blas()) == {1}
    assert of_blas() == before
    with side_by_side.threads_for(1000) as team:  # too few for threads
        assert team.size == 1
        assert of_blas() == before


def test_a_blas_that_was_loaded_since_keeps_to_one_thread_too() -> None:
    program = (
        "import sys\n"
        "from threadpoolctl import threadpool_info\n"
        "from embedcache.probes import side_by_side\n"
        "side_by_side.cores = lambda: 2\n"
        "def of_blas():\n"
        "    return [library['num_threads'] for library in threadpool_info() if library['user_api'] == 'blas']\n"
        "with side_by_side.threads_for(10**9) as team:\n"
        "    assert 'scipy.linalg' not in sys.modules\n"
        "    one = len(of_blas())\n"
        "    import scipy.linalg\n"
        "    before = of_blas()\n"
        "    with side_by_side.one_blas_thread(team):\n"
        "        print(one, len(of_blas()), set(of_blas()))\n"
        "    assert of_blas() == before\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    one, both, threads = ended.stdout.split(maxsplit=2)
    assert int(both) >= int(one)
    assert threads == "{1}\n"


def test_a_team_works_on_several_items_at_once_and_answers_in_their_order() -> None:
    met = threading.Barrier(2, timeout=60)

    def work(item: int) -> int:
        met.wait()  # nobody comes through alone
        return item * item

    with ThreadPoolExecutor(2) as pool:
        assert Team(pool, 2).each(work, [3, 1]) == [9, 1]
    assert side_by_side.ALONE.each(lambda item: item + 1, [3, 1]) == [4, 2]


@pytest.mark.parametrize("multinomial", [False, True])
def test_a_path_on_threads_is_the_path_on_one(multinomial: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "_SMALL", 0)
    monkeypatch.setattr("embedcache.probes.place.Place.block_values", 4000)
    random = np.random.default_rng(0)
    X = random.normal(size=(900, 20)).astype(np.float32)
    score = X @ random.normal(size=(20, 3)) + 3 * random.normal(size=(900, 3))
    Y = np.eye(3)[score.argmax(axis=1)] if multinomial else np.where(score > 3, np.nan, score > 0).astype(float)
    found = []
    for cores in (1, 3, 3):
        monkeypatch.setattr(side_by_side, "cores", lambda n=cores: n)
        found.append(solve_logistic(X, Y, (0.001, 0.1, 10.0), multinomial=multinomial))
    np.testing.assert_allclose(found[1].objective, found[0].objective, rtol=1e-5)
    np.testing.assert_array_equal(found[1].coef, found[2].coef)
