"""`extract --views` and `probe --views`: cached crops beside the whole slices, where rows are fitted and nowhere else."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import InputError
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.evaluation.question import ask
from embedcache.evaluation.repeat import config_of
from embedcache.evaluation.selection import Rows
from embedcache.evaluation.views import with_views
from embedcache.store.reader import FeatureCache


@pytest.fixture(scope="module")
def cache(made: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """View → store, of view 0 and two more."""
    from embedcache import DatasetOptions, ExtractConfig, extract

    folder = tmp_path_factory.mktemp("views") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDCACHE_HOME", str(made.home))
        options = DatasetOptions(id_column="case", tasks=("bright=binary", "finding=multilabel"), sep="|")
        extract(
            ExtractConfig("table", str(made.table), (str(made.tiny),), str(folder), size=28, batch_size=4, threads=1,
                          workers=1, rows_per_shard=8, device="cpu", options=options, views=2)
        )  # fmt: skip
    return {FeatureCache.open(p).recipe.image.view: p for p in folder.glob("*/*/*.zarr")}


def test_views_are_fitted_and_the_result_says_how_many(cli: Any, world: Any, cache: dict[int, Path]) -> None:
    asked = ("probe", "linear", cache[0], "--task", "finding", "--iterations", "60", "--resamples", "50")
    plain, viewed = cli(*asked, "--json").document, cli(*asked, "--views", "2", "--json").document
    assert (plain["counts"]["views"], viewed["counts"]["views"]) == (1, 3)
    assert "views" not in plain["inputs"]
    assert len(viewed["inputs"]["views"]) == 2
    assert plain["path"] != viewed["path"]
    assert plain["selection"]["cls"]["solver"]["loss"] != viewed["selection"]["cls"]["solver"]["loss"]
    for part in ("train", "validation", "test"):
        assert plain["counts"][f"{part}_rows"] == viewed["counts"][f"{part}_rows"]
    assert "fitted on   3 views of each row" in cli(*asked, "--views", "2").out
    assert cli(*asked, "--views", "2", "--json").document["path"] == viewed["path"]
    repeated = cli("probe", "--like", viewed["path"])
    assert "the same was found" in repeated.out


def test_views_are_of_rows_that_train_or_validate_with_their_labels(world: Any, cache: dict[int, Path]) -> None:
    config = ProbeConfig("logistic", cache[0], task="finding", features="cls", views=2, resamples=20)
    question = ask(config)
    features = question.cache.features("cls", task="finding", split=question.split.sample.tolist())
    n = len(features)
    rows = Rows(features.X, np.arange(n), features.y, features.groups, features.sample_id, features.slice_index)
    seen, of = with_views(rows, question, config)
    np.testing.assert_array_equal(seen.matrix[:n], features.X)
    np.testing.assert_array_equal(of[:n], np.arange(n))
    fitted = question.split.sample[question.split.part != "test"].tolist()
    assert len(seen) == n + 2 * len(fitted)
    assert sorted(seen.sample_id[n:].tolist()) == sorted([*fitted, *fitted])
    for view in (1, 2):
        own = FeatureCache.open(cache[view]).features("cls", task="finding")
        place = {sample: i for i, sample in enumerate(own.sample_id.tolist())}
        some = slice(n + (view - 1) * len(fitted), n + view * len(fitted))
        at = [place[sample] for sample in seen.sample_id[some].tolist()]
        np.testing.assert_array_equal(seen.matrix[some], own.X[at])
        np.testing.assert_array_equal(seen.y[some], own.y[at])
        np.testing.assert_array_equal(seen.groups[some], own.groups[at])


@pytest.mark.parametrize("probe", ["logistic", "knn"])
def test_other_probes_take_views_too(world: Any, cache: dict[int, Path], probe: str) -> None:
    asked = ProbeConfig(probe, cache[0], task="bright", views=1, resamples=20)
    result = run_probe(asked)
    assert result.counts["views"] == 2
    assert config_of(result).views == 1
    if probe == "logistic":
        assert run_probe(replace(asked, views=0)).metrics != result.metrics


def test_what_is_not_there_is_said(world: Any, cache: dict[int, Path], tmp_path: Path) -> None:
    asked = ProbeConfig("knn", cache[0], task="bright", views=3, resamples=20)
    with pytest.raises(InputError, match=r"0 finished stores of view 3 lie beside .*extract --views 3"):
        ask(asked)
    with pytest.raises(InputError, match="is a view itself"):
        ask(replace(asked, store=cache[1], views=1))
    with pytest.raises(InputError, match="views must be 0 or more"):
        ask(replace(asked, views=-1))
    with pytest.raises(InputError, match="no leave-one-out"):
        ask(replace(asked, views=1, select="leave-one-out"))
    alone = tmp_path / cache[0].name
    shutil.copytree(cache[0], alone)
    labels = cache[0].parents[1] / "labels.parquet"
    with pytest.raises(InputError, match="0 finished stores of view 1"):
        ask(replace(asked, store=alone, labels=labels, views=1))
