"""The benchmark on real volumes, small."""

import csv
from pathlib import Path

import pytest

from tests.benchmarks.test_quick import last_line


@pytest.mark.slow
def test_volumes(shared_data: Path, tmp_path: Path) -> None:
    line = last_line("volumes.py", "--quick", "--work", str(tmp_path), "--data", str(shared_data))
    assert {"name", "ours", "baseline", "baseline_name", "ratio", "table"} <= set(line)
    assert all(line["checks"].values())
    rows = list(csv.DictReader((tmp_path / "quick" / "volumes.csv").read_text().splitlines()))
    assert [(row["backbone"], row["probe"]) for row in rows] == [
        (backbone, probe)
        for backbone in ("random-vit", "pixels-32")
        for probe in ("logistic", "knn", "linear", "ridge")
    ]
    assert float(rows[4]["hippocampus shown auroc"]) == line["table"]["pixels-32 logistic: hippocampus shown auroc"][0]
    for name in ("volumes.tex", "volumes.png", "few_shot.png"):
        assert (tmp_path / "quick" / name).stat().st_size > 500
