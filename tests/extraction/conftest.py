from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedcache import DatasetOptions, ExtractConfig
from embedcache.testing.files import write_nifti, write_png

MakeTable = Callable[..., Path]


@pytest.fixture
def make_table(tmp_path: Path) -> MakeTable:
    """A table of `n` small radiographs, two a patient, with a binary label that the pixels show."""

    def make(n: int = 24, volumes: int = 0, seed: int = 0, folder: str = "images") -> Path:
        rng = np.random.default_rng(seed)
        root = tmp_path / folder
        root.mkdir()
        lines = ["path,case,patient,split,bright"]
        for i in range(n + volumes):
            label = (i // 2) % 2
            part = ["train", "train", "train", "test"][i // 2 % 4] if n > 8 else ""
            if i < n:
                image = rng.integers(0, 120, (60, 50)) + 120 * label
                write_png(root / f"img{i:03}.png", image.astype(np.uint8))
                lines.append(f"img{i:03}.png,case{i:03},SECRET{i // 2:03},{part},{label}")
            else:
                write_nifti(root / f"vol{i:03}.nii.gz", rng.normal(size=(20, 24, 5 + i % 3)).astype(np.float32))
                lines.append(f"vol{i:03}.nii.gz,case{i:03},SECRET{i // 2:03},{part},{label}")
        table = root / "cases.csv"
        table.write_text("\n".join(lines) + "\n")
        return table

    return make


@pytest.fixture
def config(tmp_path: Path, tiny: Path, make_table: MakeTable) -> ExtractConfig:
    """An extraction of 24 small radiographs with the tiny backbone at 28 px, in shards of 8."""
    return ExtractConfig(
        dataset="table",
        root=str(make_table()),
        backbones=(str(tiny),),
        cache=str(tmp_path / "cache"),
        size=28,
        batch_size=4,
        threads=1,
        workers=1,
        rows_per_shard=8,
        options=DatasetOptions(id_column="case"),
        device="cpu",
    )


def only_store(config: ExtractConfig) -> Path:
    """The one store of a configuration's cache."""
    (found,) = Path(config.cache).glob("*/*/*.zarr")
    return found


def elsewhere(config: ExtractConfig, name: str) -> ExtractConfig:
    """The same extraction into another cache."""
    return replace(config, cache=str(Path(config.cache).with_name(name)))


@pytest.fixture
def in_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let every child process begin with a piece of code: what goes wrong there must not reach this one."""

    def begin_with(code: str) -> None:
        folder = tmp_path / "sitecustomize"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return begin_with
