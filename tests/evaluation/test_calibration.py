import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from embedcache.evaluation.calibration import (
    BINS,
    calibration_error,
    calibration_interval,
    equal_mass_bins,
    probabilities,
    reliability,
)


def test_scores_become_probabilities() -> None:
    score = np.array([[-1.0, np.nan], [-0.2, -np.inf]])
    np.testing.assert_array_equal(probabilities(score, "log-odds"), expit(score))
    np.testing.assert_array_equal(probabilities(score, "log-probability"), np.exp(score))
    assert probabilities(score, "vote share") is score
    with pytest.raises(ValueError, match="no probability"):
        probabilities(score, "value")


def test_bins_have_equal_mass_and_keep_ties_together() -> None:
    random = np.random.default_rng(0)
    p = random.random(3000)
    assert np.bincount(equal_mass_bins(p)).tolist() == [200] * BINS
    tied = p.round(1)
    of_row = equal_mass_bins(tied)
    assert all(len(np.unique(of_row[tied == value])) == 1 for value in np.unique(tied))
    assert equal_mass_bins(np.full(7, 0.3)).tolist() == [BINS // 2] * 7
    again = random.permutation(3000)
    np.testing.assert_array_equal(equal_mass_bins(tied[again]), of_row[again])


def test_the_error_is_the_mean_gap_of_scikit_learns_curve() -> None:
    random = np.random.default_rng(1)
    p = random.random(BINS * 40)
    y = (random.random(len(p)) < p**2).astype(float)
    observed, predicted = calibration_curve(y, p, n_bins=BINS, strategy="quantile")
    np.testing.assert_allclose(calibration_error(y, p), np.abs(observed - predicted).mean(), rtol=1e-12)
    curve = reliability(y, p, np.arange(len(p)))
    np.testing.assert_allclose(curve.observed, observed, rtol=1e-12)
    np.testing.assert_allclose(curve.predicted, predicted, rtol=1e-12)
    assert curve.rows.tolist() == [40] * BINS


def test_reliability_is_clustered_and_exact_at_the_ends() -> None:
    """Every row four times is no new evidence; a bin without positives has the binomial bound of its patients."""
    random = np.random.default_rng(2)
    p = random.random(600)
    y = ((random.random(600) < p) & (p > 0.1)).astype(float)
    once, four = reliability(y, p, np.arange(600)), reliability(*(np.repeat(v, 4) for v in (y, p, np.arange(600))))
    np.testing.assert_allclose(four.low[1:], once.low[1:], rtol=1e-6)
    assert once.observed[0] == 0
    np.testing.assert_allclose(once.high[0], binomtest(0, once.rows[0]).proportion_ci(0.95, "exact").high, rtol=0.35)
    assert ((once.low <= once.observed) & (once.observed <= once.high)).all()
    alone = reliability(y, p, np.zeros(600))
    assert np.isnan(alone.low).all()
    assert len(reliability(np.full(3, np.nan), np.zeros(3), np.arange(3)).observed) == 0


def test_calibrated_probabilities_may_have_no_error_and_bad_ones_do() -> None:
    random = np.random.default_rng(3)
    noise = random.normal(size=(BINS, 2000)) * 0.004
    good = calibration_interval(noise[:, 0], noise[:, 0][:, None] + noise, 100)
    assert good.low == 0
    off = np.full(BINS, 0.02)
    bad = calibration_interval(off, off[:, None] + noise, 100)
    assert bad.low is not None
    assert bad.high is not None
    half = 1.96 * 0.004 * np.sqrt(BINS)
    np.testing.assert_allclose([bad.low, bad.high], [0.3 - half, 0.3 + half], atol=0.15 * half)
