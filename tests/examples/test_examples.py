"""The example scripts run as a user runs them, on small files."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from embedcache.testing.files import write_png

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested_here() -> None:
    assert sorted(p.name for p in EXAMPLES.glob("*.py")) == ["own_head.py", "own_table.py"]


def test_own_table_then_own_head(tmp_path: Path, tiny: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["path,patient,ill"]
    for i in range(60):
        ill = (i // 2) % 2
        write_png(tmp_path / f"{i}.png", (rng.integers(0, 99, (40, 40)) + 120 * ill).astype(np.uint8))
        lines.append(f"{i}.png,P{i // 2},{ill}")
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    told = run("own_table.py", str(tmp_path / "cases.csv"), str(tiny), "ill", "--cache", str(tmp_path / "cache"))
    assert "60 slices, 60 of them decoded now" in told
    assert "logistic: AUROC 1.0" in told
    (store,) = (tmp_path / "cache").glob("*/*/*.zarr")
    folds = run("own_head.py", str(store), "ill")
    assert folds.count("1.000") == 3
