"""How fast tokens are read from a warm page cache, every crc32c checked, against who reads the same bytes without us.

ratio: random rows of patch tokens a second over the best of tensorstore (context limits, files read or mapped, one
`oindex`, one write into our array, a future a row: all are tried, the fastest that returns the right rows is the
baseline; it checks crc32c too). ratio_pread: over bare `preadv` at known offsets. ratio_full: a full read of CLS tokens
over `readinto` of the same bytes. All with one thread, each side into its own memory that it used before, interleaved,
medians over rounds.

Beside them: `_2` with two threads on both sides; `_fresh` into memory that was never touched, on both sides; and
`crc_rate`, since the ratios can not pass 1 / (1 + bare / crc_rate) with one thread.
"""

import argparse
import ctypes
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from common import finish, median, sandbox, seconds

from embedcache import FeatureCache
from embedcache.errors import StoreError
from embedcache.store import layout
from embedcache.store.encoding import CRC_BYTES, crc32c
from embedcache.store.tokens import TokenArray
from embedcache.testing.stores import make_plan, make_store
from embedcache.types import ArraySpec

LAYER = 24
Work = Callable[[], object]


@dataclass(frozen=True)
class Effort:
    """How much is read."""

    vectors: int
    patch_rows: int
    grid: int
    width: int
    drawn: int
    """Random rows of a call."""
    rounds: int


QUICK = Effort(vectors=16_384, patch_rows=128, grid=16, width=1_024, drawn=64, rounds=6)
WHOLE = Effort(vectors=112_120, patch_rows=1_000, grid=16, width=1_024, drawn=256, rounds=12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="128 rows of patch tokens, 16,384 vectors, six rounds")
    effort = QUICK if parser.parse_args().quick else WHOLE
    with sandbox() as folder:
        patch, vectors = make_stores(folder, effort)
        index = np.random.default_rng(1).integers(0, effort.patch_rows, effort.drawn)
        rows = Rows(patch, index)
        full = Full(vectors)
        theirs, screened = fastest_tensorstore(patch, index)
        theirs_2, screened_2 = fastest_tensorstore(patch, index, threads=2)
        works: dict[str, Work] = {
            "ours": lambda: patch.rows(index, out=rows.memory, threads=1),
            "bare": rows.bare,
            "tensorstore": theirs,
            "ours_2": lambda: patch.rows(index, out=rows.memory, threads=2),
            "bare_2": lambda: rows.bare(threads=2),
            "tensorstore_2": theirs_2,
            "ours_fresh": lambda: patch.rows(index, threads=1),
            "bare_fresh": rows.bare_fresh,
            "full": lambda: vectors.read(out=full.memory, threads=1),
            "bare_full": full.bare,
            "full_2": lambda: vectors.read(out=full.memory, threads=2),
            "bare_full_2": lambda: full.bare(threads=2),
            "full_fresh": lambda: vectors.read(threads=1),
            "bare_full_fresh": full.bare_fresh,
            "crc": lambda: [crc32c(row) for row in rows.parts],
        }
        times = interleaved(works, effort.rounds)
        checks = {
            "rows_equal": rows_equal(rows, patch, index),
            "same_as_zarr": same_as_zarr(patch, vectors, index),
            "crc_checked": crc_checked(patch, vectors),
        }

    def ratio(ours: str, baseline: str) -> float:
        return round(median([b / a for a, b in zip(times[ours], times[baseline], strict=True)]), 3)

    def rate(name: str, amount: float) -> float:
        return round(amount / median(times[name]), 2)

    row_bytes, all_bytes = effort.drawn * patch.spec.row_bytes / 1e9, full.memory.nbytes / 1e9
    figures = {
        "ratio": ratio("ours", "tensorstore"),
        "ratio_pread": ratio("ours", "bare"),
        "ratio_full": ratio("full", "bare_full"),
        "ratio_2": ratio("ours_2", "tensorstore_2"),
        "ratio_pread_2": ratio("ours_2", "bare_2"),
        "ratio_full_2": ratio("full_2", "bare_full_2"),
        "ratio_full_2_over_one": ratio("full_2", "bare_full"),
        "ratio_pread_fresh": ratio("ours_fresh", "bare_fresh"),
        "ratio_full_fresh": ratio("full_fresh", "bare_full_fresh"),
    }
    rows_a_second = {n: round(effort.drawn / median(times[n])) for n in works if "full" not in n and n != "crc"}
    gigabytes_a_second = {n: rate(n, all_bytes if "full" in n else row_bytes) for n in works}
    print(f"random rows of {patch.spec.row_bytes // 1024} KiB a second: {rows_a_second}")
    print(f"GB/s: {gigabytes_a_second}")
    for name, value in figures.items():
        print(f"{name} {value}")
    finish(
        "read",
        checks,
        ours=rows_a_second["ours"],
        baseline=rows_a_second["tensorstore"],
        baseline_name=f"tensorstore, {screened}",
        baseline_2_name=f"tensorstore, {screened_2}",
        unit="random rows of patch tokens a second, one thread, into memory used before",
        **figures,
        rows_a_second=rows_a_second,
        gigabytes_a_second=gigabytes_a_second,
        crc_rate=gigabytes_a_second["crc"],
        ratio_pread_bound=round(1 / (1 + gigabytes_a_second["bare"] / gigabytes_a_second["crc"]), 3),
        sizes={"cls": list(vectors.shape), "patch": list(patch.shape), "rows_drawn": effort.drawn},
        rounds=effort.rounds,
    )


def make_stores(folder: Path, effort: Effort) -> tuple[TokenArray, TokenArray]:
    """Patch tokens and CLS tokens, random: without a compressor it does not matter what they are."""
    shape = (effort.grid, effort.grid, effort.width)
    specs = ArraySpec(LAYER, "patch_tokens", "float16", shape), ArraySpec(LAYER, "cls_token", "float16", shape[-1:])
    plans = make_plan([1] * effort.patch_rows), make_plan([1] * effort.vectors)
    rows = max(plans[0].rows, -(-plans[1].rows // effort.grid**2))
    noise = np.random.default_rng(0).standard_normal((rows, *shape), dtype=np.float32).astype(np.float16)
    found = []
    for plan, spec in zip(plans, specs, strict=True):
        path = folder / f"{spec.kind}.zarr"
        make_store(path, plan, (spec,), values=lambda s, n: noise.reshape(-1, *s.shape)[:n])
        found.append(FeatureCache.open(path).tokens(LAYER, spec.kind))
    return found[0], found[1]


def interleaved(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, round by round, after one round that only warms up.

    Every other round runs backwards: the one that first takes fresh memory pays for it more than the next.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for i in range(rounds + 1):
        for name, work in list(works.items())[:: 1 if i % 2 else -1]:
            took = seconds(work)
            if i:
                times[name].append(took)
    return times


# --- the bare reads -------------------------------------------------------------------------------


class Rows:
    """`preadv` of the same rows, from open files at known offsets: no index, no checksum."""

    def __init__(self, tokens: TokenArray, index: npt.NDArray[np.int64]) -> None:
        per_shard, self.stride = tokens.stored_pass.rows_per_shard, tokens.spec.row_bytes + CRC_BYTES
        shards = range(len(tokens.cache.committed(tokens.stored_pass.id)))
        paths = [tokens.cache.path / layout.shard_name(tokens.spec, k) for k in shards]
        files = [os.open(path, os.O_RDONLY) for path in paths]  # until the process ends
        self.places = [(files[row // per_shard], row % per_shard * self.stride) for row in index.tolist()]
        self.memory = touched((len(index), *tokens.spec.shape), tokens.dtype)
        self.parts = self.memory.reshape(len(index), -1).view(np.uint8)

    def bare(self, threads: int = 1) -> None:
        self._read(self.parts, threads)

    def bare_fresh(self) -> None:
        self._read(np.empty_like(self.parts), 1)

    def _read(self, parts: npt.NDArray[np.uint8], threads: int) -> None:
        places = self.places

        def some(numbers: Iterable[int]) -> None:
            for i in numbers:
                file, offset = places[i]
                os.preadv(file, [parts[i]], offset)

        shared(some, len(places), threads)


class Full:
    """`readinto` of the data of every shard, straight to where it belongs: no index, no checksum."""

    def __init__(self, tokens: TokenArray) -> None:
        count = int(tokens.cache.committed(tokens.stored_pass.id).sum())
        self.paths = [tokens.cache.path / layout.shard_name(tokens.spec, k) for k in range(count)]
        self.memory = touched(tokens.shape, tokens.dtype)

    def bare(self, threads: int = 1) -> None:
        self._read(self.memory, threads)

    def bare_fresh(self) -> None:
        self._read(np.empty_like(self.memory), 1)

    def _read(self, memory: npt.NDArray[Any], threads: int) -> None:
        parts = memory.reshape(-1).view(np.uint8)
        length = memory.nbytes // len(self.paths)

        def some(numbers: Iterable[int]) -> None:
            for i in numbers:
                with open(self.paths[i], "rb", buffering=0) as file:
                    file.readinto(parts[i * length : (i + 1) * length].data)

        shared(some, len(self.paths), threads)


def shared(work: Callable[[Iterable[int]], None], count: int, threads: int) -> None:
    """One half for each thread."""
    if threads == 1:
        work(range(count))
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [range(k, count, threads) for k in range(threads)]))


def touched(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Memory whose pages are there."""
    memory = np.empty(shape, dtype=dtype)
    ctypes.memset(memory.ctypes.data, 1, memory.nbytes)
    return memory


# --- tensorstore ----------------------------------------------------------------------------------


def fastest_tensorstore(tokens: TokenArray, index: npt.NDArray[np.int64], threads: int = 1) -> tuple[Work, str]:
    """The fastest way found to have tensorstore read these rows with so many threads, and what it is."""
    import tensorstore as ts

    expected = tokens.rows(index)
    numbers = index.tolist()
    best: tuple[float, Work, str] | None = None
    for mapped in (False, True):
        for io in (threads, 4 * threads):
            array = open_tensorstore(tokens, threads, io, mapped)
            memory = touched(expected.shape, expected.dtype)
            target = ts.array(memory)
            ways: dict[str, Work] = {
                "oindex": lambda a=array: a.oindex[index].read().result(),
                "one write": lambda a=array, t=target: t.write(a[index]).result(),
                "a future a row": lambda a=array, t=target: all_of([t[i].write(a[row]) for i, row in enumerate(numbers)]),
                "row by row": lambda a=array, t=target: [t[i].write(a[row]).result() for i, row in enumerate(numbers)],
            }  # fmt: skip
            for name, way in ways.items():
                memory[:] = 0
                got = way()
                if not np.array_equal(got if isinstance(got, np.ndarray) else memory, expected):
                    continue
                took = median([seconds(way) for _ in range(3)])
                how = f"{name}, file_io {'mapped' if mapped else 'read'} x{io}, data_copy x{threads}"
                if best is None or took < best[0]:
                    best = took, way, how
    assert best is not None
    return best[1], best[2]


def open_tensorstore(tokens: TokenArray, threads: int, io: int, mapped: bool) -> Any:
    """Opened once, nothing rechecked, no cache: the page cache is warm, and a copy of it would cost memory traffic."""
    import tensorstore as ts

    store: dict[str, Any] = {"driver": "file", "path": f"{tokens.cache.path / tokens.spec.path}/"}
    if mapped:
        store["file_io_mode"] = {"mode": "memmap"}
    limits = {"data_copy_concurrency": {"limit": threads}, "file_io_concurrency": {"limit": io}}
    spec = {"driver": "zarr3", "kvstore": store, "recheck_cached_data": False, "recheck_cached_metadata": False}
    return ts.open(spec, context=ts.Context({**limits, "cache_pool": {"total_bytes_limit": 0}})).result()


def all_of(futures: list[Any]) -> None:
    for future in futures:
        future.result()


# --- checks ---------------------------------------------------------------------------------------


def rows_equal(rows: Rows, tokens: TokenArray, index: npt.NDArray[np.int64]) -> bool:
    """Bare, ours into used memory with one and two threads, and ours from the whole array."""
    rows.bare()
    bare = rows.memory.copy()
    whole = tokens.read()[index]
    ours = [tokens.rows(index, out=rows.memory, threads=n).copy() for n in (1, 2)]
    return all(np.array_equal(other, whole) for other in (bare, *ours))


def same_as_zarr(patch: TokenArray, vectors: TokenArray, index: npt.NDArray[np.int64]) -> bool:
    arrays = [zarr.open_array(t.cache.path / t.spec.path, mode="r") for t in (patch, vectors)]
    some = np.unique(index)[:16]
    last = slice(vectors.shape[0] - 5_000, None)
    return np.array_equal(arrays[0].oindex[some], patch.rows(some)) and np.array_equal(
        arrays[1][last], vectors.read()[last]
    )


def crc_checked(patch: TokenArray, vectors: TokenArray) -> bool:
    """Whether one flipped bit in the data of a shard is refused by every read of it."""
    refused = []
    for tokens in (patch, vectors):
        shard = tokens.cache.path / layout.shard_name(tokens.spec, 0)
        for flip in range(2):  # there, and back
            with open(shard, "r+b") as file:
                file.seek(1_001)
                byte = file.read(1)[0]
                file.seek(1_001)
                file.write(bytes([byte ^ 4]))
            for read in (lambda t=tokens: t.rows([0]), lambda t=tokens: t.read(threads=2)):
                try:
                    read()
                except StoreError:
                    refused.append(flip == 0)
                else:
                    refused.append(flip == 1)
    return all(refused)


if __name__ == "__main__":
    main()
