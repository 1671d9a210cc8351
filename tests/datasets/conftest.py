"""Small real tables, folders and images, and a data directory of the test's own."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The user's data directory: no test may touch the real one."""
    folder = tmp_path / "home"
    monkeypatch.setenv("EMBEDCACHE_HOME", str(folder))
    return folder


@pytest.fixture
def png():
    """Make a small PNG at a path, with its folders."""

    def make(path: Path, value: int = 7) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5), value, np.uint8)).save(path)
        return path

    return make


@pytest.fixture
def table(tmp_path, png):
    """Write a CSV of rows (dictionaries), and the PNG that its column `path` names."""

    def make(rows: list[dict[str, object]], name: str = "cases.csv", files: bool = True) -> Path:
        file = tmp_path / name
        with open(file, "w", newline="") as out:
            writer = csv.DictWriter(out, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        for row in rows if files else []:
            if row.get("path"):
                png(tmp_path / str(row["path"]))
        return file

    return make


@pytest.fixture
def shared():
    """The folder of shared data; the test is skipped where it is absent."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("EMBEDCACHE_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip("the shared data are not here; EMBEDCACHE_SHARED_DATA names their folder")
    return folder
