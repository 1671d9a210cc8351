import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import lagrange

from embedcache.probes import coarse_to_fine
from embedcache.probes.coarse_to_fine import levels, weights_between
from embedcache.probes.logistic import C_GRID
from embedcache.probes.logistic_path import solve_logistic


@given(st.integers(1, 200))
def test_levels_hold_every_value_once_and_the_first_one_has_both_ends(n: int) -> None:
    found = levels(n)
    assert sorted(np.concatenate(found).tolist()) == list(range(n))
    assert {0, n - 1} <= set(found[0].tolist())
    assert all((np.diff(level) > 0).all() for level in found)
    assert (len(found) == 1) == (n < 8)


@given(st.integers(1, 9), st.floats(0, 8), st.integers(0, 1000))
def test_a_polynomial_through_the_nearest_values_is_scipys(n: int, at: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = np.cumsum(random.uniform(0.5, 1.5, n))
    y = random.normal(size=n)
    nearest, weight = weights_between(at, x)
    assert len(nearest) == min(n, 6)
    assert np.abs(x[nearest] - at).max() <= min([*np.abs(np.delete(x, nearest) - at), np.inf])
    assert weight.sum() == pytest.approx(1)
    expected = lagrange(x[nearest] - at, y[nearest])(0.0)
    assert weight @ y[nearest] == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("multinomial", [False, True])
@pytest.mark.parametrize("spread", [0.3, 30.0])
def test_a_whole_path_ends_where_each_value_alone_does(multinomial: bool, spread: float) -> None:
    """With labels that are told apart too, where no polynomial helps."""
    random = np.random.default_rng(0)
    X = random.normal(size=(300, 12)).astype(np.float64) / np.sqrt(np.arange(1, 13))
    score = spread * X @ random.normal(size=(12, 3)) + random.normal(size=(300, 3))
    Y = np.eye(3)[score.argmax(axis=1)] if multinomial else (score > 0).astype(float)
    path = solve_logistic(X, Y, C_GRID, multinomial=multinomial)
    assert path.converged.all()
    for i in (0, 7, 22, 31, 44):
        alone = solve_logistic(X, Y, (C_GRID[i],), multinomial=multinomial, tol=1e-10)
        np.testing.assert_allclose(path.objective[i], alone.objective[0], rtol=1e-5)


def test_values_between_others_take_fewer_passes_than_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in passes over the rows, the Gram matrices left out."""
    random = np.random.default_rng(1)
    X = random.normal(size=(2000, 40)).astype(np.float32)
    Y = (X[:, :2] + 2 * random.normal(size=(2000, 2)) > 0).astype(float)
    path = solve_logistic(X, Y, C_GRID)
    monkeypatch.setattr(coarse_to_fine, "_STEPS", (1,))
    whole = solve_logistic(X, Y, C_GRID)
    assert path.passes - path.grams < 0.9 * (whole.passes - whole.grams)
    np.testing.assert_allclose(path.objective, whole.objective, rtol=1e-5)
