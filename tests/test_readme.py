"""Every command and every block of Python in the README runs, on small files."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from embedcache.testing.files import write_png

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    line.split("  #")[0].strip()
    for language, block in BLOCKS
    if not language
    for line in block.splitlines()
    if line.startswith("embedcache ")
]
INLINE = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL))]
"""What stands in the text as code."""
PYTHON = [block for language, block in BLOCKS if language == "python"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A user's folder: 24 images with two a patient, and two tiny backbones under the names that the README uses."""
    folder = tmp_path_factory.mktemp("user")
    rng = np.random.default_rng(0)
    lines = ["path,patient,split,effusion"]
    (folder / "scans").mkdir()
    for i in range(24):
        ill = (i // 2) % 2
        write_png(folder / "scans" / f"{i:04}.png", (rng.integers(0, 99, (40, 40)) + 120 * ill).astype(np.uint8))
        lines.append(f"scans/{i:04}.png,P{i // 2:02},{'test' if i % 8 > 5 else 'train'},{ill}")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    for name in ("facebook--dinov2-base", "facebook--dinov2-small"):
        shutil.copytree(tiny, folder / name)
    return folder


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all commands of the README: they are one session."""
    return tmp_path_factory.mktemp("readme-home")


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A README command as a shell would run it, with hub names turned into the folders that stand for them."""
    command = re.sub(r"--backbone facebook/", "--backbone ./facebook--", command)
    executable = shlex.quote(str(Path(sys.executable).with_name("embedcache")))
    command = re.sub(r"^embedcache", lambda _: executable, command)
    return subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=False)


def test_the_readme_has_commands_and_blocks() -> None:
    assert len(COMMANDS) >= 6
    assert len(PYTHON) >= 3


def test_every_command_of_the_readme_runs(clone: Path, module_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCACHE_HOME", str(module_home))
    for command in COMMANDS:
        done = run(command, clone)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (clone / "effusion.png").stat().st_size > 1000


def commands(group: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], set[str]]:
    """Every command below a group → its options."""
    found = {}
    for name, command in getattr(group, "commands", {}).items():
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        found[(*path, name)] = {option for option in options if option.startswith("-")}
        found |= commands(command, (*path, name))
    return found


def test_commands_and_options_within_the_text_exist() -> None:
    from embedcache_cli.main import app

    known = commands(typer.main.get_command(app))
    everything = set().union(*known.values())
    seen = 0
    for code in INLINE:
        words = code.split()
        if words[0] == "pip":
            continue
        options = {word for word in words if re.fullmatch(r"-{1,2}[a-z][a-z-]*", word)}
        if words[0] == "embedcache":
            path = max((p for p in known if tuple(words[1 : 1 + len(p)]) == p), key=len, default=None)
            assert path is not None, f"no command: {code}"
            assert options <= known[path], f"no option of {path}: {code}"
            seen += 1
        assert options <= everything, f"no option of any command: {code}"
    assert seen >= 10


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")  # string index arrays, see FORMAT.md
@pytest.mark.parametrize("block", PYTHON, ids=[b.splitlines()[0][2:40] for b in PYTHON])
def test_every_python_block_of_the_readme_runs(
    block: str, clone: Path, module_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCACHE_HOME", str(module_home))
    if not list(clone.glob("cache/cases/*/*.zarr")):
        test_every_command_of_the_readme_runs(clone, module_home, monkeypatch)
    (store,) = clone.glob("cache/cases/facebook--dinov2-base/*.zarr")
    block = block.replace("layer(12)", "layer(2)").replace("layer_12", "layer_2")  # the tiny backbone has two
    names: dict[str, object] = {"store": store}
    exec(compile(block, "README.md", "exec"), names)
    shapes = [names[n].shape for n in ("tokens", "features") if n in names]  # type: ignore[attr-defined]
    assert all(shape == (24, 32) for shape in shapes)
    if "ok" in names and "ds" in names:
        assert names["ok"].sizes["slice"] == 24  # type: ignore[attr-defined]
