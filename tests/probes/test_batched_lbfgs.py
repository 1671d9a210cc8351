"""L-BFGS of many problems at once, where a value is noise: on problems small enough to follow."""

from typing import Any

import numpy as np
import pytest

from embedcache.probes.batched_lbfgs import Solution, minimize_all


def at(points: np.ndarray) -> Solution:
    m = len(points)
    values = (points**2).sum(axis=1) / 2
    zeros = np.zeros(m, dtype=np.int64)
    return Solution(points.copy(), values, points.copy(), np.ones(m), zeros, zeros.astype(bool))


def minimized(noise: float, allowed: float) -> Solution:
    """Half the squared length, from close to its minimum; each step seems to gain `noise` less than it does."""
    state = at(np.array([[1e-4, 0.0], [1.0, 1.0]]))

    def evaluate(points: Any, _: Any) -> tuple[Any, Any, Any]:
        return (points**2).sum(axis=1) / 2 + noise, points, np.ones(len(points))

    minimize_all(
        evaluate,
        lambda gradient, *_: (gradient, np.ones(len(gradient))),
        lambda points, *_: np.full(len(points), allowed),
        state,
        np.arange(2),
        max_iter=20,
        still=1.0,
        rounding=0.0,
    )
    return state


def test_without_noise_both_end_where_they_should() -> None:
    found = minimized(0.0, 1e-12)
    assert found.converged.all()
    np.testing.assert_allclose(found.point, 0, atol=1e-12)
    assert found.iterations.max() <= 2  # there, and to see that no more is gained


@pytest.mark.parametrize(("allowed", "converged"), [(1e-7, True), (2e-8, False), (1e-10, False)])
def test_a_step_that_is_lost_in_noise_is_missed_if_it_counts(allowed: float, converged: bool) -> None:
    """The first one's step is foreseen to gain 5e-9: a twentieth of 1e-7, a quarter of 2e-8."""
    found = minimized(1e-6, allowed)
    assert found.iterations[0] == 0
    assert bool(found.converged[0]) is converged
    assert found.iterations[1] >= 1  # of the other the noise is nothing
