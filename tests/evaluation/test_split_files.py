import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedcache import FeatureCache
from embedcache.errors import EmbedcacheError, InputError
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.evaluation.split_files import SPLITS, export_splits, find_split, import_splits, make_splits
from embedcache.evaluation.splits import read_split, split_digest

PARTS = ["train", "train", "train", "test"]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def test_a_split_is_drawn_by_patient_and_comes_back_as_it_was(made: Any, tmp_path: Path) -> None:
    report = make_splits(made.store, tmp_path / "a.csv", seed=4)
    assert report.samples == {"train": 102, "validation": 26, "test": 32}
    assert report.patients == {"train": 51, "validation": 13, "test": 16}
    assert split_digest(read_split(tmp_path / "a.csv")) == report.digest
    assert {row["seed"] for row in rows(tmp_path / "a.csv")} == {"4"}
    again = make_splits(made.store, tmp_path / "folder" / "b.csv", seed=4)
    assert again.digest == report.digest
    assert (tmp_path / "folder" / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()
    assert make_splits(made.store, tmp_path / "c.csv", seed=5).digest != report.digest


def test_what_the_dataset_names_is_kept_unless_redrawn(make: Callable[..., Any], tmp_path: Path) -> None:
    made = make(given=lambda patient: PARTS[patient % 4])
    own = export_splits(made.store, tmp_path / "own.csv")
    assert own.samples == {"train": 120, "test": 40}
    assert {row["seed"] for row in rows(tmp_path / "own.csv")} == {""}
    completed = make_splits(made.store, tmp_path / "made.csv")
    assert completed.samples == {"train": 96, "validation": 24, "test": 40}
    named = {row["sample"]: row["split"] for row in rows(tmp_path / "own.csv")}
    drawn = {row["sample"]: row["split"] for row in rows(tmp_path / "made.csv")}
    assert all(drawn[sample] == "test" for sample, part in named.items() if part == "test")
    anew = make_splits(made.store, tmp_path / "anew.csv", redraw=True)
    assert anew.samples == {"train": 102, "validation": 26, "test": 32}


def test_samples_in_no_part_are_counted_and_not_written(make: Callable[..., Any], tmp_path: Path) -> None:
    made = make(given=lambda patient: ["train", "train", "", "test"][patient % 4])
    report = make_splits(made.store, tmp_path / "a.csv")
    assert (report.samples, report.unnamed) == ({"train": 64, "validation": 16, "test": 40}, 40)
    assert str(report).endswith(", in no part 40")
    assert len(rows(tmp_path / "a.csv")) == 120
    result = run_probe(ProbeConfig("logistic", made.store, C=(1.0,), resamples=20))
    assert result.counts["left_out_not_in_split"] == 40
    assert result.counts["train_samples"] == 64


def test_there_is_nothing_to_export_where_nothing_is_named(made: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name no parts"):
        export_splits(made.store, tmp_path / "own.csv")
    assert not (tmp_path / "own.csv").exists()


def test_a_place_that_takes_no_file_is_refused_before_a_store_is_opened(made: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out, says in (
        ("", "that is a folder"),
        (tmp_path, "that is a folder"),
        (tmp_path / "file" / "x.csv", "is a file"),
    ):
        for write in (make_splits, export_splits):
            with pytest.raises(InputError, match=f"the split can not be written as .*{says}"):
                write(tmp_path / "none.zarr", out)
    assert Path(make_splits(made.store, tmp_path / "new" / "folders" / "x.csv").path).exists()


def test_an_imported_split_is_found_by_name_and_gives_the_same_result(made: Any, tmp_path: Path) -> None:
    file = tmp_path / "given.csv"
    report = make_splits(made.store, file, seed=7)
    kept = import_splits(file, made.store, "seven")
    assert kept.digest == report.digest
    cache = FeatureCache.open(made.store)
    assert find_split(Path("seven"), cache) == cache.dataset_folder / SPLITS / "seven.csv"
    assert find_split(file, cache) == file

    config = ProbeConfig("knn", made.store, resamples=20, split=Path("seven"))
    by_name = run_probe(config)
    by_file = run_probe(ProbeConfig("knn", made.store, resamples=20, split=file))
    assert by_name == by_file
    assert by_name.inputs["split"] == report.digest
    with pytest.raises(InputError, match="no split file eight"):
        run_probe(ProbeConfig("knn", made.store, resamples=20, split=Path("eight")))


def test_a_split_that_does_not_fit_is_not_imported(made: Any, tmp_path: Path) -> None:
    file = tmp_path / "given.csv"
    make_splits(made.store, file)
    text = file.read_text()
    first = text.splitlines()[1]
    sample, patient, part, *rest = first.split(",")
    other = "test" if part != "test" else "train"
    for wrong, message in (
        (text.replace(first, ",".join([sample, patient, other, *rest])), "one patient in two parts"),
        (text.replace(first, ",".join([sample, patient, "holdout", *rest])), "'holdout'"),
        (text.replace(f"{sample},", "elsewhere,"), "1 samples that the store does not hold"),
        (text + first + "\n", "twice"),
        (text.splitlines()[0] + "\n", "no rows"),
        (text.replace("sample,", "subject,", 1), "no column 'sample'"),
    ):
        file.write_text(wrong)
        with pytest.raises(EmbedcacheError, match=message):
            import_splits(file, made.store, "wrong")
    with pytest.raises(InputError, match="a split's name is"):
        import_splits(file, made.store, "../wrong")
    assert not (made.store.parents[1] / SPLITS).exists() or not list((made.store.parents[1] / SPLITS).iterdir())


def test_a_lone_store_has_no_place_for_a_split(made: Any, tmp_path: Path) -> None:
    lone = tmp_path / "lone" / "features.zarr"
    shutil.copytree(made.store, lone)
    file = tmp_path / "given.csv"
    report = make_splits(lone, file)
    assert report.samples["train"] == 102
    with pytest.raises(InputError, match="give the file to --split"):
        import_splits(file, lone, "mine")
