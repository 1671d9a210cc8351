"""AUROC and average precision from the patients' draws: against weights per row, scikit-learn, and patients that are left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from embedcache.evaluation.bootstrap import BLOCK, Draws, bootstrap
from embedcache.evaluation.metrics import Ranking
from embedcache.evaluation.ranks import Ranks, cumulated
from embedcache.evaluation.statistics import Patients

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (some missing, perhaps of one class), scores from all tied to all apart, patients with one or many rows."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, 60))
    y = (random.random(n) < draw(st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.95, 1.0]))).astype(float)
    y[random.random(n) < draw(st.sampled_from([0.0, 0.2]))] = np.nan
    score = random.integers(0, draw(st.sampled_from([1, 3, 20, 10_000])), n).astype(float)
    return y, score, random.integers(0, draw(st.integers(1, n)), n)


@given(cases())
@settings(max_examples=300)
def test_draws_of_patients_are_weights_of_their_rows(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, score, patient = case
    patients = Patients.of(patient)
    ranks, ranking = Ranks.of(y, score, patients), Ranking.of(y, score)
    draws = Draws.of_block(patients.count, 12, 0, 0)
    weights = draws.count.T[:, patients.code].astype(float)
    expected = np.stack([ranking.auroc(weights), ranking.average_precision(weights)])
    np.testing.assert_allclose(ranks.figures(draws), expected, **EXACT)
    np.testing.assert_array_equal(ranks.auroc(draws), ranks.figures(draws)[0])


@given(cases())
@settings(max_examples=300)
def test_each_patient_left_out(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, score, patient = case
    patients = Patients.of(patient)
    ranking = Ranking.of(y, score)
    weights = (np.arange(patients.count)[:, None] != patients.code).astype(float)
    expected = np.stack([ranking.auroc(weights), ranking.average_precision(weights)])
    np.testing.assert_allclose(Ranks.of(y, score, patients).left_out(), expected, **EXACT)


def test_a_resample_is_scikit_learns_with_repeated_rows() -> None:
    random = np.random.default_rng(0)
    y, score = (random.random(300) < 0.2).astype(float), random.normal(size=300).round(1)
    patients = Patients.of(random.integers(0, 60, 300))
    draws = Draws.of_block(patients.count, 5, 1, 0)
    area, precision = Ranks.of(y, score, patients).figures(draws)
    for r in range(5):
        w = draws.count[:, r].astype(int)[patients.code]
        again = np.repeat(y, w), np.repeat(score, w)
        np.testing.assert_allclose(area[r], roc_auc_score(*again), **EXACT)
        np.testing.assert_allclose(precision[r], average_precision_score(*again), **EXACT)


def test_counts_too_large_for_16_and_32_bits_are_exact() -> None:
    """One stretch with 70,000 rows, and 2 x 50,000 x 50,000 ordered pairs, which is above 2^32."""
    score = np.concatenate([np.zeros(70_000), np.arange(50_000.0)])
    y = np.concatenate([np.zeros(70_000), np.tile([0.0, 1.0], 25_000)])
    y[:30_000] = 1
    patients = Patients.of(np.arange(len(y)) % 50)
    ranking = Ranking.of(y, score)
    draws = Draws.of_block(50, 3, 0, 0)
    weights = draws.count.T[:, patients.code].astype(float)
    expected = np.stack([ranking.auroc(weights), ranking.average_precision(weights)])
    np.testing.assert_allclose(Ranks.of(y, score, patients).figures(draws), expected, **EXACT)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 15, 16, 17, 100])
def test_cumulated_is_cumsum(rows: int) -> None:
    counts = np.random.default_rng(0).integers(0, 9, (rows, 4)).astype(np.uint32)
    np.testing.assert_array_equal(cumulated(counts.copy()), np.cumsum(counts, axis=0, dtype=np.uint32))


def test_draws_depend_on_neither_threads_nor_how_many_there_are() -> None:
    y, score = np.tile([0.0, 1.0], 40), np.random.default_rng(0).normal(size=80)
    patients = Patients.of(np.arange(80) // 2)
    ranks = Ranks.of(y, score, patients)
    (one,), (two,) = (bootstrap([ranks], patients, n, 5, threads) for n, threads in ((BLOCK + 40, 1), (BLOCK + 10, 2)))
    np.testing.assert_array_equal(one.bootstrap[:, : BLOCK + 10], two.bootstrap)
    assert one.bootstrap[0, 0] != one.bootstrap[0, BLOCK]
    assert Draws.of_block(9, BLOCK, 0, 0).count.sum(axis=0).tolist() == [9] * BLOCK
