"""Which vectors validation chooses among, and that each is what `FeatureCache.features` gives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation.feature_choices import FeatureChoice, feature_choices, widest
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.evaluation.question import ask
from embedcache.evaluation.repeat import config_of
from embedcache.probes.base import take_columns
from embedcache.store.reader import FeatureCache
from embedcache.testing.labelled_stores import make_labelled_store, write_labelled_store

LAST_FOUR = (9, 10, 11, 12)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weak signal in each of four layers: together they tell more than one."""
    return make_labelled_store(tmp_path_factory.mktemp("four"), n=400, layers=LAST_FOUR, signal=0.7).store


def test_auto_offers_the_last_block_and_the_last_four(four: Path) -> None:
    cache = FeatureCache.open(four)
    found = feature_choices(cache, "auto", "auto", "auto")
    assert list(found) == [
        "cls, not standardized",
        "cls, standardized",
        "cls+mean, not standardized",
        "cls+mean, standardized",
        "cls of layers 9, 10, 11, 12, not standardized",
        "cls of layers 9, 10, 11, 12, standardized",
        "cls+mean of layers 9, 10, 11, 12, not standardized",
        "cls+mean of layers 9, 10, 11, 12, standardized",
    ]
    assert found["cls, standardized"] == FeatureChoice("cls", (12,), True)
    assert list(feature_choices(cache, "auto", "last", True)) == ["cls", "cls+mean"]
    assert list(feature_choices(cache, "mean", "auto", True)) == ["mean"]  # of the last block only, whatever n is
    with pytest.raises(UnknownNameError, match="did you mean 'cls\\+mean'"):
        feature_choices(cache, "cls+mena", "auto", True)


def test_layers_that_would_not_be_read_are_refused(four: Path) -> None:
    cache = FeatureCache.open(four)
    assert list(feature_choices(cache, "mean", (9,), True).values()) == [FeatureChoice("mean", (9,), True)]
    assert list(feature_choices(cache, "mean", (12, -1), True).values()) == [FeatureChoice("mean", (12,), True)]
    with pytest.raises(InputError, match="mean features are of one layer; several layers set their CLS tokens"):
        feature_choices(cache, "mean", (9, 10), True)


def test_a_pooled_vector_is_of_no_layer_and_is_asked_again_without_one(tmp_path: Path) -> None:
    made = make_labelled_store(tmp_path / "plain", n=120)
    values = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
    also = replace(made, store=tmp_path / "also" / "made" / "made-up" / "0123456789ab.zarr")
    write_labelled_store(also, {(2, "patch_mean"): values, (3, "cls_token"): values, (0, "pooled"): values})
    cache = FeatureCache.open(also.store)
    with pytest.raises(InputError, match="pooled features are of no layer; leave --layers out"):
        feature_choices(cache, "pooled", (3,), True)
    result = run_probe(ProbeConfig("knn", also.store, features="pooled", k=(5,), resamples=20))
    assert ask(config_of(result)).inputs == result.inputs


@pytest.mark.parametrize("features", ["auto", "cls", "pooled"])
def test_a_store_of_patches_only_points_to_the_probe_that_reads_them(tmp_path: Path, features: str) -> None:
    made = make_labelled_store(tmp_path, n=20)
    also = replace(made, store=tmp_path / "also" / "made" / "made-up" / "0123456789ab.zarr")
    write_labelled_store(also, {(2, "patch_tokens"): np.zeros((20, 2, 2, 6), dtype=np.float32)})
    with pytest.raises(
        InputError, match=r"patch tokens only, which `embedcache probe patch-linear` reads.*where its backbone"
    ):
        feature_choices(FeatureCache.open(also.store), features, "last", True)


@pytest.mark.parametrize("layers", [(2,), (3, 6, 9, 12), (11, 12)])
def test_four_blocks_are_offered_only_where_the_last_four_are_stored(tmp_path: Path, layers: tuple[int, ...]) -> None:
    cache = FeatureCache.open(make_labelled_store(tmp_path, n=20, layers=layers).store)
    assert {choice.layers for choice in feature_choices(cache, "auto", "auto", True).values()} == {layers[-1:]}


@pytest.mark.parametrize("pool", ["mean", "mean+max"])
def test_columns_of_the_widest_matrix_are_each_choices_own_features(tmp_path: Path, pool: str) -> None:
    cache = FeatureCache.open(make_labelled_store(tmp_path, n=12, slices=3, layers=LAST_FOUR).store)
    choices = [
        FeatureChoice(kind, layers, True)
        for kind in ("cls", "mean", "cls+mean")
        for layers in ((12,), (9, 12), LAST_FOUR)
        if kind != "mean" or len(layers) == 1
    ]
    kind, layers = widest(choices)
    whole = cache.features(kind, layers=layers, pool=pool)
    for choice in choices:
        own = cache.features(choice.kind, layers=choice.layers, pool=pool)
        np.testing.assert_array_equal(take_columns(whole.X, choice.columns(whole.columns)), own.X)


def test_validation_chooses_blocks_and_scale_and_the_result_says_which(four: Path) -> None:
    config = ProbeConfig("logistic", four, layers="auto", standardize="auto", C=(0.01, 1.0), resamples=20)
    result = run_probe(config)
    chosen = result.chosen
    assert chosen["layers"] == list(LAST_FOUR)
    assert chosen["vector"] in result.selection
    assert len(result.selection) == 9  # eight, and what the refit tells
    scores = {name: max(path["scores"]) for name, path in result.selection.items() if "scores" in path}
    assert scores[chosen["vector"]] == max(scores.values())
    asked = config_of(result, four)
    assert (asked.layers, asked.standardize, asked.features) == ("auto", "auto", "auto")
    assert run_probe(asked).path == result.path


def test_a_choice_alone_is_the_same_as_among_others(four: Path) -> None:
    """The vector that won, asked for by itself: the same C, the same figures."""
    among = run_probe(ProbeConfig("logistic", four, layers="auto", C=(0.01, 0.1, 1.0), resamples=20))
    kind: Any = among.chosen["features"]
    alone = run_probe(
        ProbeConfig(
            "logistic", four, features=kind, layers=tuple(among.chosen["layers"]), C=(0.01, 0.1, 1.0), resamples=20
        )
    )
    assert alone.chosen["C"] == among.chosen["C"]
    for a, b in zip(among.metrics, alone.metrics, strict=True):
        assert (a.name, a.label) == (b.name, b.label)
        assert a.value == pytest.approx(b.value, rel=1e-9)


def test_tokens_that_are_not_stored_are_named_with_those_that_are(tmp_path: Path) -> None:
    made = make_labelled_store(tmp_path / "plain", n=120)
    values = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
    alone = replace(made, store=tmp_path / "alone" / "made" / "made-up" / "0123456789ab.zarr")
    write_labelled_store(alone, {(1, "cls_token"): values, (2, "patch_mean"): values})
    cache = FeatureCache.open(alone.store)
    for features, layers, missing in (("mean", (1,), "layer_1/patch_mean"), ("cls", "last", "layer_2/cls_token")):
        with pytest.raises(InputError, match=f"holds no {missing}, but layer_1/cls_token, layer_2/patch_mean: choose"):
            feature_choices(cache, features, layers, True)  # type: ignore[arg-type]
    assert list(feature_choices(cache, "cls", (1,), True)) == ["cls"]
    # several layers set their CLS tokens side by side, beside the mean of the last one only
    assert list(feature_choices(cache, "mean", "last", True)) == ["mean"]
