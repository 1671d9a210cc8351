"""`embedcache embed` and the switches of views and precision on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from embedcache.testing.files import write_png

from .conftest import Cli, World


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", rng.integers(0, 255, (30, 30)).astype(np.uint8))
    return tmp_path


def test_embed(cli: Cli, pictures: Path, tiny: Path) -> None:
    output = pictures / "out.npz"
    done = cli("embed", pictures / "a.png", pictures / "b.png", "--backbone", tiny, "--size", 28, "-o", output)
    assert done.code == 0
    assert "2 images, 32 numbers each (cls, layers (2,))" in done.out
    with np.load(output, allow_pickle=False) as read:
        assert read["features"].shape == (2, 32)
        assert read["path"].tolist() == [str(pictures / "a.png"), str(pictures / "b.png")]


def test_embed_says_what_it_set_aside(cli: Cli, pictures: Path, tiny: Path) -> None:
    (pictures / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    asked = ("embed", f"{pictures}/*.png", "--backbone", tiny, "--size", 28, "-o", pictures / "out.parquet")
    done = cli(*asked)
    assert done.code == 1
    assert f"set aside: {pictures / 'bad.png'}, slice 0" in done.err
    document = json.loads(cli(*asked, "--json").out)
    assert document["rows"] == 2
    assert document["exit_code"] == 1
    assert document["set_aside"][0]["path"] == str(pictures / "bad.png")
    assert document["recipe"]["image"]["size"] == [28, 28]


def test_embed_refuses_in_one_line(cli: Cli, pictures: Path, tiny: Path) -> None:
    done = cli("embed", "nowhere.png", "--backbone", tiny, "-o", pictures / "out.npz")
    assert done.code == 2
    assert done.err == "error: there is no file, folder or match for 'nowhere.png'; look for a slip in the name.\n"


def test_views_and_precision_on_the_command_line(cli: Cli, world: World, tiny: Path, tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    write_png(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (30, 30)).astype(np.uint8))
    table.write_text("path\na.png\n")
    asked = ("--dataset", "table", "--root", table, "--backbone", tiny, "--size", 28, "--cache", tmp_path / "cache")
    views = ("--views", 1, "--view-preset", "dinov2", "--compute-dtype", "bf16")
    planned = cli("plan", *asked, *views, "--no-calibrate")
    assert planned.code == 0
    assert "view" in planned.out.splitlines()[1]
    done = cli("extract", *asked, *views)
    assert done.code == 0
    assert "(view 1)" in done.out
    listed = cli("ls", tmp_path / "cache")
    assert listed.out.count("view 1, 1 sample") == 1
    stores = json.loads(cli("ls", tmp_path / "cache", "--json").out)
    assert sorted(store["view"] for store in stores) == [0, 1]
    shown = cli("show", next(store["path"] for store in stores if store["view"])).out
    for word in ("augmentation.flip", "0.5", "bfloat16"):
        assert word in shown
    refused = cli("extract", *asked, "--tf32", "--device", "cpu")
    assert refused.code == 2
    assert "TF32 is a format of CUDA devices" in refused.err
