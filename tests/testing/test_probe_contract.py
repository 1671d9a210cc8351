"""Every registered probe holds to its contract, and the contract sees what is broken."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from embedcache.errors import InputError
from embedcache.probes import REGISTRY
from embedcache.probes.base import Diagnostics, Features, Groups, Matrix, ProbeKind, label_matrix
from embedcache.testing import check_probe
from embedcache.testing.probe_contract import breaches_of

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "attention": [{"weight_decay": (1.0, 1e-2), "epochs": 80}],
    "linear": [{"iterations": 300}, {"preset": "dinov2", "iterations": 100}],
    "prototypes": [{}, {"shrink": (2.0, 0.5, 0.0), "metric": "euclidean"}],
    "knn": [{}, {"votes": "ml-knn"}, {"search": "numpy"}],
    "logistic": [{"C": (1e-4, 1e-2, 1.0, 1e5)}, {"C": (1e-4, 1.0), "class_weight": "balanced"}],
}
"""With which options each of our own is examined; any other, as it comes."""
ALL = [(name, options) for name in REGISTRY.names() for options in OPTIONS.get(name, [{}])]


@pytest.mark.parametrize(("name", "options"), ALL, ids=[f"{name}-{i}" for i, (name, _) in enumerate(ALL)])
def test_registered_probes_hold_to_their_contract(name: str, options: dict[str, Any]) -> None:
    check_probe(name, **options)


@dataclass(frozen=True)
class Means:
    """The nearest class mean: as small as a probe can be, and right."""

    values: tuple[float, ...]
    mean: Matrix
    direction: Matrix
    threshold = 0.0
    score_name = "distance"
    diagnostics = Diagnostics()

    def scores(self, X: Features) -> Matrix:
        linear = (np.asarray(X, dtype=np.float64)[:, None, :] - self.mean) * self.direction
        return np.stack([linear.sum(axis=-1)] * len(self.values))

    def only(self, value: float) -> "Means":
        return replace(self, values=(value,))


@dataclass(frozen=True)
class MeansProbe:
    """A baseline that is right; each of the others below breaks one promise of it."""

    shrink: tuple[float, ...] = (1.0, 0.5)

    parameter = "shrink"
    answers: ClassVar[tuple[ProbeKind, ...]] = ("multilabel",)
    standardize = False

    def grid(self, n_train: int) -> tuple[float, ...]:
        return self.shrink

    def fit_path(
        self, X: Features, y: Features, kind: ProbeKind, values: tuple[float, ...], n_classes: int,
        groups: Groups | None = None,
    ) -> Any:  # fmt: skip
        labels = label_matrix(y, kind, n_classes)
        middles, directions = [], []
        for column in labels.T:
            if not {0.0, 1.0} <= set(column[~np.isnan(column)].tolist()):
                middles.append(np.full(X.shape[1], np.nan))
                directions.append(np.full(X.shape[1], np.nan))
                continue
            yes, no = (X[column == v].astype(np.float64).mean(axis=0) for v in (1, 0))
            middles.append((yes + no) / 2)
            directions.append(yes - no)
        return Means(values, np.array(middles), np.array(directions))


def test_a_probe_that_is_right_is_not_accused() -> None:
    assert list(breaches_of(MeansProbe())) == []


def wrapped(change: Callable[[Matrix, Features], Matrix]) -> type[MeansProbe]:
    """The probe with its scores changed."""

    class Fitted(Means):
        def scores(self, X: Features) -> Matrix:
            return change(super().scores(X), X)

        def only(self, value: float) -> "Fitted":
            return Fitted((value,), self.mean, self.direction)

    class Broken(MeansProbe):
        def fit_path(self, *arguments: Any, **more: Any) -> Any:
            fitted = super().fit_path(*arguments, **more)
            return Fitted(fitted.values, fitted.mean, fitted.direction)

    return Broken


def fitting(change: Callable[[Features, Features], tuple[Features, Features]]) -> type[MeansProbe]:
    """The probe with its training data changed."""

    class Broken(MeansProbe):
        def fit_path(self, X: Features, y: Features, *arguments: Any, **more: Any) -> Any:
            return super().fit_path(*change(X, y), *arguments, **more)

    return Broken


def spoil(X: Features, y: Features) -> tuple[Features, Features]:
    y[0] = 0
    return X, y


def crash(X: Features, y: Features) -> tuple[Features, Features]:
    if len(X) < X.shape[1]:
        raise np.linalg.LinAlgError("singular")
    return X, y


def draw(X: Features, y: Features) -> tuple[Features, Features]:
    return X + np.random.normal(size=X.shape), y


class Keeping(MeansProbe):
    """Fitted from another fit it is that one still, and knows nothing of the scale."""

    def fit_from(
        self, X: Features, y: Features, kind: ProbeKind, fitted: Any, scale: Any, n_classes: int,
        groups: Groups | None = None,
    ) -> Any:  # fmt: skip
        return fitted


BROKEN = {
    "kept from another scale": (Keeping, "fitted from another fit"),
    "scores of other shape": (wrapped(lambda s, X: s[..., :2]), "and not float64"),
    "scores in float32": (wrapped(lambda s, X: s.astype(np.float32)), "float32 of shape"),
    "scores not finite": (wrapped(lambda s, X: s + np.where(X[:, :1] > 1, np.inf, 0)), "not finite"),
    "queries seen together": (wrapped(lambda s, X: s - s.mean(axis=1, keepdims=True)), "asked for alone"),
    "queries ranked": (wrapped(lambda s, X: s.argsort(axis=1).argsort(axis=1).astype(float)), "asked for alone"),
    "inputs changed": (fitting(spoil), "it changes its inputs"),
    "a crash on few rows": (fitting(crash), "fewer rows than features ends in LinAlgError: singular"),
    "global random numbers": (fitting(draw), "global random numbers"),
    "missing labels as negatives": (fitting(lambda X, y: (X, np.nan_to_num(y))), "taken for a negative one"),
    "the first rows alone": (fitting(lambda X, y: (X[:40], y[:40])), "rows in another order"),
    "labels turned round": (fitting(lambda X, y: (X, 1 - y)), "standard deviations apart"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_seen(name: str) -> None:
    probe, says = BROKEN[name]
    assert any(says in line for line in breaches_of(probe())), list(breaches_of(probe()))


def test_an_option_that_a_result_can_not_record_is_seen() -> None:
    @dataclass(frozen=True)
    class Odd(MeansProbe):
        seen: Any = object

    @dataclass
    class Soft:
        shrink: tuple[float, ...] = (1.0,)
        parameter = "rate"
        answers = ()

        def grid(self, n_train: int) -> tuple[float, ...]:
            return (1.0, 1.0)

    assert any("no plain JSON" in line for line in breaches_of(Odd()))
    told = list(breaches_of(Soft()))
    for says in ("answers no kind", "rate is no field", "can be changed", "without a repetition"):
        assert any(says in line for line in told), told


def test_a_breach_is_told_with_the_probes_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY._loaded, "means", BROKEN["labels turned round"][0])
    with pytest.raises((AssertionError, InputError), match="probe means breaks its contract"):
        check_probe("means")
