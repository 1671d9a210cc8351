from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from embedcache.evaluation.metrics import Ranking, accuracy, correct, macro, macro_auroc

EXACT = {"rtol": 1e-12, "atol": 1e-12}
"""Sums of a few hundred float64 terms in another order."""


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels with both classes, and scores with many ties."""
    n = draw(st.integers(2, 60))
    y = draw(arrays(np.float64, n, elements=st.sampled_from([0.0, 1.0])))
    y[:2] = [0, 1]
    score = draw(arrays(np.float64, n, elements=st.integers(-4, 4).map(float)))
    return y, score


def brute_auroc(y: np.ndarray, score: np.ndarray, weights: np.ndarray) -> float:
    """Every pair of a positive and a negative, O(n²)."""
    wins, pairs = 0.0, 0.0
    for i in np.flatnonzero(y == 1):
        for j in np.flatnonzero(y == 0):
            pair = weights[i] * weights[j]
            wins += pair * ((score[i] > score[j]) + 0.5 * (score[i] == score[j]))
            pairs += pair
    return wins / pairs


@given(scored())
def test_auroc_is_the_share_of_ordered_pairs(case: tuple[np.ndarray, np.ndarray]) -> None:
    y, score = case
    found = Ranking.of(y, score).auroc()
    np.testing.assert_allclose(found, brute_auroc(y, score, np.ones(len(y))), **EXACT)
    np.testing.assert_allclose(found, roc_auc_score(y, score), **EXACT)


@given(scored())
def test_average_precision_is_scikit_learns(case: tuple[np.ndarray, np.ndarray]) -> None:
    y, score = case
    np.testing.assert_allclose(Ranking.of(y, score).average_precision(), average_precision_score(y, score), **EXACT)


@given(scored(), st.data())
def test_a_weight_counts_rows(case: tuple[np.ndarray, np.ndarray], data: st.DataObject) -> None:
    """Weight w is the row w times: against scikit-learn on the repeated rows, many weight vectors at once."""
    y, score = case
    weights = data.draw(arrays(np.int64, (3, len(y)), elements=st.integers(0, 3)))
    weights[:, :2] = np.maximum(weights[:, :2], 1)
    ranking = Ranking.of(y, score)
    area, precision = ranking.auroc(weights), ranking.average_precision(weights)
    for k, w in enumerate(weights):
        repeated_y, repeated_score = np.repeat(y, w), np.repeat(score, w)
        np.testing.assert_allclose(area[k], roc_auc_score(repeated_y, repeated_score), **EXACT)
        np.testing.assert_allclose(precision[k], average_precision_score(repeated_y, repeated_score), **EXACT)


@given(scored())
def test_only_the_order_of_scores_counts(case: tuple[np.ndarray, np.ndarray]) -> None:
    y, score = case
    plain, bent = Ranking.of(y, score), Ranking.of(y, np.exp(3 * score) - 7)
    assert plain.auroc() == bent.auroc()
    assert plain.average_precision() == bent.average_precision()
    turned = Ranking.of(y, -score)
    np.testing.assert_allclose(turned.auroc(), 1 - plain.auroc(), **EXACT)


@given(scored(), st.randoms(use_true_random=False))
def test_the_order_of_rows_counts_for_nothing(case: tuple[np.ndarray, np.ndarray], random: Random) -> None:
    y, score = case
    shuffled = list(range(len(y)))
    random.shuffle(shuffled)
    assert Ranking.of(y[shuffled], score[shuffled]).auroc() == Ranking.of(y, score).auroc()
    assert Ranking.of(y[shuffled], score[shuffled]).average_precision() == Ranking.of(y, score).average_precision()


@given(scored())
@settings(max_examples=30)
def test_a_missing_label_is_a_row_that_is_not_there(case: tuple[np.ndarray, np.ndarray]) -> None:
    y, score = case
    with_missing, more = np.append(y, np.nan), np.append(score, 99.0)
    assert Ranking.of(with_missing, more).auroc() == Ranking.of(y, score).auroc()
    assert np.isnan(Ranking.of(with_missing, more).placements()[-1])


def test_placements_average_to_the_auroc_on_either_side() -> None:
    random = np.random.default_rng(0)
    y, score = (random.random(90) < 0.3).astype(float), random.integers(0, 12, 90).astype(float)
    ranking = Ranking.of(y, score)
    place = ranking.placements()
    np.testing.assert_allclose(place[y == 1].mean(), ranking.auroc(), **EXACT)
    np.testing.assert_allclose(place[y == 0].mean(), ranking.auroc(), **EXACT)


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_one_class_has_no_auroc(only: float) -> None:
    ranking = Ranking.of(np.full(5, only), np.arange(5.0))
    assert np.isnan(ranking.auroc())
    assert np.isnan(ranking.average_precision()) == (only == 0)


def test_macro_leaves_out_what_is_undefined() -> None:
    truth = np.array([[1.0, 0, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]])
    scores = np.array([[0.9, 0.1, 0.2], [0.1, 0.1, 0.8], [0.2, 0.7, 0.1], [0.3, 0.1, 0.4]])
    expected = np.mean([roc_auc_score(truth[:, j], scores[:, j]) for j in (0, 2)])
    np.testing.assert_allclose(macro_auroc(truth, scores), expected, **EXACT)
    assert np.isnan(macro(np.array([np.nan, np.nan])))


def test_one_versus_rest_is_scikit_learns() -> None:
    random = np.random.default_rng(1)
    number = random.integers(0, 3, 80)
    scores = random.dirichlet(np.ones(3), 80)
    expected = roc_auc_score(number, scores, multi_class="ovr", average="macro")
    np.testing.assert_allclose(macro_auroc(np.eye(3)[number], scores), expected, **EXACT)


def test_accuracy_by_threshold_and_by_the_highest_score() -> None:
    random = np.random.default_rng(2)
    truth, scores = (random.random((50, 2)) < 0.5).astype(float), random.normal(size=(50, 2))
    truth[3, 0] = np.nan
    right = correct(truth, scores, "multilabel", 0.0)
    assert accuracy(right[:, 1]) == accuracy_score(truth[:, 1], scores[:, 1] > 0)
    known = ~np.isnan(truth[:, 0])
    assert accuracy(right[:, 0]) == accuracy_score(truth[known, 0], scores[known, 0] > 0)
    number, chances = random.integers(0, 3, 50), random.normal(size=(50, 3))
    hits = correct(np.eye(3)[number], chances, "multiclass", 0.0)
    assert accuracy(hits[:, 0]) == accuracy_score(number, chances.argmax(axis=1))
    weights = random.integers(0, 3, 50)
    np.testing.assert_allclose(
        accuracy(hits[:, 0], weights), accuracy_score(number, chances.argmax(axis=1), sample_weight=weights), **EXACT
    )
