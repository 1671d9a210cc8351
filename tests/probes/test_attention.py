"""Gated attention: its formula against torch's own gradient, what changes nothing, and where it beats the mean."""

from typing import Any

import numpy as np
import pytest
import torch

from embedcache.errors import InputError
from embedcache.evaluation.metrics import macro_auroc
from embedcache.probes.attention import AttentionProbe, FittedAttention
from embedcache.probes.attention_heads import AttentionHead, forward, gradient, shares
from embedcache.probes.attention_losses import binary, multinomial
from embedcache.probes.attention_work import IN_NUMPY, work_for
from embedcache.probes.bags import Bags
from embedcache.probes.logistic import LogisticProbe
from embedcache.store.pooling import Pooling, pool_slices

SIZES = np.array([3, 1, 5, 2, 4])
WIDTH = 6


def random_head(outputs: int, hidden: int = 4) -> AttentionHead:
    random = np.random.default_rng(1)
    shapes = (WIDTH, 2 * hidden + outputs), (2 * hidden + outputs,), (hidden,)
    return AttentionHead(*(random.normal(size=shape) for shape in shapes))


def literally(head: Any, X: torch.Tensor, sizes: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and shares by the formula, bag by bag."""
    h = len(head[2])
    V, U, W = head[0][:, :h], head[0][:, h : 2 * h], head[0][:, 2 * h :]
    bv, bu, bw = head[1][:h], head[1][h : 2 * h], head[1][2 * h :]
    scores, all_shares = [], []
    for bag in torch.split(X, sizes.tolist()):
        a = torch.softmax((torch.tanh(bag @ V + bv) * torch.sigmoid(bag @ U + bu)) @ head[2], dim=0)
        scores.append((a[:, None] * bag).sum(dim=0) @ W + bw)
        all_shares.append(a)
    return torch.stack(scores), torch.cat(all_shares)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("sizes", [SIZES, np.ones(5, dtype=int)], ids=["bags", "single rows"])
def test_scores_and_gradient_are_those_of_torch(outputs: int, sizes: np.ndarray) -> None:
    head = random_head(outputs)
    X = np.random.default_rng(0).normal(size=(sizes.sum(), WIDTH))
    y = np.array([0, 1, 1, 0, 1.0]) if outputs == 1 else np.array([0, 1, 2, 0, 1])
    target = y[:, None] if outputs == 1 else np.eye(3)[y]
    loss = (binary if outputs == 1 else multinomial)(target, np)
    value, found = gradient(head, X, Bags.of(sizes), loss, 0.3, np)

    theirs = [torch.tensor(part, requires_grad=True) for part in head.parts()]
    scores, attention = literally(theirs, torch.tensor(X), sizes)
    if outputs == 1:
        mean = torch.nn.functional.binary_cross_entropy_with_logits(scores, torch.tensor(target))
    else:
        mean = torch.nn.functional.cross_entropy(scores, torch.tensor(y))
    whole = mean + 0.15 * ((theirs[0] ** 2).sum() + (theirs[2] ** 2).sum())
    whole.backward()
    np.testing.assert_allclose(forward(head, X, Bags.of(sizes), np), scores.detach(), rtol=1e-10)
    np.testing.assert_allclose(shares(head, X, Bags.of(sizes), np), attention.detach(), rtol=1e-10)
    np.testing.assert_allclose(value, whole.item(), rtol=1e-10)
    for ours, part in zip(found.parts(), theirs, strict=True):
        np.testing.assert_allclose(ours, part.grad, rtol=1e-8, atol=1e-12)


def test_torch_does_the_same_as_numpy() -> None:
    work = work_for("cpu:0")
    head, X = random_head(1), np.random.default_rng(0).normal(size=(SIZES.sum(), WIDTH))
    y = np.array([0, 1, 1, 0, 1.0])[:, None]
    ours = gradient(head, X, Bags.of(SIZES), binary(y, np), 0.3, np)
    there = AttentionHead(*map(work.load, head.parts()))
    theirs = gradient(there, work.load(X), work.bags(SIZES), binary(work.load(y), work.xp), 0.3, work.xp)
    np.testing.assert_allclose(float(theirs[0]), ours[0], rtol=1e-5)
    for a, b in zip(ours[1].parts(), theirs[1].parts(), strict=True):
        np.testing.assert_allclose(work.unload(b), a, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="take cpu"):
        AttentionProbe(device="nowhere").fit_path(X, y[:1].repeat(15, 0), "binary", (1.0,), 1)
    assert work_for("cpu") is IN_NUMPY


def task(decides: str, n: int, seed: int, width: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bags of 6 to 23 slices, whose label moves all of them a little (`all`), or one, which says so by other features (`one`)."""
    random = np.random.default_rng(seed)
    sizes = random.integers(6, 24, n)
    y = (random.random(n) < 0.5).astype(float)
    X = random.normal(size=(sizes.sum(), width)).astype(np.float32)
    if decides == "all":
        X[:, 0] += np.repeat(np.where(y == 1, 0.3, -0.3), sizes)
    else:
        at = np.cumsum(sizes) - sizes + random.integers(0, sizes)
        X[at, :3] += 3.0
        X[at, 3] += np.where(y == 1, 3.0, -3.0)
    return X, sizes, y


def best(decides: str) -> tuple[float, float]:
    """Test AUROC of attention and of logistic regression on means, each at what validation chooses."""
    (X, n, y), (V, m, v), (Q, q, truth) = (task(decides, size, seed) for size, seed in ((200, 0), (150, 1), (600, 2)))
    attention, logistic = AttentionProbe(weight_decay=(3.0, 0.3, 0.1), hidden=32), LogisticProbe()
    fitted = attention.fit_bags(X, n, y, "binary", attention.grid(1), 1)
    area = [macro_auroc(v[:, None], s) for s in fitted.bag_scores(V, m)]
    found = macro_auroc(truth[:, None], fitted.bag_scores(Q, q)[int(np.argmax(area))])

    def mean(rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return pool_slices(rows, np.cumsum(sizes) - sizes, sizes, Pooling("mean"))

    pooled = logistic.fit_path(mean(X, n), y, "binary", logistic.grid(1), 1)
    area = [macro_auroc(v[:, None], s) for s in pooled.scores(mean(V, m))]
    return found, macro_auroc(truth[:, None], pooled.scores(mean(Q, q))[int(np.argmax(area))])


def test_where_the_mean_is_optimal_attention_is_as_good() -> None:
    attention, mean = best("all")
    assert mean > 0.9
    assert attention > mean - 0.01


def test_where_one_slice_decides_attention_is_clearly_better() -> None:
    attention, mean = best("one")
    assert mean < 0.9
    assert attention > 0.98


@pytest.fixture(scope="module")
def fitted() -> tuple[FittedAttention, Any]:
    X, sizes, y = task("one", 80, 0, width=8)
    two = np.stack([y, np.roll(y, 1)], axis=1)
    two[5, 1] = np.nan
    probe = AttentionProbe(weight_decay=(0.1,), epochs=60)
    return probe.fit_bags(X, sizes, two, "multilabel", (0.1,), 2), (X, sizes, two, probe)


def test_neither_order_of_slices_nor_of_bags_nor_company_matters(fitted: tuple[FittedAttention, Any]) -> None:
    path, (X, sizes, y, probe) = fitted
    whole = path.bag_scores(X, sizes)
    bags = np.split(X, np.cumsum(sizes)[:-1])
    random = np.random.default_rng(0)
    turned = [random.permutation(bag) for bag in bags]
    np.testing.assert_allclose(path.bag_scores(np.concatenate(turned), sizes), whole, rtol=1e-4, atol=1e-5)
    for i in (0, 7):
        np.testing.assert_allclose(
            path.bag_scores(bags[i], sizes[i : i + 1]), whole[:, i : i + 1], rtol=1e-4, atol=1e-5
        )
    order = random.permutation(len(sizes))
    again = probe.fit_bags(np.concatenate([turned[i] for i in order]), sizes[order], y[order], "multilabel", (0.1,), 2)
    np.testing.assert_allclose(again.bag_scores(X, sizes), whole, atol=0.02 * whole.std())
    same = probe.fit_bags(X, sizes, y, "multilabel", (0.1,), 2)
    np.testing.assert_array_equal(same.bag_scores(X, sizes), whole)


def test_a_label_is_fitted_by_itself_and_a_missing_one_leaves_its_bag_out(fitted: tuple[FittedAttention, Any]) -> None:
    path, (X, sizes, y, probe) = fitted
    whole = path.bag_scores(X, sizes)
    alone = probe.fit_bags(X, sizes, y[:, 0], "binary", (0.1,), 1).bag_scores(X, sizes)
    np.testing.assert_array_equal(alone[..., 0], whole[..., 0])
    known = np.delete(np.arange(len(y)), 5)
    rows = np.concatenate([np.split(X, np.cumsum(sizes)[:-1])[i] for i in known])
    without = probe.fit_bags(rows, sizes[known], y[known, 1], "binary", (0.1,), 1).bag_scores(X, sizes)
    np.testing.assert_allclose(without[..., 0], whole[..., 1], atol=0.02 * whole.std())
    gone = probe.fit_bags(X, sizes, np.stack([y[:, 0], np.ones(len(y))], axis=1), "multilabel", (0.1,), 2)
    assert np.isnan(gone.bag_scores(X, sizes)[..., 1]).all()


def test_several_classes_have_one_attention_and_scores_that_add_up() -> None:
    X, sizes, _ = task("all", 60, 0, width=8)
    y = np.arange(60) % 3
    X[:, :3] += 2 * np.eye(3, dtype=np.float32)[np.repeat(y, sizes)]
    probe = AttentionProbe(weight_decay=(0.03,), epochs=60)
    scores = probe.fit_bags(X, sizes, y.astype(float), "multiclass", (0.03,), 4).bag_scores(X, sizes)[0]
    assert np.isnan(scores[:, 3]).all(), "a class without a bag has no score"
    np.testing.assert_allclose(np.exp(scores[:, :3]).sum(axis=1), 1, rtol=1e-6)
    assert (scores[:, :3].argmax(axis=1) == y).mean() > 0.9


def test_a_rate_that_runs_away_is_said_and_not_chosen() -> None:
    X, sizes, y = task("one", 30, 0, width=4)
    path = AttentionProbe(lr=1e30, epochs=5).fit_bags(X, sizes, y, "binary", (1.0, 0.1), 1)
    assert path.diagnostics.not_converged == (1.0, 0.1)
    assert "ran away" in path.diagnostics.warnings[0]


@pytest.mark.parametrize(
    "options",
    [{"hidden": 0}, {"epochs": 0}, {"lr": 0.0}, {"seed": -1}, {"weight_decay": (-1.0,)}, {"weight_decay": ()}],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"must be|or more"):
        AttentionProbe(**options)
