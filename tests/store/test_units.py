"""Pooling over patients, and over a patient's samples that share a value."""

from pathlib import Path

import numpy as np
import pytest

from embedcache.errors import InputError, UnknownNameError
from embedcache.store.reader import FeatureCache
from embedcache.testing.stores import make_plan, make_store
from embedcache.types import ArraySpec, Labels, Task, strings

ARRAYS = (ArraySpec(1, "cls_token", "float32", (4,)),)
COUNTS, PATIENTS = [2, 1, 3, 1, 2, 2], ["b", "a", "b", "c", "a", "b"]
"""Samples s0 to s5; rows 0-1, 2, 3-5, 6, 7-8, 9-10."""
ILL = Task("ill", "binary", ("ill",))
BREAST = Task("breast", "binary", ("R",))
VISIT = Task("visit", "numeric", ())


def labels(**columns: list[float]) -> Labels:
    """A value per sample and task, NaN included."""
    tasks = tuple(t for t in (ILL, BREAST, VISIT) if t.name in columns)
    rows = [(t, i, value) for t in tasks for i, value in enumerate(columns[t.name])]
    n = len(rows)
    return Labels(
        tasks,
        strings([t.name for t, _, _ in rows]),
        strings([f"s{i}" for _, i, _ in rows]),
        strings([PATIENTS[i] for _, i, _ in rows]),
        np.full(n, -1, dtype=np.int32),
        strings([(t.classes or ("",))[0] for t, _, _ in rows]),
        np.array([value for _, _, value in rows]),
        strings([""] * n),
    )


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    path = tmp_path / "made" / "tiny" / "x.zarr"
    make_store(path, make_plan(COUNTS, PATIENTS), ARRAYS, quarantined=(4,))
    return FeatureCache.open(path)


def of_rows(cache: FeatureCache, *rows: int) -> np.ndarray:
    return cache.layer(1).cls_token.read()[list(rows)].mean(axis=0)


def test_a_patient_is_the_mean_of_all_its_slices_that_can_be_read(cache: FeatureCache) -> None:
    found = cache.features("cls", pool_by="patient", task="ill", labels=labels(ill=[1, 0, 1, 0, 0, 1]))
    expected = [of_rows(cache, 2, 7, 8), of_rows(cache, 0, 1, 3, 5, 9, 10), of_rows(cache, 6)]
    np.testing.assert_allclose(found.X, expected, rtol=1e-5)
    assert found.groups.tolist() == ["a", "b", "c"]
    assert found.sample_id.tolist() == ["s1", "s0", "s3"], "each goes by its first sample"
    assert found.members.tolist() == [2, 3, 1]
    assert found.y.tolist() == [0, 1, 0]
    assert found.incomplete.tolist() == ["s0"], "a slice of s2 is set aside"
    strict = cache.features(
        "cls", pool_by="patient", strict_volumes=True, task="ill", labels=labels(ill=[1, 0, 1, 0, 0, 1])
    )
    assert (strict.groups.tolist(), strict.y.tolist(), strict.members.tolist()) == (["a", "c"], [0, 0], [2, 1])


def test_only_the_samples_that_are_asked_for_are_pooled(cache: FeatureCache) -> None:
    found = cache.features("cls", pool_by="patient", split=["s5", "s0", "s3"])
    np.testing.assert_allclose(found.X, [of_rows(cache, 0, 1, 9, 10), of_rows(cache, 6)], rtol=1e-5)
    assert not len(found.incomplete)


def test_a_value_that_patients_share_does_not_put_them_together(cache: FeatureCache) -> None:
    known = labels(breast=[0, 1, 0, 1, 1, 1])
    found = cache.features("cls", pool_by="breast", labels=known)
    assert found.groups.tolist() == ["a", "b", "b", "c"]
    assert found.sample_id.tolist() == ["s1", "s0", "s5", "s3"]
    np.testing.assert_allclose(found.X[1], of_rows(cache, 0, 1, 3, 5), rtol=1e-5)
    by_hand = cache.features("cls", pool_by=["left", "right", "left", "right", "right", "right"])
    np.testing.assert_array_equal(by_hand.X, found.X)
    by_number = cache.features("cls", pool_by="visit", labels=labels(visit=[1, 2, 1, 2, 2, 2]))
    np.testing.assert_array_equal(by_number.X, found.X)


def test_a_unit_of_one_sample_is_that_sample(cache: FeatureCache) -> None:
    alone = cache.features("cls")
    apart = cache.features("cls", pool_by=[f"study {i}" for i in range(6)])
    place = [alone.sample_id.tolist().index(s) for s in apart.sample_id.tolist()]
    np.testing.assert_array_equal(apart.X, alone.X[place])
    same = cache.features("cls", pool_by="sample")
    np.testing.assert_array_equal(same.X, alone.X)


def test_bags_are_the_slices_that_pooling_takes(cache: FeatureCache) -> None:
    known = labels(ill=[1, 0, 1, 0, 0, 1])
    for by in (None, "patient"):
        bags = cache.features("cls", pool="bags", task="ill", labels=known, pool_by=by, strict_volumes=True)
        pooled = cache.features("cls", task="ill", labels=known, pool_by=by, strict_volumes=True)
        assert bags.sizes is not None
        assert len(bags) == len(bags.sizes) == len(pooled.X)
        split = np.split(bags.X, np.cumsum(bags.sizes)[:-1])
        np.testing.assert_allclose([b.mean(axis=0) for b in split], pooled.X, rtol=1e-5)
        np.testing.assert_array_equal(bags.y, pooled.y)
        assert bags.sample_id.tolist() == pooled.sample_id.tolist()


def test_labels_that_disagree_are_refused_and_missing_ones_have_no_say(cache: FeatureCache) -> None:
    with pytest.raises(
        InputError, match="1 of 3 units, pooled by patient, have samples with different labels"
    ) as raised:
        cache.features("cls", pool_by="patient", task="ill", labels=labels(ill=[1, 0, 0, 0, 0, 1]))
    assert "s0" not in str(raised.value)
    nan = np.nan
    found = cache.features("cls", pool_by="patient", task="ill", labels=labels(ill=[1, 0, nan, nan, 0, nan]))
    np.testing.assert_array_equal(found.y, [0, 1, nan])


def test_a_column_must_be_there_and_say_something_of_every_sample(cache: FeatureCache) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'visit'"):
        cache.features("cls", pool_by="visits", labels=labels(visit=[1] * 6))
    with pytest.raises(InputError, match=r"1 of 6 samples have no value to pool by \(visit\)"):
        cache.features("cls", pool_by="visit", labels=labels(visit=[1, 1, np.nan, 1, 1, 1]))
    assert (
        len(cache.features("cls", pool_by="visit", labels=labels(visit=[1, 1, np.nan, 1, 1, 1]), split=["s0", "s1"]))
        == 2
    )
    with pytest.raises(InputError, match="a value for each of 6 samples"):
        cache.features("cls", pool_by=["a"])
    with pytest.raises(InputError, match="leave pool_by"):
        cache.features("cls", pool=None, pool_by="patient")
    with pytest.raises(InputError, match="middle is that of one volume"):
        cache.features("cls", pool="middle-2", pool_by="patient")
