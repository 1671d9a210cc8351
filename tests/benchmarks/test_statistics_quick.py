"""The benchmarks of the statistics run, and what they hold that is no time holds."""

import pytest

from tests.benchmarks.test_quick import last_line


@pytest.mark.slow
def test_bootstrap() -> None:
    line = last_line("bootstrap.py", "--quick")
    assert {"name", "ours", "baseline", "baseline_name", "ratio", "ratio_loop", "unit", "checks"} <= set(line)
    assert all(held for name, held in line["checks"].items() if "equal" in name)


@pytest.mark.slow
def test_coverage() -> None:
    line = last_line("coverage.py", "--quick")
    assert {"name", "ours", "baseline", "baseline_name", "ratio", "rejected", "simulations", "checks"} <= set(line)
    assert all(line["checks"].values()), line
