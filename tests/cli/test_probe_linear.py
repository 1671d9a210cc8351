"""`embedcache probe linear` as a user types it."""

from pathlib import Path
from typing import Any

import pytest

from embedcache.testing.labelled_stores import LabelledStore, make_labelled_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LabelledStore:
    return make_labelled_store(tmp_path_factory.mktemp("four") / "cache", layers=(9, 10, 11, 12))


def test_sixteen_heads_and_fifty_two(cli: Any, store: LabelledStore, tmp_path: Path) -> None:
    common = ("probe", "linear", store.store, "--iterations", "100", "--resamples", "50")
    done = cli(*common, "--figure", tmp_path / "path.png")
    assert done.code == 0
    assert "linear probe on task findings: " in done.out
    assert (tmp_path / "path.png").stat().st_size > 10_000
    document = cli(*common, "--json").document
    assert sum(len(path.get("values", ())) for path in document["selection"].values()) == 16
    assert document["selection"]["cls"]["solver"]["batch_size"] == 128
    document = cli(*common, "--preset", "dinov2", "--json").document
    assert sum(len(path.get("values", ())) for path in document["selection"].values()) == 52


def test_every_option_arrives(cli: Any, store: LabelledStore) -> None:
    more = ("--lr", "0.1,0.01", "--batch-size", "16", "--iterations", "50", "--momentum", "0.5", "--training-seed", "3")
    asked = ("probe", "linear", store.store, "--layers", "last", "--features", "cls", "--device", "cpu:0", *more)
    document = cli(*asked, "--resamples", "50", "--json").document
    told = document["selection"]["cls"]["solver"]
    assert told == told | {"lr": [0.01, 0.1], "iterations": 50, "batch_size": 16, "momentum": 0.5, "seed": 3}
    assert document["chosen"]["layers"] == [12]
    assert "torch" in document["software"]["solver"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--preset", "vissl"), "vissl"),
        (("--lr", "fast"), "--lr takes numbers"),
        (("--lr", "-1"), "lr must be one or several positive numbers"),
        (("--iterations", "0"), "iterations must be at least 1"),
        (("--layers", "three"), "--layers takes whole numbers"),
    ],
)
def test_bad_options_are_one_line(cli: Any, store: LabelledStore, more: tuple[str, ...], told: str) -> None:
    done = cli("probe", "linear", store.store, *more)
    assert done.code == 2
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1 or "Usage" in done.err
