"""The example scripts run as a user runs them, on small files."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from embedcache import FeatureCache
from embedcache.store.labels import write_labels
from embedcache.testing.files import write_png
from embedcache.testing.labelled_stores import long_labels
from embedcache.testing.stores import make_plan, make_store
from embedcache.types import ArraySpec, Task

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested_here() -> None:
    assert sorted(p.name for p in EXAMPLES.glob("*.py")) == ["own_head.py", "own_table.py", "own_tokens.py"]


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


def test_own_tokens_are_learned_from(tmp_path: Path) -> None:
    samples = [f"s{i}" for i in range(40)]
    arrays = (ArraySpec(1, "patch_tokens", "float16", (2, 2, 8)), ArraySpec(1, "cls_token", "float16", (8,)))
    store = tmp_path / "made" / "tiny" / "x.zarr"
    make_store(store, make_plan([1] * 40), arrays)
    truth = FeatureCache.open(store).layer(1).patch_tokens.read()[:40, 0, 0, 0].astype(np.float32)
    y = (truth > np.median(truth)).astype(float)[:, None]
    task = Task("ill", "binary", ("ill",))
    write_labels(tmp_path / "made", long_labels(task, samples, [f"p{i}" for i in range(40)], y, [""] * 40))
    told = run("own_tokens.py", str(store), "ill", "--epochs", "30").splitlines()
    assert "on 40 slices of (2, 2, 8) tokens" in told[0]
    first, last = (float(line.split("loss ")[1].split()[0]) for line in (told[0], told[-1]))
    assert last < first
