"""Passes over the rows: how they are cut, and what a fit's curvature leaves out."""

import numpy as np
import pytest

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
