"""The logistic path on a device is the one of numpy."""

import numpy as np
import pytest

from embedcache.probes.logistic_path import solve_logistic

pytestmark = pytest.mark.gpu
C = tuple(float(c) for c in 10 ** np.linspace(-6, 5, 12))


@pytest.mark.parametrize("multinomial", [False, True])
def test_the_path_is_that_of_numpy(device: str, multinomial: bool) -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(2000, 100)).astype(np.float32) + 10
    score = (X - 10) @ random.normal(size=(100, 3)) + 5 * random.logistic(size=(2000, 3))
    Y = (
        np.eye(3)[score.argmax(axis=1)]
        if multinomial
        else np.where(random.random(score.shape) < 0.2, np.nan, score > 3)
    )
    numpy = solve_logistic(X, Y, C, multinomial=multinomial)
    found = solve_logistic(X, Y, C, multinomial=multinomial, device="cpu:0" if device == "cpu" else device)
    assert found.converged.all()
    np.testing.assert_allclose(found.objective, numpy.objective, rtol=1e-5)
