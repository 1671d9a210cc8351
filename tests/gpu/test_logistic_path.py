"""The logistic path on a device is the one of numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from embedcache.probes.logistic_path import solve_logistic
from embedcache.probes.rows import Rows

pytestmark = pytest.mark.gpu
C = tuple(float(c) for c in 10 ** np.linspace(-6, 5, 12))
Problem = tuple[np.ndarray, np.ndarray, dict[str, Any]]
"""Features, labels, and what else `solve_logistic` is asked."""


def drawn(n: int, d: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Features, three linear scores of them, and what else is drawn from."""
    random = np.random.default_rng(0)
    X = random.normal(size=(n, d)).astype(np.float32)
    return X, X @ random.normal(size=(d, 3)) + noise * random.logistic(size=(n, 3)), random


def far_from_zero() -> Problem:
    X, score, random = drawn(2000, 100, noise=5)
    return X + 10, np.where(random.random(score.shape) < 0.2, np.nan, score > 3), {}


def softmax() -> Problem:
    X, score, _ = drawn(2000, 100, noise=5)
    return X + 10, np.eye(3)[score.argmax(axis=1)], {"multinomial": True}


def half_precision() -> Problem:
    X, score, _ = drawn(1000, 80, noise=5)
    return X.astype(np.float16), score > 0, {}


def double_precision() -> Problem:
    X, score, _ = drawn(1000, 80, noise=5)
    return X.astype(np.float64), score > 0, {}


def missing_and_balanced() -> Problem:
    X, score, random = drawn(1000, 80, noise=5)
    return X, np.where(random.random(score.shape) < 0.3, np.nan, score > 8), {"class_weight": "balanced"}


def rows_that_count() -> Problem:
    """As often as they are drawn, or not at all."""
    X, score, random = drawn(1000, 80, noise=5)
    return X, score > 0, {"sample_weight": random.integers(0, 4, 1000).astype(float)}


def separable() -> Problem:
    X, score, _ = drawn(600, 60, noise=0)
    return X, score > 1, {}


def separable_softmax() -> Problem:
    X, score, _ = drawn(600, 60, noise=0)
    return X, np.eye(3)[score.argmax(axis=1)], {"multinomial": True}


def fewer_rows_than_features() -> Problem:
    X, score, _ = drawn(80, 150, noise=1)
    return X, score > 0, {}


def constant() -> Problem:
    """A feature that no fit may use: bases and factors are those of the others."""
    X, score, _ = drawn(500, 60, noise=0)
    X[:, 3] = 1234.567
    return X, score > 0, {}


def nearly_dependent() -> Problem:
    """Each feature twice, but for a ten-thousandth: its gradients along what differs are noise in float32."""
    X, score, random = drawn(500, 60, noise=0)
    again = X + 1e-4 * random.normal(size=X.shape).astype(np.float32)
    return np.concatenate([X, again], axis=1), score > 0, {}


def solved_like_numpy(device: str, make: Callable[[], Problem], close: float) -> float:
    """How many Gram matrices the device made, once its objectives are checked."""
    X, Y, asked = make()
    numpy = solve_logistic(X, Y.astype(float), C, **asked)
    found = solve_logistic(X, Y.astype(float), C, **asked, device="cpu:0" if device == "cpu" else device)
    assert numpy.converged.all()
    assert found.converged.all()
    np.testing.assert_allclose(found.objective, numpy.objective, rtol=close)
    return found.grams


@pytest.mark.parametrize(
    "make", [far_from_zero, softmax, half_precision, double_precision, missing_and_balanced, rows_that_count]
)
def test_the_path_is_that_of_numpy(device: str, make: Callable[[], Problem]) -> None:
    solved_like_numpy(device, make, 1e-5)


@pytest.mark.parametrize("make", [separable, separable_softmax, fewer_rows_than_features, constant])
def test_the_second_stage_is_that_of_numpy(device: str, make: Callable[[], Problem]) -> None:
    assert solved_like_numpy(device, make, 2e-5) > 1  # the first stage needs one Gram matrix


@pytest.mark.parametrize("make", [separable, nearly_dependent])
def test_what_float64_takes_over_is_that_of_numpy(
    device: str, make: Callable[[], Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Rows] = []
    whole = Rows.in_float64

    def counted(rows: Rows) -> Rows:
        taken.append(whole(rows))
        return taken[-1]

    monkeypatch.setattr(Rows, "in_float64", counted)
    solved_like_numpy(device, make, 2e-5)
    assert len(taken) == 2  # numpy's and the device's
    assert [rows.dtype for rows in taken] == [np.float64] * 2
    assert taken[0].place is not taken[1].place
