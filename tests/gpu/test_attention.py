"""Attention that is trained on a device is that of numpy."""

import numpy as np
import pytest

from embedcache.probes.attention import AttentionProbe

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_the_heads_are_those_of_numpy(device: str, kind: str) -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(1, 12, 60)
    y = np.arange(60) % (2 if kind == "binary" else 3)
    X = random.normal(size=(sizes.sum(), 48)).astype(np.float32)
    X[:, 0] += np.repeat(y, sizes)
    asked = (X, sizes, y.astype(float), kind, (1.0, 0.1), 1 if kind == "binary" else 3)
    numpy = AttentionProbe(epochs=40).fit_bags(*asked).bag_scores(X, sizes)
    there = AttentionProbe(epochs=40, device="cpu:0" if device == "cpu" else device)
    found = there.fit_bags(*asked).bag_scores(X, sizes)
    np.testing.assert_allclose(found, numpy, atol=0.02 * numpy.std())
    np.testing.assert_array_equal(there.fit_bags(*asked).bag_scores(X, sizes), found)
