import hashlib
import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.datasets.systematic import systematic_parts
from embedcache.errors import InputError, UnknownNameError
from embedcache.evaluation.splits import (
    check_split,
    make_split,
    members,
    read_split,
    shares,
    split_digest,
    write_split,
)
from embedcache.types import Split, strings


def people(n: int, each: int = 3) -> tuple[object, object]:
    return strings([f"s{i:03d}" for i in range(n * each)]), strings([f"p{i // each:03d}" for i in range(n * each)])


@given(st.integers(3, 40), st.integers(1, 4), st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_patients_stay_together_and_order_decides_nothing(n: int, each: int, seed: int, random: Random) -> None:
    samples, patients = people(n, each)
    split = make_split(samples, patients, seed=seed)
    parts = {p: set(split.part[split.patient == p].tolist()) for p in set(patients.tolist())}
    assert all(len(found) == 1 for found in parts.values())
    assert {"train", "validation", "test"} == set(split.part.tolist())
    order = list(range(n * each))
    random.shuffle(order)
    assert members(make_split(samples[order], patients[order], seed=seed)) == members(split)


def test_shares_are_of_patients_and_the_seed_draws_them() -> None:
    samples, patients = people(100)
    split = make_split(samples, patients, validation=0.25, test=0.2, seed=3)
    count = {part: len(set(split.patient[split.part == part].tolist())) for part in ("train", "validation", "test")}
    assert count == {"test": 20, "validation": 20, "train": 60}
    assert members(make_split(samples, patients, seed=4)) != members(make_split(samples, patients, seed=3))


def test_official_parts_are_kept_and_validation_comes_out_of_training() -> None:
    samples, patients = people(50)
    official = strings(["test" if p >= "p040" else "train" for p in patients.tolist()])
    split = make_split(samples, patients, official)
    assert (split.part == "test").tolist() == (official == "test").tolist()
    assert len(set(split.patient[split.part == "validation"].tolist())) == 8
    assert split.seed == 0
    whole = strings(["test" if p >= "p040" else "validation" if p >= "p030" else "train" for p in patients.tolist()])
    kept = make_split(samples, patients, whole)
    assert kept.part.tolist() == whole.tolist()
    assert kept.seed is None  # nothing was drawn


def test_a_patient_passes_its_part_on_to_samples_without_one() -> None:
    samples, patients = people(10, 2)
    official = strings(["test", *[""] * 19])
    assert make_split(samples, patients, official).part.tolist()[:2] == ["test", "test"]


def test_who_is_in_no_part_of_a_list_that_names_training_samples_is_left_out() -> None:
    samples, patients = people(60, 2)
    numbers = np.arange(60).repeat(2)
    listed = np.select([numbers < 10, numbers < 30], ["test", "train"], "")
    listed[[59, 61]] = ""  # the second samples of two listed patients
    split = make_split(samples, patients, strings(listed))
    parts = {part: len(set(split.patient[split.part == part].tolist())) for part in ("train", "validation", "test")}
    assert parts == {"train": 16, "validation": 4, "test": 10}
    assert len(split.sample) == 60
    no_training = make_split(samples, patients, strings(np.where(listed == "train", "", listed)))
    assert len(no_training.sample) == 120, "where only test samples are named, the rest trains"


def test_a_patient_in_two_official_parts_is_refused_without_naming_it() -> None:
    samples, patients = people(10, 2)
    official = strings(["test", "train", *["train"] * 18])
    with pytest.raises(InputError, match="sample 's000' in test and sample 's001' in train") as caught:
        make_split(samples, patients, official)
    assert "p000" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_few_patients_are_refused() -> None:
    samples, patients = people(2)
    with pytest.raises(InputError, match="too few"):
        make_split(samples, patients)


def test_systematic_takes_every_nth_patient() -> None:
    _, patients = people(12, 2)
    parts = systematic_parts(patients, test_every=3, validation_every=4)
    by_patient = dict(zip(patients.tolist(), parts.tolist(), strict=True))
    assert [p for p in by_patient if by_patient[p] == "test"] == ["p002", "p005", "p008", "p011"]
    assert [p for p in by_patient if by_patient[p] == "validation"] == ["p004", "p010"]


def test_a_file_reads_back_and_its_bytes_are_the_splits(tmp_path: Path) -> None:
    samples, patients = people(20)
    split = make_split(samples, patients, seed=5)
    write_split(split, tmp_path / "a.csv")
    back = read_split(tmp_path / "a.csv", samples)
    assert members(back) == members(split)
    assert (back.seed, back.draw, back.name) == (5, 0, "a")
    order = np.random.default_rng(0).permutation(len(samples))
    write_split(Split(split.sample[order], split.patient[order], split.part[order], seed=5), tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert split_digest(back) == split_digest(split)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "b.csv"]


def test_the_digest_is_of_who_is_where() -> None:
    samples, patients = people(20)
    split = make_split(samples, patients)
    part = split.part.copy()
    part[part == "validation"] = "train"
    assert split_digest(Split(samples, patients, part)) != split_digest(split)
    assert split_digest(Split(samples, patients, split.part, draw=3, seed=9, name="x")) == split_digest(split)


@pytest.mark.parametrize("odd", ["", '"', "\\", "é", "\x7f", "\u200b", "\n", ",", '","'])
def test_the_digest_is_that_of_the_sorted_rows_in_canonical_json(odd: str) -> None:
    samples = [f"s{i}{odd}" for i in range(12)]  # s10 before s2
    rows = sorted((s, f"p{i}{odd}", "train") for i, s in enumerate(samples))
    expected = hashlib.sha256(json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()
    for order in (samples, sorted(samples)):
        patients = [f"p{samples.index(s)}{odd}" for s in order]
        assert split_digest(Split(strings(order), strings(patients), strings(["train"] * 12))) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sample,split\na,train\n", "has no column 'patient'"),
        ("sample,patient,split\n", "has no rows"),
        ("sample,patient,split\na,p,train\na,p,train\n", "sample 'a' twice"),
        ("sample,patient,split\na,p,train\nb,p,test\n", "one patient in two parts"),
        ("sample,patient,split\na,p\n", "row 1 of bad.csv is too short"),
        ("sample,patient,split,draw,seed\na,p,train,0,x\n", "whole number"),
        ("sample,patient,split,draw,seed\na,p,train,0,1\nb,q,test,1,1\n", "one draw"),
        ("sample,patient,split\nzzz,p,train\n", "the store does not hold"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read_split(tmp_path / "bad.csv", strings(["a", "b"]))
    assert "\n" not in str(caught.value)


def test_an_unknown_part_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'train'"):
        check_split(Split(strings(["a"]), strings(["p"]), strings(["trian"])))
    with pytest.raises(InputError, match="no split file"):
        read_split(tmp_path / "none.csv")


def test_the_default_draw_is_what_it_was() -> None:
    """By its digests: a result names its split, and must be found again."""
    samples, patients = people(30)
    assert (
        split_digest(make_split(samples, patients, seed=0))
        == "ede5e4431ae9eaa7a8b4beda8cfdb563b842628df4dbee69b50746fd399f8580"
    )
    assert (
        split_digest(make_split(samples, patients, validation=0.3, test=0.1, seed=9))
        == "f25c75876f7ce8ae7dfc4a63c44b2bf29d68ed11c38fadf51d79d67402942c7f"
    )


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.floats(0.01, 0.99))
def test_shares_are_the_quotas_rounded_down_or_up(sizes: list[int], share: float) -> None:
    count = int(share * sum(sizes))
    found = shares(np.array(sizes), count)
    quota = np.array(sizes) * count / sum(sizes)
    assert found.sum() == count
    assert (np.abs(found - quota) < 1).all()


def test_of_equal_remainders_the_rarest_stratum_comes_first() -> None:
    assert shares(np.array([15, 5]), 2).tolist() == [1, 1]
    assert shares(np.array([5, 5]), 5).tolist() == [3, 2]


@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_a_stratified_draw_gives_each_part_its_share_whatever_the_order(seed: int, random: Random) -> None:
    samples, patients = people(60)
    strata = np.where(np.arange(180) // 3 < 10, 0, 1)  # 10 rare patients and 50
    split = make_split(samples, patients, seed=seed, strata=strata)
    rare = set(patients[strata == 0].tolist())
    for part, all_of, rare_of in (("test", 12, 2), ("validation", 10, 2), ("train", 38, 6)):
        there = set(split.patient[split.part == part].tolist())
        assert (len(there), len(there & rare)) == (all_of, rare_of)
    order = list(range(180))
    random.shuffle(order)
    assert members(make_split(samples[order], patients[order], seed=seed, strata=strata[order])) == members(split)


def test_what_a_draw_decided_is_told_apart_from_what_was_given() -> None:
    samples, patients = people(20)
    official = strings(["test" if i < 12 else "" for i in range(60)])
    assert make_split(samples, patients).drawn == ("train", "test", "validation")
    assert make_split(samples, patients, official).drawn == ("train", "validation")
    whole = make_split(samples, patients)
    assert make_split(samples, patients, whole.part).drawn == ()
