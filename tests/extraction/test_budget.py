"""Proposals under a budget cost what they say, in the order of what they lose."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedcache
from embedcache import ExtractConfig
from embedcache.errors import InputError
from embedcache.extraction.budget import UNITS, parse_bytes, say_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("50GiB", 50 * 2**30),
        ("500MB", 500 * 10**6),
        ("1.5TB", 15 * 10**11),
        (" 2 kib ", 2048),
        ("1234", 1234),
        ("7B", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1GB", "0", "0.0MB", "5 elephants", "5G", "1e3", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match="a size is a number above 0 with one of B, KB"):
        parse_bytes(text)


@given(st.integers(1, 10**6), st.sampled_from(sorted(UNITS)))
def test_every_unit(count: int, unit: str) -> None:
    assert parse_bytes(f"{count}{unit}") == count * UNITS[unit]
    assert parse_bytes(f"{count} {unit.lower()}") == count * UNITS[unit]


def test_sizes_are_said_for_people() -> None:
    assert [say_bytes(n) for n in (5, 1536, 50 * 2**30, 3 * 2**40)] == ["5 B", "1.5 KiB", "50.0 GiB", "3.0 TiB"]


def test_proposals_cost_what_they_say(config: ExtractConfig) -> None:
    asked = replace(config, tokens="cls,patch", layers="all", dtype="float32", size=56, rows_per_shard=None)
    report = embedcache.plan(asked, budget=1)
    assert [(p.name, p.switches) for p in report.proposals] == [
        ("as asked", ""),
        ("as float16", "--dtype float16"),
        ("patch tokens as int8", "--dtype int8"),
        ("the last layer", "--layers last"),
        ("as float16, the last layer", "--dtype float16 --layers last"),
        ("patch tokens as int8, the last layer", "--dtype int8 --layers last"),
        ("patch mean in place of patch tokens", "--tokens cls,mean"),
        ("patch mean in place of patch tokens, the last layer", "--tokens cls,mean --layers last"),
    ]
    assert report.exit_code == 2
    assert "nothing that can be asked" in report.problem
    for proposal in report.proposals:
        words = proposal.switches.replace("--", "").split()
        changes = dict(zip(words[::2], words[1::2], strict=True))
        assert embedcache.plan(replace(asked, **changes)).needed == proposal.needed  # type: ignore[arg-type]
        assert not proposal.fits


def test_the_first_that_fits(config: ExtractConfig) -> None:
    asked = replace(config, tokens="cls,mean,patch", size=56)
    needed = {p.name: p.needed for p in embedcache.plan(asked, budget=1).proposals}
    assert embedcache.plan(asked, budget=needed["as asked"]).fits
    less = embedcache.plan(asked, budget=needed["as asked"] - 1)
    assert not less.fits
    assert less.exit_code == 0
    assert [p.fits for p in less.proposals][:2] == [False, True]


def test_what_differs_in_nothing_is_not_proposed(config: ExtractConfig) -> None:
    assert [p.name for p in embedcache.plan(config, budget="1GB").proposals] == ["as asked"]
    int8 = replace(config, tokens="cls,patch", dtype="int8")
    assert [p.switches for p in embedcache.plan(int8, budget="1GB").proposals] == [
        "",
        "--tokens cls,mean --dtype float16",
    ]


def test_what_a_store_holds_is_no_proposal_in_another_dtype(config: ExtractConfig) -> None:
    embedcache.extract(replace(config, tokens="mean", dtype="float32"))
    asked = replace(config, tokens="patch,mean", dtype="float32")
    # int8 would ask for the mean in float16, which the store holds in float32
    assert [p.name for p in embedcache.plan(asked, budget=1).proposals] == [
        "as asked",
        "patch mean in place of patch tokens",
    ]
