"""`TokenDataset`: every item is the row that was read directly, in whatever order and process."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from embedcache import FeatureCache, TokenDataset
from embedcache.errors import EmbedcacheError
from embedcache.store.labels import write_labels
from embedcache.testing.labelled_stores import long_labels, make_labelled_store
from embedcache.testing.stores import make_plan, make_store
from embedcache.types import ArraySpec, Task

GRID = (2, 3)
ARRAYS = (
    ArraySpec(1, "patch_tokens", "float16", (*GRID, 4)),
    ArraySpec(2, "patch_tokens", "float16", (*GRID, 4)),
    ArraySpec(2, "cls_token", "float16", (4,)),
    ArraySpec(2, "patch_mean", "float16", (4,)),
)
COUNTS = [2, 1, 3, 1, 2, 4, 3, 3]


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    path = tmp_path / "made" / "tiny" / "x.zarr"
    make_store(path, make_plan(COUNTS), ARRAYS, rows_per_shard=8, quarantined=(4,))
    samples = [f"s{i}" for i in range(len(COUNTS))]
    y = np.array([[1.0], [0], [np.nan], [1], [0], [1], [0], [1]])
    parts = ["train"] * 5 + ["test"] * 3
    write_labels(
        tmp_path / "made", long_labels(Task("ill", "binary", ("ill",)), samples, [f"p{i}" for i in range(8)], y, parts)
    )
    return FeatureCache.open(path)


def direct(cache: FeatureCache, kind: str, rows: np.ndarray) -> np.ndarray:
    layer = cache.layer(2)
    found = {
        "patch": lambda: layer.patch_tokens.read(),
        "cls": lambda: layer.cls_token.read(),
        "cls+mean": lambda: np.concatenate([layer.cls_token.read(), layer.patch_mean.read()], axis=1),
    }
    return found[kind]()[rows].astype(np.float32)


@pytest.mark.parametrize("kind", ["patch", "cls", "cls+mean"])
def test_an_item_is_its_row_with_its_label(cache: FeatureCache, kind: str) -> None:
    data = TokenDataset(cache, kind)
    rows = np.flatnonzero(cache.row_status == 1)
    np.testing.assert_array_equal(data.rows, rows)
    expected = direct(cache, kind, rows)
    for i in (0, 7, len(data) - 1):
        tokens, y, number = data[i]
        np.testing.assert_array_equal(tokens, expected[i])
        assert (tokens.shape, y.shape, number, tokens.dtype) == (data.shape, (0,), i, np.float32)
    np.testing.assert_array_equal(data[-1][0], expected[-1])
    with pytest.raises(IndexError):
        data[len(data)]
    for keep in (0, 10**9):
        small = TokenDataset(cache, kind, keep=keep)
        order = np.random.default_rng(0).permutation(len(small)).tolist()
        np.testing.assert_array_equal([t for t, _, _ in small.__getitems__(order)], expected[order])
        np.testing.assert_array_equal([small[i][0] for i in order], expected[order])


def test_a_part_without_rows_is_refused_in_one_line(cache: FeatureCache) -> None:
    with pytest.raises(EmbedcacheError, match=r"no row of x\.zarr is left for split"):
        TokenDataset(cache, "cls", task="ill", split=["nobody"])


def test_a_task_offers_what_is_labelled_in_the_part(cache: FeatureCache) -> None:
    data = TokenDataset(cache.path, "cls", task="ill")
    assert set(data.sample_id.tolist()) == {"s0", "s1", "s3", "s4", "s5", "s6", "s7"}
    of_samples = dict(zip(data.sample_id.tolist(), data.y.tolist(), strict=True))
    assert of_samples == {"s0": 1, "s1": 0, "s3": 1, "s4": 0, "s5": 1, "s6": 0, "s7": 1}
    assert data.y.dtype == np.float32
    assert set(TokenDataset(cache, "cls", task="ill", split="test").sample_id.tolist()) == {"s5", "s6", "s7"}
    assert TokenDataset(cache, "cls", split=["s2"]).slice_index.tolist() == [0, 2], "one is quarantined"
    both = TokenDataset(cache, "patch", layers=(1, 2), dtype=None)
    assert both.shape == (*GRID, 8)
    assert both[3][0].dtype == np.float16
    np.testing.assert_array_equal(both[3][0][..., 4:], cache.layer(2).patch_tokens.read()[both.rows[3]])


def test_classes_are_whole_numbers_and_several_labels_keep_their_gaps(tmp_path: Path) -> None:
    made = make_labelled_store(tmp_path / "a", Task("kind", "multiclass", ("a", "b", "c")), n=20)
    data = TokenDataset(made.store, "cls", task="kind")
    np.testing.assert_array_equal(data.y, made.y.argmax(axis=1))
    assert data.y.dtype == np.int64
    several = make_labelled_store(tmp_path / "b", n=20)
    y = several.y.copy()
    y[3, 1], y[4] = np.nan, np.nan
    several.relabel(y)
    data = TokenDataset(several.store, "cls", task="findings")
    np.testing.assert_array_equal(data.y, np.delete(y, 4, axis=0).astype(np.float32))


@pytest.mark.parametrize("context", [None, "fork", "spawn"])
def test_a_loader_gives_the_same_tensors_in_any_process(cache: FeatureCache, context: str | None) -> None:
    data = TokenDataset(cache, "cls+mean" if context == "fork" else "patch", task="ill")
    expected = direct(cache, data.kind, data.rows)
    data[0]  # something is open and kept before the workers start
    workers: dict[str, Any] = {} if context is None else {"num_workers": 2, "multiprocessing_context": context}
    loader = DataLoader(data, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(0), **workers)
    seen = []
    for tokens, y, number in loader:
        np.testing.assert_array_equal(tokens.numpy(), expected[number.numpy()])
        np.testing.assert_array_equal(y.numpy(), data.y[number.numpy()])
        seen += number.tolist()
    assert sorted(seen) == list(range(len(data)))
    assert seen != sorted(seen)


def test_what_is_pickled_is_where_it_lies_and_not_what_was_read(cache: FeatureCache) -> None:
    data = TokenDataset(cache, "cls")
    first = data[5][0]
    again = pickle.loads(pickle.dumps(data))
    assert again._arrays is None
    assert not again._kept
    np.testing.assert_array_equal(again[5][0], first)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"kind": "patches"}, "did you mean 'patch'"),
        ({"layers": 7}, r"holds layers \[1, 2\]"),
        ({"layers": ()}, "at least one layer"),
        ({"kind": "cls", "split": ["nobody"]}, "no row of"),
        ({"task": "il"}, "did you mean 'ill'"),
    ],
)
def test_what_is_not_there_is_said(cache: FeatureCache, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(EmbedcacheError, match=says):
        TokenDataset(cache, **arguments)
