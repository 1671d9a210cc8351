"""`results`, `compare`, `probe --like`: the commands about results that are there."""

import csv
from pathlib import Path
from typing import Any

import pytest

from embedcache.testing.labelled_stores import LabelledStore, make_labelled_store


@pytest.fixture
def store(tmp_path: Path) -> LabelledStore:
    return make_labelled_store(tmp_path / "cache")


def probe(cli: Any, store: LabelledStore, *arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = cli("probe", *arguments, store.store, "--resamples", "50", "--json").document
    return document


def test_results_are_listed_filtered_and_written_as_csv(cli: Any, store: LabelledStore, tmp_path: Path) -> None:
    probe(cli, store, "knn")
    probe(cli, store, "logistic", "--C", "0.01,1")
    done = cli("results", tmp_path / "cache")
    assert (done.code, done.err) == (0, "")
    assert "2 results" in done.out
    assert "k = " in done.out
    assert "C = " in done.out
    one = cli("results", tmp_path / "cache", "--probe", "knn", "--metrics", "auroc", "--csv", tmp_path / "table.csv")
    assert "1 result\n" in one.out
    with (tmp_path / "table.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["auroc_low"]) < float(row["auroc"]) < float(row["auroc_high"])
    document = cli("results", tmp_path / "cache", "--label", "Mass", "--json").document
    assert [line["label"] for line in document["lines"]] == ["Mass", "Mass"]
    assert cli("results", tmp_path / "cache", "--probe", "forest").code == 2
    assert cli("results", tmp_path / "none").code == 2


def test_a_damaged_result_ends_with_exit_code_1(cli: Any, store: LabelledStore, tmp_path: Path) -> None:
    Path(probe(cli, store, "knn")["path"]).write_text("{")
    done = cli("results", tmp_path / "cache")
    assert done.code == 1
    assert "left out: " in done.err


def test_a_probe_is_repeated(cli: Any, store: LabelledStore) -> None:
    first = probe(cli, store, "knn")
    done = cli("probe", "--like", first["path"])
    assert done.code == 0
    assert "the same was asked" in done.out
    assert "and the same was found" in done.out
    store.relabel(1 - store.y)
    document = cli("probe", "--like", first["path"], "--json").document
    assert [d["name"] for d in document["inputs"]] == ["labels"]
    assert document["figures"]
    told = cli("probe", "--like", first["path"]).out
    assert "labels" in told
    assert "auroc of macro" in told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("probe", "--like", "none.json"), "no result none.json"),
        (("probe", "--force"), "--like RESULT.json"),
        (("probe", "--force", "knn", "x.zarr"), "options come after"),
    ],
)
def test_what_can_not_be_repeated_is_one_line(cli: Any, arguments: tuple[str, ...], says: str) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert says in done.err
    assert len(done.err.splitlines()) == 1
