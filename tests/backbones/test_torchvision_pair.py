"""torchvision beside a torch that it was not built for is importable, and a healthy pair is left alone."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from embedcache.backbones import torchvision_pair
from embedcache.testing.files import write_png
from embedcache.testing.tiny_timm import make_tiny_timm

PAIRED = all(importlib.util.find_spec(name) is not None for name in ("timm", "torchvision"))
needs_pair = pytest.mark.skipif(not PAIRED, reason="pip install --no-deps timm torchvision")


class Declared:
    """In place of torch.library.Library, whose operators can be declared once in a process."""

    names: list[str]

    def __init__(self, *_: str) -> None:
        Declared.names = []

    def define(self, schema: str) -> None:
        self.names.append(schema.partition("(")[0])


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torchvision with an extension."""
    (tmp_path / "_C.so").write_bytes(b"")
    spec = importlib.util.spec_from_loader("torchvision", None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(torchvision_pair.importlib.util, "find_spec", lambda _: spec)
    monkeypatch.setattr(torchvision_pair, "_library", [])
    monkeypatch.setattr(torch.library, "Library", Declared)
    monkeypatch.setattr(Declared, "names", [], raising=False)
    return tmp_path


def mended() -> bool:
    """The function itself: what it found for this process is remembered."""
    return torchvision_pair.complete_torchvision.__wrapped__()


def test_a_healthy_pair_is_left_alone(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    assert not mended()
    assert loaded == [str(installed / "_C.so")]
    assert (torchvision_pair._library, Declared.names) == ([], [])


def test_an_extension_that_does_not_load_is_worked_round(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: str) -> None:
        raise OSError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr(torch.ops, "load_library", refused)
    assert mended()
    assert Declared.names == ["nms", "qnms"]
    assert len(torchvision_pair._library) == 1  # kept: its operators would go with it


def test_without_torchvision_nothing_happens(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_pair.importlib.util, "find_spec", lambda _: None)
    assert not mended()
    assert torchvision_pair._library == []


@needs_pair
def test_timm_and_transformers_import_in_a_fresh_process(tmp_path: Path) -> None:
    folder = make_tiny_timm("vit", tmp_path / "vit")
    code = (
        "from embedcache.backbones import describe_backbone, load_backbone\n"
        f"info = describe_backbone({folder!r}); load_backbone(info)\n"
        "import timm, torchvision; from transformers import Dinov2Model\n"
        "print(info.layers)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


@needs_pair
def test_extract_without_timm_says_what_to_install(tmp_path: Path) -> None:
    import numpy as np

    folder = make_tiny_timm("resnet", tmp_path / "resnet")
    write_png(tmp_path / "a.png", np.zeros((8, 8), dtype=np.uint8))
    (tmp_path / "cases.csv").write_text("path\na.png\n")
    asked = ["extract", "--dataset", "table", "--root", str(tmp_path / "cases.csv"), "--backbone", folder]
    code = (
        "import sys; sys.modules['timm'] = None  # as if it were not installed\n"
        f"sys.argv = ['embedcache', *{[*asked, '--cache', str(tmp_path / 'cache')]!r}]\n"
        "from embedcache_cli.main import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        "pip install 'embedcache[timm]' (beside a torch for the CPU: pip install --no-deps timm torchvision)"
        in done.stderr
    )
    assert len(done.stderr.strip().splitlines()) == 1
