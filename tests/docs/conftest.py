"""A reader's folder for each page, and a shell in it that runs `embedcache` in this process."""

import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedcache_cli.main import main

from embedcache.backbones.carried import Manifest, WeightFile, write_manifest
from embedcache.backbones.digest import read_digest
from embedcache.testing.files import write_png
from embedcache.testing.trained_vit import make_random_vit
from tests.docs.pages import COMMANDS, Block
from tests.docs.parsing import without_settings

PATIENTS = 40
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMES = ("facebook/dinov2-small", "facebook/dinov2-base")
"""Hub names that the pages use; here two tiny models of twelve layers, carried as `weights pull` leaves them."""


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: 80 small radiographs of 40 patients with masks and a table, and carried weights."""
    folder = tmp_path_factory.mktemp("reader")
    make_cases(folder)
    for seed, name in enumerate(NAMES):
        weights = folder / "weights" / name.replace("/", "--")
        make_random_vit(weights, seed=seed, hidden_size=32, layers=12, heads=2, image_size=56)
        files = [WeightFile(f.name, f.stat().st_size, read_digest(f)) for f in sorted(weights.iterdir())]
        write_manifest(weights, Manifest(name, COMMIT, tuple(files)))
    return folder


def make_cases(folder: Path) -> None:
    """`cases.csv` with `scans/` and `masks/`: an effusion is bright below, and one patient in ten is misread."""
    rng = np.random.default_rng(0)
    (folder / "scans").mkdir()
    (folder / "masks").mkdir()
    lines = ["path,mask,patient,split,effusion,age,sex,site"]
    for i in range(2 * PATIENTS):
        patient = i // 2
        ill = patient % 2
        image = rng.integers(0, 120, (48, 40))
        image[24:] += 60 * ill
        mask = np.zeros(image.shape, dtype=np.uint8)
        mask[8:40, 4 + 2 * (i % 3) : 18] = 255
        image[mask > 0] += 40
        write_png(folder / "scans" / f"{i:04}.png", image.astype(np.uint8))
        write_png(folder / "masks" / f"{i:04}.png", mask)
        label = ill if patient % 10 else 1 - ill
        part = "test" if patient % 4 == 3 or patient % 8 == 0 else "train"
        sex, site = "FM"[patient % 3 > 0], ("north", "south")[patient % 5 > 2]
        lines.append(
            f"scans/{i:04}.png,masks/{i:04}.png,P{patient:02},{part},{label},{30 + patient % 25 + 20 * ill},{sex},{site}"
        )
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")


@dataclass
class Session:
    """What runs a page from its first block to its last, as a reader at one prompt and in one notebook would."""

    folder: Path
    patch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    names: dict[str, Any] = field(default_factory=dict)
    """Of the page's Python."""

    def run(self, block: Block) -> None:
        """Write the block's file, or run its commands or its Python. Raises AssertionError where a command ends badly."""
        if block.title:
            self._write(block)
        elif block.language in COMMANDS:
            for line in block.commands:
                code, told = self.shell(line)
                assert code == 0, f"{block.where}: `{line}` ended with {code}\n{told}"
        elif block.language == "python":
            exec(compile("\n" * block.line + block.text, block.page, "exec"), self.names)

    def shell(self, line: str) -> tuple[int, str]:
        """Exit code of one line, and what it printed."""
        if setting := re.fullmatch(r"export ([A-Z_]+)=(.*)", line):
            self.patch.setenv(setting[1], os.path.expandvars(shlex.split(setting[2])[0]))
            return 0, ""
        words = shlex.split(line)
        if without_settings(words)[0] == "embedcache" and not re.search(r"[|>;&$]", line):
            return self._embedcache(words)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            env=self._path(),
        )
        return done.returncode, done.stdout + done.stderr

    def _embedcache(self, words: list[str]) -> tuple[int, str]:
        rest = without_settings(words)
        with pytest.MonkeyPatch.context() as patch:
            for setting in words[: len(words) - len(rest)]:
                patch.setenv(*setting.split("=", 1))
            patch.setattr(sys, "argv", [rest[0], *expanded(rest[1:], self.folder)])
            self.capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
        captured = self.capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), captured.out + captured.err

    def _path(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def _write(self, block: Block) -> None:
        file = self.folder / block.title
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
        if file.name == "pyproject.toml":
            install(file)


def expanded(words: list[str], folder: Path) -> list[str]:
    """Patterns of file names as a shell expands them: in order, and left alone where nothing matches."""
    found = []
    for word in words:
        matches = sorted(glob.glob(word, root_dir=folder)) if re.search(r"[*?]", word) else []
        found += matches or [word]
    return found


def install(project: Path) -> None:
    """What `pip install --editable .` does with entry points: a description of the package beside its modules."""
    described = tomllib.loads(project.read_text())["project"]
    about = project.parent / f"{described['name'].replace('-', '_')}-{described['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: {described['version']}\n"
    )
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
        for group, entries in described["entry-points"].items()
    ]
    (about / "entry_points.txt").write_text("\n".join(groups))


@pytest.fixture
def session(
    reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Session]:
    """A fresh copy of the reader's folder, which is also where Python looks for modules."""
    folder = Path(shutil.copytree(reader, tmp_path / "reader"))
    with _at(folder):
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        monkeypatch.setenv("EMBEDCACHE_WEIGHTS", str(folder / "weights"))
        yield Session(folder, monkeypatch, capsys)


@contextmanager
def _at(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
