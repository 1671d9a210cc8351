"""Reading tokens: into the caller's memory, by any number of threads, and never a damaged byte."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedcache.errors import InputError, StoreError
from embedcache.store import chunks, layout
from embedcache.store.objects import Objects
from embedcache.store.quantise import int8_arrays
from embedcache.store.reader import FeatureCache
from embedcache.store.tokens import DequantisedTokens, TokenArray
from embedcache.store.writer import StoreFiles, finalise
from embedcache.testing.stores import default_arrays, make_plan, make_store, token_values
from embedcache.types import ArraySpec

ROWS = 16
ARRAYS = (*default_arrays(), *int8_arrays(2, (2, 2, 8)))
KINDS = [spec.kind for spec in ARRAYS]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 slices in four shards of four rows; the last one has padding."""
    path = tmp_path_factory.mktemp("made") / "x.zarr"
    make_store(path, make_plan([1, 3, 1, 6, 2], quantum=4), ARRAYS, rows_per_shard=4)
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged at will."""
    return Path(shutil.copytree(made, tmp_path / "copy.zarr"))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that four rows are several jobs, and several system calls."""
    monkeypatch.setattr(chunks, "PIECE_BYTES", 150)
    monkeypatch.setattr(chunks, "TOGETHER_BYTES", 80)


def tokens_of(store: Path, kind: str) -> TokenArray:
    return FeatureCache.open(store).tokens(2, kind)


def expected_of(kind: str) -> npt.NDArray[Any]:
    (spec,) = (spec for spec in ARRAYS if spec.kind == kind)
    values = token_values(spec, ROWS)
    values[13:] = 0
    return values


def dirty(tokens: TokenArray, rows: int = ROWS) -> npt.NDArray[Any]:
    """Used memory: what is not written shows."""
    return np.full((rows, *tokens.spec.shape), 77, dtype=tokens.dtype)


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [None, 1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_array_into_memory_that_is_there(store: Path, kind: str, threads: int | None) -> None:
    tokens = tokens_of(store, kind)
    out = dirty(tokens)
    assert tokens.read(out=out, threads=threads) is out
    np.testing.assert_array_equal(out, expected_of(kind))
    np.testing.assert_array_equal(tokens.read(threads=threads), out)
    np.testing.assert_array_equal(np.asarray(tokens), out)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    index=st.lists(st.integers(0, ROWS - 1), max_size=40),
    threads=st.sampled_from([None, 1, 3]),
    kind=st.sampled_from(KINDS),
    piece=st.sampled_from([1, 150, 2**20]),
    together=st.sampled_from([1, 80, 200, 2**20]),
)
def test_rows_are_those_of_the_whole_array(
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    index: list[int],
    threads: int | None,
    kind: str,
    piece: int,
    together: int,
) -> None:
    monkeypatch.setattr(chunks, "PIECE_BYTES", piece)
    monkeypatch.setattr(chunks, "TOGETHER_BYTES", together)
    tokens = tokens_of(store, kind)
    out = dirty(tokens, len(index))
    assert tokens.rows(index, out=out, threads=threads) is out
    np.testing.assert_array_equal(out, expected_of(kind)[np.asarray(index, dtype=int)])
    np.testing.assert_array_equal(tokens.rows(np.asarray(index, dtype=np.uint32), threads=threads), out)


@pytest.mark.parametrize("kind", KINDS)
def test_shards_come_one_by_one(store: Path, kind: str) -> None:
    tokens = tokens_of(store, kind)
    kept = list(tokens.shards())
    assert [start for start, _ in kept] == [0, 4, 8, 12]
    np.testing.assert_array_equal(np.concatenate([block for _, block in kept]), expected_of(kind))
    reused = [(block.ctypes.data, block.copy()) for _, block in tokens.shards(reuse=True)]
    assert len({address for address, _ in reused}) == 1
    np.testing.assert_array_equal(np.concatenate([block for _, block in reused]), expected_of(kind))


def test_a_shard_that_is_committed_while_int8_tokens_are_read_does_not_mix_codes_and_scales(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.zarr"
    make_store(path, make_plan([1] * 16), int8_arrays(2, (2, 2, 8)), rows_per_shard=4)
    whole = FeatureCache.open(path).layer(2).patch_tokens.read()
    cache = FeatureCache.open(path, allow_partial=True)
    listings = iter([[True, False, False, True], [True, False, True, True]])
    monkeypatch.setattr(cache, "committed", lambda _: np.array(next(listings)))
    tokens = cache.layer(2).patch_tokens
    assert isinstance(tokens, DequantisedTokens)
    got = {start: rows.copy() for start, rows in tokens.shards()}
    assert list(got) == [0, 12]
    for start, rows in got.items():
        np.testing.assert_array_equal(rows, whole[start : start + 4])


def test_int8_patch_tokens_are_read_as_floats(store: Path, tmp_path: Path) -> None:
    layer = FeatureCache.open(store).layer(2)
    assert layer.patch_tokens.dtype == np.float16, "what is stored as floats is preferred"
    only = tmp_path / "int8.zarr"
    make_store(only, make_plan([1, 3, 1, 6, 2], quantum=4), ARRAYS[3:], rows_per_shard=4)
    tokens = FeatureCache.open(only).layer(2).patch_tokens
    codes, scale = (expected_of(kind).astype(np.float32) for kind in ("patch_tokens_int8", "patch_scale"))
    expected = codes * scale[..., None]
    assert (tokens.shape, tokens.dtype, tokens.spec.kind) == ((16, 2, 2, 8), np.float32, "patch_tokens")
    out = np.full(tokens.shape, 77, dtype=np.float32)
    assert tokens.read(out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.asarray(tokens), expected)
    some = np.full((3, 2, 2, 8), 77, dtype=np.float32)
    assert tokens.rows([12, 0, 12], out=some, threads=2) is some
    np.testing.assert_array_equal(some, expected[[12, 0, 12]])
    for reuse in (False, True):
        blocks = [(start, block.copy()) for start, block in tokens.shards(reuse)]
        np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), expected)
    with pytest.raises(InputError, match="float32"):
        tokens.rows([0], out=np.empty((1, 2, 2, 8), dtype=np.float16))


def test_pending_rows_are_zero_in_the_whole_and_refused_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    make_store(path, make_plan([1] * 8, quantum=8), ARRAYS, rows_per_shard=2, skip_shards=(1, 3), finish=False)
    cache = FeatureCache.open(path, allow_partial=True)
    for kind in KINDS:
        tokens = cache.tokens(2, kind)
        out = tokens.read(out=dirty(tokens, 8))
        assert not out[[2, 3, 6, 7]].any()
        np.testing.assert_array_equal(out[[0, 1, 4, 5]], expected_of(kind)[[0, 1, 4, 5]])
        np.testing.assert_array_equal(tokens.rows([5, 0]), out[[5, 0]])
        with pytest.raises(StoreError, match=f"row 3 of layer_2/{kind} is pending"):
            tokens.rows([5, 3])
        assert [start for start, _ in tokens.shards()] == [0, 4]


def test_rows_of_a_shard_of_padding_alone_are_zero(tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    make_store(path, make_plan([1] * 5, quantum=8), ARRAYS, rows_per_shard=2)
    cache = FeatureCache.open(path)
    assert not (path / "layer_2" / "cls_token" / "c" / "3").exists()
    for kind in KINDS:
        tokens = cache.tokens(2, kind)
        out = tokens.rows([7, 4, 6], out=dirty(tokens, 3))
        assert not out[[0, 2]].any()
        np.testing.assert_array_equal(out[1], expected_of(kind)[4])
        assert not tokens.read(out=dirty(tokens, 8))[6:].any()


# --- what is asked --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty((2, 2, 2, 8), np.float32), "dtype float16"),
        (np.empty((3, 2, 2, 8), np.float16), "shape"),
        (np.empty((2, 32), np.float16), "shape"),
        (np.empty((4, 2, 2, 8), np.float16)[::2], "C-contiguous"),
        (np.empty((2, 2, 2, 8), np.float16, order="F"), "C-contiguous"),
        (np.frombuffer(bytes(128), np.float16).reshape(2, 2, 2, 8), "writeable"),
        ([[0.0]], "numpy array"),
    ],
)
def test_memory_that_can_not_take_the_rows_is_refused(store: Path, out: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        tokens_of(store, "patch_tokens").rows([0, 1], out=out)
    assert isinstance(caught.value, InputError)
    with pytest.raises(InputError, match="out must"):
        tokens_of(store, "patch_tokens").read(out=out)


@pytest.mark.parametrize("index", [[True, False], [[0, 1]], [0.5], 3, ["a"]])
def test_rows_are_named_by_integers(store: Path, index: Any) -> None:
    with pytest.raises(InputError, match="list of integers"):
        tokens_of(store, "cls_token").rows(index)


@pytest.mark.parametrize("kind", ["cls_token", "patch_tokens"])
def test_rows_out_of_range_and_no_threads_are_refused(store: Path, kind: str) -> None:
    tokens = tokens_of(store, kind)
    for index in ([16], [-1], [0, 99]):
        with pytest.raises(IndexError, match=r"\[0, 16\)"):
            tokens.rows(index)
    reads: list[Callable[..., object]] = [
        tokens.read,
        partial(tokens.rows, [0]),
        lambda threads: next(tokens.shards(False, threads)),
    ]
    for read in reads:
        with pytest.raises(InputError, match="threads must be at least 1"):
            read(threads=0)


def test_no_array_without_a_copy(store: Path) -> None:
    with pytest.raises(ValueError, match="always a copy"):
        np.array(tokens_of(store, "cls_token"), copy=False)
    assert np.asarray(tokens_of(store, "cls_token"), dtype=np.float64).dtype == np.float64


# --- what is damaged ------------------------------------------------------------------------------

READS: dict[str, Callable[[TokenArray], object]] = {
    "read": lambda t: t.read(),
    "read, two threads": lambda t: t.read(threads=2),
    "rows": lambda t: t.rows(np.arange(16)[::-1]),
    "shards": lambda t: list(t.shards()),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_flipped_byte_anywhere_in_a_shard_is_refused(
    store: Path, kind: str, read: Callable[[TokenArray], object]
) -> None:
    """Data, crc32c of each chunk, index and the index's own crc32c: every third byte, so that each of them is met."""
    tokens = tokens_of(store, kind)
    shard = store / layout.shard_name(tokens.spec, 1)
    whole = shard.read_bytes()
    read(tokens)
    for at in range(0, len(whole), 3):
        shard.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(StoreError, match=f"layer_2/{kind}/c/1.*run `embedcache verify`"):
            read(tokens)
    shard.write_bytes(whole)
    read(tokens)


@pytest.mark.usefixtures("small_pieces")
def test_a_flipped_byte_is_refused_wherever_it_lies_in_a_piece(store: Path) -> None:
    tokens = tokens_of(store, "patch_tokens")
    shard = store / layout.shard_name(tokens.spec, 1)
    whole = bytearray(shard.read_bytes())
    for row in range(4):
        whole[row * 68 + 5] ^= 1
        shard.write_bytes(whole)
        with pytest.raises(StoreError, match=f"fails its checksum in chunk {row}"):
            tokens.read()
        np.testing.assert_array_equal(
            tokens.rows([4 + (row + 1) % 4])[0], expected_of("patch_tokens")[4 + (row + 1) % 4]
        )
        whole[row * 68 + 5] ^= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_short_a_long_and_a_missing_shard_are_refused(
    store: Path, kind: str, read: Callable[[TokenArray], object]
) -> None:
    tokens = tokens_of(store, kind)
    shard = store / layout.shard_name(tokens.spec, 2)
    whole = shard.read_bytes()
    for wrong, message in ((whole[:-1], "shorter"), (b"", "shorter"), (whole + b"x", "longer")):
        shard.write_bytes(wrong)
        with pytest.raises(StoreError, match=f"c/2.* is {message} than"):
            read(tokens)
    shard.unlink()
    with pytest.raises(StoreError, match=r"c/2.*is missing"):
        read(tokens)


def test_an_index_of_another_order_is_refused(store: Path) -> None:
    """It is whole by its own checksum, and a Zarr reader would follow it; FORMAT.md does not allow it."""
    from embedcache.store.encoding import crc32c

    tokens = tokens_of(store, "patch_tokens")
    shard = store / layout.shard_name(tokens.spec, 0)
    data = bytearray(shard.read_bytes())
    index = np.frombuffer(bytes(data[4 * 68 : -4]), "<u8").reshape(4, 2)[::-1].tobytes()
    data[4 * 68 :] = index + crc32c(index).to_bytes(4, "little")
    shard.write_bytes(data)
    with pytest.raises(StoreError, match=r"index that FORMAT\.md does not allow"):
        tokens.rows([0])


# --- how it is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_read_that_stops_half_way_goes_on(store: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """As signals, network file systems and the 2 GiB limit of one read make it."""
    whole = os.preadv

    def halting(descriptor: int, buffers: list[memoryview], start: int) -> int:
        first = memoryview(buffers[0]).cast("B")
        return whole(descriptor, [first[: max(1, len(first) // 3)]], start)

    monkeypatch.setattr(os, "preadv", halting)
    np.testing.assert_array_equal(tokens_of(store, kind).read(), expected_of(kind))
    np.testing.assert_array_equal(tokens_of(store, kind).rows([7, 2]), expected_of(kind)[[7, 2]])


def test_a_finished_pass_is_known_after_one_look_and_an_unfinished_one_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.zarr"
    arrays = (ArraySpec(2, "patch_tokens", "float16", (2, 2, 8)),)
    plan = make_plan([1] * 8, quantum=8)
    p = make_store(path, plan, arrays, rows_per_shard=2, skip_shards=(3,), finish=False)
    unfinished = FeatureCache.open(path, allow_partial=True)
    with pytest.raises(StoreError, match="pending"):
        unfinished.tokens(2, "patch_tokens").rows([6])
    complete = tmp_path / "y.zarr"
    make_store(complete, plan, arrays, rows_per_shard=2)
    for name in (f"commits_{p.id}/c/3", "layer_2/patch_tokens/c/3/0/0/0"):
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((complete / name).read_bytes())
    assert unfinished.tokens(2, "patch_tokens").rows([6]).shape == (1, 2, 2, 8)
    finalise(StoreFiles(path), p.id)
    tokens = FeatureCache.open(path).tokens(2, "patch_tokens")
    tokens.rows([6])
    monkeypatch.setattr(Objects, "get", lambda *_: pytest.fail("an object of the index was read again"))
    tokens.rows([6, 1])
    tokens.read()


def test_each_shard_is_opened_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tokens_of(store, "patch_tokens")
    tokens.rows([0])
    opened: list[str] = []
    real = os.open

    def watched(path: Any, *arguments: Any, **more: Any) -> int:
        opened.append(str(path))
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", watched)
    tokens.rows([9, 0, 8, 1, 2, 9], threads=1)
    assert len(opened) == 2
