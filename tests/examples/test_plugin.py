"""The example of a package that adds to embedcache, installed as far as `importlib.metadata` looks, without a network."""

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import embedcache
from embedcache import DatasetOptions, ExtractConfig, FeatureCache, InputError
from embedcache.backbones import FAMILIES
from embedcache.datasets import REGISTRY as DATASETS
from embedcache.datasets import find_adapter
from embedcache.probes import REGISTRY as PROBES
from embedcache.testing import check_backbone, check_dataset, check_probe
from embedcache.testing.files import write_png

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"
MODULE = "embedcache_plugin_example"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its module and the metadata that `pyproject.toml` asks for, in a folder on the path, of new processes too."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())
    named = project["project"]
    site = tmp_path / "site"
    about = site / f"{named['name'].replace('-', '_')}-{named['version']}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {named['name']}\nVersion: {named['version']}\n")
    lines = []
    for group, entries in named["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in entries.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module in project["tool"]["setuptools"]["py-modules"]:
        shutil.copy(PLUGIN / f"{module}.py", site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    yield
    for registry, name in ((FAMILIES, "tiles"), (DATASETS, "named-files"), (PROBES, "ridge-classifier")):
        registry.forget(name)
    sys.modules.pop(MODULE, None)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        ill = (i // 2) % 2
        pixels = (rng.integers(0, 99, (32, 32)) + 90 * ill).astype(np.uint8)
        write_png(folder / f"P{i // 2:02}_{i % 2}_{'ill' if ill else 'well'}.png", pixels)
    return folder


@pytest.mark.usefixtures("installed")
def test_all_three_hold_to_their_contracts(files: Path) -> None:
    check_backbone("tiles:8")
    check_dataset(find_adapter("named-files"), files)
    check_probe("ridge-classifier")


@pytest.mark.usefixtures("installed")
def test_all_three_work_together(files: Path, tmp_path: Path) -> None:
    assert "tiles" in embedcache.list_backbones()
    assert "named-files" in {info.name for info in embedcache.list_datasets()}
    asked = ExtractConfig("named-files", str(files), ("tiles:8",), cache=str(tmp_path / "cache"), tokens="patch")
    cache = FeatureCache.open(embedcache.extract(asked).stores[0].path)
    assert cache.layer(1).patch_tokens.spec.shape == (8, 8, 3)
    # ids are kept, since a split that is drawn goes by them
    pixels = ExtractConfig("named-files", str(files), ("pixels:4",), cache=str(tmp_path / "kept"), ids="keep")
    store = embedcache.extract(pixels).stores[0].path
    result = embedcache.probe(embedcache.ProbeConfig("ridge-classifier", store, "ill", test=0.5, resamples=20))
    assert result.metric("auroc").value == 1


@pytest.mark.usefixtures("installed")
def test_what_they_do_not_take_is_an_input_error(files: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tiles takes a side from 1 to 64"):
        embedcache.describe_backbone("tiles:0")
    with pytest.raises(InputError, match=f"{tmp_path.name} holds no <patient>_<number>_<ill or well>.png"):
        embedcache.open_dataset("named-files", str(tmp_path))
    with pytest.raises(InputError, match="does not take --sep"):
        embedcache.open_dataset("named-files", str(files), DatasetOptions(sep="|"))


@pytest.mark.slow
def test_pip_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the build backend that is here, and so without a network."""
    pytest.importorskip("setuptools", "70.1")
    copied = shutil.copytree(PLUGIN, tmp_path / "plugin")  # a build leaves its own files there
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
    ]
    subprocess.run([*pip, str(tmp_path / "site"), str(copied)], check=True, capture_output=True)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    assert "tiles" in FAMILIES.names()
    assert "named-files" in DATASETS.names()
    assert "ridge-classifier" in PROBES.names()
