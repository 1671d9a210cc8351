"""The benchmark of the linear sweep runs, and both sides end with the same losses."""

import pytest

from tests.benchmarks.test_quick import last_line


@pytest.mark.slow
def test_linear_sweep() -> None:
    line = last_line("linear_sweep.py", "--quick")
    assert {"name", "ours", "baseline", "baseline_name", "ratio", "ratio_52", "bound_seconds", "checks"} <= set(line)
    assert line["checks"] == {"same_losses": True}
