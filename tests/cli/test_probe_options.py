"""An option that would do nothing, and a value of which nothing can be made, are one line and exit code 2 before any fit."""

from pathlib import Path
from typing import Any

import pytest

from embedcache.testing.labelled_stores import LabelledStore, make_labelled_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LabelledStore:
    """Two layers, so that two can be named."""
    return make_labelled_store(tmp_path_factory.mktemp("options") / "cache", n=120, layers=(1, 2))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("probe", "knn", "STORE", "--test-labels", "x.csv"), "name it with --test STORE, or leave --test-labels out"),
        (("probe", "all", "STORE", "--test-labels", "x.csv"), "name it with --test STORE, or leave --test-labels out"),
        (("probe", "knn", "STORE", "--features", "mean", "--layers", "1,2"), "mean features are of one layer"),
        (("few-shot", "STORE", "--features", "mean", "--layers", "1,2"), "mean features are of one layer"),
        (("probe", "logistic", "STORE", "--C", ""), "--C takes numbers"),
        (("probe", "linear-svm", "STORE", "--C", ""), "--C takes numbers"),
        (("probe", "knn", "STORE", "--k", ""), "--k takes whole numbers"),
        (("probe", "ridge", "STORE", "--alpha", ""), "--alpha takes numbers"),
        (("probe", "attention", "STORE", "--weight-decay", ""), "--weight-decay takes numbers"),
        (("probe", "prototypes", "STORE", "--shrink", ""), "--shrink takes numbers"),
        (("probe", "patch-linear", "STORE", "--root", "x.csv", "--C", ""), "--C takes numbers"),
        (("probe", "patch-linear", "STORE", "--root", "x.csv", "--split", ""), "--split is given without a name"),
        (("probe", "knn", "STORE", "--labels", ""), "--labels is given without a name"),
        (("few-shot", "STORE", "--results", ""), "--results is given without a name"),
        (("probe", "knn", "STORE", "--classes", ""), "unknown class of task 'findings' ''"),
        (("subgroups", "x.json", "--by", "sex", "--edges", ""), "--edges takes numbers"),
        (("probe", "linear-svm", "STORE", "--C", "0"), "C must be one or several positive numbers. Got [0.0]."),
        (
            ("probe", "linear", "STORE", "--training-seed=-1"),
            "error: the seed of the training must be 0 or more. Got -1.",
        ),
        (
            ("probe", "attention", "STORE", "--first-weights=-1"),
            "error: the seed of the first weights must be 0 or more.",
        ),
        (("probe", "attention", "STORE", "--lr=-1"), "error: lr must be above 0. Got -1.0."),
        (("probe", "linear", "STORE", "--lr", "1e300"), "error: lr must be at most 1e+06. Got 1e+300."),
        (("probe", "knn", "STORE", "--pool", "foo"), "There is: max, mean, mean+max, middle, middle-N, none, top-K."),
        (("probe", "knn", "STORE", "--features", "pooled"), "no pooled vector of the backbone's own, but cls and mean"),
        (("probe", "all", "STORE", "--features", "pooled"), "none of the 2 cells can be answered; the first: "),
    ],
)
def test_it_is_said_in_one_line(cli: Any, store: LabelledStore, arguments: tuple[str, ...], says: str) -> None:
    done = cli(*(store.store if word == "STORE" else word for word in arguments))
    assert done.code == 2
    assert says in done.err
    assert len(done.err.splitlines()) == 1
    assert not (store.store.parents[2] / "results").exists()


def test_a_table_that_can_not_be_written_is_told_by_name(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    done = cli("results", tmp_path, "--csv", tmp_path / "none" / "t.csv")
    assert done.code == 2
    assert f"the table can not be written as {tmp_path / 'none' / 't.csv'}: there is no folder" in done.err


def test_a_curve_is_no_result_and_is_told_what_it_is(cli: Any, tmp_path: Path) -> None:
    made = make_labelled_store(tmp_path / "cache", n=120)
    path = Path(
        cli("few-shot", made.store, "--shots", 1, "--seeds", 2, "--no-all", "--json").document["curves"][0]["path"]
    )
    for command in (("compare", path, path), ("probe", "--like", path), ("subgroups", path, "--by", "sex")):
        done = cli(*command)
        assert done.code == 2
        assert (
            f"error: {path.name} is a few-shot curve, not the result of a probe: `embedcache results` lists" in done.err
        )


def test_a_store_that_tests_itself_is_told_so(cli: Any, tmp_path: Path) -> None:
    made = make_labelled_store(tmp_path, n=160, given=lambda p: ("test", "validation", "train", "train")[p % 4])
    asked = ("probe", "knn", made.store, "--k", "5", "--resamples", 20, "--test")
    told = cli(*asked, made.store).err
    assert "note: --test names the store that is fitted: tested on those of made whose patients neither train" in told
    assert "is not used" not in told
