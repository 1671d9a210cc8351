"""How long `embedcache --help` takes, beside the least that a typer program can take.

The baseline is a program of one command that prints its help with typer and rich: the libraries' own floor.
"""

import argparse
import subprocess
import sys

from common import COMMAND, finish, seconds

FLOOR = "import typer; app = typer.Typer(add_completion=False); app.command()(lambda name: None); app(['--help'])"
HEAVY = ("torch", "transformers", "sklearn", "scipy", "pyarrow", "zarr", "pydicom", "nibabel", "matplotlib")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="three runs")
    asked = parser.parse_args()
    ours_command = [sys.executable, str(COMMAND), "--help"]
    floor_command = [sys.executable, "-c", FLOOR]

    ours, floor = [], []
    for _ in range(3 if asked.quick else asked.runs):
        floor.append(seconds(lambda: call(floor_command)))
        ours.append(seconds(lambda: call(ours_command)))
    imported = imports([sys.executable, "-X", "importtime", str(COMMAND), "--help"])

    finish(
        "startup",
        ours=min(ours),
        baseline=min(floor),
        baseline_name="a one-command typer program's --help",
        ratio=min(floor) / min(ours),
        unit="seconds, the best of the runs",
        runs=len(ours),
        checks={
            "under_half_a_second": min(ours) < 0.5,
            "no_torch_imported": not imported & {"torch", "transformers"},
            "nothing_heavy_imported": not imported & set(HEAVY),
        },
    )


def call(command: list[str]) -> str:
    """Run it; its stderr."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def imports(command: list[str]) -> set[str]:
    """The top-level modules that a run with `-X importtime` imports."""
    lines = [line for line in call(command).splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}


if __name__ == "__main__":
    main()
