"""`embedcache probe patch-linear` as a user types it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache.testing.files import write_png
from embedcache.testing.homes import make_home
from tests.cli.conftest import Cli


@dataclass(frozen=True)
class Made:
    """The table, its store, and the home where its key lies."""

    table: Path
    store: Path
    home: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Twelve images with a bright block and its mask, extracted once; nothing may change them."""
    folder = tmp_path_factory.mktemp("blocks")
    rng = np.random.default_rng(0)
    lines = ["path,patient,mask,split"]
    for i in range(12):
        inside = np.zeros((16, 16), dtype=bool)
        y, x = rng.integers(0, 9, 2)
        inside[y : y + 8, x : x + 8] = True
        write_png(folder / f"img{i}.png", (rng.integers(0, 60, inside.shape) + 150 * inside).astype(np.uint8))
        write_png(folder / f"mask{i}.png", (255 * inside).astype(np.uint8))
        lines.append(f"img{i}.png,SECRET{i},mask{i}.png,{'test' if i < 3 else 'validation' if i < 6 else 'train'}")
    table = folder / "cases.csv"
    table.write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDCACHE_HOME", str(make_home(folder / "home", "world")))
        embedcache.extract(
            embedcache.ExtractConfig(
                dataset="table", root=str(table), backbones=("patches:4",), cache=str(folder / "cache"), tokens="patch",
                size=32, threads=1, workers=1, device="cpu",
            )
        )  # fmt: skip
    (store,) = (folder / "cache").glob("*/*/*.zarr")
    return Made(table, store, folder / "home")


@pytest.fixture(autouse=True)
def at_home(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the machine that made the store: its key is here."""
    monkeypatch.setenv("EMBEDCACHE_HOME", str(made.home))


def test_it_says_what_was_chosen_and_how_far_the_floors_lie(cli: Cli, made: Made) -> None:
    asked = ("probe", "patch-linear", made.store, "--root", made.table, "--mask-values", "255=block", "--C", "1e-2,1")
    done = cli(*asked)
    assert done.code == 0, done.err
    assert "patch-linear on block: layer 1" in done.out
    rows = [line.split() for line in done.out.splitlines() if line.startswith("block")]
    assert [row[1] for row in rows[:3]] == ["patch", "floor:", "floor:"]
    assert "SECRET" not in done.out + done.err
    document = cli(*asked, "--json").document
    assert document["probe"] == "patch-linear"
    assert {"dice", "mean_mask_dice", "position_dice"} <= {m["name"] for m in document["metrics"]}
    assert document["path"] in done.out


def test_two_heads_are_compared(cli: Cli, made: Made) -> None:
    asked = ("probe", "patch-linear", made.store, "--root", made.table, "--mask-values", "255=block", "--json", "--C")
    paths = [cli(*asked, C).document["path"] for C in ("1e-6", "1")]
    done = cli("compare", *paths, "--resamples", "50")
    assert done.code == 0, done.err
    lines = [line.split()[:2] for line in done.out.splitlines() if line.startswith(("dice", "jaccard"))]
    assert lines == [["dice", "macro"], ["dice", "block"], ["jaccard", "macro"], ["jaccard", "block"]]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--mask-values", "block"), "VALUE=NAME"),
        (("--layers", "x"), "--layers takes whole numbers"),
        (("--C", "0"), "positive"),
        (("--mask-column", "maks"), "did you mean 'mask'"),
        (("--results", "/dev/null/x"), "results can not be written into /dev/null/x"),
    ],
)
def test_slips_are_one_line(cli: Cli, made: Made, more: tuple[str, ...], says: str) -> None:
    done = cli("probe", "patch-linear", made.store, "--root", made.table, *more)
    assert done.code == 2
    assert says in done.err
    assert len(done.err.splitlines()) == 1
