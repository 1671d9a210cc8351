"""The real images of the shared folders, through the whole path: radiographs, a CT series, volumes with a derived label."""

import csv
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache import DatasetOptions, ExtractConfig, FeatureCache, ProbeConfig

from .conftest import only_store


@pytest.fixture
def small(tmp_path: Path, tiny: Path) -> dict[str, object]:
    return {
        "backbones": (str(tiny),),
        "cache": str(tmp_path / "cache"),
        "size": 28,
        "device": "cpu",
        "workers": 1,
        "threads": 1,
    }


def test_full_size_radiographs_as_a_table(shared_data: Path, small: dict[str, object]) -> None:
    table = shared_data / "nih_chestxray14" / "labels.csv"
    options = DatasetOptions(
        path_column="image",  # its column `path` says where each file came from
        root_dir=str(table.with_name("images")),
        id_column="image",
        patient_column="patient",
        tasks=("labels=multilabel",),
    )
    config = ExtractConfig(dataset="table", root=str(table), options=options, **small)  # type: ignore[arg-type]
    report = embedcache.extract(config)
    assert (report.decoded, report.exit_code) == (21, 0)
    X, y, groups = FeatureCache.open(only_store(config)).features("cls+mean", task="labels")
    assert X.shape == (21, 64)
    assert y.shape == (21, 14)
    assert len(set(groups)) == 21
    assert y.sum(axis=0).min() >= 1, "every finding was chosen at least once"


def test_a_ct_series_is_one_sample_of_thirty_slices(
    shared_data: Path, small: dict[str, object], tmp_path: Path
) -> None:
    table = tmp_path / "ct.csv"
    table.write_text(f"path\n{shared_data / 'ct_lung_a0002' / 'dicom'}\n")
    config = ExtractConfig(dataset="table", root=str(table), window="ct-three", **small)  # type: ignore[arg-type]
    report = embedcache.extract(config)
    assert (report.decoded, report.exit_code) == (30, 0)
    cache = FeatureCache.open(only_store(config))
    assert cache.samples().slices.tolist() == [30]
    rows = cache.features("cls", pool=None)
    assert rows.slice_index.tolist() == list(range(30))
    assert len(np.unique(rows.X, axis=0)) == 30, "thirty different slices"
    for path in Path(config.cache).rglob("*"):
        if path.is_file():
            assert b"A0002" not in path.read_bytes(), "the patient's name and id enter nothing"


def hippocampus_table(shared_data: Path, folder: Path, n: int) -> Path:
    """The first n volumes with a label: anterior volume above the median of the training volumes."""
    root = shared_data / "msd_hippocampus"
    rows = list(csv.DictReader((root / "index.csv").read_text().splitlines()))[:n]
    test = [i % 4 == 3 for i in range(n)]
    volume = np.array([int(r["vox_label1_anterior"]) for r in rows])
    large = volume > np.median(volume[~np.array(test)])
    lines = ["path,split,large_anterior"]
    for row, is_test, label in zip(rows, test, large, strict=True):
        lines.append(f"{root / 'images' / row['file']},{'test' if is_test else 'train'},{int(label)}")
    table = folder / "hippocampus.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def test_hippocampus_volumes_are_pooled_against_a_derived_label(
    shared_data: Path, small: dict[str, object], tmp_path: Path
) -> None:
    config = ExtractConfig(dataset="table", root=str(hippocampus_table(shared_data, tmp_path, 16)), **small)  # type: ignore[arg-type]
    embedcache.extract(config)
    cache = FeatureCache.open(only_store(config))
    assert cache.samples().slices.min() > 20
    X, y, _ = cache.features("cls+mean", pool="mean", task="large_anterior")
    assert X.shape == (16, 64)
    assert set(y) == {0.0, 1.0}
    result = embedcache.probe(ProbeConfig(probe="knn", store=only_store(config), task="large_anterior", pool="max"))
    assert result.counts["test_samples"] == 4
    assert result.metric("auroc").note, "four test volumes are few, and the result says so"


@pytest.mark.slow
def test_sixty_volumes_with_the_trained_backbone(shared_data: Path, trained: Path, tmp_path: Path) -> None:
    """The derived label is a size, which the pooled tokens of real slices carry: the score must beat chance clearly."""
    config = ExtractConfig(
        dataset="table",
        root=str(hippocampus_table(shared_data, tmp_path, 60)),
        backbones=(str(trained),),
        cache=str(tmp_path / "cache"),
        size=112,
        device="cpu",
    )
    assert embedcache.extract(config).exit_code == 0
    result = embedcache.probe(ProbeConfig(probe="logistic", store=only_store(config), task="large_anterior"))
    assert (result.metric("auroc").value or 0) > 0.6
