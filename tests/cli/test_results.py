"""`results`, `compare`, `probe --like`: the commands about results that are there."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.testing.labelled_stores import LabelledStore, make_labelled_store
from embedcache.types import Task


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


def test_curves_are_listed_below_the_results(cli: Any, store: LabelledStore, tmp_path: Path) -> None:
    few = ("few-shot", store.store, "--shots", "1,2", "--seeds", "2", "--json")
    (curve,) = cli(*few).document["curves"]
    alone = cli("results", tmp_path / "cache")
    assert (alone.code, alone.err) == (0, "")
    assert alone.out.splitlines()[-1] == "0 results, 1 curve"
    figure = curve["points"][0]["figures"][0]
    assert f"{figure['value']:.3f} ({figure['test_low']:.3f}-{figure['test_high']:.3f})" in alone.out
    assert [word in alone.out.splitlines()[0] for word in ("1 a class", "2 a class", "all")] == [True] * 3
    probe(cli, store, "knn")
    for folder in (tmp_path / "cache", tmp_path / "cache" / "results", Path(curve["path"]).parent):
        assert "1 result, 1 curve" in cli("results", folder).out
    for arguments, results, curves in (
        (("--probe", "few-shot"), 0, 1),
        (("--probe", "knn"), 1, 0),
        (("--label", "Mass"), 1, 1),
        (("--metrics", "brier"), 1, 0),
        (("--metrics", "auroc"), 1, 1),
        (("--backbone", "other"), 0, 0),
    ):
        table = cli("results", tmp_path / "cache", *arguments, "--json").document
        assert (len(table["lines"]), len(table["curves"])) == (results, curves), arguments
    (line,) = cli("results", tmp_path / "cache", "--label", "Mass", "--json").document["curves"]
    assert (line["label"], line["file"]) == ("Mass", f"few-shot/{Path(curve['path']).name}")
    assert line["figures"]["2"]["value"] == curve["points"][1]["figures"][2]["value"]
    assert "unknown probe in the results 'few-shoot'" in cli("results", tmp_path / "cache", "--probe", "few-shoot").err
    assert "is a file; name a cache" in cli("results", curve["path"]).err
    Path(curve["path"]).write_text("{")
    damaged = cli("results", tmp_path / "cache")
    assert damaged.code == 1
    assert "left out: " in damaged.err


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
    store.relabel(np.roll(store.y, 3, axis=0))
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


def test_a_repetition_that_can_not_be_written_is_refused_before_the_fit(
    cli: Any, store: LabelledStore, tmp_path: Path
) -> None:
    path = Path(probe(cli, store, "knn")["path"])
    path.parent.rename(tmp_path / "moved")
    (tmp_path / "cache" / "results").write_text("a file where the folder goes")
    again = ("probe", "--like", tmp_path / "moved" / path.name, "--store", store.store)
    assert cli(*again).code == 0, "what is as recorded is not written"
    done = cli(*again, "--force")
    assert done.code == 2
    assert f"results can not be written into {tmp_path / 'cache' / 'results'}: " in done.err


def test_results_are_compared(cli: Any, store: LabelledStore) -> None:
    paths = [probe(cli, store, "knn", *more)["path"] for more in ((), ("--features", "mean"), ("--votes", "ml-knn"))]
    two = cli("compare", *paths[:2], "--resamples", "100")
    assert two.code == 0
    assert "A  " in two.out
    assert "Effusion" in two.out
    assert "p (Holm)" not in two.out
    three = cli("compare", *paths, "--resamples", "100")
    assert "A - B" in three.out
    assert "p (Holm)" in three.out
    assert "not shown to be worse" in three.out
    document = cli("compare", *paths, "--resamples", "100", "--label", "Mass", "--metrics", "auroc", "--json").document
    (column,) = document["columns"]
    assert (column["metric"], column["label"], len(column["pairs"])) == ("auroc", "Mass", 3)
    assert cli("compare", paths[0]).code == 2
    assert cli("compare", *paths[:2], "--label", "Masse").code == 2


def test_a_result_is_broken_down_by_a_column(cli: Any, store: LabelledStore, tmp_path: Path) -> None:
    path = probe(cli, store, "knn")["path"]
    lines = [f"{s},{'FM'[i // 2 % 2]},{30 + i // 4}" for i, s in enumerate(store.samples)]
    (tmp_path / "people.csv").write_text("\n".join(["id,sex,age", *lines]) + "\n")
    by_sex = cli("subgroups", path, "--by", "sex", "--labels", tmp_path / "people.csv", "--resamples", "50")
    assert by_sex.code == 0
    assert "AUROC of macro the same in 2 groups: p = " in by_sex.out
    told = cli(
        "subgroups", path, "--by", "age", "--labels", tmp_path / "people.csv", "--edges", "50", "--resamples", "50"
    )
    assert "below 50" in told.out
    assert "50 and more" in told.out
    alone = cli(
        "subgroups", path, "--by", "age", "--labels", tmp_path / "people.csv", "--edges", "31", "--resamples", "50"
    )
    assert "AUROC of macro: no test: fewer than two groups have two scored patients of each class" in alone.out
    assert "left out, too few patients: below 31" in alone.out
    document = cli("subgroups", path, "--by", "sex", "--labels", tmp_path / "people.csv", "--json").document
    assert len(document["groups"]) == 2
    assert cli("subgroups", path, "--by", "smoker", "--labels", tmp_path / "people.csv").code == 2


def test_a_column_of_the_own_table_that_was_extracted_needs_no_word_of_how_it_is_read(
    cli: Any, store: LabelledStore, tmp_path: Path
) -> None:
    path = probe(cli, store, "knn")["path"]
    lines = [
        f"{s}.png,{s},{p},{'FM'[i // 2 % 2]}"
        for i, (s, p) in enumerate(zip(store.samples, store.patients, strict=True))
    ]
    (tmp_path / f"{store.samples[0]}.png").touch()  # a table none of whose images is there is refused
    (tmp_path / "cases.csv").write_text("\n".join(["path,id,patient,site", *lines]) + "\n")
    asked = ("subgroups", path, "--by", "site", "--resamples", "20", "--json", "--root")
    found = cli(*asked, tmp_path / "cases.csv")
    assert found.code == 0, found.err
    assert len(found.document["groups"]) == 2
    assert found.document == cli(*asked, tmp_path / "cases.csv", "--dataset", "table").document
    folder = cli(*asked, tmp_path)
    assert folder.code == 2
    assert "a dataset of your own, and how that was read no store records; say with --dataset" in folder.err
    assert "how --root is read: amos22, " in folder.err


def test_patients_that_are_in_no_group_are_told(cli: Any, store: LabelledStore, tmp_path: Path) -> None:
    store.relabel(np.repeat(store.y[::2], 2, axis=0))
    path = probe(cli, store, "prototypes", "--pool-by", "patient")["path"]
    lines = [f"{s},{'AB'[i % 2 if i % 8 < 2 else i // 2 % 2]}" for i, s in enumerate(store.samples)]
    (tmp_path / "sites.csv").write_text("\n".join(["id,site", *lines]) + "\n")
    told = cli("subgroups", path, "--by", "site", "--labels", tmp_path / "sites.csv", "--resamples", "20")
    assert told.code == 0
    assert "rows, pooled by patient, have samples with different values of 'site', so they are in no group" in told.err
    document = cli("subgroups", path, "--by", "site", "--labels", tmp_path / "sites.csv", "--json").document
    assert document["left_out"] > 0
    assert len(document["notes"]) == 1


def test_numbers_are_answered_by_ridge(cli: Any, tmp_path: Path) -> None:
    store = make_labelled_store(tmp_path / "cache", Task("age", "numeric", ()))
    done = cli("probe", "ridge", store.store, "--resamples", "50", "--figure", tmp_path / "ridge.png")
    assert done.code == 0
    assert "alpha = " in done.out
    assert "r2" in done.out
    assert (tmp_path / "ridge.png").read_bytes().startswith(b"\x89PNG")
    refused = cli("probe", "knn", store.store)
    assert refused.code == 2
    assert "`embedcache probe ridge` answers it" in refused.err
    assert "r2" in cli("results", tmp_path / "cache").out


def test_k_is_chosen_without_a_validation_part(cli: Any, store: LabelledStore) -> None:
    document = probe(cli, store, "knn", "--select", "leave-patient-out")
    assert "each row scored without its patient, ranked across these models" in document["chosen"]["selected_by"]
    assert document["inputs"]["config"]["select"] == "leave-patient-out"
