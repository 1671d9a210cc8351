"""Whether a backbone can load here: found by loading it, with the one thing to do where it can not."""

import json
import shutil
from pathlib import Path

import pytest

from embedcache.backbones import loading
from embedcache.backbones.catalogue import explain_backbone
from embedcache.backbones.hub import page
from embedcache.backbones.loading import try_loading
from embedcache.errors import UnknownNameError


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy", ignore=shutil.ignore_patterns(".*")))


def test_one_that_loads(folder: Path) -> None:
    found = try_loading(str(folder))
    assert found.loads
    assert found.problem == ""
    assert found.parameters is not None
    assert {file.name for file in found.files} == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert all(file.size == (folder / file.name).stat().st_size for file in found.files)


def test_one_without_files() -> None:
    found = try_loading("pixels:32")
    assert (found.loads, found.files, found.parameters) == (True, (), None)


def test_files_that_do_not_fill_the_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    found = try_loading(str(folder))
    assert not found.loads
    assert "do not fit its config.json" in found.problem
    assert found.files


def test_a_process_that_is_killed_points_to_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading.sys, "executable", shutil.which("sh"))
    monkeypatch.setattr(loading.subprocess, "run", _killed)
    found = try_loading(str(folder))
    assert not found.loads
    assert "most likely by a lack of memory" in found.problem


def _killed(*_: object, **__: object) -> object:
    return type("Done", (), {"returncode": -9, "stdout": "", "stderr": ""})()


def test_one_that_is_absent_says_how_to_carry_it() -> None:
    found = try_loading("facebook/dinov2-base")
    assert not found.loads
    assert (
        "`embedcache weights pull facebook/dinov2-base --to DIR`; carry DIR here and give --weights DIR"
        in found.problem
    )
    assert "\n" not in found.problem


def test_a_gated_one_says_where_to_accept() -> None:
    name = "facebook/dinov3-vits16-pretrain-lvd1689m"
    found = try_loading(name)
    assert f"accept its licence at {page(name)}, `hf auth login`, then `embedcache weights pull {name}" in found.problem


def test_an_unknown_family_is_told_as_it_is(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "dinov5"}))
    assert "unknown backbone family 'dinov5'" in try_loading(str(folder)).problem


# --- the card -------------------------------------------------------------------------------------


def test_the_card_of_one_that_is_here(folder: Path) -> None:
    card = explain_backbone(str(folder), size=28)
    assert card.loading.loads
    assert card.info is not None
    assert card.size == (28, 28)
    assert [(layer.layer, layer.width, layer.grid) for layer in card.layers] == [(1, 32, (2, 2)), (2, 32, (2, 2))]
    assert card.image_bytes == {"cls_token": 64, "patch_mean": 64, "patch_tokens": 4 * 64}
    assert card.parameters == card.stored_parameters  # nothing is in the file but what runs
    assert explain_backbone(str(folder)).size == (56, 56)


def test_a_size_that_is_refused_says_why(folder: Path) -> None:
    card = explain_backbone(str(folder), size=30)
    assert "input size 30x30 is no multiple" in card.size_problem
    assert card.image_bytes == {}
    fixed = explain_backbone("pixels:32", size=64)
    assert "takes 32x32 only" in fixed.size_problem


def test_the_card_of_one_that_is_known_and_not_here() -> None:
    card = explain_backbone("google/medsiglip-448")
    assert (card.family, card.gated, card.info, card.layers) == ("siglip", True, None, ())
    assert card.known is not None
    assert card.known.size == 448
    assert not card.loading.loads


def test_a_name_that_is_nothing() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'facebook/dinov2-small'"):
        explain_backbone("dinov2-small")
    with pytest.raises(UnknownNameError, match="'org/none' is not known by name"):
        explain_backbone("org/none")
