"""`all.py` runs what there is, writes down what failed, and its list holds every script."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def everything(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "all.py"), *arguments], capture_output=True, text=True, check=False
    )


def test_a_table_and_a_picture_of_what_was_asked(tmp_path: Path) -> None:
    log, picture = tmp_path / "LOG.md", tmp_path / "ratios.png"
    log.write_text("# before\n")
    done = everything("--quick", "--only", "startup", "--log", str(log), "--picture", str(picture))
    line = json.loads(done.stdout.splitlines()[-1])
    assert (line["tried"], set(line["checks"])) == (1, {"startup"})
    assert done.returncode == (0 if line["held"] else 1)
    text = log.read_text()
    assert text.startswith("# before\n\n## All benchmarks, `--quick`, ")
    assert text.count("| `startup.py` |") == 1
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_takes_too_long_is_a_row_that_says_so(tmp_path: Path) -> None:
    log = tmp_path / "LOG.md"
    done = everything(
        "--quick", "--only", "startup", "--limit", "0.01", "--log", str(log), "--picture", str(tmp_path / "r.svg")
    )
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[-1])["held"] == 0
    assert "not done within 0.01 s" in log.read_text()


def test_an_unknown_name_is_refused() -> None:
    done = everything("--only", "nope")
    assert done.returncode == 2
    assert "there is no benchmark 'nope'; there are bootstrap, " in done.stderr


def test_the_readme_tells_of_every_script() -> None:
    told = (BENCHMARKS / "README.md").read_text()
    shared = {"common.py", "logistic_problems.py"}
    missing = sorted(path.name for path in BENCHMARKS.glob("*.py") if f"`{path.name}`" not in told)
    assert set(missing) <= shared, missing
