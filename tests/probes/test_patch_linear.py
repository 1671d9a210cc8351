"""The soft-label head against scikit-learn, and by what must not change it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from embedcache.errors import InputError
from embedcache.probes.patch_linear import FittedPatchLinear, PatchLinearProbe

VALUES = (1e-4, 1e-2, 1.0)
EXACT = PatchLinearProbe(C=VALUES, tol=1e-9, max_iter=5000)


def patches(n: int = 300, d: int = 8, n_classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features of very unequal scale with large means, and shares that depend on them."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * 10.0 ** np.linspace(-2, 2, d) + 5
    logits = ((X - X.mean(0)) / X.std(0)) @ rng.normal(size=(d, n_classes)) + rng.normal(size=(n, n_classes))
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return X, shares / shares.sum(1, keepdims=True)


def reference(X: np.ndarray, shares: np.ndarray, C: float) -> np.ndarray:
    """Every row once per class, weighted by its share: what a soft label means. Probabilities (n, n_classes)."""
    n, k = shares.shape
    mean, std = X.mean(0), X.std(0)
    model = LogisticRegression(C=C, tol=1e-10, max_iter=10_000, solver="newton-cholesky")
    Z = (X - mean) / std
    model.fit(np.repeat(Z, k, axis=0), np.tile(np.arange(k), n), sample_weight=shares.ravel())
    return model.predict_proba(Z)


@pytest.mark.parametrize("n_classes", [3, 5])
def test_soft_labels_are_weighted_hard_labels(n_classes: int) -> None:
    X, shares = patches(n_classes=n_classes)
    fitted = EXACT.fit_path(X, shares, VALUES)
    for i, C in enumerate(VALUES):
        # both solve to about 1e-9 of the gradient; probabilities follow within the root of the objective's flatness
        np.testing.assert_allclose(fitted.probabilities(X)[i], reference(X, shares, C), atol=2e-6)


def test_two_classes_are_a_multinomial_of_two() -> None:
    """scikit-learn fits one row of weights w for two classes, which as softmax is (-w/2, w/2): half the penalty, so C / 2."""
    X, shares = patches(n_classes=2)
    (got,) = EXACT.fit_path(X, shares, (1e-2,)).probabilities(X)
    np.testing.assert_allclose(got, reference(X, shares, 2e-2), atol=2e-6)


def test_single_precision_and_half_reach_the_same_head() -> None:
    X, shares = patches(n=2000, d=32)
    X = ((X - X.mean(0)) / X.std(0)).astype(np.float16)  # what a store holds
    exact = EXACT.fit_path(X.astype(np.float64), shares, VALUES).probabilities(X.astype(np.float64))
    quick = PatchLinearProbe(C=VALUES).fit_path(X, shares.astype(np.float32), VALUES)
    assert quick.not_converged == ()
    # tol 1e-4 leaves the mean loss about 1e-8 above its minimum: a root mean square of 1e-4 in the probabilities, and
    # a few times that in the worst of 2,000 rows
    np.testing.assert_allclose(quick.probabilities(X), exact, atol=3e-3)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_scale_shift_and_order_change_nothing(seed: int, scale: float, shift: float) -> None:
    X, shares = patches(n=60, d=4, seed=seed)
    X = (X - X.mean(0)) / X.std(0)
    moved = scale * (X + shift)
    order = np.random.default_rng(seed).permutation(len(X))
    before = EXACT.fit_path(X, shares, (1e-2,)).probabilities(X)
    after = EXACT.fit_path(moved[order], shares[order], (1e-2,)).probabilities(moved)
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_a_repeated_set_is_the_same_head_at_half_the_C() -> None:
    X, shares = patches()
    once = EXACT.fit_path(X, shares, (1e-2,)).probabilities(X)
    twice = EXACT.fit_path(np.tile(X, (2, 1)), np.tile(shares, (2, 1)), (5e-3,)).probabilities(X)
    np.testing.assert_allclose(twice, once, atol=1e-6)


def test_values_come_back_in_the_order_they_were_asked_for() -> None:
    X, shares = patches()
    up, down = EXACT.fit_path(X, shares, VALUES), EXACT.fit_path(X, shares, VALUES[::-1])
    np.testing.assert_allclose(down.coef[::-1], up.coef, atol=1e-6)
    np.testing.assert_array_equal(up.at(1).coef[0], up.coef[1])
    assert up.at(1).values == (VALUES[1],)


def test_a_class_without_any_patch_is_never_predicted() -> None:
    X, shares = patches(n_classes=2)
    padded = np.insert(shares, 1, 0.0, axis=1)
    got = EXACT.fit_path(X, padded, VALUES).probabilities(X)
    assert (got[..., 1] == 0).all()
    np.testing.assert_allclose(got[..., [0, 2]], EXACT.fit_path(X, shares, VALUES).probabilities(X), atol=1e-9)


def test_constant_and_repeated_features_do_no_harm() -> None:
    X, shares = patches(d=4)
    wide = np.concatenate([X, np.full((len(X), 1), 1e4, dtype=np.float64), X[:, :1]], axis=1)
    fitted = EXACT.fit_path(wide.astype(np.float32), shares, VALUES)
    assert np.isfinite(fitted.coef).all()
    assert (fitted.coef[:, :, 4] == 0).all()
    np.testing.assert_allclose(fitted.coef[:, :, 0], fitted.coef[:, :, 5], rtol=1e-3, atol=1e-6)


def test_a_solver_that_is_stopped_says_so() -> None:
    X, shares = patches()
    assert replace(EXACT, max_iter=1).fit_path(X, shares, VALUES).not_converged == VALUES


def test_patches_of_one_class_are_refused() -> None:
    X, _ = patches()
    with pytest.raises(InputError, match="hold 1 classes"):
        EXACT.fit_path(X, np.tile([1.0, 0.0], (len(X), 1)), VALUES)


@pytest.mark.parametrize("C", [(), (0.0,), (np.inf,)])
def test_a_grid_without_positive_numbers_is_refused(C: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="positive"):
        PatchLinearProbe(C=C)


def test_probabilities_sum_to_one_even_far_out() -> None:
    head = FittedPatchLinear((1.0,), np.array([[[1e3], [-1e3]]]), np.zeros((1, 2)), ())
    got = head.probabilities(np.array([[-10.0], [0.0], [10.0]], dtype=np.float16))
    np.testing.assert_allclose(got.sum(axis=-1), 1)
    np.testing.assert_allclose(got[0, :, 0], [0, 0.5, 1])
