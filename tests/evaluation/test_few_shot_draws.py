from itertools import pairwise

import numpy as np
import pytest

from embedcache.errors import InputError
from embedcache.evaluation.few_shot_draws import NONE, Draw, PatientClasses, draw_all, patient_classes, too_few
from embedcache.probes.base import Matrix

SHOTS = (1, 2, 4, 8)
NAMES = ("Effusion", "Mass", "Nodule")


def rows(n: int = 300, seed: int = 0) -> tuple[Matrix, np.ndarray]:
    """Truth of three findings, some missing, and the patient of each row: one to five rows each."""
    random = np.random.default_rng(seed)
    truth = (random.random((n, 3)) < [0.3, 0.15, 0.02]).astype(float)
    truth[random.random((n, 3)) < 0.1] = np.nan
    return truth, np.array([f"p{i:03d}" for i in np.sort(random.integers(0, n // 3, n))])


def of_all(truth: Matrix, groups: np.ndarray) -> PatientClasses:
    return patient_classes(truth, groups, "multilabel", NAMES, np.arange(3))


def ids(of: PatientClasses, draw: Draw) -> set[str]:
    return set(of.patients[draw.patients].tolist())


def test_classes_are_counted_as_by_a_literal_loop() -> None:
    truth, groups = rows()
    of = of_all(truth, groups)
    assert of.names == (*NAMES, NONE)
    for name, members in zip(of.names, of.members, strict=True):
        found = set(of.patients[members].tolist())
        expected = set()
        for patient in np.unique(groups):
            own = truth[groups == patient]
            healthy = not (own == 1).any() and (own == 0).any()
            if healthy if name == NONE else (own[:, NAMES.index(name)] == 1).any():
                expected.add(patient)
        assert found == expected
    assert (of.patients[of.row] == groups).all()


def test_draws_of_a_seed_hold_the_smaller_ones_and_all_rows_of_their_patients() -> None:
    truth, groups = rows()
    of = of_all(truth, groups)
    draws = draw_all(of, SHOTS, 20, 0, False)
    assert [(d.shots, d.seed) for d in draws] == [(n, seed) for n in SHOTS for seed in range(20)]
    by_size = {(d.shots, d.seed): d for d in draws}
    for seed in range(20):
        for smaller, larger in pairwise(SHOTS):
            assert ids(of, by_size[smaller, seed]) < ids(of, by_size[larger, seed])
    for draw in draws:
        assert set(groups[draw.rows].tolist()) == ids(of, draw)
        assert len(draw.rows) == np.isin(groups, list(ids(of, draw))).sum()
        for name, members in zip(of.names, of.members, strict=True):
            taken = len(np.intersect1d(members, draw.patients))
            assert taken >= min(draw.shots, len(members))
            if name == NONE:  # nobody comes to these by way of another class
                assert taken == draw.shots
        slots = sum(min(draw.shots, len(members)) for members in of.members)
        assert draw.overlaps == slots - len(draw.patients)
    assert any(draw.overlaps for draw in draws)


def test_seeds_and_bases_differ_and_repeat() -> None:
    of = of_all(*rows())
    drawn = [tuple(d.patients) for d in draw_all(of, (4,), 20, 0, False)]
    assert len(set(drawn)) == 20
    assert drawn == [tuple(d.patients) for d in draw_all(of, (4,), 20, 0, False)]
    assert drawn[:5] == [tuple(d.patients) for d in draw_all(of, (1, 4), 5, 0, False)[5:]]
    assert set(drawn).isdisjoint({tuple(d.patients) for d in draw_all(of, (4,), 20, 1, False)})


def test_the_order_of_rows_decides_nothing() -> None:
    truth, groups = rows()
    order = np.random.default_rng(1).permutation(len(groups))
    a, b = of_all(truth, groups), of_all(truth[order], groups[order])
    pairs = zip(draw_all(a, SHOTS, 3, 0, False), draw_all(b, SHOTS, 3, 0, False), strict=True)
    for first, second in pairs:
        assert ids(a, first) == ids(b, second)
        assert sorted(first.rows.tolist()) == sorted(order[second.rows].tolist())


def test_fewer_classes_draw_the_same_patients_of_those() -> None:
    truth, groups = rows()
    some = patient_classes(truth, groups, "multilabel", NAMES, np.array([1]))
    assert some.names == ("Mass", NONE)
    alone, among = draw_all(some, (3,), 4, 0, False), draw_all(of_all(truth, groups), (3,), 4, 0, False)
    for a, b in zip(alone, among, strict=True):
        assert set(a.patients.tolist()) <= set(b.patients.tolist())
    healthy = some.members[1]
    assert not (truth[np.isin(some.row, healthy)] == 1).any(), "a patient with any finding is no healthy one"


def test_without_the_rows_that_lack_an_asked_label_its_patients_are_drawn_as_among_all() -> None:
    truth, groups = rows()
    truth[::2, 1] = np.nan
    labelled = ~np.isnan(truth[:, 1])
    ill = groups[(truth == 1).any(axis=1)]
    some = patient_classes(truth[labelled], groups[labelled], "multilabel", NAMES, np.array([1]), ill)
    every = of_all(truth, groups)
    mass = set(every.patients[every.members[1]].tolist())
    for a, b in zip(draw_all(some, (3,), 4, 0, False), draw_all(every, (3,), 4, 0, False), strict=True):
        drawn = ids(some, a) & mass
        assert len(drawn) == 3
        assert drawn <= ids(every, b)
    healthy = set(some.patients[some.members[1]].tolist())
    assert healthy < set(every.patients[every.members[3]].tolist()), "fewer, for want of a label, and none that is ill"
    seen = patient_classes(truth[labelled], groups[labelled], "multilabel", NAMES, np.array([1]))
    assert set(seen.patients[seen.members[1]].tolist()) & set(ill.tolist()), "or they would pass for healthy"


def test_every_patient_is_equally_likely() -> None:
    """Of 40 patients of a class each is in about a fifth of 500 draws of eight."""
    truth = np.ones((40, 1))
    of = patient_classes(truth, np.array([f"p{i:02d}" for i in range(40)]), "binary", ("positive",), np.arange(1))
    count = np.bincount(np.concatenate([d.patients for d in draw_all(of, (8,), 500, 0, False)]), minlength=40)
    assert np.abs(count - 100).max() < 4.5 * np.sqrt(500 * 0.2 * 0.8)


def test_binary_and_multiclass_tasks_take_so_many_of_each_class() -> None:
    groups = np.array([f"p{i // 2:02d}" for i in range(60)])
    binary = patient_classes((np.arange(60) < 20)[:, None].astype(float), groups, "binary", ("sick",), np.arange(1))
    assert binary.names == ("sick", "no positive")
    assert [len(d.patients) for d in draw_all(binary, SHOTS, 2, 0, False)] == [2, 2, 4, 4, 8, 8, 16, 16]
    number = np.arange(60) // 2 % 3
    number[0] = 1  # a patient of two classes
    three = patient_classes(np.eye(3)[number], groups, "multiclass", ("a", "b", "c"), np.arange(3))
    assert three.names == ("a", "b", "c")
    assert [len(members) for members in three.members] == [10, 11, 10]
    (whole,) = draw_all(three, (11,), 1, 0, False)
    assert (len(whole.patients), whole.overlaps) == (30, 1)
    assert too_few(three, 11) == {"a": 10, "c": 10}


def test_sorted_ids_are_sorted_as_numbers_where_they_are_numbers() -> None:
    truth = np.array([[1.0], [1], [1], [0], [0], [0]])
    numbers = patient_classes(truth, np.array(["10", "9", "100", "8", "11", "7"]), "binary", ("sick",), np.arange(1))
    texts = patient_classes(truth, np.array(["10", "9", "100", "8", "11", "x"]), "binary", ("sick",), np.arange(1))
    (draw,) = draw_all(numbers, (2,), 20, 0, True)
    assert draw.seed is None
    assert ids(numbers, draw) == {"9", "10", "7", "8"}
    (draw,) = draw_all(texts, (2,), 20, 0, True)
    assert ids(texts, draw) == {"10", "100", "11", "8"}


def test_nobody_to_draw_is_said() -> None:
    of = patient_classes(np.full((4, 1), np.nan), np.array(["a", "a", "b", "c"]), "binary", ("sick",), np.arange(1))
    with pytest.raises(InputError, match="nobody to draw"):
        draw_all(of, (1,), 1, 0, False)
