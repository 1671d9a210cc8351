"""Linear heads: held against a literal loop of torch, against each other, and against what a sampler may not do."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from embedcache.errors import InputError, UnknownNameError
from embedcache.probes import linear_sweep
from embedcache.probes.base import FitsTogether, label_matrix, take_columns
from embedcache.probes.linear import MOST, PRESETS, LinearProbe
from embedcache.probes.linear_sweep import Swept, Training, in_order, side_by_side, sweep

CHOICES = {
    "last": (slice(9, 12),),
    "last and mean": (slice(9, 15),),
    "four": (slice(0, 12),),
    "apart": (slice(10, 15), slice(0, 2)),
}
RATES = (0.01, 0.3)
TRAINING = Training(iterations=130, batch_size=32, seed=3)


@pytest.fixture(autouse=True)
def one_thread_of_torch() -> Iterator[None]:
    """Products of this size wait for a second thread longer than it works."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def problem(kind: str, n: int = 90, missing: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of 16 features, of which the last is nobody's, and labels that they tell something of."""
    random = np.random.default_rng(5)
    X = (random.normal(size=(n, 16)) * np.linspace(0.5, 2, 16)).astype(np.float32)
    scores = X @ random.normal(size=(16, 3)) + 2 * random.logistic(size=(n, 3))
    if kind == "multiclass":
        return X, scores.argmax(axis=1).astype(float)
    y = (scores > 0).astype(float)
    y[random.random(y.shape) < missing] = np.nan
    return X, y


def by_torch(
    X: np.ndarray, labels: np.ndarray, columns: Any, rate: float, training: Training, softmax: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One head in a literal loop: weights, biases, and the loss of every batch."""
    order = in_order(X, labels)
    X, labels = take_columns(X, columns)[order], labels[order]
    head = torch.nn.Linear(X.shape[1], labels.shape[1])
    start = np.stack([training.first_weights(column, X.shape[1]) for column in labels.T])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(start))
        head.bias.zero_()
    optimizer = torch.optim.SGD(head.parameters(), lr=rate, momentum=training.momentum, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.iterations)
    losses = []
    for rows in training.batches(len(X)):
        scores = head(torch.from_numpy(X[rows]))
        truth = torch.from_numpy(labels[rows]).float()
        if softmax:
            loss = torch.nn.functional.cross_entropy(scores, truth.argmax(1))
        else:
            each = torch.nn.functional.binary_cross_entropy_with_logits(scores, truth.nan_to_num(), reduction="none")
            known = ~truth.isnan()
            of_label = [each[known[:, j], j].mean() for j in range(truth.shape[1]) if known[:, j].any()]
            loss = torch.stack(of_label).sum() / truth.shape[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return head.weight.detach().numpy(), head.bias.detach().numpy(), np.array(losses)


def trained(X: np.ndarray, labels: np.ndarray, softmax: bool, **changes: Any) -> dict[str, Swept]:
    asked: dict[str, Any] = {"choices": CHOICES, "rates": RATES, "training": TRAINING, "share": labels.shape[1]}
    return sweep(X, labels, **asked | {"share": 1} | changes if softmax else asked | changes, softmax=softmax)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize(("kind", "missing"), [("multilabel", 0.0), ("multilabel", 0.4), ("multiclass", 0.0)])
def test_every_head_is_the_one_of_a_literal_loop(kind: Any, missing: float, momentum: float) -> None:
    X, y = problem(kind, missing=missing)
    labels = label_matrix(y, kind, 3)
    training = Training(130, 32, momentum, seed=3)
    found = trained(X, labels, kind == "multiclass", training=training)
    told = training.told()
    assert told[0]
    assert told[-100:].all()
    assert not told.all()
    for choice, columns in CHOICES.items():
        for i, rate in enumerate(RATES):
            weights, bias, losses = by_torch(X, labels, columns, rate, training, kind == "multiclass")
            # float32 both, 130 steps
            np.testing.assert_allclose(found[choice].weights[i], weights, rtol=1e-4, atol=2e-5)
            np.testing.assert_allclose(found[choice].bias[i], bias, rtol=1e-4, atol=2e-5)
            np.testing.assert_allclose(found[choice].losses[i], losses[told], rtol=1e-4)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_heads_have_nothing_in_common_but_the_rows(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = problem(kind)
    labels = label_matrix(y, kind, 3)
    whole = trained(X, labels, kind == "multiclass")
    ways: dict[str, dict[str, Swept]] = {
        "the other way round": trained(
            X, labels, kind == "multiclass", choices=dict(reversed(CHOICES.items())), rates=RATES[::-1]
        )
    }
    ways["the other way round"] = {
        c: Swept(s.weights[::-1], s.bias[::-1], s.losses[::-1]) for c, s in ways["the other way round"].items()
    }
    ways["alone"] = {
        choice: Swept(*(np.concatenate(part) for part in zip(*alone, strict=True)))
        for choice in CHOICES
        if (
            alone := [
                (s.weights, s.bias, s.losses)
                for rate in RATES
                for s in trained(
                    X, labels, kind == "multiclass", choices={choice: CHOICES[choice]}, rates=(rate,)
                ).values()
            ]
        )
    }
    monkeypatch.setattr(linear_sweep, "cores", lambda: 3)
    monkeypatch.setattr(linear_sweep, "_SMALL", 0)
    monkeypatch.setattr(linear_sweep, "_HEADS_OF_A_THREAD", 1)
    ways["on three threads"] = trained(X, labels, kind == "multiclass")
    monkeypatch.undo()
    ways["by torch"] = trained(X, labels, kind == "multiclass", device="cpu:0")
    for way, found in ways.items():
        for choice, of_choice in whole.items():
            np.testing.assert_allclose(found[choice].weights, of_choice.weights, rtol=1e-4, atol=1e-5, err_msg=way)
            np.testing.assert_allclose(found[choice].bias, of_choice.bias, rtol=1e-4, atol=1e-5, err_msg=way)
            np.testing.assert_allclose(found[choice].losses, of_choice.losses, rtol=1e-4, err_msg=way)


def test_float16_and_float64_rows_are_read_as_float32() -> None:
    X, y = problem("multilabel")
    X = X.astype(np.float16)
    whole = trained(X.astype(np.float32), y, False)
    for same in (X, X.astype(np.float64)):
        for choice, found in trained(same, y, False).items():
            np.testing.assert_array_equal(found.weights, whole[choice].weights)
    for choice, found in trained(X, y, False, device="cpu:0").items():
        np.testing.assert_allclose(found.weights, whole[choice].weights, rtol=1e-4, atol=1e-5)


def test_batches_are_shuffled_epochs_end_to_end() -> None:
    drawn = Training(50, 32, seed=1).batches(100)
    assert drawn.shape == (50, 32)
    epochs = drawn.ravel().reshape(16, 100)
    assert (np.sort(epochs, axis=1) == np.arange(100)).all()
    assert len({epoch.tobytes() for epoch in epochs}) == 16
    assert (Training(50, 32, seed=1).batches(100) == drawn).all()
    assert (Training(50, 32, seed=2).batches(100) != drawn).any()
    few = Training(3, 10).batches(4)  # fewer rows than a batch has
    assert np.bincount(few[0], minlength=4).min() >= 2


def test_the_learning_rate_falls_to_zero_by_a_cosine() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    for step in Training(40, 1).decay():
        assert step == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        schedule.step()


def test_the_order_of_rows_decides_nothing() -> None:
    X, y = problem("multilabel")
    X[5] = X[6]  # rows that only their labels tell apart
    y[5], y[6] = (1, 0, 1), (0, 1, 1)
    again = np.random.default_rng(0).permutation(len(X))
    order = in_order(X, y)
    assert sorted(order.tolist()) == list(range(len(X)))
    np.testing.assert_array_equal(X[again][in_order(X[again], y[again])], X[order])
    np.testing.assert_array_equal(y[again][in_order(X[again], y[again])], y[order])
    assert (np.diff(order) != 1).mean() > 0.9
    found, other = trained(X, y, False), trained(X[again], y[again], False)
    for choice in CHOICES:
        np.testing.assert_array_equal(found[choice].weights, other[choice].weights)


def test_classes_start_apart_whatever_their_place() -> None:
    _, y = problem("multilabel", n=400)
    training = Training(1, 1)
    start = np.stack([training.first_weights(column, 2000) for column in y.T])
    assert start.std() == pytest.approx(0.01, rel=0.05)
    assert np.abs(np.corrcoef(start)[np.triu_indices(3, 1)]).max() < 0.1
    np.testing.assert_array_equal(training.first_weights(y[:, 1], 50), start[1, :50])
    assert (Training(1, 1, seed=1).first_weights(y[:, 1], 50) != start[1, :50]).all()


def test_neighbours_share_columns() -> None:
    four = {"a": (slice(9, 12),), "b": (slice(9, 15),), "c": (slice(0, 12),), "d": (slice(0, 15),)}
    order = side_by_side(four)
    for users in ({"c", "d"}, {"b", "d"}):
        first, second = sorted(order.index(name) for name in users)
        assert second == first + 1
    assert sorted(side_by_side({f"{i}": (slice(i, 12),) for i in range(9)})) == [f"{i}" for i in range(9)]


def test_features_that_are_not_finite_are_refused() -> None:
    X, y = problem("multilabel")
    X[3, 4] = np.inf
    with pytest.raises(InputError, match="finite"):
        LinearProbe(iterations=5).fit_path(X, y, "multilabel", (0.1,), 3)


# --- the probe --------------------------------------------------------------------------------------


def test_it_fits_together_what_it_fits_alone() -> None:
    X, y = problem("multilabel", missing=0.2)
    probe = LinearProbe(iterations=150, batch_size=32)
    assert isinstance(probe, FitsTogether)
    together = probe.fit_choices(X, y, "multilabel", CHOICES, RATES, 3)
    for choice, columns in CHOICES.items():
        own = take_columns(X, columns)
        scores = together[choice].scores(own)
        assert scores.shape == (2, len(X), 3)
        np.testing.assert_allclose(together[choice].only(0.3).scores(own)[0], scores[1])
    whole = probe.fit_path(X, y, "multilabel", RATES, 3)
    named = probe.fit_choices(X, y, "multilabel", {"all": (slice(0, 16),)}, RATES, 3)["all"]
    np.testing.assert_array_equal(whole.scores(X), named.scores(X))


def test_enough_steps_end_where_the_convex_problem_does() -> None:
    X, y = problem("multilabel", n=300)
    fitted = LinearProbe(iterations=6000, batch_size=100).fit_path(X, y[:, 0], "binary", (0.3,), 1)
    model = LogisticRegression(C=np.inf, tol=1e-8).fit(X.astype(np.float64), y[:, 0])
    np.testing.assert_allclose(fitted.coef[0, 0], model.coef_[0], atol=0.05 * np.abs(model.coef_).max())
    assert fitted.score_name == "log-odds"


def test_a_label_without_both_classes_has_no_head_and_the_loss_is_of_the_others() -> None:
    X, y = problem("multilabel")
    y[:, 1] = 0
    probe = LinearProbe(iterations=600)
    fitted = probe.fit_path(X, y, "multilabel", (0.01,), 3)
    assert np.isnan(fitted.scores(X)[..., 1]).all()
    p = 1 / (1 + np.exp(-fitted.scores(X)[0][:, [0, 2]]))
    whole = -np.log(np.where(y[:, [0, 2]] == 1, p, 1 - p)).mean()
    assert fitted.diagnostics.path["loss"][0] == pytest.approx(whole, rel=0.02)
    nothing = probe.fit_path(X, np.zeros_like(y), "multilabel", (0.01,), 3)
    assert np.isnan(nothing.scores(X)).all()
    assert nothing.diagnostics.path["loss"] == [None]


def test_a_class_without_a_row_is_out_of_the_softmax() -> None:
    X, y = problem("multiclass")
    kept = y != 1
    scores = LinearProbe(iterations=120).fit_path(X[kept], y[kept], "multiclass", (0.01,), 3).scores(X)[0]
    assert np.isnan(scores[:, 1]).all()
    np.testing.assert_allclose(np.exp(scores[:, [0, 2]]).sum(axis=1), 1, rtol=1e-9)
    alone = LinearProbe(iterations=5).fit_path(X[y == 1], y[y == 1], "multiclass", (0.01,), 3)
    assert np.isnan(alone.scores(X)).all()


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_a_head_that_diverges_is_told_and_has_no_scores(kind: Any, device: str) -> None:
    X, y = problem(kind)
    X *= np.float32(1e25)
    fitted = LinearProbe(iterations=120, device=device).fit_path(X, y, kind, (1e-30, 1e30), 3)
    assert fitted.diagnostics.not_converged == (1e30,)
    assert "lr 1e+30" in fitted.diagnostics.warnings[0]
    assert fitted.diagnostics.path["loss"][1] is None
    scores = fitted.scores(X)
    assert np.isfinite(scores[0]).all()
    assert np.isnan(scores[1]).all()


def test_presets() -> None:
    assert len(LinearProbe().grid(1000)) * 4 == 16
    assert len(LinearProbe(preset="dinov2").grid(1000)) * 4 == 52
    assert LinearProbe().grid(1000) == (1e-3, 5e-3, 1e-2, 5e-2)
    # the learning rates of batches of 256, for the batch that is taken
    assert LinearProbe(preset="dinov2").grid(10)[-1] == pytest.approx(0.05)
    assert LinearProbe(preset="dinov2", batch_size=512).grid(10) == pytest.approx(
        [2 * lr for lr in PRESETS["dinov2"].lr]
    )
    assert LinearProbe(preset="dinov2", lr=(0.2, 0.1)).grid(10) == (0.1, 0.2)
    assert LinearProbe(preset="dinov2").training(10).iterations == MOST == 12_500
    assert LinearProbe().training(10).iterations == 1000
    assert LinearProbe().training(86_524).iterations == 6760
    assert LinearProbe().training(10**7).iterations == MOST
    assert LinearProbe(iterations=7, batch_size=5, momentum=0.5, seed=4).training(10) == Training(7, 5, 0.5, 4)


def test_bad_options_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'dinov2'"):
        LinearProbe(preset="dinov3")  # type: ignore[arg-type]
    for options in ({"batch_size": 0}, {"iterations": 0}, {"momentum": 1.0}, {"seed": -1}):
        with pytest.raises(InputError, match=next(iter(options))):
            LinearProbe(**options)  # type: ignore[arg-type]
    X, y = problem("multilabel")
    with pytest.raises(InputError, match="device 'nowhere'"):
        LinearProbe(device="nowhere").fit_path(X, y, "multilabel", (0.1,), 3)
