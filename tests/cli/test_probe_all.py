"""`embedcache probe all`, and a probe that is tested on another store."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedcache.testing.labelled_stores import LabelledStore, make_labelled_store, write_labelled_store

from .conftest import Cli

QUICK = ("--resamples", 50, "--comparisons", 100)
GRIDS = ("--C", "0.01,1", "--k", "5,20")


@pytest.fixture
def stores(tmp_path: Path) -> list[LabelledStore]:
    """Two backbones on one dataset, and the first of them on another."""
    return [
        make_labelled_store(tmp_path, backbone="good"),
        make_labelled_store(tmp_path, signal=0.5, backbone="weak"),
        make_labelled_store(tmp_path, seed=5, dataset="other", backbone="good", prefix="b"),
    ]


def test_a_grid_is_a_table_on_the_terminal_and_in_a_file(stores: list[LabelledStore], cli: Cli, tmp_path: Path) -> None:
    paths = [made.store for made in stores]
    done = cli("probe", "all", *paths, *QUICK, *GRIDS, "--out", tmp_path / "t.csv", "--figure", tmp_path / "t.png")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split("  ")[0] == "backbone"
    assert "made findings auroc" in lines[0]
    assert "other findings auroc" in lines[0]
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["good", "logistic"], ["good", "knn"], ["weak", "logistic"], ["weak", "knn"]
    ]  # fmt: skip
    assert lines[1].count("*") == 2
    assert lines[3].split()[-1] == "-"
    assert lines[-1] == "6 results fitted, 0 found"
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert len(rows) == 4
    assert f"{float(rows[0]['made findings auroc']):.3f}" in lines[1]
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")

    again = cli("probe", "all", *paths, *QUICK, *GRIDS, "--json")
    assert again.code == 0
    assert again.err == ""
    cells = again.document["cells"]
    assert [cell["computed"] for cell in cells] == [False] * 6
    assert all(Path(cell["path"]).exists() for cell in cells)
    figures = again.document["table"]["rows"][0]["figures"]
    assert figures[0]["value"] == float(rows[0]["made findings auroc"])


def test_a_cell_that_fails_ends_in_1_and_says_which(stores: list[LabelledStore], cli: Cli, tmp_path: Path) -> None:
    stores[2].relabel(stores[2].y * float("nan"))
    done = cli("probe", "all", *(made.store for made in stores), *QUICK, "--probes", "knn")
    assert done.code == 1
    assert "2 results fitted, 0 found" in done.out
    assert "failed: other good 0123456789ab.zarr knn findings: " in done.err
    gone = cli("probe", "all", stores[0].store, tmp_path / "none.zarr", *QUICK, "--probes", "knn", "--json")
    assert gone.code == 1
    assert "there is no store at" in gone.document["cells"][0]["error"]


def test_a_store_without_vectors_is_told_of_once(stores: list[LabelledStore], cli: Cli, tmp_path: Path) -> None:
    patches = replace(stores[0], store=tmp_path / "made" / "patches" / "0123456789ab.zarr")
    n = len(patches.samples)
    write_labelled_store(patches, {(1, "patch_tokens"): np.zeros((n, 2, 2, 6), dtype=np.float32)})
    done = cli("probe", "all", stores[0].store, patches.store, *QUICK, *GRIDS)
    assert done.code == 1
    assert "2 results fitted, 0 found" in done.out
    (line,) = [line for line in done.err.splitlines() if line.startswith("failed:")]
    assert line.startswith("failed: patches 0123456789ab.zarr: 0123456789ab.zarr holds patch tokens only, which")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--probes", "knm"), "did you mean 'knn'"),
        (("--tasks", "finding"), "did you mean 'findings'"),
        (("--metrics", "auc"), "unknown metric 'auc'"),
        (("--out", "t.xlsx"), "format of a table"),
        (("--C", "one"), "--C takes numbers"),
        (("--comparisons", "-1"), "comparisons must be 0 or more"),
        (("--probes", "knn", "--C", "1"), "no probe of the grid has a hyper-parameter C: knn has k"),
        (("--probes", "ridge"), "none of the probes ridge answers a task of these stores: findings (multilabel)"),
        (("--probes", "knn,logistic,knn"), "probe knn is given twice"),
        (("--metrics", "auroc,auroc"), "metric auroc is given twice"),
        (("--tasks", "findings,findings"), "task findings is given twice"),
        (("--label", "Masss"), "did you mean 'Mass'"),
        (("--label", "Mass", "--classes", "Effusion,Nodule"), "unknown class of these tasks 'Mass'"),
        (("--metrics", "r2"), "no task of the grid has the metric r2, which is of numbers: findings (multilabel)"),
        (("--by", "sex"), "unknown column of the labels 'sex'"),
        (("--out", "no/such/t.csv"), "there is no folder no/such; make it first"),
        (("--figure", "no/such/t.png"), "there is no folder no/such; make it first"),
        (("--figure", "t.xyz"), "use .png, .svg or .pdf"),
        (("--figure", "."), "use .png, .svg or .pdf"),
    ],
)
def test_a_wrong_option_is_one_line_before_anything_is_fitted(
    stores: list[LabelledStore], cli: Cli, options: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    done = cli("probe", "all", stores[0].store, *options)
    assert done.code == 2
    assert says in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_stores_that_are_not_there_are_nothing_to_ask(cli: Cli, tmp_path: Path) -> None:
    for names, says in ((("a.zarr",), "there is no store at"), (("a.zarr", "b.zarr"), "none of the 2 stores")):
        done = cli("probe", "all", *(tmp_path / name for name in names))
        assert done.code == 2
        assert says in done.err
        assert len(done.err.splitlines()) == 1


def test_a_metric_that_no_result_has_ends_in_1(stores: list[LabelledStore], cli: Cli) -> None:
    asked = ("probe", "all", stores[0].store, *QUICK, "--probes", "prototypes", "--metrics", "auroc,brier")
    done = cli(*asked)
    assert done.code == 1
    assert "note: no result has a figure brier that the table could show." in done.err
    assert "auroc" in done.out.splitlines()[0]


def test_C_is_for_every_probe_that_has_it(stores: list[LabelledStore], cli: Cli) -> None:
    asked = ("probe", "all", stores[0].store, *QUICK, "--probes", "logistic,linear-svm", "--C", "0.001,0.1", "--json")
    cells = cli(*asked).document["cells"]
    options = [json.loads(Path(cell["path"]).read_text())["inputs"]["config"]["options"] for cell in cells]
    assert [of_probe["C"] for of_probe in options] == [[0.001, 0.1]] * 2


def test_results_that_can_not_be_written_are_refused_before_a_fit(
    stores: list[LabelledStore], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for command in (("all",), ("knn",)):
        done = cli("probe", *command, stores[0].store, *QUICK[:2], "--results", tmp_path / "file" / "results")
        assert done.code == 2
        assert f"results can not be written into {tmp_path / 'file' / 'results'}: " in done.err
        assert "is a file; name another folder with --results." in done.err
        assert len(done.err.splitlines()) == 1
    # of a cache among others that takes nothing, the others are answered
    (stores[0].store.parents[2] / "results").write_text("")
    elsewhere = make_labelled_store(tmp_path / "elsewhere", dataset="third")
    done = cli("probe", "all", stores[0].store, elsewhere.store, *QUICK, "--probes", "knn")
    assert done.code == 1
    assert "failed: made good 0123456789ab.zarr knn findings: results can not be written into" in done.err
    assert "1 result fitted" in done.out


def test_a_plain_pipe_gets_a_line_of_progress_now_and_then(
    stores: list[LabelledStore], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedcache_cli.output.PLAIN_LINE_SECONDS", 0.0)
    done = cli("probe", "all", stores[0].store, stores[1].store, *QUICK, *GRIDS)
    lines = [line for line in done.err.splitlines() if line.startswith("probing: ")]
    assert any("of 4, " in line and "a second" in line and " left" in line for line in lines)
    assert any(line.endswith("weak knn findings: measuring on test") for line in lines)


def test_a_probe_is_tested_on_another_store(stores: list[LabelledStore], cli: Cli) -> None:
    one, other = stores[0].store, stores[2].store
    probe = ("probe", "logistic", "--C", "0.01,1", "--resamples", 50)
    done = cli(*probe, one, "--test", other)
    assert done.code == 0
    assert "fitted on made, tested on other" in done.out
    assert "test        160 samples of 80 patients" in done.out
    assert "note: tested on other; the own test part of made is not used." in done.err
    named = cli(*probe, "--train", one, "--test", other.parents[1], "--json").document
    assert named["path"] == done.out.splitlines()[-1]
    table = cli("results", one.parents[2])
    assert "made -> other" in table.out

    again = cli("probe", "--like", named["path"], "--json").document
    assert (again["inputs"], again["figures"]) == ([], [])
    moved = cli("probe", "--like", named["path"], "--test", one)
    assert "elsewhere.plan" in moved.out


def test_what_test_and_train_may_say(stores: list[LabelledStore], cli: Cli) -> None:
    store = stores[0].store
    probe = ("probe", "knn", "--k", "5", "--resamples", 50)
    half = cli(*probe, store, "--test", "0.5", "--json").document
    assert half["counts"]["test_patients"] == 40
    for arguments, says in (
        ((store, "--test", "nowhere"), "there is no store at nowhere"),
        ((store, "--train", store), "name one store to fit on"),
        ((), "name one store to fit on"),
        ((store, "--test", stores[1].store), "model.source is good in the first and weak in the second"),
    ):
        done = cli(*probe, *arguments)
        assert done.code == 2
        assert says in done.err
        assert len(done.err.splitlines()) == 1


def test_subgroups_of_a_result_that_was_tested_elsewhere(stores: list[LabelledStore], cli: Cli, tmp_path: Path) -> None:
    other = stores[2]
    done = cli("probe", "knn", stores[0].store, "--k", "5", "--resamples", 50, "--test", other.store, "--json")
    table = tmp_path / "sites.csv"
    lines = [f"{sample},{'ABC'[i // 2 % 3]}" for i, sample in enumerate(other.samples)]
    table.write_text("\n".join(["sample,site", *lines]) + "\n")
    groups = cli("subgroups", done.document["path"], "--by", "site", "--labels", table, "--resamples", 50)
    assert groups.code == 0
    assert [line.split()[:3] for line in groups.out.splitlines()[1:3]] == [["A", "54", "27"], ["B", "54", "27"]]
    assert "(" in groups.out.splitlines()[1]


def test_json_of_a_grid_with_groups(stores: list[LabelledStore], cli: Cli, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    lines = [
        f"{sample},{int(y[0])},{'FM'[i % 4 // 2]}"
        for i, (sample, y) in enumerate(zip(stores[0].samples, stores[0].y, strict=True))
    ]
    table.write_text("\n".join(["sample,effusion,sex", *lines]) + "\n")
    asked = (
        "probe", "all", stores[0].store, *QUICK, "--probes", "knn", "--tasks", "effusion", "--labels", table, "--json",
    )  # fmt: skip
    wrong = cli(*asked, "--by", "sexx")
    assert wrong.code == 2
    assert "unknown column of labels.csv 'sexx'; did you mean 'sex'?" in wrong.err
    assert not (stores[0].store.parents[2] / "results").exists()
    done = cli(*asked, "--by", "sex")
    assert done.code == 0
    assert [row["group"] for row in done.document["table"]["rows"]] == ["", "F", "M"]
    assert json.dumps(done.document["notes"]) == "[]"
