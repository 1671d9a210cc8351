"""The benchmark on real volumes, small."""

import csv
from pathlib import Path

from tests.benchmarks.test_quick import last_line


def test_volumes(shared_data: Path, tmp_path: Path) -> None:
    line = last_line("volumes.py", "--quick", "--work", str(tmp_path), "--data", str(shared_data))
    assert {"name", "ours", "baseline", "baseline_name", "ratio", "table"} <= set(line)
    assert all(line["checks"].values())
    rows = list(csv.DictReader((tmp_path / "quick" / "volumes.csv").read_text().splitlines()))
    assert [(row["backbone"], row["probe"]) for row in rows] == [
        ("random-vit", "logistic"), ("random-vit", "knn"), ("random-vit", "ridge"),
        ("pixels-32", "logistic"), ("pixels-32", "knn"), ("pixels-32", "ridge"),
    ]  # fmt: skip
    assert float(rows[3]["hippocampus shown auroc"]) == line["table"]["pixels-32 logistic: hippocampus shown auroc"][0]
    for name in ("volumes.tex", "volumes.png"):
        assert (tmp_path / "quick" / name).stat().st_size > 500
