"""`backbones`, `weights` and `doctor --backbone` as people and programs read them."""

import shutil
from pathlib import Path

import pytest

from embedcache.backbones.carried import Manifest, WeightFile, write_manifest
from embedcache.backbones.digest import read_digest

from .conftest import Cli, World

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def carried(tiny: Path, tmp_path: Path) -> Path:
    """A folder as `weights pull org/tiny` leaves it."""
    folder = Path(shutil.copytree(tiny, tmp_path / "carried" / "org--tiny", ignore=shutil.ignore_patterns(".*")))
    files = [WeightFile(f.name, f.stat().st_size, read_digest(f)) for f in sorted(folder.iterdir())]
    write_manifest(folder, Manifest("org/tiny", COMMIT, tuple(files)))
    return folder.parent


def test_the_list(cli: Cli) -> None:
    done = cli("backbones")
    assert done.code == 0
    (line,) = [text for text in done.out.splitlines() if text.startswith("facebook/dinov3-vits16")]
    assert "21.6M" in line
    assert "gated" in line
    document = cli("backbones", "--json").document
    assert {"dinov2", "pixels", "vit"} <= {family["name"] for family in document["families"]}
    assert sum(known["study"] for known in document["known"]) == 12


@pytest.mark.slow  # the function's own test, in tests/backbones, is in the main suite
def test_one_that_is_here(cli: Cli, carried: Path) -> None:
    done = cli("backbones", "show", "org/tiny", "--weights", carried, "--size", 28)
    assert done.code == 0, done.err
    assert "1 to 2: width 32, 2x2 patches (at 28x28)" in done.out
    assert "cls_token 64 B, patch_mean 64 B, patch_tokens 256 B at 28x28 and layer 2, float16" in done.out
    assert "transformers-bicubic" in done.out
    assert COMMIT in done.out
    assert "loads here      yes" in done.out
    document = cli("backbones", "show", "org/tiny", "--weights", carried, "--json").document
    assert document["loading"]["loads"] is True
    assert document["size"] == [56, 56]


def said(out: str) -> dict[str, str]:
    """What a card says, by the word before it."""
    lines = [line[2:].partition("  ") for line in out.splitlines()]
    return {name: value.strip() for name, _, value in lines}


@pytest.mark.slow
def test_encoders_of_whole_volumes(cli: Cli, vit3d: Path, swin3d: Path) -> None:
    done = cli("backbones", "show", vit3d, "--size", 48)
    assert done.code == 0, done.err
    vit = said(done.out)
    assert vit["own input"].startswith("32x24x16 voxels (z, y, x), no other at once")
    assert vit["spacing"] == "2 x 1.5 x 1 mm (z, y, x): 64 x 36 x 16 mm about a volume's centre"
    assert vit["window"] == "-100/500 in place of auto"
    assert "sees 32x24x16 voxels (z, y, x) at once, no more and no less" in vit["refused"]
    swin = said(cli("backbones", "show", swin3d, "--size", 64).out)
    assert swin["own input"] == "32x32x32 voxels (z, y, x)"
    assert swin["spacing"].startswith("none of its own: volumes are stretched to the input")
    assert swin["layers"].endswith("4: width 192, 1x2x2 patches (at 32x64x64)")
    assert swin["bytes a volume"] == "patch_mean 384 B, patch_tokens 1.5 KiB at 32x64x64 and layer 4, float16"
    assert not {"window", "refused"} & swin.keys()


def test_one_that_is_not_here(cli: Cli) -> None:
    done = cli("backbones", "show", "google/medsiglip-448")
    assert done.code == 0
    assert "448x448" in done.out
    assert "it can not load here: gated and not here" in done.out
    wrong = cli("backbones", "show", "dinov2-small")
    assert wrong.code == 2
    assert "did you mean 'facebook/dinov2-small'" in wrong.err
    assert len(wrong.err.splitlines()) == 1


def test_carried_weights_are_checked(cli: Cli, carried: Path) -> None:
    done = cli("weights", "check", carried)
    assert done.code == 0
    assert f"org/tiny at {COMMIT}: 3 files" in done.out
    (carried / "org--tiny" / "config.json").write_text("{}")
    done = cli("weights", "check", carried)
    assert done.code == 1
    assert "DAMAGED" in done.out
    assert "config.json has 2 bytes, not " in done.out
    (checked,) = cli("weights", "check", carried, "--json").document
    assert len(checked["problems"]) == 1
    assert cli("weights", "check", carried / "absent").code == 2


def test_extract_and_plan_find_them(cli: Cli, world: World, carried: Path, tmp_path: Path) -> None:
    named = [str(a) if a != world.tiny else "org/tiny" for a in world.extract(tmp_path / "cache")]
    absent = cli("extract", *named)
    assert absent.code == 2
    assert "give its folder as --weights" in absent.err
    planned = cli("plan", *named, "--weights", carried, "--no-calibrate", "--json")
    done = cli("extract", *named, "--weights", carried, "--json")
    assert done.code == 0, done.err
    (store,) = done.document["stores"]
    assert "/org--tiny/" in store["path"]
    assert planned.document["passes"][0]["store"].startswith("cases/org--tiny/")
    assert str(carried) not in (Path(store["path"]) / "zarr.json").read_text()


def test_doctor_of_a_backbone(cli: Cli, carried: Path) -> None:
    done = cli("doctor", "--backbone", "org/tiny", "--weights", carried, "--bundle")
    assert "org/tiny: loads here" in done.out
    assert "pip download --no-deps --dest wheels " in done.out
    assert "numpy==" in done.out
    assert COMMIT in done.out
    assert "+cpu" not in done.out.split("pip download")[1].splitlines()[0]
    document = cli("doctor", "--backbone", "org/absent", "--json")
    assert document.code == 1
    assert document.document["backbones"][0]["loads"] is False
    assert any("org/absent can not load here" in line for line in document.document["problems"])
