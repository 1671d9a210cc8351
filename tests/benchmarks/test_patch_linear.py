"""The separation test of the patch head on real radiographs, two splits; `benchmarks/patch_linear.py` runs five."""

from pathlib import Path

import pytest

from tests.benchmarks.test_quick import last_line


@pytest.mark.slow
def test_trained_tokens_beat_every_floor(trained: Path, shared_data: Path) -> None:
    assert (shared_data / "cxr_hannover_lungmask").is_dir()
    line = last_line("patch_linear.py", "--quick")
    assert {"name", "ours", "baseline", "baseline_name", "ratio", "least_lead"} <= set(line)
    assert len(line["checks"]) == 4
    assert all(line["checks"].values()), line["least_lead"]
