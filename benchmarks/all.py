"""Every benchmark, one after the other: a table in LOG.md and a picture of the ratios.

`python benchmarks/all.py [--quick] [--only NAME …] [--log FILE] [--picture FILE]`. A script that ends without its JSON line, or
takes longer than `--limit`, is a row that says so, and the others go on. Those that need a cache that `nih128.py` left are asked
after it. Prints, last, one JSON line: `tried` are scripts, `held` those whose checks all held. The exit code is 0 where all did.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import finish, machine

HERE = Path(__file__).resolve().parent
NO_BENCHMARKS = ("all", "common", "logistic_problems")
LAST = ("nih128", "nih128_all", "permutations", "logistic_path")
"""After all others, in this order: the first leaves the cache that the others read."""


@dataclass(frozen=True)
class Ran:
    """One script: its JSON line, or why there is none."""

    name: str
    seconds: float
    line: dict[str, Any]
    failed: str = ""

    @property
    def held(self) -> bool:
        return not self.failed and all(self.line["checks"].values())

    def row(self) -> str:
        """Of the table: name, ours, baseline, ratio, checks, load, minutes."""
        if self.failed:
            return f"| `{self.name}.py` | | | | {self.failed} | | {self.seconds / 60:.1f} |"
        line = self.line
        broken = [name for name, held in line["checks"].items() if not held]
        checks = f"all {len(line['checks'])} hold" if not broken else f"not {', '.join(broken)}"
        ours, baseline = (
            (line.get("held"), line.get("tried")) if "tried" in line else (line["ours"], line.get("baseline"))
        )
        unit = "held of tried" if "tried" in line else line.get("unit", "")
        return (
            f"| `{self.name}.py` | {shown(ours)} {unit} | {shown(baseline)} | {shown(line['ratio'])} | {checks} | "
            f"{line['machine']['load']} | {self.seconds / 60:.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="each as its own --quick is")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="scripts, without .py")
    parser.add_argument("--log", type=Path, default=HERE / "LOG.md", help="what the table is added to")
    parser.add_argument("--picture", type=Path, default=HERE / "ratios.png", help="PNG, SVG or PDF")
    parser.add_argument("--limit", type=float, help="seconds a script may take; 300 with --quick, else 7,200")
    options = parser.parse_args()
    names = scripts()
    if unknown := sorted(set(options.only or ()) - set(names)):
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(names)}.")
    limit = options.limit or (300 if options.quick else 7200)
    ran = [run(name, options.quick, limit) for name in names if not options.only or name in options.only]
    with options.log.open("a", encoding="utf-8") as log:
        log.write(table(ran, options.quick))
    draw(ran, options.picture, options.quick)
    held = [r for r in ran if r.held]
    finish(
        "all",
        {r.name: r.held for r in ran},
        tried=len(ran),
        held=len(held),
        ratio=len(held) / len(ran),
        seconds=round(sum(r.seconds for r in ran), 1),
        quick=options.quick,
    )


def scripts() -> list[str]:
    """Every benchmark of this folder, by name, but for those that come last."""
    there = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NO_BENCHMARKS)
    return [name for name in there if name not in LAST] + [name for name in LAST if name in there]


def run(name: str, quick: bool, limit: float) -> Ran:
    """The script in a process of its own; what it prints is shown as it comes only if it fails."""
    print(f"{name} …", flush=True)
    command = [sys.executable, str(HERE / f"{name}.py"), *(["--quick"] if quick else [])]
    started = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return Ran(name, time.perf_counter() - started, {}, f"not done within {limit:g} s")
    took = time.perf_counter() - started
    last = done.stdout.splitlines()[-1] if done.stdout.strip() else ""
    try:
        line = json.loads(last)
        found = Ran(name, took, line) if {"ratio", "checks", "machine"} <= set(line) else None
    except (ValueError, TypeError):
        found = None
    if found is None:
        print((done.stdout + done.stderr)[-2000:], file=sys.stderr)
        return Ran(name, took, {}, f"ended with {done.returncode} and no JSON line")
    print(
        f"  ratio {shown(found.line['ratio'])}, {'all checks hold' if found.held else 'a check fails'}, {took:.0f} s",
        flush=True,
    )
    return found


def table(ran: Sequence[Ran], quick: bool) -> str:
    """The section of LOG.md."""
    here = machine()
    title = f"## All benchmarks{', `--quick`' if quick else ''}, {datetime.now(UTC):%Y-%m-%d}"
    held = sum(r.held for r in ran)
    head = (
        f"{len(ran)} scripts, of which all checks hold in {held}, on {here['cores']} cores of {here['cpu']}, "
        f"Python {here['python']}. Load is the machine's last minute at the end of each."
    )
    columns = "| script | ours | baseline | ratio | checks | load | min |\n|---|---|---|---|---|---|---|"
    return "\n".join(["", title, "", head, "", columns, *(r.row() for r in ran), ""])


def draw(ran: Sequence[Ran], path: Path, quick: bool) -> None:
    """A dot for each ratio, on a logarithmic axis; hollow where a check fails."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    measured = [r for r in ran if not r.failed and r.line["ratio"] > 0][::-1]
    figure, axes = pyplot.subplots(figsize=(7, 1.2 + 0.26 * len(measured)), layout="constrained")
    axes.axvline(1, color="0.6", linewidth=1)
    for y, r in enumerate(measured):
        axes.plot([1, r.line["ratio"]], [y, y], color="0.8", linewidth=1, zorder=1)
        axes.plot(r.line["ratio"], y, "o", color="C0", markerfacecolor="C0" if r.held else "white", zorder=2)
        axes.annotate(
            shown(r.line["ratio"]), (r.line["ratio"], y), (6, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(range(len(measured)), [r.name for r in measured], fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel("ratio to the baseline (above 1: ours is better); hollow: a check fails")
    axes.set_title(f"benchmarks{' --quick' if quick else ''}", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def shown(value: Any) -> str:
    """Three digits, thousands apart; nothing for None."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
