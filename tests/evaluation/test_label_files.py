import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache import FeatureCache
from embedcache.errors import InputError, StoreError
from embedcache.evaluation.label_files import find_labels
from embedcache.store.labels import is_label_table


def lone(made: Any, tmp_path: Path) -> FeatureCache:
    store = tmp_path / "lone" / "features.zarr"
    shutil.copytree(made.store, store)
    return FeatureCache.open(store)


def write(path: Path, header: str, rows: list[tuple[str, ...]]) -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def test_the_table_beside_the_store_a_copy_of_it_and_its_folder_are_one(made: Any, tmp_path: Path) -> None:
    cache = FeatureCache.open(made.store)
    beside = find_labels(cache)
    copy = shutil.copy(made.store.parents[1] / "labels.parquet", tmp_path / "x.parquet")
    assert is_label_table(Path(copy))
    alone = lone(made, tmp_path)
    for other in (Path(copy), made.store.parents[1]):
        found = find_labels(alone, other)
        assert found.tasks == beside.tasks
        assert found.sample.tolist() == beside.sample.tolist()
        np.testing.assert_array_equal(found.value, beside.value)


def test_a_table_of_ones_own_is_joined_by_sample(made: Any, tmp_path: Path) -> None:
    cache = lone(made, tmp_path)
    rows = [(s, "yes" if i % 3 == 0 else "no", str(i / 7)) for i, s in enumerate(made.samples)]
    table = write(tmp_path / "mine.csv", "sample,seen,size_mm", [*rows[::-1][:-1], ("elsewhere", "no", "1")])
    assert not is_label_table(table)
    labels = find_labels(cache, table)
    assert {(t.name, t.kind) for t in labels.tasks} == {("seen", "binary"), ("size_mm", "numeric")}
    y = cache.features("cls", task="seen", labels=labels).y
    expected = np.array([float(i % 3 == 0) for i in range(len(rows))])
    expected[0] = np.nan  # its row is missing
    np.testing.assert_array_equal(y, expected)


def test_a_table_by_patient_and_its_parts(make: Callable[..., Any], tmp_path: Path) -> None:
    made = make(n=24)
    patients = sorted(set(made.patients))
    rows = [(p, str(i % 2), ["train", "val", "test"][i % 3]) for i, p in enumerate(patients)]
    labels = find_labels(lone(made, tmp_path), write(tmp_path / "mine.csv", "who,ill,split", rows), "who")
    (task,) = labels.tasks
    assert task.level == "patient"
    part = dict(zip(labels.patient.tolist(), labels.split.tolist(), strict=True))
    assert [part[p] for p in patients] == ["train", "validation", "test"] * 4


def test_what_does_not_fit_is_said(made: Any, tmp_path: Path) -> None:
    cache = lone(made, tmp_path)
    with pytest.raises(InputError, match=r"no labels\.parquet lies beside.*--labels FILE"):
        find_labels(cache)
    with pytest.raises(InputError, match=r"there is no table gone\.csv"):
        find_labels(cache, tmp_path / "gone.csv")
    with pytest.raises(InputError, match="give that with --labels FILE"):
        find_labels(FeatureCache.open(made.store), None, "who")
    strangers = write(tmp_path / "strangers.csv", "sample,ill", [("a", "0"), ("b", "1")])
    with pytest.raises(InputError, match=r"no row of strangers\.csv matches: its column 'sample'"):
        find_labels(cache, strangers)
    torn = [(s, "0", "train" if i % 2 else "test") for i, s in enumerate(made.samples)]
    with pytest.raises(InputError, match="one patient is in two splits"):
        find_labels(cache, write(tmp_path / "torn.csv", "sample,ill,split", torn))
    damaged = tmp_path / "labels.parquet"
    data = bytearray((made.store.parents[1] / "labels.parquet").read_bytes())
    data[len(data) // 2 :] = b"\0" * (len(data) - len(data) // 2)
    damaged.write_bytes(data)
    with pytest.raises((InputError, StoreError), match="damaged"):
        find_labels(cache, damaged)
