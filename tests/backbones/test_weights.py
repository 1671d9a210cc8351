import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from embedcache.backbones.known import did_you_mean
from embedcache.backbones.weights import find_weights, weight_files
from embedcache.errors import InputError


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "tiny-copy"))


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_local_folder_is_named_by_its_base_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names = [str(folder), f"{folder}/", "."]
    assert {find_weights(name).source for name in names} == {"tiny-copy"}
    assert {find_weights(name).revision for name in names} == {""}


def test_what_is_absent_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds no weights; expected model\.safetensors") as e:
        find_weights(str(folder))
    one_line(e)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"holds no config\.json"):
        find_weights(str(folder))


def test_only_the_files_that_would_be_loaded_count(folder: Path) -> None:
    before = find_weights(str(folder)).digest
    (folder / "pytorch_model.bin").write_bytes(b"not loaded beside safetensors")
    (folder / "README.md").write_text("words")
    assert find_weights(str(folder)).digest == before


def test_shards_are_found_through_their_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="lists 2 files of weights, absent: model-00002-of-00002"):
        find_weights(str(folder))
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"")
    assert weight_files(folder, "x") == ("model.safetensors.index.json", *sorted(index["weight_map"].values()))


@pytest.mark.parametrize(("text", "line"), [("{", "is no JSON"), ("[]", "must hold a JSON object. Got a list")])
def test_a_broken_configuration(folder: Path, text: str, line: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match=line) as e:
        find_weights(str(folder))
    one_line(e)


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="holds an adapter"):
        find_weights(str(folder))


def test_a_folder_has_no_revision(folder: Path) -> None:
    with pytest.raises(InputError, match="no revision 'main'"):
        find_weights(str(folder), "main")


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such/folder", "a/b/c", "two words"])
def test_neither_a_folder_nor_a_hub_name(name: str) -> None:
    with pytest.raises(InputError, match="neither a folder here nor a hub name") as e:
        find_weights(name)
    one_line(e)


HUB = """
import json, sys
from embedcache.backbones.known import did_you_mean
from embedcache.backbones.weights import find_weights
from embedcache.errors import InputError
def answer(name, revision=None):
    try:
        w = find_weights(name, revision)
        return [w.source, w.revision, w.digest]
    except InputError as e:
        return str(e)
print(json.dumps([answer("org/model"), answer("org/model", "{commit}"), answer("org/old"), answer("org/absent"),
                  "torch" in sys.modules]))
"""


def test_hub_names_come_from_the_hubs_cache_and_absent_ones_are_one_line(folder: Path, tmp_path: Path) -> None:
    """A cache in the hub's own layout, offline: in a subprocess, as huggingface_hub reads its environment at import."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    for repository in ("model", "old"):
        cache = tmp_path / "hub" / f"models--org--{repository}"
        shutil.copytree(folder, cache / "snapshots" / commit)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(commit)
    old = tmp_path / "hub" / "models--org--old" / "snapshots" / commit
    (old / "model.safetensors").rename(old / "pytorch_model.bin")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HUB.replace("{commit}", commit)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    named, pinned, old_format, absent, torch_was_imported = json.loads(done.stdout)
    assert named == pinned == ["org/model", commit, find_weights(str(folder)).digest]
    assert old_format[:2] == ["org/old", commit]
    assert old_format[2] != named[2]
    assert absent.startswith("backbone 'org/absent' is no folder here")
    assert "put config.json, preprocessor_config.json and model.safetensors into a folder and give its path" in absent
    assert "\n" not in absent
    assert not torch_was_imported


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("pixel:32", "pixels:32"),
        ("dinov2-small", "facebook/dinov2-small"),
        ("facebook/dinov2-smal", "facebook/dinov2-small"),
        ("resnet-50", "microsoft/resnet-50"),
    ],
)
def test_a_name_that_is_nearly_one_gets_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, meant: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=f"did you mean '{meant}'") as error:
        find_weights(name)
    one_line(error)


@pytest.mark.parametrize("name", ["facebook/dinov2-small", "org/tiny", "microsoft/resnet-18", "a:b"])
def test_other_names_get_no_hint(name: str) -> None:
    assert did_you_mean(name) == ""
