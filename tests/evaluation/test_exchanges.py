"""Draws of patients who have several classes at once: each part has its share of every class."""

from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.evaluation.exchanges import evened
from embedcache.evaluation.split_files import make_splits
from embedcache.evaluation.splits import make_split, members, read_split
from embedcache.evaluation.strata import Strata, strata_of
from embedcache.testing.labelled_stores import long_labels
from embedcache.types import PARTS, Split, Task, strings

SHARES = np.geomspace(0.002, 0.18, 14)
"""Of patients with a finding, as in chest X-rays."""
Bools = npt.NDArray[np.bool_]


def findings(n: int, shares: npt.NDArray[np.float64] = SHARES, seed: int = 0) -> npt.NDArray[np.float64]:
    """(n, findings): those of a patient come together, and of every thirtieth patient nothing is known."""
    random = np.random.default_rng(seed)
    severity = 0.6 * random.standard_normal((n, 1)) + 0.8 * random.standard_normal((n, len(shares)))
    y = (severity > np.quantile(severity, 1 - shares, axis=0).diagonal()).astype(float)
    y[random.permutation(n)[: n // 30]] = np.nan
    return y


def people(n: int) -> tuple[Any, Any]:
    """Two samples of each patient."""
    return strings([f"s{i:05d}" for i in range(2 * n)]), strings([f"p{i // 2:05d}" for i in range(2 * n)])


def strata(y: npt.NDArray[np.float64], names: tuple[str, ...]) -> Strata:
    """Of patients of whom each finding is seen in one of two samples."""
    samples, patients = people(len(y))
    both = np.repeat(y, 2, axis=0)
    both[::2, ::2] *= 0
    both[1::2, 1::2] *= 0
    task = Task("findings", "multilabel", names)
    labels = long_labels(task, samples.tolist(), patients.tolist(), both, [""] * len(samples))
    return strata_of(samples, patients, labels, task)


def off(split: Split, having: Bools) -> npt.NDArray[np.float64]:
    """(parts, classes): by how many patients each part misses its share of the patients of a class."""
    part = members(split)
    samples, _ = people(len(having) // 2)
    inside = np.array([[part[s] == name for s in samples[::2].tolist()] for name in PARTS])
    of = having[::2]
    return np.abs(inside @ of.astype(float) - inside.mean(axis=1, keepdims=True) * of.sum(axis=0))


NAMES = tuple("abcdefghijklmn")


@pytest.mark.parametrize("n", [400, 3000])
def test_every_class_is_shared_out_as_nearly_as_whole_patients_allow(n: int) -> None:
    samples, patients = people(n)
    found = strata(findings(n), NAMES)
    assert found.having.shape == (2 * n, 16)
    assert found.having[:, -2:].any(axis=0).all()
    before, after = [], []
    for seed in range(5):
        plain = make_split(samples, patients, seed=seed, strata=found.stratum)
        split = make_split(samples, patients, seed=seed, strata=found.stratum, having=found.having)
        assert [(split.part == p).sum() for p in PARTS] == [(plain.part == p).sum() for p in PARTS]
        assert (split.part[::2] == split.part[1::2]).all()
        before.append(off(plain, found.having))
        after.append(off(split, found.having))
    assert np.max(before) > 3
    assert np.mean(after) < 0.6 * np.mean(before)
    assert np.max(np.array(after)[..., :-2]) < 1
    assert np.max(after) < 2


@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_neither_the_order_of_samples_nor_the_names_of_classes_decide(seed: int, random: Random) -> None:
    samples, patients = people(90)
    y = findings(90, np.linspace(0.1, 0.5, 4), seed)
    found = strata(y, ("a", "b", "c", "d"))
    split = make_split(samples, patients, seed=seed, strata=found.stratum, having=found.having)
    order = list(range(180))
    random.shuffle(order)
    again = make_split(
        samples[order], patients[order], seed=seed, strata=found.stratum[order], having=found.having[order]
    )
    assert members(again) == members(split)
    renamed = strata(y, ("z", "y", "x", "w"))
    again = make_split(samples, patients, seed=seed, strata=renamed.stratum, having=renamed.having)
    assert members(again) == members(split)
    turned = strata(y[:, ::-1], ("d", "c", "b", "a"))
    other = make_split(samples, patients, seed=seed, strata=turned.stratum, having=turned.having)
    assert off(other, turned.having).max() < 2


def test_where_nobody_has_two_classes_the_strata_say_it_all() -> None:
    samples, patients = people(100)
    y = np.eye(4)[np.arange(100) % 4][:, :3]
    found = strata(y, ("a", "b", "c"))
    plain = make_split(samples, patients, seed=3, strata=found.stratum)
    assert members(make_split(samples, patients, seed=3, strata=found.stratum, having=found.having)) == members(plain)


@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 5), st.floats(0.05, 0.95))
@settings(max_examples=100, deadline=None)
def test_no_exchange_of_two_patients_would_even_it_further(seed: int, n: int, classes: int, share: float) -> None:
    random = np.random.default_rng(seed)
    having = random.random((n, classes)) < random.random(classes)
    taken = np.zeros(n, dtype=bool)
    taken[random.permutation(n)[: min(max(1, round(share * n)), n - 1)]] = True
    found = evened(random, having, taken)
    assert found.sum() == taken.sum()
    wanted = having.sum(axis=0) * taken.mean()

    def unevenness(of: Bools) -> float:
        return float((((having[of].sum(axis=0) - wanted) ** 2)[wanted > 0] / np.sqrt(wanted[wanted > 0])).sum())

    least = unevenness(found)
    assert least <= unevenness(taken) + 1e-6
    for out in np.flatnonzero(found):
        for come in np.flatnonzero(~found):
            other = found.copy()
            other[[out, come]] = False, True
            assert unevenness(other) > least - 2e-6


def test_only_as_many_are_exchanged_as_need_be() -> None:
    having = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], 10, axis=0).astype(bool)
    taken = np.zeros(40, dtype=bool)
    taken[[0, 1, 2, 3, 4, 10, 20, 30]] = True  # six of each class, where four are a fifth
    found = evened(np.random.default_rng(0), having, taken)
    assert having[found].sum(axis=0).tolist() == [4, 4]
    assert (found & taken).sum() == 6
    even = taken.copy()
    even[[2, 3, 4, 11, 21, 31]] = False, False, False, True, True, True
    assert (evened(np.random.default_rng(0), having, even) == even).all()


def test_a_stores_findings_are_shared_out(made: Any, tmp_path: Any) -> None:
    y = np.repeat(findings(80, np.linspace(0.3, 0.5, made.y.shape[1]), 1), 2, axis=0)
    made.relabel(y)
    for seed in range(6):
        report = make_splits(made.store, tmp_path / "a.csv", seed=seed, stratify="findings")
        assert report.patients == {"train": 51, "validation": 13, "test": 16}
        split = read_split(tmp_path / "a.csv")
        part = members(split)
        for j in range(y.shape[1]):
            having = [part[s] for s in np.array(made.samples)[y[:, j] == 1][::2].tolist()]
            for name, count in report.patients.items():
                assert abs(having.count(name) - count / 80 * len(having)) < 1
