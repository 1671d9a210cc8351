import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_curve

from embedcache.evaluation import thresholds
from embedcache.evaluation.thresholds import confusion, f1_threshold, specificity_threshold


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(2, 50))
    y = (random.random(n) < draw(st.sampled_from([0.1, 0.5, 0.9]))).astype(float)
    y[:2] = [0, 1]
    return y, random.integers(-3, draw(st.sampled_from([0, 4, 1000])), n).astype(float)


@given(scored())
@settings(max_examples=100)
def test_no_threshold_has_a_better_f1(case: tuple[np.ndarray, np.ndarray]) -> None:
    y, score = case
    found = f1_threshold(y, score)
    every = [f1_score(y, score > t, zero_division=0.0) for t in [-np.inf, *np.unique(score)]]
    assert found is not None
    assert f1_score(y, score > found) == pytest.approx(max(every), abs=1e-12)


@given(scored(), st.sampled_from([0.9, 0.95, 0.5]))
@settings(max_examples=100)
def test_no_lower_threshold_keeps_the_specificity(case: tuple[np.ndarray, np.ndarray], asked: float) -> None:
    y, score = case
    found = specificity_threshold(y, score, asked)
    false, true, _ = roc_curve(y, score, drop_intermediate=False)
    allowed = true[1 - false >= asked - 1e-9]
    assert found is not None
    called = confusion(y, score > found).sum(axis=1)
    assert thresholds.specificity(called) >= asked - 1e-9
    np.testing.assert_allclose(thresholds.sensitivity(called), allowed.max(), rtol=1e-12)


@given(scored())
@settings(max_examples=50)
def test_figures_of_decisions_are_scikit_learns(case: tuple[np.ndarray, np.ndarray]) -> None:
    y, score = case
    called = confusion(y, score > 0)
    np.testing.assert_allclose(
        thresholds.balanced(called.sum(axis=1)), balanced_accuracy_score(y, score > 0), rtol=1e-12
    )
    np.testing.assert_allclose(thresholds.f1(called.sum(axis=1)), f1_score(y, score > 0), rtol=1e-12)
    w = np.random.default_rng(0).integers(0, 4, len(y))
    w[:2] = 1
    expected = balanced_accuracy_score(y, score > 0, sample_weight=w), f1_score(y, score > 0, sample_weight=w)
    np.testing.assert_allclose((thresholds.balanced(called @ w), thresholds.f1(called @ w)), expected, rtol=1e-12)


def test_nothing_to_choose_by_is_none() -> None:
    score = np.arange(4.0)
    assert f1_threshold(np.zeros(4), score) is None
    assert specificity_threshold(np.ones(4), score, 0.9) is None
    assert f1_threshold(np.array([np.nan, 1.0, 0, np.nan]), np.full(4, np.nan)) is None


def test_scores_of_minus_infinity_are_never_called() -> None:
    y, score = np.array([0.0, 0, 1, 1]), np.array([-np.inf, -np.inf, -1.0, 0.0])
    assert f1_threshold(y, score) == -np.inf
    assert confusion(y, score > -np.inf).sum(axis=1).tolist() == [2, 0, 0, 2]


def test_right_share_counts_both_kinds_of_right_decisions() -> None:
    counts = np.array([[3.0, 1], [1, 0], [2, 0], [4, 2]])
    np.testing.assert_allclose(thresholds.right_share(counts), [0.7, 1.0])
