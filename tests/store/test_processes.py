"""The environment of a child process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import embedcache
from embedcache.store.processes import child_environment

SOURCE = Path(embedcache.__file__).resolve().parent
SET_OTHERWISE = {
    "backbones/timm_models.py",  # passes on the whole of sys.path: timm's model may be registered by a module from anywhere
    "testing/plugged_in.py",  # sets it for this process too
}


@pytest.mark.parametrize("paths", [None, "", "/nowhere"])
def test_a_child_finds_this_package_and_then_what_was_asked_for(
    paths: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if paths is not None:
        monkeypatch.setenv("PYTHONPATH", paths)
    monkeypatch.setenv("EMBEDCACHE_OF_THE_PARENT", "kept")
    code = "import embedcache, os, sys; print(embedcache.__file__, os.environ['EMBEDCACHE_OF_THE_PARENT'], os.environ['MORE'])"
    found = child_environment(MORE="given")
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=found, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(SOURCE / "__init__.py"), "kept", "given"]
    assert found["PYTHONPATH"].split(os.pathsep) == [str(SOURCE.parent), *filter(None, [paths])]
    assert "MORE" not in os.environ


def test_no_file_tells_its_child_by_itself_where_the_package_lies() -> None:
    """A file that counts its own folders breaks its child when it is moved into another."""
    setting = {str(file.relative_to(SOURCE)) for file in SOURCE.rglob("*.py") if "PYTHONPATH" in file.read_text()}
    assert setting == SET_OTHERWISE | {"store/processes.py"}
