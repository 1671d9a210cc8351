import subprocess
import sys

import numpy as np
import pytest

from embedcache.errors import UnknownNameError
from embedcache.probes import REGISTRY
from embedcache.probes.base import label_matrix, take_columns
from embedcache.probes.standardizer import Moments, Standardizer


def test_standardised_training_rows_have_mean_0_and_std_1() -> None:
    X = (np.random.default_rng(0).normal(size=(200, 5)) * [1, 10, 0.1, 3, 1] + [0, 100, -5, 2, 0]).astype(np.float32)
    Z = Standardizer.fit(X).apply(X)
    assert Z.dtype == np.float32
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-4)  # float32 around 100
    np.testing.assert_allclose(Z.std(axis=0), 1, atol=1e-4)


def test_the_scale_of_many_rows_is_numpys() -> None:
    """Several blocks of rows, whose mean drifts far from the first ones'."""
    random = np.random.default_rng(0)
    X = (random.normal(size=(3000, 500)) + np.linspace(0, 50, 3000)[:, None] + 1000).astype(np.float32)
    scale = Standardizer.fit(X)
    np.testing.assert_allclose(scale.mean, X.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(scale.std, X.std(axis=0, dtype=np.float64), rtol=1e-10)
    expected = (X.astype(np.float64) - scale.mean) / scale.std
    np.testing.assert_allclose(scale.apply(X), expected, rtol=3e-7, atol=1e-7)


def test_rows_and_columns_of_a_larger_matrix_are_scaled_as_if_they_were_taken() -> None:
    random = np.random.default_rng(0)
    X = (random.normal(size=(2000, 300)) * np.linspace(0.1, 9, 300) + 70).astype(np.float32)
    rows, columns = random.permutation(2000)[:1500], (slice(0, 100), slice(250, 300))
    taken = np.concatenate([X[rows, :100], X[rows, 250:]], axis=1)
    whole, own = Standardizer.fit(X, rows).of(columns), Standardizer.fit(taken)
    np.testing.assert_allclose(whole.mean, own.mean, rtol=1e-12)
    np.testing.assert_allclose(whole.std, own.std, rtol=1e-10)
    np.testing.assert_array_equal(whole.apply(take_columns(X, columns), rows), whole.apply(taken))


@pytest.mark.parametrize(("dtype", "close"), [(np.float16, 2e-5), (np.float32, 1e-12), (np.float64, 1e-12)])
@pytest.mark.parametrize("d", [1, 3, 700])
def test_moments_of_two_parts_are_those_of_all(dtype: type, close: float, d: int) -> None:
    random = np.random.default_rng(0)
    X = (random.normal(size=(2500, d)) * 3 + np.linspace(0, 9, 2500)[:, None] + 40).astype(dtype)
    exact = X.astype(np.float64)
    parts = Moments.of(X[:1900]).with_those(Moments.of(X, np.arange(1900, 2500)))
    for found in (Moments.of(X), parts, Moments.of(X[:0]).with_those(parts), parts.with_those(Moments.of(X[:0]))):
        assert found.n == 2500
        np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=close)
        np.testing.assert_allclose(found.variance, exact.var(axis=0), rtol=close)


def test_a_large_feature_has_a_finite_scale() -> None:
    X = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32) * np.float32(1e30)
    np.testing.assert_allclose(Standardizer.fit(X).std, X.astype(np.float64).std(axis=0), rtol=1e-10)


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.567, -3e-5])
def test_a_constant_feature_is_centred_and_not_blown_up(value: float) -> None:
    X = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
    X[:, 1] = value
    scale = Standardizer.fit(X)
    assert scale.std[1] == 1
    assert np.abs(scale.apply(X)[:, 1]).max() < 1e-3
    assert scale.apply(X + np.float32([0, 2]))[0, 1] == pytest.approx(2, abs=1e-3)


def test_training_rows_alone_decide_the_scale() -> None:
    X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    scale = Standardizer.fit(X[:40])
    np.testing.assert_array_equal(scale.apply(X)[:40], scale.apply(X[:40]))
    assert not np.allclose(scale.mean, Standardizer.fit(X).mean)


def test_labels_become_one_column_per_class() -> None:
    found = label_matrix(np.array([2.0, 0, np.nan]), "multiclass", 3)
    np.testing.assert_array_equal(found, [[0, 0, 1], [1, 0, 0], [np.nan] * 3])
    assert label_matrix(np.array([1.0, 0, np.nan]), "binary", 1).shape == (3, 1)


def test_probes_are_found_by_name_and_load_nothing_heavy() -> None:
    assert {"knn", "logistic"} <= set(REGISTRY.names())
    with pytest.raises(UnknownNameError, match="did you mean 'logistic'"):
        REGISTRY.load("logistics")
    program = (
        "import sys; from embedcache.probes import REGISTRY; [REGISTRY.load(n)() for n in ('knn', 'logistic')];"
        "print({'torch', 'sklearn', 'faiss', 'transformers', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
