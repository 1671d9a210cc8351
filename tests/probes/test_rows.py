"""Passes over the rows: how they are cut, and what a fit's curvature leaves out."""

import numpy as np
import pytest

from embedcache.probes.place import Place
from embedcache.probes.rows import Rows, Targets
from embedcache.probes.side_by_side import Team


@pytest.mark.parametrize(("n", "size"), [(50, 1), (50, 4), (130, 2), (2911, 2), (20_000, 3)])
def test_blocks_are_equal_and_as_many_for_each_of_the_team(n: int, size: int) -> None:
    rows = Rows(np.zeros((n, 700), np.float32), Targets(np.ones((1, n)), np.full((1, n), 1 / n)), team=Team(size=size))
    for columns in (0, 90, 2000):
        blocks = rows.blocks(columns)
        lengths = [block.stop - block.start for block in blocks]
        assert sum(lengths) == n
        assert max(lengths) - min(lengths) <= 1
        assert len(blocks) % size == 0 or min(lengths) < 128


def test_rows_that_hardly_bend_the_loss_are_left_out_of_its_gram_matrix() -> None:
    X = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float64)
    sign = np.where(X[:, :1].T > 0, 1.0, -1.0)
    rows = Rows(X, Targets(sign, np.full((1, 400), 1 / 400)))
    (bend,), total = rows.curvature(np.array([[30.0, 0, 0, 0, 0]]), np.zeros(1), 0)
    p = 1 / (1 + np.exp(-30 * (X[:, 0] - X[:, 0].mean())))
    exact = p * (1 - p) / (p * (1 - p)).sum()
    assert 20 < (bend == 0).sum() < 380
    assert exact[bend == 0].sum() < 1e-4
    np.testing.assert_allclose(bend[bend > 0], exact[bend > 0], rtol=2e-4)
    assert total.item() == pytest.approx((p * (1 - p)).mean())
    mean, gram = rows.gram(bend)
    np.testing.assert_allclose(mean, bend @ X)
    np.testing.assert_allclose(gram, np.cov(X.T, aweights=bend, bias=True), atol=1e-12)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("far", [0.0, 40.0])
def test_a_pass_tells_how_each_column_bends(own: bool, far: float) -> None:
    """Of several labels, worked on one by one or together: the curvature, and mean and variance of the scores under it."""
    random = np.random.default_rng(2)
    X = random.normal(size=(300, 4)) + far
    sign = random.choice([-1.0, 1.0], (2, 300))
    weight = random.random((2, 300)) * (random.random((2, 300)) < 0.8)
    weight /= weight.sum(axis=1, keepdims=True)
    rows = Rows(X, Targets(sign, weight))
    label = np.array([0, 0, 1])
    coef, intercept = random.normal(size=(3, 1, 4)), random.normal(size=(3, 1))
    if own:
        rows.place = Together()
    loss, slope, _, bend = rows.evaluate(coef, intercept, label)
    for i, j in enumerate(label):
        score = (X - weight[j] @ X) @ coef[i, 0] + intercept[i, 0]
        p = 1 / (1 + np.exp(-score))
        share = weight[j] * p * (1 - p)
        assert loss[i] == pytest.approx(weight[j] @ np.logaddexp(0, -sign[j] * score))
        assert bend[i, 0] == pytest.approx(share.sum())
        assert bend[i, 1] == pytest.approx(share @ score / share.sum())
        assert bend[i, 2] == pytest.approx(share @ (score - bend[i, 1]) ** 2 / share.sum())
        wrong = -sign[j] * weight[j] / (1 + np.exp(sign[j] * score))
        np.testing.assert_allclose(slope[i, 0], wrong @ (X - weight[j] @ X), rtol=1e-9, atol=1e-12)


class Together(Place):
    """Where the columns of several labels are worked on at once, as on a device."""

    fits_at_once = True
