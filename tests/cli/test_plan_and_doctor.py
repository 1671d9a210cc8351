"""`plan` with its time, its disk and its budget, and `doctor --cache`, as people and programs read them."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from .conftest import SECRETS, Cli, World

Usage = namedtuple("Usage", "total used free")


def test_plan_says_how_long_it_takes(cli: Cli, world: World, tmp_path: Path) -> None:
    done = cli("plan", *world.extract(tmp_path / "new"))
    assert done.code == 0
    assert "calibrating: " in done.err
    assert f"{world.tiny}: " in done.out
    assert " slices a second on cpu" in done.out
    assert "the slowest stage is " in done.out
    assert not [s for s in (*SECRETS, str(world.table.parent)) if s in done.out + done.err]
    assert not (tmp_path / "new").exists()
    quick = cli("plan", *world.extract(tmp_path / "new"), "--no-calibrate")
    assert quick.code == 0
    assert "calibrating" not in quick.err
    assert "the slowest stage" not in quick.out
    assert "free for it" in quick.out
    assert "a kill loses the shard that each backbone is filling: 8 slices at most; --rows-per-shard" in quick.out
    assert "8 slices at most, about " in done.out


def test_plan_as_one_document(cli: Cli, world: World, tmp_path: Path) -> None:
    document = cli("plan", *world.extract(tmp_path / "new"), "--json").document
    assert document["time"]["seconds"] > 0
    assert document["time"]["binds"] in ("decode", "forward", "write")
    assert document["rates"]["decoded"] == 8
    assert document["fits"] is True
    assert document["exit_code"] == 0
    assert document["rows_at_risk"] == 8
    assert 0 < document["seconds_at_risk"] < document["time"]["seconds"]
    assert document["needed"] > document["bytes"] > 0
    assert cli("plan", *world.extract(tmp_path / "new"), "--no-calibrate", "--json").document["time"] is None


def test_plan_of_a_disk_that_is_too_small(
    cli: Cli, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**20, 2**20 - 1000, 1000))
    done = cli("plan", *world.extract(tmp_path / "new"), "--no-calibrate")
    assert done.code == 2
    assert "layer_2/cls_token" in done.out
    (line,) = [text for text in done.err.splitlines() if text.startswith("error: ")]
    assert "--budget" in line
    assert "--cache" in line
    done = cli("plan", *world.extract(tmp_path / "new"), "--no-calibrate", "--json")
    assert done.code == 2
    assert done.document["fits"] is False
    extracted = cli("extract", *world.extract(tmp_path / "new"))
    assert extracted.code == 2
    assert line.split("is free")[1] in extracted.err
    assert not (tmp_path / "new").exists()


def test_plan_within_a_budget(cli: Cli, world: World, tmp_path: Path) -> None:
    asked = ("plan", *world.extract(tmp_path / "new", "--tokens", "cls,patch", "--layers", "all", "--no-calibrate"))
    proposals = cli(*asked, "--budget", "1GB", "--json").document["proposals"]
    assert proposals[0]["name"] == "as asked"
    assert all(p["fits"] for p in proposals)
    done = cli(*asked, "--budget", str(proposals[0]["needed"] - 1))
    assert done.code == 0
    marked = [text for text in done.out.splitlines() if text.startswith("->")]
    assert len(marked) == 1
    assert proposals[1]["switches"] in marked[0]
    none = cli(*asked, "--budget", "10B")
    assert none.code == 2
    assert "too large" in none.out
    assert "nothing that can be asked" in none.err
    wrong = cli(*asked, "--budget", "plenty")
    assert wrong.code == 2
    assert "a size is a number above 0" in wrong.err


def test_doctor_of_a_cache(cli: Cli, tmp_path: Path) -> None:
    done = cli("doctor", "--cache", tmp_path)
    assert "replace by rename     ok: " in done.out
    assert "free at the cache" in done.out
    assert list(tmp_path.iterdir()) == []
    document = cli("doctor", "--cache", tmp_path, "--json").document
    assert [trial["ok"] for trial in document["file_system"]] == [True] * 6
    assert document["free"] > 0
    absent = cli("doctor", "--cache", tmp_path / "absent")
    assert absent.code == 2
    assert absent.err.startswith("error: there is no folder ")
    assert len(absent.err.splitlines()) == 1
