"""A column of patients that is named late, mended, or forgotten."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache import DatasetOptions, ExtractConfig
from embedcache.errors import InputError
from tests.extraction.conftest import only_store


def renamed(config: ExtractConfig) -> tuple[ExtractConfig, ExtractConfig]:
    """The table's patients under a name that nothing is guessed from; without and with the column named."""
    table = Path(config.root)
    table.write_text(table.read_text().replace("patient", "person", 1))
    return config, replace(config, options=DatasetOptions(id_column="case", patient_column="person"))


def patients(config: ExtractConfig) -> int:
    return len(set(embedcache.FeatureCache.open(only_store(config)).samples().patient_id.tolist()))


def intact(config: ExtractConfig) -> Path:
    return next(path for path in Path(config.cache).glob("*/*/*.zarr") if path.parent.name != "other")


def test_a_column_of_patients_named_late_reaches_the_store_without_another_forward(config: ExtractConfig) -> None:
    without, named = renamed(config)
    embedcache.extract(without)
    before = embedcache.FeatureCache.open(only_store(config)).features("cls")
    assert patients(config) == 24
    told: list[str] = []
    again = embedcache.extract(named, embedcache.Listener(tell=told.append))
    assert (again.exit_code, again.decoded) == (0, 0)
    assert [line for line in told if "24 samples belong to other patients" in line]
    after = embedcache.FeatureCache.open(only_store(config)).features("cls", task="bright")
    np.testing.assert_array_equal(after.X, before.X)
    assert len(set(after.groups.tolist())) == 12
    assert embedcache.verify(only_store(config)).intact
    labels = embedcache.FeatureCache.open(only_store(config)).labels()
    assert set(after.groups.tolist()) == set(labels.patient.tolist())
    assert embedcache.extract(named).decoded == 0


def test_forgetting_the_column_does_not_part_the_patients(config: ExtractConfig) -> None:
    without, named = renamed(config)
    embedcache.extract(named)
    with pytest.raises(InputError, match=r"knows 12 patients.* each of 24 samples.*--patient-column"):
        embedcache.extract(without)
    assert patients(config) == 12


def test_one_mended_patient_moves_alone(config: ExtractConfig) -> None:
    embedcache.extract(config)
    damaged = Path(config.cache) / "cases" / "other" / "0123456789ab.zarr"
    damaged.mkdir(parents=True)
    (damaged / "zarr.json").write_text("{}")
    before = embedcache.FeatureCache.open(intact(config)).samples().patient_id
    table = Path(config.root)
    table.write_text(table.read_text().replace("SECRET001", "SECRET000"))
    embedcache.extract(config)
    after = embedcache.FeatureCache.open(intact(config)).samples().patient_id
    assert (after != before).sum() == 2
    assert len(set(after.tolist())) == 11
