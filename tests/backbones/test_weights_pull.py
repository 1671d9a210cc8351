"""`weights pull` and `weights check` through the hub's own client, against a small hub on this machine."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedcache.backbones.carried import MANIFEST, check_weights, read_manifest
from embedcache.backbones.weights import find_weights
from embedcache.errors import InputError

from .fake_hub import COMMIT, Hub, serve

CLI = [sys.executable, "-W", "error", "-c", "from embedcache_cli.main import main; main()", "weights", "pull"]
FILES = {"config.json", "preprocessor_config.json", "model.safetensors"}


@pytest.fixture
def hub(tiny: Path, tmp_path: Path) -> Iterator[Hub]:
    """Two repositories: safetensors beside much else, and one with .bin files only."""
    model = Path(shutil.copytree(tiny, tmp_path / "served" / "model", ignore=shutil.ignore_patterns(".*")))
    (model / "README.md").write_text("words")
    (model / "pytorch_model.bin").write_bytes(b"not wanted beside safetensors")
    old = Path(shutil.copytree(tiny, tmp_path / "served" / "old", ignore=shutil.ignore_patterns(".*")))
    (old / "model.safetensors").rename(old / "pytorch_model.bin")
    with serve(Hub({"org/model": model, "org/old": old, "org/gated": model}, gated=("org/gated",))) as running:
        yield running


def pull(hub: Hub, to: Path, *arguments: str, offline: bool = False) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads its environment when it is imported."""
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(to.parent / "hf"), "NO_PROXY": "127.0.0.1"}
    if offline:
        environment["HF_HUB_OFFLINE"] = "1"
    return subprocess.run(
        [*CLI, *arguments, "--to", str(to)], env=environment, capture_output=True, text=True, check=False
    )


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that refused."""
    assert done.returncode == 2, done.stderr
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert "Traceback" not in done.stderr
    return line


def test_what_is_pulled_is_what_the_hub_has(hub: Hub, tmp_path: Path) -> None:
    to = tmp_path / "carried"
    done = pull(hub, to, "org/model", "org/old", "--json")
    assert done.returncode == 0, done.stderr
    new, old = json.loads(done.stdout)
    assert (new["name"], new["commit"], new["folder"]) == ("org/model", COMMIT, "org--model")
    assert set(new["fetched"]) == FILES
    assert {p.name for p in (to / "org--model").iterdir()} == FILES | {MANIFEST}
    assert {f["name"] for f in old["files"]} == {"config.json", "preprocessor_config.json", "pytorch_model.bin"}
    manifest = read_manifest(to / "org--model")
    assert manifest is not None
    for file in manifest.files:
        assert (to / "org--model" / file.name).read_bytes() == (hub.folders["org/model"] / file.name).read_bytes()
    assert [one.problems for one in check_weights(to)] == [(), ()]

    # again: nothing is asked of the hub, so that it also verifies where there is none
    before = hub.asked
    again = pull(hub, to, "org/model", offline=True)
    assert again.returncode == 0, again.stderr
    assert "verified, nothing fetched" in again.stdout
    assert hub.asked == before


def test_a_pull_that_was_cut_off_goes_on_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    whole = (hub.folders["org/model"] / "model.safetensors").read_bytes()
    folder = tmp_path / "carried" / "org--model"
    folder.mkdir(parents=True)
    (folder / "model.safetensors.part").write_bytes(whole[: len(whole) // 3])
    done = pull(hub, tmp_path / "carried", "org/model")
    assert done.returncode == 0, done.stderr
    assert f"resumed at {len(whole) // 3:,}" in done.stderr
    assert ("model.safetensors", len(whole) // 3) in hub.sent
    assert ("model.safetensors", 0) not in hub.sent
    assert (folder / "model.safetensors").read_bytes() == whole


def test_what_arrives_damaged_is_never_kept(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "carried" / "org--model"
    folder.mkdir(parents=True)
    (folder / "model.safetensors.part").write_bytes(b"of another commit")
    assert "model.safetensors arrived damaged and was removed" in error_of(pull(hub, tmp_path / "carried", "org/model"))
    assert not list(folder.glob("model.safetensors*"))
    assert read_manifest(folder) is None
    assert pull(hub, tmp_path / "carried", "org/model").returncode == 0


def test_a_damaged_file_is_found_and_fetched_again(hub: Hub, tmp_path: Path) -> None:
    to = tmp_path / "carried"
    assert pull(hub, to, "org/model").returncode == 0
    weights = to / "org--model" / "model.safetensors"
    stat, data = weights.stat(), bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a copy that keeps dates would have it
    (checked,) = check_weights(to)
    assert checked.problems == ("model.safetensors has other bytes than were pulled",)
    hub.sent.clear()
    done = pull(hub, to, "org/model")
    assert done.returncode == 0, done.stderr
    assert "model.safetensors has other bytes than were pulled, and is fetched again" in done.stderr
    assert [name for name, _ in hub.sent] == ["model.safetensors"]
    assert check_weights(to)[0].problems == ()


def test_what_the_hub_refuses_is_one_line(hub: Hub, tmp_path: Path) -> None:
    to = tmp_path / "carried"
    gated = error_of(pull(hub, to, "org/gated"))
    assert f"is gated: accept its licence at {hub.address}/org/gated, then `hf auth login`" in gated
    assert "not on the hub" in error_of(pull(hub, to, "org/absent"))
    assert "has no revision 'v9'" in error_of(pull(hub, to, "org/model", "--revision", "v9"))
    assert "HF_HUB_OFFLINE forbids" in error_of(pull(hub, to, "org/model", offline=True))
    assert "neither a folder here nor a hub name" in error_of(pull(hub, to, "a/b/c"))


def test_another_commit_is_not_put_into_the_same_folder(hub: Hub, tmp_path: Path) -> None:
    to = tmp_path / "carried"
    assert pull(hub, to, "org/model", "--revision", "main").returncode == 0
    manifest = to / "org--model" / MANIFEST
    manifest.write_text(manifest.read_text().replace(COMMIT, "f" * 40))
    line = error_of(pull(hub, to, "org/model", "--revision", "main"))
    assert f"holds org/model at commit {'f' * 40}, and main is {COMMIT}" in line


HUB_NAME = """
import json, sys
from embedcache.backbones.weights import find_weights
w = find_weights("org/model")
print(json.dumps([w.source, w.revision, w.digest]))
"""


def test_carried_weights_are_those_of_the_hubs_cache(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source, revision and digest decide a store's fingerprint: with either it is the same store."""
    to = tmp_path / "carried"
    assert pull(hub, to, "org/model").returncode == 0
    cache = tmp_path / "cache" / "models--org--model"
    shutil.copytree(hub.folders["org/model"], cache / "snapshots" / COMMIT)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    found = []
    for extra in (
        {"HF_HUB_CACHE": str(tmp_path / "cache")},
        {"EMBEDCACHE_WEIGHTS": str(to), "HF_HUB_CACHE": "/absent"},
    ):
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", **extra}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", HUB_NAME], env=environment, capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    assert found[0] == found[1] == ["org/model", COMMIT, find_weights(str(hub.folders["org/model"])).digest]


def test_an_empty_folder_has_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fill it with `embedcache weights pull`"):
        check_weights(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        check_weights(tmp_path / "absent")
