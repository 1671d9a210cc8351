"""Ids of samples and of patients that look alike, and samples whose image changed: who a table or a split speaks of."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache import DatasetOptions, ExtractConfig
from embedcache.datasets import open_dataset
from embedcache.errors import InputError
from embedcache.evaluation.label_files import find_labels
from embedcache.evaluation.reading import pool_units
from embedcache.evaluation.split_files import export_splits, make_splits
from embedcache.evaluation.splits import read_split
from embedcache.store.reader import FeatureCache
from embedcache.testing.files import write_png
from embedcache.testing.labelled_stores import WIDTH, LabelledStore, write_labelled_store

N = 8


@pytest.fixture
def cache(make: Callable[..., LabelledStore], tmp_path: Path) -> FeatureCache:
    """Samples 1 to 8, two of each of patients 1 to 4."""
    plain = make(n=N)
    made = LabelledStore(
        tmp_path / "numbers" / "made-up" / "0123456789ab.zarr",
        [str(i + 1) for i in range(N)],
        [str(i // 2 + 1) for i in range(N)],
        plain.y,
        plain.task,
        plain.splits,
    )
    write_labelled_store(made, {(2, "cls_token"): np.ones((N, WIDTH), np.float32)})
    return FeatureCache.open(made.store)


def write(tmp_path: Path, header: str) -> Path:
    """A table of the keys 1 to 4, of which 1 and 2 are positive and train."""
    rows = [f"{k},{int(k < 3)},{'train' if k < 3 else 'test'},{'AB'[k % 2]}" for k in range(1, 5)]
    (tmp_path / "mine.csv").write_text("\n".join([f"{header},ill,split,site", *rows]) + "\n")
    return tmp_path / "mine.csv"


@pytest.mark.parametrize("header", ["patient", "Patient ID", "subject_id"])
def test_a_key_called_patient_means_patients(cache: FeatureCache, tmp_path: Path, header: str) -> None:
    table = write(tmp_path, header)
    labels = find_labels(cache, table)
    assert labels.get("ill").level == "patient"
    mine = labels.task == "ill"
    assert dict(zip(labels.patient[mine].tolist(), labels.value[mine].tolist(), strict=True)) == {
        "1": 1, "2": 1, "3": 0, "4": 0,
    }  # fmt: skip
    rest = labels.sample != ""
    parts = dict(zip(labels.sample[rest].tolist(), labels.split[rest].tolist(), strict=True))
    assert [parts[str(i)] for i in range(1, 9)] == ["train"] * 4 + ["test"] * 4
    units = pool_units(cache, cache.labels(), "site", table)
    assert units is not None
    assert np.asarray(units).tolist() == list("BBAABBAA")


def test_a_key_called_sample_means_samples(cache: FeatureCache, tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("sample,ill\n1,1\n2,0\n3,1\n4,0\n")
    labels = find_labels(cache, table)
    assert labels.get("ill").level == "sample"
    known = ~np.isnan(labels.value)
    assert dict(zip(labels.sample[known].tolist(), labels.value[known].tolist(), strict=True)) == {
        "1": 1, "2": 0, "3": 1, "4": 0,
    }  # fmt: skip


def test_a_name_that_says_neither_is_refused_where_both_match(cache: FeatureCache, tmp_path: Path) -> None:
    table = write(tmp_path, "who")
    says = r"column 'who' of mine\.csv matches ids of samples \(4 rows\) and patients \(4 rows\); call it `sample`"
    with pytest.raises(InputError, match=says):
        find_labels(cache, table, "who")
    with pytest.raises(InputError, match=says):
        pool_units(cache, cache.labels(), "site", table, "who")


def test_a_second_table_of_a_dataset_follows_the_same_rule(tmp_path: Path) -> None:
    for i in range(4):
        write_png(tmp_path / f"{i}.png", np.full((4, 4), i, np.uint8))
    (tmp_path / "cases.csv").write_text("path,id,patient\n0.png,1,1\n1.png,2,1\n2.png,3,2\n3.png,4,2\n")
    (tmp_path / "second.csv").write_text("patient,ill\n1,yes\n2,no\n")
    options = DatasetOptions(label_table=str(tmp_path / "second.csv"))
    labels = open_dataset("table", str(tmp_path / "cases.csv"), options).labels()
    assert labels.get("ill").level == "patient"
    mine = labels.task == "ill"
    assert dict(zip(labels.patient[mine].tolist(), labels.value[mine].tolist(), strict=True)) == {"1": 1, "2": 0}


def test_a_sample_whose_image_changed_is_one_sample_in_splits_and_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCACHE_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    for i in range(N):
        write_png(tmp_path / f"{i}.png", rng.integers(0, 255, (6, 6)).astype(np.uint8))
    parts = ["train"] * 4 + ["validation"] * 2 + ["test"] * 2
    rows = [f"{i}.png,p{i // 2},{part},{i % 2}" for i, part in enumerate(parts)]
    (tmp_path / "cases.csv").write_text("path,patient,split,ill\n" + "\n".join(rows) + "\n")
    config = ExtractConfig(
        dataset="table", root=str(tmp_path / "cases.csv"), backbones=("pixels:4",), cache=str(tmp_path / "cache"),
        threads=1, workers=1, device="cpu",
    )  # fmt: skip
    embedcache.extract(config)
    write_png(tmp_path / "3.png", np.full((6, 6), 9, np.uint8))
    embedcache.extract(config)
    (store,) = (tmp_path / "cache").glob("*/*/*.zarr")
    samples = FeatureCache.open(store).samples()
    assert (len(samples), samples.superseded.sum()) == (N + 1, 1)
    assert make_splits(store, tmp_path / "drawn.csv", redraw=True).samples["train"] > 0
    assert len(read_split(tmp_path / "drawn.csv").sample) == N
    assert export_splits(store, tmp_path / "own.csv").samples == {"train": 4, "validation": 2, "test": 2}
    ids = samples.id[~samples.superseded].tolist()
    (tmp_path / "mine.csv").write_text(
        "sample,seen,split\n" + "".join(f"{s},{i % 2},train\n" for i, s in enumerate(ids))
    )
    labels = find_labels(FeatureCache.open(store), tmp_path / "mine.csv")
    assert sorted(labels.sample.tolist()) == sorted(ids)
