"""The commands of attention, the linear SVM and prototypes, and of any registered probe."""

from pathlib import Path

import pytest

from embedcache import parse_probe_options
from embedcache.errors import EmbedcacheError

from ..probes.test_small_probes import install_probe
from .conftest import Cli, World

SMALL = ("--task", "bright", "--features", "cls", "--resamples", 20, "--json")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            ("attention", "--epochs", 20, "--hidden", 4, "--weight-decay", "0.1"),
            {"epochs": 20, "hidden": 4, "weight_decay": [0.1]},
        ),
        (("linear-svm", "--C", "0.01,1", "--class-weight", "balanced"), {"C": [0.01, 1], "class_weight": "balanced"}),
        (("prototypes", "--metric", "euclidean", "--shrink", "0,2"), {"metric": "euclidean", "shrink": [0, 2]}),
        (("run", "logistic", "--option", "C=0.01,0.1", "--option", "class_weight=balanced"), {"C": [0.01, 0.1]}),
    ],
)
def test_a_command_passes_its_options_on(
    copied: World, cli: Cli, command: tuple[object, ...], options: dict[str, object]
) -> None:
    name, rest = (command[:2], command[2:]) if command[0] == "run" else (command[:1], command[1:])
    document = cli("probe", *name, copied.store, *rest, *SMALL).document
    assert document["inputs"]["config"]["options"].items() >= options.items()
    assert document["metrics"][0]["value"] is not None
    assert document["probe"] == name[-1]


def test_pooling_is_asked_for_on_the_command_line(copied: World, cli: Cli) -> None:
    document = cli("probe", "prototypes", copied.store, "--pool", "top-2", "--pool-by", "patient", *SMALL).document
    assert (document["level"], document["inputs"]["config"]["pool_by"]) == ("patient", "patient")
    shown = cli("probe", "prototypes", copied.store, "--task", "bright", "--pool-by", "patient", "--resamples", 20)
    assert "samples of" in shown.out
    refused = cli("probe", "prototypes", copied.store, "--task", "bright", "--planes", copied.store)
    assert refused.code == 2
    assert "give each plane once" in refused.err


def test_a_probe_of_another_package_runs_by_its_name(
    copied: World, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_probe(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    document = cli("probe", "run", "their-logistic", copied.store, "--option", "C=0.5,2", *SMALL).document
    assert document["probe"] == "their-logistic"
    assert document["inputs"]["config"]["options"]["C"] == [0.5, 2]
    assert document["chosen"]["C"] in (0.5, 2)
    assert "LogisticRegression" in document["software"]["estimator"]
    repeated = cli("probe", "--like", document["path"], "--json").document
    assert repeated["inputs"] == []
    unknown = cli("probe", "run", "their-logistik", copied.store)
    assert unknown.code == 2
    assert "did you mean 'their-logistic'" in unknown.err


def test_options_are_numbers_words_and_lists() -> None:
    found = parse_probe_options("linear-svm", ["C=1,0.5", "max_iter=50", "class_weight=balanced", "dual=false"])
    assert found == {"C": (1, 0.5), "max_iter": 50, "class_weight": "balanced", "dual": False}
    assert parse_probe_options("logistic", ["class_weight=none"]) == {"class_weight": None}
    for texts, says in (
        (["C"], "NAME=VALUE"),
        (["max_itr=1"], "did you mean 'max_iter'"),
        (["tol=1", "tol=2"], "given twice"),
    ):
        with pytest.raises(EmbedcacheError, match=says):
            parse_probe_options("logistic", texts)


def test_a_grid_that_is_no_number_is_refused(copied: World, cli: Cli) -> None:
    refused = cli("probe", "run", "logistic", copied.store, "--task", "bright", "--option", "C=abc")
    assert refused.code == 2
    assert "C must be one or several numbers. Got ('abc',)" in refused.err


@pytest.mark.parametrize("probe", ["linear-svm", "prototypes"])
def test_scores_that_are_no_probabilities_are_drawn_without_a_reliability_curve(
    probe: str, copied: World, cli: Cli, tmp_path: Path
) -> None:
    picture = tmp_path / "x.png"
    done = cli("probe", probe, copied.store, *SMALL, "--figure", picture)
    assert done.code == 0, done.err
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["lr=0.1", "lr=0.1,0.5"])
def test_the_grid_of_a_probe_by_name_takes_one_value_or_several(option: str, copied: World, cli: Cli) -> None:
    options = ("--option", option, "--option", "iterations=50")
    document = cli("probe", "run", "linear", copied.store, *SMALL, *options).document
    assert document["inputs"]["config"]["options"]["lr"] == [float(value) for value in option[3:].split(",")]


@pytest.mark.parametrize(
    ("probe", "option"), [("linear", "iterations=x"), ("knn", "votes=1"), ("attention", "hidden=abc")]
)
def test_a_word_where_a_number_belongs_is_refused_in_one_line(probe: str, option: str, copied: World, cli: Cli) -> None:
    done = cli("probe", "run", probe, copied.store, *SMALL, "--option", option)
    assert done.code == 2
    assert option.partition("=")[0] in done.err
