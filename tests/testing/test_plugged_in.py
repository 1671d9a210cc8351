"""A file as a plug-in, without installing it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedcache.backbones import FAMILIES
from embedcache.datasets import REGISTRY as DATASETS
from embedcache.errors import InputError, UnknownNameError
from embedcache.probes import REGISTRY as PROBES
from embedcache.testing import plugged_in


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "their_own.py"
    made.write_text("def one(): return 1\ndef two(): return 2\n")
    return made


def test_its_names_are_there_within_and_nowhere_else(file: Path) -> None:
    before = list(sys.path), dict(os.environ)
    with plugged_in(file, backbones={"mine": "one"}, datasets={"mine": "two"}, probes={"mine": "one", "other": "two"}):
        assert "mine" in FAMILIES.names()
        assert FAMILIES.load("mine")() == 1
        assert DATASETS.load("mine")() == 2
        assert [PROBES.load(name)() for name in ("mine", "other")] == [1, 2]
        code = "from embedcache.probes import REGISTRY; print(REGISTRY.load('other')())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "2", done.stderr
    assert (list(sys.path), dict(os.environ)) == before
    assert "their_own" not in sys.modules
    for registry in (FAMILIES, DATASETS, PROBES):
        assert "mine" not in registry.names()
        with pytest.raises(UnknownNameError, match="'mine'"):
            registry.load("mine")


def test_it_ends_with_an_error_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    seen = []

    def fail() -> None:
        with plugged_in(file, probes={"mine": "one"}):
            seen.append(os.environ["PYTHONPATH"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen[0].endswith(str(file.parent))
    assert "PYTHONPATH" not in os.environ
    assert "mine" not in PROBES.names()


def test_another_file_of_the_same_name_is_another(file: Path, tmp_path: Path) -> None:
    second = tmp_path / "elsewhere" / file.name
    second.parent.mkdir()
    second.write_text("def one(): return 'another'\n")
    with plugged_in(file, probes={"mine": "one"}):
        assert PROBES.load("mine")() == 1
    with plugged_in(second, probes={"mine": "one"}):
        assert PROBES.load("mine")() == "another"


def test_what_can_be_no_plug_in_is_refused(file: Path, tmp_path: Path) -> None:
    odd = file.rename(tmp_path / "their-own.py")
    for wrong in (tmp_path / "nowhere.py", odd, tmp_path):
        with pytest.raises(InputError, match="no Python file that can be imported by its name"), plugged_in(wrong):
            pass
    good = odd.rename(tmp_path / "own.py")
    with (
        pytest.raises(InputError, match=r"there is a probe 'knn' already; give own.py's another name"),
        plugged_in(good, probes={"knn": "one"}),
    ):
        pass
