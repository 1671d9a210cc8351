"""Linear heads on a device are those of numpy."""

import numpy as np
import pytest

from embedcache.probes.linear_sweep import Training, sweep

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("softmax", [False, True])
def test_the_heads_are_those_of_numpy(device: str, softmax: bool, dtype: type[np.floating]) -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(1000, 320)).astype(dtype)
    score = X.astype(np.float32) @ random.normal(size=(320, 3)) + 5 * random.logistic(size=(1000, 3))
    labels = (
        np.eye(3)[score.argmax(axis=1)] if softmax else np.where(random.random(score.shape) < 0.2, np.nan, score > 3)
    )
    choices = {"last": (slice(192, 256),), "last and mean": (slice(192, 320),), "four": (slice(0, 256),)}
    asked = (X, labels, choices, (1e-3, 1e-2, 0.1), Training(200, 64))
    numpy = sweep(*asked, softmax=softmax, share=3)
    found = sweep(*asked, softmax=softmax, share=3, device="cpu:0" if device == "cpu" else device)
    for choice, heads in numpy.items():
        np.testing.assert_allclose(found[choice].losses, heads.losses, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found[choice].weights, heads.weights, rtol=1e-2, atol=1e-4)
