"""Patch tokens as int8, from the command's words to what a reader gets."""

from dataclasses import replace

import numpy as np
import pytest

import embedcache
from embedcache import ExtractConfig, FeatureCache
from embedcache.errors import InputError, TokenOverflowError
from embedcache.extraction.stored import stored_tokens
from embedcache.store.quantise import int8_arrays, quantise
from embedcache.store.verify import verify_store

from .conftest import elsewhere, only_store


def test_int8_is_a_further_pass_and_quantises_what_the_backbone_gave(config: ExtractConfig) -> None:
    exact = replace(config, tokens="patch", dtype="float32", ids="keep")
    embedcache.extract(exact)
    store = only_store(config)
    report = embedcache.extract(replace(exact, tokens="cls,mean,patch", dtype="int8"))
    assert report.exit_code == 0
    cache = FeatureCache.open(store)
    stored = {spec.path: spec.dtype for p in cache.passes for spec in p.arrays}
    assert stored == {
        "layer_2/cls_token": "float16",
        "layer_2/patch_mean": "float16",
        "layer_2/patch_tokens": "float32",
        "layer_2/patch_tokens_int8": "int8",
        "layer_2/patch_scale": "float16",
    }
    tokens = cache.layer(2).patch_tokens.read()
    assert tokens.dtype == np.float32, "the float pass is preferred"
    codes, scale = quantise(tokens, np)  # the run quantised with torch
    np.testing.assert_array_equal(cache.tokens(2, "patch_tokens_int8").read(), codes)
    np.testing.assert_array_equal(cache.tokens(2, "patch_scale").read(), scale)
    assert np.abs(codes).max() == 127
    assert verify_store(store).intact
    assert embedcache.extract(replace(exact, tokens="cls,mean,patch", dtype="int8")).decoded == 0


def test_a_store_of_int8_alone_gives_floats(config: ExtractConfig) -> None:
    embedcache.extract(replace(config, tokens="patch", dtype="int8", layers="all", ids="keep"))
    exact = elsewhere(config, "exact")
    embedcache.extract(replace(exact, tokens="patch", dtype="float32", layers="all", ids="keep"))
    for layer in (1, 2):
        tokens = FeatureCache.open(only_store(config)).layer(layer).patch_tokens.read()
        truth = FeatureCache.open(only_store(exact)).layer(layer).patch_tokens.read()
        error = np.linalg.norm(tokens - truth, axis=-1)
        assert error.max() > 0
        # rounding to steps of greatest / 127 errs by .29 of a step in the mean of squares; the greatest is below the norm
        assert (error[:24] < 0.3 / 127 * np.sqrt(32) * np.abs(truth[:24]).max(axis=-1) * 1.5).all()
        assert not tokens[24:].any()


def test_int8_without_patch_tokens_is_refused_with_the_remedy(config: ExtractConfig) -> None:
    with pytest.raises(InputError, match="add patch to --tokens"):
        replace(config, dtype="int8")
    with pytest.raises(InputError, match=r"int4.*did you mean 'int8'"):
        replace(config, dtype="int4", tokens="patch")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e8])
def test_tokens_without_a_finite_scale_name_their_layer(value: float) -> None:
    import torch

    tokens = torch.ones((2, 2, 2, 8))
    tokens[1, 0, 1, 3] = value
    arrays = int8_arrays(4, (2, 2, 8))
    places = torch.arange(2)
    with pytest.raises(TokenOverflowError, match="layer_4/patch_tokens of tiny"):
        list(stored_tokens({"layer_4/patch_tokens": tokens}, places, arrays, "tiny"))
    fine = dict(stored_tokens({"layer_4/patch_tokens": tokens}, places[:1], arrays, "tiny"))
    assert {path: str(values.dtype) for path, values in fine.items()} == {
        "layer_4/patch_tokens_int8": "int8",
        "layer_4/patch_scale": "float16",
    }


def test_the_words_become_two_arrays_and_vectors_stay_float16(config: ExtractConfig) -> None:
    from embedcache.extraction.config import asked_arrays

    info = embedcache.describe_backbone(config.backbones[0])
    arrays = asked_arrays(replace(config, tokens="cls,patch", dtype="int8"), info, (28, 42))
    assert [(a.kind, a.dtype, a.shape) for a in arrays] == [
        ("cls_token", "float16", (32,)),
        ("patch_scale", "float16", (2, 3)),
        ("patch_tokens_int8", "int8", (2, 3, 32)),
    ]
