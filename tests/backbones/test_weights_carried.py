"""Hub names found among carried weights, and weight files that are not what they should be."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedcache import ExtractConfig
from embedcache.backbones import describe_backbone, load_backbone
from embedcache.backbones.carried import ENVIRONMENT, MANIFEST, Manifest, WeightFile, read_manifest, write_manifest
from embedcache.backbones.digest import read_digest
from embedcache.errors import InputError
from embedcache.extraction.prepare import prepare
from embedcache.store.fingerprint import fingerprint
from embedcache.testing.files import write_png
from embedcache.types import Recipe

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def carried(tiny: Path, tmp_path: Path) -> Path:
    """A folder as `weights pull org/tiny` leaves it."""
    folder = Path(shutil.copytree(tiny, tmp_path / "carried" / "org--tiny", ignore=shutil.ignore_patterns(".*")))
    files = [WeightFile(f.name, f.stat().st_size, read_digest(f)) for f in sorted(folder.iterdir())]
    write_manifest(folder, Manifest("org/tiny", COMMIT, tuple(files)))
    return folder.parent


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(10**18, 10**18))


def refusal(carried: Path, **settings: str) -> str:
    with pytest.raises(InputError) as told:
        describe_backbone("org/tiny", weights=str(carried), **settings)
    assert "\n" not in str(told.value)
    assert str(carried) not in str(told.value)
    return str(told.value)


def test_a_carried_name_is_the_hubs_name(carried: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = describe_backbone("org/tiny", weights=str(carried))
    local = describe_backbone(str(tiny))
    assert info.model == replace(local.model, source="org/tiny", revision=COMMIT)
    assert info.store_name == "org--tiny"
    assert describe_backbone("org/tiny", weights=str(carried), revision=COMMIT) == info
    monkeypatch.setenv(ENVIRONMENT, str(carried))
    assert describe_backbone("org/tiny") == info
    assert load_backbone(info).info == info


def test_an_extraction_finds_them(carried: Path, tiny: Path, tmp_path: Path) -> None:
    """The store's fingerprint is that of the hub's recipe, whatever folder the weights were carried in."""
    write_png(tmp_path / "a.png", torch.zeros(20, 20, dtype=torch.uint8).numpy())
    (tmp_path / "cases.csv").write_text("path,label\na.png,1\n")
    config = ExtractConfig(
        "table", str(tmp_path / "cases.csv"), ("org/tiny",), cache=str(tmp_path / "cache"), weights=str(carried)
    )
    (store,) = prepare(config, lambda _: None).stores
    model = replace(describe_backbone(str(tiny)).model, source="org/tiny", revision=COMMIT)
    recipe = Recipe(store.recipe.image, model)
    assert fingerprint(store.recipe) == fingerprint(recipe)
    assert store.files.path.name == f"{fingerprint(recipe)[:12]}.zarr"
    with pytest.raises(InputError, match="'org/tiny' is no folder here, not in the hub's cache"):
        prepare(replace(config, weights=None), lambda _: None)


def test_bytes_that_were_not_pulled_are_refused(carried: Path) -> None:
    describe_backbone("org/tiny", weights=str(carried))
    flip(carried / "org--tiny" / "model.safetensors")
    assert "are not what was pulled (model.safetensors)" in refusal(carried)
    (carried / "org--tiny" / "model.safetensors").unlink()
    assert "are not what was pulled (model.safetensors)" in refusal(carried)


def test_the_digests_are_remembered(carried: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    describe_backbone("org/tiny", weights=str(carried))

    def refuse(*_: object) -> str:
        raise AssertionError("the bytes were read a second time")

    monkeypatch.setattr("embedcache.backbones.digest.read_digest", refuse)
    describe_backbone("org/tiny", weights=str(carried))


def test_another_revision_or_another_name_is_told(carried: Path) -> None:
    assert f"at commit {COMMIT}, not at revision 'v2'" in refusal(carried, revision="v2")
    manifest = carried / "org--tiny" / MANIFEST
    manifest.write_text(manifest.read_text().replace("org/tiny", "org/other"))
    assert "holds org/other, not org/tiny" in refusal(carried)


def test_a_folder_without_a_manifest_has_no_commit(carried: Path) -> None:
    (carried / "org--tiny" / MANIFEST).unlink()
    assert "make it with `embedcache weights pull`, or give the folder itself" in refusal(carried)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "is no JSON"),
        ("[]", "lacks what it must say"),
        (
            '{"format": 1, "name": "org/tiny", "commit": "c", "files": {"../x": {"size": 1, "sha256": ""}}}',
            "lacks what",
        ),
        ('{"format": 1, "name": "org/tiny", "files": {}}', "lacks what it must say"),
        ('{"format": 2}', "is of format 2; update embedcache"),
    ],
)
def test_a_manifest_that_can_not_be_used(carried: Path, text: str, line: str) -> None:
    (carried / "org--tiny" / MANIFEST).write_text(text)
    assert line in refusal(carried)


def test_a_manifest_comes_back_as_it_was_written(carried: Path) -> None:
    manifest = read_manifest(carried / "org--tiny")
    assert manifest is not None
    assert {f.name for f in manifest.files} == {"config.json", "model.safetensors", "preprocessor_config.json"}
    write_manifest(carried / "org--tiny", manifest)
    assert read_manifest(carried / "org--tiny") == manifest


def test_a_folder_that_is_not_there(carried: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        describe_backbone("org/tiny", weights=str(carried / "absent"))


# --- files that can not be read -------------------------------------------------------------------


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bin_file_is_read_as_tensors_only(tiny: Path, tmp_path: Path, zipped: bool) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    load_backbone(describe_backbone(str(folder)))
    torch.save(
        {**tensors, "x": Trap(tmp_path / "sprung")}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(
        InputError, match=r"hold more than tensors.* nothing of them was run; use a checkpoint in safet"
    ):
        load_backbone(describe_backbone(str(folder)))
    assert not (tmp_path / "sprung").exists()


def test_weights_that_were_cut_off_are_one_line(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="are damaged or cut off"):
        load_backbone(describe_backbone(str(folder)))
    weights.unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes()[:-100])
    with pytest.raises(InputError, match="are damaged or cut off"):
        load_backbone(describe_backbone(str(folder)))


def test_an_index_can_not_lead_elsewhere(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    save_file({"x": torch.zeros(1)}, tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../elsewhere.safetensors"}}))
    with pytest.raises(InputError, match="lists 1 files outside its folder"):
        describe_backbone(str(folder))
