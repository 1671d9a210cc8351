"""A table whose column of patients has an unknown name: the store remembers it, and whatever is made of the store says so."""

from pathlib import Path
from typing import Any

import pytest

from embedcache import FeatureCache
from embedcache.store.writer import StoreFiles, load, regroup
from tests.cli.conftest import Cli, World, write_table

TOLD = (
    "the dataset named no patients, so every sample counts as one: if some share a patient, parts leak and intervals are too "
    "narrow; in a table name the column with --patient-column, and run extract again."
)


@pytest.fixture
def unnamed(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world's table with its patients in `case_code`, for a cache of its own."""
    monkeypatch.setenv("EMBEDCACHE_HOME", str(world.home))
    table = write_table(tmp_path / "images")
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header.replace("patient,", "case_code,").replace(",split", ",fold"), *rows]) + "\n")
    return World(table, tmp_path / "unnamed", world.home, world.tiny)


def root_attributes(world: World) -> dict[str, Any]:
    return dict(load(StoreFiles(world.store))[0].attributes())


def test_everything_made_of_the_store_says_that_its_patients_are_assumed(cli: Cli, unnamed: World) -> None:
    assert cli("extract", *unnamed.extract()).code == 0
    assert root_attributes(unnamed)["patients"] == "assumed"
    assert "patients_assumed" not in root_attributes(unnamed)["dataset"]
    probed = cli("probe", "logistic", unnamed.store, "--task", "bright", "--resamples", 20)
    assert f"note: {TOLD}" in probed.err
    shots = cli("few-shot", unnamed.store, "--task", "bright", "--shots", "1", "--seeds", 2)
    assert f"note: {TOLD}" in shots.err
    name = FeatureCache.open(unnamed.store).root.dataset.name
    assert f"note: {name}: {TOLD}" in cli("results", unnamed.cache).err
    assert (
        f"note: {name}: {TOLD}" in cli("probe", "all", unnamed.store, "--tasks", "bright", "--probes", "logistic").err
    )
    leaks = cli("leaks", unnamed.store)
    assert f"note: {TOLD}" in leaks.out
    assert cli("leaks", unnamed.store, "--json").document[0]["notes"] == [TOLD]


def test_the_note_goes_once_the_column_is_named(cli: Cli, unnamed: World) -> None:
    assert cli("extract", *unnamed.extract()).code == 0
    ask = ("probe", "knn", unnamed.store, "--task", "bright", "--resamples", 20)
    assert TOLD in cli(*ask).err
    assert cli("extract", *unnamed.extract(None, "--patient-column", "case_code")).code == 0
    assert "patients" not in root_attributes(unnamed)
    assert "share a patient" not in cli(*ask).err
    assert cli("leaks", unnamed.store, "--json").document[0]["notes"] == []
    assert cli("verify", unnamed.store).code == 0


def test_who_says_that_each_image_is_a_patient_is_believed(cli: Cli, unnamed: World) -> None:
    """The patients' pseudonyms do not change, and so the result does not: but it says no more that they are assumed."""
    assert cli("extract", *unnamed.extract()).code == 0
    ask = ("probe", "knn", unnamed.store, "--task", "bright", "--resamples", 20)
    digest = FeatureCache.open(unnamed.store).plan_digest
    assert TOLD in cli(*ask).err
    assert cli("extract", *unnamed.extract(None, "--patient-column", "case")).code == 0
    assert FeatureCache.open(unnamed.store).plan_digest == digest
    assert "share a patient" not in cli(*ask).err


def test_a_store_of_before_this_was_recorded_learns_it_and_then_rests(cli: Cli, unnamed: World) -> None:
    assert cli("extract", *unnamed.extract()).code == 0
    document = unnamed.store / "zarr.json"
    now = document.read_bytes()
    files = StoreFiles(unnamed.store)
    root, index = load(files)
    regroup(files, root, index, index.plan.patient_id, assumed=False)
    assert "patients" not in root_attributes(unnamed)
    assert cli("extract", *unnamed.extract()).code == 0
    assert document.read_bytes() == now
    changed = document.stat().st_mtime_ns
    assert cli("extract", *unnamed.extract()).code == 0
    assert document.stat().st_mtime_ns == changed


def test_a_part_of_a_dataset_that_names_patients_leaves_the_rest_assumed(cli: Cli, unnamed: World) -> None:
    assert cli("extract", *unnamed.extract()).code == 0
    more = ("--patient-column", "case_code", "--limit", 8)
    assert cli("extract", *unnamed.extract(None, *more)).code == 0
    assert root_attributes(unnamed)["patients"] == "assumed"
    told = cli("probe", "knn", unnamed.store, "--task", "bright", "--resamples", 20).err
    assert "the dataset named no patient of some samples, so each of these counts as one: if some share" in told


def test_labels_show_says_which_column_is_what(cli: Cli, unnamed: World) -> None:
    rows = [line.split() for line in cli("labels", "show", unnamed.table).out.splitlines()]
    roles = {row[0]: row[1] for row in rows[1:6]}
    assert roles == {"path": "path", "id": "-", "patient": "-", "split": "-", "mask": "-"}
    named = cli(
        "labels", "show", unnamed.table, "--patient-column", "case_code", "--id-column", "case", "--json"
    ).document
    assert {line["role"]: line["column"] for line in named[:5]} == {
        "path": "path", "id": "case", "patient": "case_code", "split": None, "mask": None,
    }  # fmt: skip
    masks = unnamed.table.with_name("masks.csv")
    masks.write_text("path,mask,mrn\nimg000.png,img001.png,SECRET1\n")
    told = cli("labels", "show", masks).out
    assert "no column is a label; the masks are for `embedcache probe patch-linear`" in told
    assert [line.split()[1] for line in told.splitlines() if line.startswith("patient")] == ["mrn"]
