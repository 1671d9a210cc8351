"""`cache.features(...)`: vectors, pooling and labels, against plain numpy."""

from pathlib import Path

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError, InputError
from embedcache.store.labels import write_labels
from embedcache.store.reader import FeatureCache
from embedcache.testing.stores import make_plan, make_store
from embedcache.types import ArraySpec, Labels, Task, strings

ARRAYS = tuple(ArraySpec(layer, kind, "float16", (4,)) for layer in (1, 2) for kind in ("cls_token", "patch_mean"))


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    """Five samples of patients a a b c d; slices 2 1 3 1 2; row 4 (of s2) is quarantined."""
    path = tmp_path / "made" / "tiny" / "x.zarr"
    make_store(path, make_plan([2, 1, 3, 1, 2], ["a", "a", "b", "c", "d"]), ARRAYS, quarantined=(4,))
    return FeatureCache.open(path)


def labels(task: Task, rows: list[tuple[str, str, int, str, float, str]]) -> Labels:
    sample, patient, slice_index, klass, value, split = (list(c) for c in zip(*rows, strict=True))
    return Labels(
        (task,),
        strings([task.name] * len(rows)),
        strings(sample),
        strings(patient),
        np.asarray(slice_index, dtype=np.int32),
        strings(klass),
        np.asarray(value, dtype=float),
        strings(split),
    )


def test_layers_are_joined_by_dinov2s_rule(cache: FeatureCache) -> None:
    rows = cache.features("cls+mean", layers=(1, 2), pool=None)
    ok = cache.row_status == 1
    expected = [cache.layer(1).cls_token.read(), cache.layer(2).cls_token.read(), cache.layer(2).patch_mean.read()]
    np.testing.assert_array_equal(rows.X, np.concatenate(expected, axis=1)[ok].astype(np.float32))
    assert rows.X.shape == (8, 12)


def test_quarantined_slices_are_left_out_of_the_pool_and_said(cache: FeatureCache) -> None:
    pooled = cache.features("cls")
    tokens = cache.layer(2).cls_token.read().astype(np.float64)
    expected = [tokens[[0, 1]], tokens[[2]], tokens[[3, 5]], tokens[[6]], tokens[[7, 8]]]
    np.testing.assert_allclose(pooled.X, [e.mean(axis=0) for e in expected], rtol=1e-6)
    assert pooled.incomplete.tolist() == ["s2"]
    assert pooled.groups.tolist() == ["a", "a", "b", "c", "d"]
    assert pooled.slice_index.tolist() == [-1] * 5
    strict = cache.features("cls", strict_volumes=True)
    assert strict.sample_id.tolist() == ["s0", "s1", "s3", "s4"]
    assert strict.incomplete.tolist() == ["s2"]
    np.testing.assert_array_equal(strict.X, pooled.X[[0, 1, 3, 4]])


def test_labels_join_at_the_level_of_sample_patient_and_slice(cache: FeatureCache) -> None:
    task = Task("ill", "binary", ("ill",))
    of_s0, of_s3 = ("s0", "a", -1, "ill", 1, "train"), ("s3", "c", -1, "ill", 0, "test")
    known = labels(task, [of_s0, of_s3, ("sx", "x", -1, "ill", 1, "test")])
    _, y, groups = cache.features("cls", task="ill", labels=known)
    np.testing.assert_array_equal(y, [1, np.nan, np.nan, 0, np.nan])
    _, y, groups = cache.features("cls", task="ill", split="test", labels=known)
    assert (y.tolist(), groups.tolist()) == ([0.0], ["c"])

    task = Task("smoker", "binary", ("yes",), level="patient")
    known = labels(task, [("", "a", -1, "yes", 1, ""), ("", "d", -1, "yes", 0, "")])
    np.testing.assert_array_equal(cache.features("cls", task="smoker", labels=known).y, [1, 1, np.nan, np.nan, 0])

    task = Task("box", "binary", ("box",), level="slice")
    known = labels(task, [("s2", "b", 0, "box", 0, ""), ("s2", "b", 2, "box", 1, ""), ("s4", "d", 1, "box", 1, "")])
    rows = cache.features("cls", pool=None, task="box", labels=known)
    np.testing.assert_array_equal(rows.y, [np.nan, np.nan, np.nan, 0, 1, np.nan, np.nan, 1])
    with pytest.raises(InputError, match="pool=None"):
        cache.features("cls", task="box", labels=known)


def test_multilabel_and_multiclass(cache: FeatureCache) -> None:
    task = Task("findings", "multilabel", ("A", "B"))
    known = labels(task, [("s1", "a", -1, "B", 1, ""), ("s1", "a", -1, "A", 0, ""), ("s4", "d", -1, "A", 1, "")])
    features = cache.features("cls", task="findings", labels=known)
    assert features.y.shape == (5, 2)
    np.testing.assert_array_equal(features.y[[1, 4]], [[0, 1], [1, np.nan]])
    assert features.classes == ("A", "B")

    task = Task("kind", "multiclass", ("x", "y", "z"))
    known = labels(task, [("s0", "a", -1, "z", 1, ""), ("s4", "d", -1, "x", 1, "")])
    np.testing.assert_array_equal(cache.features("cls", task="kind", labels=known).y, [2, np.nan, np.nan, np.nan, 0])


def test_labels_beside_the_store_are_found_and_a_lone_store_takes_a_file(cache: FeatureCache, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--labels FILE"):
        cache.features("cls", task="ill")
    task = Task("ill", "binary", ("ill",))
    write_labels(tmp_path / "made", labels(task, [("s0", "a", -1, "ill", 1, "train")]))
    assert cache.features("cls", task="ill", split="train").y.tolist() == [1.0]
    file = tmp_path / "made" / "labels.parquet"
    assert cache.features("cls", task="ill", labels=cache.labels(file)).y[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": "clss"}, "did you mean 'cls'"),
        ({"pool": "median"}, "unknown pooling"),
        ({"layers": 9}, r"holds layers \[1, 2\]"),
        ({"layers": ()}, "at least one layer"),
        ({"kinds": "pooled"}, "There is: layer_1/cls_token"),
        ({"split": ["nobody"]}, "no row"),
    ],
)
def test_what_is_not_there_is_said(cache: FeatureCache, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EmbedcacheError, match=message):
        cache.features(**arguments)
